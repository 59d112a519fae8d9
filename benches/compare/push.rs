//! One call of archive_command, into a directory on the disk pg_wal is on.

use crate::setup::knobs;
use crate::setup::peers::{self, Contender, Home, Place, WALDEN};
use crate::setup::race::{Lane, race};
use crate::setup::scratch::Scratch;
use crate::setup::table::{Table, milliseconds, ratio, size};
use crate::setup::wal::{Kind, Wal};

const ROUNDS: usize = 24;
const MEMORY_ROUNDS: usize = 3;

const CONTENDERS: [Contender; 8] = [
    WALDEN,
    Contender { name: "`walden push`, pushed ahead before", ..WALDEN },
    peers::CP,
    peers::ZSTD,
    peers::PGBACKREST,
    peers::WALRUS,
    Contender {
        name: "`walden --version`",
        push: |home, _| peers::walden(home).arg("--version"),
        ..WALDEN
    },
    Contender { name: "`/bin/true`", push: |home, _| home.call().program(["/bin/true"]), ..WALDEN },
];

pub fn run() {
    let wal = Wal::ready();
    let rounds = knobs::rounds(ROUNDS);
    println!("## A push into a directory\n");
    println!("Median wall of {rounds} rounds; CPU is the mean, memory the most.\n");
    let scratch = Scratch::new();
    let mut lanes = lanes(&scratch, &wal);
    for kind in Kind::ALL {
        let segments = wal.segments(kind, MEMORY_ROUNDS + rounds);
        race(&mut lanes, &segments, MEMORY_ROUNDS);
        report(kind, &lanes);
    }
}

fn lanes(scratch: &Scratch, wal: &Wal) -> Vec<Lane> {
    let mut lanes = Vec::new();
    for (number, contender) in peers::present(&CONTENDERS).into_iter().enumerate() {
        let root = scratch.join(&number.to_string());
        let home = Home::new(root, &wal.control_file(), Place::Directory);
        let pushed_ahead = contender.name.ends_with("before");
        if pushed_ahead && !peers::looks_ahead(&home) {
            continue;
        }
        let mut lane = Lane::new(contender, home);
        lane.pushed_ahead = pushed_ahead;
        lanes.push(lane);
    }
    lanes
}

fn report(kind: Kind, lanes: &[Lane]) {
    let head = [kind.title(), "wall", "to walden", "CPU", "peak memory", "stored"];
    let mut table = Table::new(&head);
    let base = lanes[0].wall();
    for lane in lanes.iter().filter(|lane| lane.failed.is_none()) {
        table.row(vec![
            lane.contender.name.to_owned(),
            milliseconds(lane.wall()),
            ratio(lane.wall(), base),
            milliseconds(lane.cpu()),
            size(lane.peak_kib as f64 * 1024.0),
            size(lane.stored_per_call()),
        ]);
    }
    table.print();
}
