//! One call of archive_command, to an S3 store that answers late or over a narrow line.

use std::rc::Rc;
use std::time::Duration;

use crate::setup::knobs;
use crate::setup::peers::{self, Contender, Home, Place};
use crate::setup::race::{Lane, race};
use crate::setup::scratch::Scratch;
use crate::setup::store::{Road, Store};
use crate::setup::table::{Table, milliseconds, ratio, size};
use crate::setup::wal::{Kind, Wal};

const MEMORY_ROUNDS: usize = 1;
/// For what takes half a second and more.
const FEW_ROUNDS: usize = 3;

const CONTENDERS: [Contender; 6] =
    [peers::WALDEN, peers::CURL, peers::WALRUS, peers::PGBACKREST, peers::BARMAN, peers::AWS];

struct Condition {
    title: &'static str,
    road: Road,
    rounds: usize,
}

const CONDITIONS: [Condition; 4] = [
    Condition { title: "0 ms", road: road(0, None), rounds: 10 },
    Condition { title: "20 ms", road: road(20, None), rounds: 10 },
    Condition { title: "50 ms", road: road(50, None), rounds: 10 },
    Condition { title: "50 ms, 50 Mbit/s", road: road(50, Some(50)), rounds: 4 },
];

const fn road(delay: u64, megabits: Option<u64>) -> Road {
    let bandwidth = match megabits {
        Some(megabits) => Some(megabits * 1_000_000 / 8),
        None => None,
    };
    Road { delay: Duration::from_millis(delay), bandwidth }
}

/// What one contender shows under one condition.
struct Shown {
    name: &'static str,
    cells: Vec<String>,
    rest: [String; 4],
}

pub fn run() {
    let wal = Wal::ready();
    println!("## A push to S3\n");
    println!("Added per request: the column's title. In brackets: to walden.\n");
    for kind in [Kind::Pgbench, Kind::Documents] {
        let mut shown: Vec<Shown> = Vec::new();
        for condition in &CONDITIONS {
            let lanes = compete(&wal, kind, condition);
            for lane in &lanes {
                add(&mut shown, lane, lanes[0].wall());
            }
        }
        report(kind, &shown);
    }
}

fn compete(wal: &Wal, kind: Kind, condition: &Condition) -> Vec<Lane> {
    let scratch = Scratch::new();
    let store = Rc::new(Store::start());
    let present = peers::present(&CONTENDERS);
    let mut lanes: Vec<Lane> = Vec::new();
    for (number, contender) in present.into_iter().enumerate() {
        let place = Place::Bucket { store: store.clone(), prefix: format!("home-{number}") };
        let home = Home::new(scratch.join(&number.to_string()), &wal.control_file(), place);
        let mut lane = Lane::new(contender, home);
        if matches!(contender.needs, Some("aws" | "barman-cloud-wal-archive")) {
            lane.rounds_max = FEW_ROUNDS;
        }
        lanes.push(lane);
    }
    store.set_road(condition.road);
    let segments = wal.segments(kind, MEMORY_ROUNDS + knobs::rounds(condition.rounds));
    race(&mut lanes, &segments, MEMORY_ROUNDS);
    lanes
}

fn add(shown: &mut Vec<Shown>, lane: &Lane, base: Duration) {
    let name = lane.contender.name;
    let wall = lane.wall();
    let cell = match lane.failed {
        None => format!("{} ({})", milliseconds(wall), ratio(wall, base)),
        Some(_) => "failed".to_owned(),
    };
    let rest = [
        milliseconds(lane.cpu()),
        size(lane.peak_kib as f64 * 1024.0),
        format!("{:.1}", lane.requests_per_call()),
        size(lane.stored_per_call()),
    ];
    match shown.iter_mut().find(|shown| shown.name == name) {
        Some(known) => {
            known.cells.push(cell);
            known.rest = rest;
        }
        None => shown.push(Shown { name, cells: vec![cell], rest }),
    }
}

fn report(kind: Kind, shown: &[Shown]) {
    let mut head = vec![kind.title()];
    head.extend(CONDITIONS.iter().map(|condition| condition.title));
    head.extend(["CPU", "peak memory", "requests", "stored"]);
    let mut table = Table::new(&head);
    for Shown { name, cells, rest } in shown {
        let cells = cells.iter().chain(rest).cloned();
        table.row(std::iter::once((*name).to_owned()).chain(cells).collect());
    }
    table.print();
}
