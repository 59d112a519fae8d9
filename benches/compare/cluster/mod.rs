//! A cluster backed up and restored by walden and by what people use today: how long, how much
//! processor and memory, how much is stored.
//!
//! `BENCH_CLUSTER_GIB=20` says how large, `BENCH_CLUSTER_FILLER=0.2` how much of it hardly
//! compresses. walden's repository is a directory, or what `BENCH_REPOSITORY` names, reached by
//! what else is in the environment (`WALDEN_S3_ENDPOINT`, `AWS_ACCESS_KEY_ID` ...).

/// The clusters.
mod source;
/// A server and places.
mod stage;
/// Who takes part.
mod tools;
/// What a delta restore finds.
mod damage;
/// Whether the time that is said to be left is left.
mod progress;

use std::time::Duration;

use stage::{Stage, remove};
use tools::Tool;

use crate::setup::knobs;
use crate::setup::scratch::settle;
use crate::setup::stopwatch::{Measured, median};
use crate::setup::table::{Table, ratio, seconds, size};

const ROUNDS: usize = 3;

pub fn run() {
    let stage = Stage::start(source::Kind::Pgbench);
    println!("## A cluster of {}\n", stage.title());
    back_up(&stage);
    restore(&stage);
    restore_what_differs(&stage);
    back_up_what_changed(&stage);
}

pub fn run_relations() {
    let stage = Stage::start(source::Kind::Relations);
    println!("## 100,000 small relations, {}\n", stage.title());
    back_up(&stage);
    restore(&stage);
}

/// All that was stored is read again, WAL included.
pub fn run_verify() {
    let stage = Stage::start(source::Kind::Pgbench);
    println!("## Verification of {}\n", stage.title());
    let mut lanes = lanes_with_a_backup(&stage, |tool| tool.verify.is_some());
    let count = lanes.len();
    for round in 0..knobs::rounds(ROUNDS) {
        for turn in 0..count {
            let lane = &mut lanes[(turn + round) % count];
            let (Some(verify), None) = (lane.tool.verify, &lane.failed) else { continue };
            lane.note(stage.measure(&verify(&stage)));
            lane.stored = lane.tool.stored(&stage);
        }
    }
    print("verification", &stage, &lanes);
}

/// Only where it is asked for: it takes minutes on purpose.
pub fn run_progress() {
    if knobs::only().iter().any(|part| part == "progress") {
        let stage = Stage::start(source::Kind::Pgbench);
        println!("## The time that is left\n");
        progress::run(&stage);
    }
}

/// What one tool took in all rounds.
struct Lane {
    tool: Tool,
    took: Vec<Measured>,
    stored: u64,
    failed: Option<String>,
}

impl Lane {
    fn of(tool: Tool) -> Lane {
        Lane { tool, took: Vec::new(), stored: 0, failed: None }
    }

    fn note(&mut self, measured: Result<Measured, String>) {
        match measured {
            Ok(measured) => self.took.push(measured),
            Err(why) => {
                println!("({}: {why})\n", self.tool.name);
                self.failed = Some(why);
            }
        }
    }

    fn wall(&self) -> Duration {
        median(self.took.iter().map(|took| took.wall).collect())
    }

    fn cpu(&self) -> Duration {
        median(self.took.iter().map(|took| took.cpu).collect())
    }

    fn peak_bytes(&self) -> f64 {
        self.took.iter().map(|took| took.peak_kib).max().unwrap_or(0) as f64 * 1024.0
    }
}

fn back_up(stage: &Stage) {
    let mut lanes: Vec<Lane> = tools::present(stage).into_iter().map(Lane::of).collect();
    let count = lanes.len();
    for round in 0..knobs::rounds(ROUNDS) {
        for turn in 0..count {
            let lane = &mut lanes[(turn + round) % count];
            if lane.failed.is_some() {
                continue;
            }
            // walden's two modes share their place: what is stored is one backup.
            (lane.tool.forget)(stage);
            let before = lane.tool.stored(stage);
            lane.note(stage.measure(&(lane.tool.backup)(stage)));
            lane.stored = lane.tool.stored(stage).saturating_sub(before);
            (lane.tool.forget)(stage);
        }
    }
    print("backup", stage, &lanes);
}

