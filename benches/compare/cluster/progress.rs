//! Whether the time that walden says is left is the time it takes: the lines of long backups and a
//! restore, beside when they ended.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use walden::host::privileges;

use super::stage::{Stage, empty_caches};
use crate::setup::scratch;
use crate::setup::stopwatch::Call;
use crate::setup::table::{Table, seconds};

/// A line of `walden`, and when it came.
struct Line {
    at: Duration,
    percent: u64,
    left: Duration,
}

/// Each as slow as is asked by `BENCH_PROGRESS_RATE`, or as takes two minutes, so that there are
/// lines; `none` for as fast as it goes.
pub fn run(stage: &Stage) {
    let usual = (stage.bytes / 120.0 / 1024.0) as u64;
    let rate = std::env::var("BENCH_PROGRESS_RATE").unwrap_or_else(|_| format!("{usual}KiB"));
    let limit = if rate == "none" { Vec::new() } else { vec!["--max-rate", &rate] };
    let backup = |mode: &str| {
        let call = stage.walden(&["backup", "--mode", mode]);
        limit.iter().fold(call, Call::arg)
    };
    let to = stage.join("restored/slow");
    let restore = limit.iter().fold(stage.walden(&["restore", "--target-immediate"]), Call::arg);
    let calls = [
        ("backup, local", backup("local")),
        ("backup, stream", backup("stream")),
        ("restore", restore.arg(to)),
    ];
    let title = format!("{} at {rate}", stage.title());
    let head = [title.as_str(), "took", "at", "done", "said to be left", "was left", "ratio"];
    let mut table = Table::new(&head);
    for (what, call) in calls {
        empty_caches();
        let (lines, took) = listen(&call).unwrap_or_else(|why| panic!("{what}: {why}"));
        let past_a_tenth = lines.iter().filter(|line| line.percent >= 10);
        for line in past_a_tenth {
            let was_left = took.saturating_sub(line.at);
            table.row(vec![
                what.to_owned(),
                seconds(took),
                seconds(line.at),
                format!("{} %", line.percent),
                seconds(line.left),
                seconds(was_left),
                format!("{:.2}", line.left.as_secs_f64() / was_left.as_secs_f64()),
            ]);
        }
    }
    table.print();
}

/// Runs it and notes every line that tells how long it will last.
fn listen(call: &Call) -> Result<(Vec<Line>, Duration), String> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {}", call.shell_line())]);
    privileges::run_as(&mut command, scratch::user().as_ref());
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let stderr = BufReader::new(child.stderr.take().expect("it is a pipe"));
    let mut lines = Vec::new();
    let mut all = String::new();
    for text in stderr.lines() {
        let text = text.map_err(|error| error.to_string())?;
        if let Some((percent, left)) = read(&text) {
            lines.push(Line { at: began.elapsed(), percent, left });
        }
        all.push_str(&text);
        all.push('\n');
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    let took = began.elapsed();
    if status.success() { Ok((lines, took)) } else { Err(format!("{status}: {all}")) }
}

/// Of `… (25 %), 208.2 MiB/s, 30 min left`: 25 and half an hour.
fn read(line: &str) -> Option<(u64, Duration)> {
    let (before, rest) = line.split_once(" %)")?;
    let percent = before.rsplit_once('(')?.1.parse().ok()?;
    let left = rest.strip_suffix(" left")?.rsplit_once(", ")?.1;
    let words: Vec<&str> = left.split(' ').collect();
    let mut seconds = 0;
    for pair in words.chunks(2) {
        let [number, unit] = pair else { return None };
        let number: u64 = number.parse().ok()?;
        seconds += match *unit {
            "s" => number,
            "min" => number * 60,
            "h" => number * 3600,
            _ => return None,
        };
    }
    Some((percent, Duration::from_secs(seconds)))
}
