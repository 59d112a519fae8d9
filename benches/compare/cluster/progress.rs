//! Whether the time that walden says is left is the time it takes: the lines of long backups and a
//! restore, beside when they ended.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use walden::host::privileges;

use super::damage;
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

/// Each as slow as takes about this long, so that there are lines.
const SECONDS: f64 = 120.0;

/// What one call said, and how long it took.
struct Heard {
    lines: Vec<Line>,
    took: Duration,
    answer: serde_json::Value,
}

/// A backup is bounded in what it reads, a restore in what it fetches: each so that it takes
/// `BENCH_PROGRESS_SECONDS`, where it is given; with 0 as fast as it goes, from a cold cache.
pub fn run(stage: &Stage) {
    let asked = std::env::var("BENCH_PROGRESS_SECONDS").ok();
    let lasting: f64 = asked.and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let title = stage.title();
    let head = ["rate", "took", "at", "done", "said to be left", "was left", "ratio"];
    let head: Vec<&str> = std::iter::once(title.as_str()).chain(head).collect();
    let mut table = Table::new(&head);
    let mut hear = |what: &str, call: Call, bytes: f64| {
        let rate = match lasting {
            0.0 => "none".to_owned(),
            lasting => format!("{}KiB", (bytes / lasting / 1024.0) as u64),
        };
        let call = match lasting {
            0.0 => call,
            _ => call.arg("--max-rate").arg(&rate),
        };
        if lasting == 0.0 {
            empty_caches();
        }
        let heard = listen(&call.arg("--json")).unwrap_or_else(|why| panic!("{what}: {why}"));
        for line in heard.lines.iter().filter(|line| line.percent >= 10) {
            let was_left = heard.took.saturating_sub(line.at);
            table.row(vec![
                what.to_owned(),
                rate.clone(),
                seconds(heard.took),
                seconds(line.at),
                format!("{} %", line.percent),
                seconds(line.left),
                seconds(was_left),
                format!("{:.2}", line.left.as_secs_f64() / was_left.as_secs_f64()),
            ]);
        }
        heard.answer
    };
    let mut stored = 0.0;
    for (what, mode) in [("backup, local", "local"), ("backup, stream", "stream")] {
        let backup = stage.walden(&["backup", "--full", "--mode", mode]);
        let report = hear(what, backup, stage.bytes);
        stored = report["stored"].as_f64().expect("what is stored");
    }
    // Of the newest one.
    let to = stage.join("restored/slow");
    let restore = stage.walden(&["restore", "--target-immediate"]).arg(&to);
    hear("restore", restore, stored);
    damage::change_a_hundredth(&to);
    // About every seventh chunk differs.
    let delta = stage.walden(&["restore", "--target-immediate", "--delta"]).arg(&to);
    hear("restore, in place", delta, stored / 2.0);
    table.print();
}

/// Runs it and notes every line that tells how long it will last.
fn listen(call: &Call) -> Result<Heard, String> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {}", call.shell_line())]);
    privileges::run_as(&mut command, scratch::user().as_ref());
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
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
    // It comes last, and is short enough for the pipe.
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let took = began.elapsed();
    if !output.status.success() {
        return Err(format!("{}: {all}", output.status));
    }
    let answer = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    Ok(Heard { lines, took, answer })
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