/// Into an empty directory each time.
fn restore(stage: &Stage) {
    let mut lanes = lanes_with_a_backup(stage, |tool| tool.restore.is_some());
    let count = lanes.len();
    for round in 0..knobs::rounds(ROUNDS) {
        for turn in 0..count {
            let lane = &mut lanes[(turn + round) % count];
            let (Some(restore), None) = (lane.tool.restore, &lane.failed) else { continue };
            let to = stage.join("restored/data");
            lane.note(stage.measure(&restore(stage, &to)));
            remove(&to);
        }
    }
    print("restore", stage, &lanes);
    lanes.iter().for_each(|lane| (lane.tool.forget)(stage));
}

/// Over a restored directory in which one page in a hundred is another: with what the cache holds
/// of a directory that was in use a moment ago, and with nothing of it.
fn restore_what_differs(stage: &Stage) {
    for (cache, is_warm) in [("cache as the change left it", true), ("nothing cached", false)] {
        let mut lanes = lanes_with_a_backup(stage, |tool| tool.delta.is_some());
        let mut pages = 0;
        for lane in &mut lanes {
            let (Some(restore), Some(delta)) = (lane.tool.restore, lane.tool.delta) else {
                continue;
            };
            let to = stage.join("restored/data");
            if let Err(why) = restore(stage, &to).measure() {
                println!("({}: {why})\n", lane.tool.name);
                continue;
            }
            for _ in 0..knobs::rounds(ROUNDS) {
                pages = damage::change_a_hundredth(&to);
                let call = delta(stage, &to);
                settle();
                lane.note(if is_warm { stage.measure_warm(&call) } else { stage.measure(&call) });
            }
            remove(&to);
        }
        print(&format!("delta restore, {pages} pages changed, {cache}"), stage, &lanes);
        lanes.iter().for_each(|lane| (lane.tool.forget)(stage));
    }
}

/// After one page in a hundred changed; what is stored is of this backup alone.
fn back_up_what_changed(stage: &Stage) {
    let mut lanes = lanes_with_a_backup(stage, |tool| tool.incremental.is_some());
    let full: Vec<u64> = lanes.iter().map(|lane| lane.tool.stored(stage)).collect();
    stage.change_a_hundredth();
    for lane in &mut lanes {
        let Some(incremental) = lane.tool.incremental else { continue };
        let before = lane.tool.stored(stage);
        lane.note(stage.measure(&incremental(stage)));
        lane.stored = lane.tool.stored(stage).saturating_sub(before);
    }
    print("incremental backup after 1 %", stage, &lanes);
    for (lane, full) in lanes.iter().zip(full) {
        let part = lane.stored as f64 * 100.0 / full.max(1) as f64;
        println!("{}: {part:.2} % of its full backup\n", lane.tool.name);
        (lane.tool.forget)(stage);
    }
}

fn lanes_with_a_backup(stage: &Stage, is_wanted: impl Fn(&Tool) -> bool) -> Vec<Lane> {
    let tools = tools::present(stage).into_iter().filter(is_wanted);
    let mut lanes: Vec<Lane> = tools.map(Lane::of).collect();
    for lane in &mut lanes {
        if let Err(why) = (lane.tool.backup)(stage).measure() {
            println!("({}: {why})\n", lane.tool.name);
            lane.failed = Some(why);
        }
    }
    lanes
}

fn print(what: &str, stage: &Stage, lanes: &[Lane]) {
    let cold = if stage::empty_caches() { "cold cache" } else { "cache as it was" };
    let title = format!("{what}, {}, {cold}", stage.title());
    let mut table =
        Table::new(&[&title, "wall", "to walden", "a second", "CPU", "peak memory", "stored"]);
    // Where walden itself failed there is nothing to compare with.
    let base = lanes.first().map(Lane::wall).unwrap_or_default();
    for lane in lanes.iter().filter(|lane| !lane.took.is_empty()) {
        let stored = if lane.stored == 0 { String::new() } else { size(lane.stored as f64) };
        table.row(vec![
            lane.tool.name.to_owned(),
            seconds(lane.wall()),
            ratio(lane.wall(), base),
            size(stage.bytes / lane.wall().as_secs_f64()),
            seconds(lane.cpu()),
            size(lane.peak_bytes()),
            stored,
        ]);
    }
    table.print();
}
