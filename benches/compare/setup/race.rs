//! Interleaved rounds: each runs every contender once in turn on the same segment, so that a noisy
//! machine is noisy for all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::peers::{Contender, Home, Place};
use super::stopwatch::{Took, median};

/// One contender, its home, and what its calls took.
pub struct Lane {
    pub contender: Contender,
    pub home: Home,
    /// It runs in so many rounds only, being slow.
    pub rounds_max: usize,
    /// What is timed is the call for a segment that the call before it pushed ahead.
    pub pushed_ahead: bool,
    pub took: Vec<Took>,
    pub peak_kib: u64,
    stored_before: u64,
    /// In timed rounds.
    requests: u64,
    /// In all rounds, those before what was pushed ahead included.
    calls: u64,
    pub failed: Option<String>,
}

impl Lane {
    pub fn new(contender: Contender, home: Home) -> Lane {
        let failed = (contender.prepare)(&home).err();
        Lane {
            contender,
            home,
            rounds_max: usize::MAX,
            pushed_ahead: false,
            took: Vec::new(),
            peak_kib: 0,
            stored_before: 0,
            requests: 0,
            calls: 0,
            failed,
        }
    }

    pub fn wall(&self) -> Duration {
        median(self.took.iter().map(|took| took.wall).collect())
    }

    pub fn cpu(&self) -> Duration {
        let sum: Duration = self.took.iter().map(|took| took.cpu).sum();
        sum / u32::try_from(self.took.len().max(1)).expect("not that many")
    }

    pub fn stored_per_call(&self) -> f64 {
        let stored = self.home.stored_bytes().saturating_sub(self.stored_before);
        stored as f64 / self.calls.max(1) as f64
    }

    pub fn requests_per_call(&self) -> f64 {
        self.requests as f64 / self.took.len().max(1) as f64
    }

    fn begin(&mut self) {
        self.took.clear();
        (self.peak_kib, self.requests, self.calls) = (0, 0, 0);
        self.stored_before = self.home.stored_bytes();
    }

    fn turn(&mut self, segments: &[PathBuf], round: usize, memory: bool) -> Result<(), String> {
        let segment = if self.pushed_ahead {
            let [first, second] = &segments[2 * round..2 * round + 2] else {
                unreachable!("two by two");
            };
            self.push_ahead(first, second)?;
            second
        } else {
            &segments[round]
        };
        let before = requests(&self.home);
        let path = self.home.finish_segment(segment);
        let call = (self.contender.push)(&self.home, &path);
        if memory {
            self.peak_kib = self.peak_kib.max(call.peak_kib()?.unwrap_or(0));
        } else {
            self.took.push(call.time()?);
            self.requests += requests(&self.home) - before;
        }
        self.calls += if self.pushed_ahead { 2 } else { 1 };
        self.home.mark_done(name(segment));
        // Linked, so that it costs nothing; PostgreSQL would recycle it.
        fs::remove_file(self.home.pgdata.join(path)).map_err(|error| error.to_string())
    }

    /// Both wait, and the first is asked for.
    fn push_ahead(&self, first: &Path, second: &Path) -> Result<(), String> {
        for segment in [first, second] {
            self.home.finish_segment(segment);
            self.home.mark_ready(name(segment));
        }
        let path = self.home.finish_segment(first);
        (self.contender.push)(&self.home, &path).time()?;
        self.home.mark_done(name(first));
        Ok(())
    }
}

/// The first `memory` rounds ask for memory and pay for what is done once; the others are timed.
pub fn race(lanes: &mut [Lane], segments: &[PathBuf], memory: usize) {
    lanes.iter_mut().for_each(Lane::begin);
    let count = lanes.len();
    for round in 0..segments.len() {
        for turn in 0..count {
            // Nobody always follows the same one.
            let lane = &mut lanes[(turn + round) % count];
            let over = lane.pushed_ahead && 2 * round + 1 >= segments.len();
            if over || lane.failed.is_some() || round >= lane.rounds_max.saturating_add(memory) {
                continue;
            }
            // It needs two segments a round, so it has half as many.
            let memory = if lane.pushed_ahead { memory.min(1) } else { memory };
            if let Err(why) = lane.turn(segments, round, round < memory) {
                println!("({}: {why})\n", lane.contender.name);
                lane.failed = Some(why);
            }
        }
    }
}

fn requests(home: &Home) -> u64 {
    match &home.place {
        Place::Directory => 0,
        Place::Bucket { store, .. } => store.requests(),
    }
}

pub fn name(segment: &Path) -> &str {
    segment.file_name().and_then(|name| name.to_str()).expect("a name")
}
