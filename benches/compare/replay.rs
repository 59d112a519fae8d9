//! Recovery from an archive: how long PostgreSQL replays 200 segments, by the restore_command it
//! gets them with.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use crate::setup::knobs;
use crate::setup::peers::{self, Home, Place};
use crate::setup::pgbackrest;
use crate::setup::race;
use crate::setup::scratch::{self, Scratch};
use crate::setup::server::Bench;
use crate::setup::stopwatch::{Call, is_installed, median};
use crate::setup::store::{Road, Store};
use crate::setup::table::{Table, ratio, seconds};
use crate::setup::wal::{Kind, MANY, Wal};

const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(900);
const DELAY: Duration = Duration::from_millis(20);

type Fetch = fn(&Home) -> Call;

/// Where a lane's WAL is, filled by `archiver`, and how PostgreSQL gets it from there.
struct Lane {
    name: &'static str,
    home: Home,
    fetch: Fetch,
    took: Vec<Duration>,
    /// In every round.
    is_measured: bool,
}

pub fn run() {
    let wal = Wal::ready();
    let rounds = knobs::rounds(ROUNDS);
    println!("## A replay of {MANY} segments\n");
    println!("From \"redo starts\" to \"redo done\", median of {rounds} rounds; others: one.\n");
    let scratch = Scratch::new();
    let store = Rc::new(Store::start());
    let segments = wal.segments(Kind::Pgbench, MANY);
    let mut lanes = lanes(&scratch, &wal, &store, &segments);
    scratch::give(scratch.path());
    scratch::settle();
    store.set_road(Road { delay: DELAY, bandwidth: None });
    let count = lanes.len();
    for round in 0..rounds {
        for turn in 0..count {
            let lane = &mut lanes[(turn + round) % count];
            // Once is enough to know where the others stand.
            if round > 0 && !lane.is_measured {
                continue;
            }
            match replay(&wal, lane) {
                Ok(took) => lane.took.push(took),
                Err(why) => println!("({}: {why})\n", lane.name),
            }
        }
    }
    report(&lanes);
}

fn report(lanes: &[Lane]) {
    let mut table = Table::new(&["`restore_command`", "replay", "to `cp`"]);
    let base = median(lanes[0].took.clone());
    for lane in lanes.iter().filter(|lane| !lane.took.is_empty()) {
        let wall = median(lane.took.clone());
        table.row(vec![lane.name.to_owned(), seconds(wall), ratio(wall, base)]);
    }
    table.print();
}

fn lanes(scratch: &Scratch, wal: &Wal, store: &Rc<Store>, segments: &[PathBuf]) -> Vec<Lane> {
    let walden = |home: &Home| {
        let call = peers::walden_at(home, &peers::binary(&home.root));
        call.arg("fetch").arg("%f").arg("%p")
    };
    let cp = |home: &Home| home.call().program(["cp"]).arg(home.repository().join("%f")).arg("%p");
    let walrus = |home: &Home| peers::walrus(home).program(["walrus", "wal-fetch", "%f", "%p"]);
    let all: [(&str, peers::Contender, bool, Fetch); 6] = [
        ("`cp` of plain files", peers::LINK, false, cp),
        ("`walden fetch`, directory", peers::WALDEN, false, walden),
        ("`walden fetch`, S3 with 20 ms", peers::WALDEN, true, walden),
        ("wal-rus, directory", peers::WALRUS, false, walrus),
        ("pgBackRest, directory", peers::PGBACKREST, false, |home| archive_get(home, &[])),
        ("pgBackRest async, directory", peers::PGBACKREST, false, |home| {
            archive_get(home, &pgbackrest::ASYNC)
        }),
    ];
    let mut lanes = Vec::new();
    for (name, archiver, on_s3, fetch) in all {
        if archiver.needs.is_some_and(|program| !is_installed(program)) {
            println!("({name}: not installed; left out.)\n");
            continue;
        }
        let place = match on_s3 {
            true => Place::Bucket { store: store.clone(), prefix: "home".to_owned() },
            false => Place::Directory,
        };
        let root = scratch.join(&lanes.len().to_string());
        let home = Home::new(root, &wal.control_file(), place);
        match fill(archiver, &home, segments) {
            Ok(()) => {
                let is_measured = archiver.needs.is_none();
                lanes.push(Lane { name, home, fetch, took: Vec::new(), is_measured });
            }
            Err(why) => println!("({name}: {why})\n"),
        }
    }
    lanes
}

fn archive_get(home: &Home, more: &[&str]) -> Call {
    let call = home.call().program(pgbackrest::words(home));
    more.iter().fold(call, Call::arg).arg("archive-get").arg("%f").arg("%p")
}

/// Archives all segments.
fn fill(archiver: peers::Contender, home: &Home, segments: &[PathBuf]) -> Result<(), String> {
    (archiver.prepare)(home)?;
    for segment in segments {
        let path = home.finish_segment(segment);
        (archiver.push)(home, &path).time()?;
        let name = race::name(segment);
        fs::remove_file(home.pgdata.join("pg_wal").join(name)).expect("unlink a segment");
    }
    Ok(())
}

/// A fresh copy of the data directory, recovered to the end of the archive.
fn replay(wal: &Wal, lane: &Lane) -> Result<Duration, String> {
    let home = &lane.home;
    fs::remove_dir_all(&home.pgdata).map_err(|error| error.to_string())?;
    for cache in ["state", "spool"] {
        fs::remove_dir_all(home.root.join(cache)).ok();
    }
    home.directory("spool");
    scratch::copy_tree(&wal.base(), &home.pgdata);
    fs::write(home.pgdata.join("recovery.signal"), "").expect("write recovery.signal");
    scratch::give(&home.root);
    scratch::settle();
    let log = home.pgdata.with_extension("log");
    fs::remove_file(&log).ok();
    let command = (lane.fetch)(home).shell_line();
    let settings = [("restore_command", command.as_str()), ("shared_buffers", "256MB")];
    let mut bench = Bench::launch(&home.pgdata, &settings);
    let started = Instant::now();
    loop {
        if let Some(took) = elapsed(&bench.log()) {
            return Ok(took);
        }
        if bench.has_ended() || started.elapsed() > PATIENCE {
            return Err(last_lines(&log));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// From `LOG:  redo done at 0/1 system usage: CPU: user: 1.00 s, system: 1.00 s, elapsed: 2.50 s`.
fn elapsed(log: &str) -> Option<Duration> {
    let done = log.lines().find(|line| line.contains("redo done at"))?;
    let text = done.split("elapsed: ").nth(1)?.trim_end_matches(" s");
    text.parse().ok().map(Duration::from_secs_f64)
}

fn last_lines(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}
