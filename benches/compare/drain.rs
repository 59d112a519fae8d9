//! A backlog after an outage: how long until every waiting segment is archived, on S3 with 50 ms
//! added to each request.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::setup::peers::{self, Contender, Home, Place, WALDEN};
use crate::setup::race;
use crate::setup::scratch::Scratch;
use crate::setup::store::{Road, Store};
use crate::setup::table::{Table, milliseconds, ratio, seconds};
use crate::setup::wal::{Kind, MANY, Wal};

const DELAY: Duration = Duration::from_millis(50);
/// Of those that archive one by one, for which each segment costs what the one before it cost.
const SAMPLE: usize = 40;

const ONE_BY_ONE: Contender = Contender {
    name: "`walden push`, one by one",
    push: |home, path| {
        let call = (WALDEN.push)(home, path);
        if peers::looks_ahead(home) { call.env("WALDEN_PUSH_LOOK_AHEAD", "0") } else { call }
    },
    ..WALDEN
};
const LOOKING_AHEAD: Contender = Contender { name: "`walden push`, looking ahead", ..WALDEN };

pub fn run() {
    let wal = Wal::ready();
    println!("## A backlog of {MANY} segments on S3\n");
    println!("{} ms added to each request; {SAMPLE} of those one by one.\n", DELAY.as_millis());
    let contenders =
        [ONE_BY_ONE, LOOKING_AHEAD, peers::WALRUS, peers::PGBACKREST, peers::PGBACKREST_ASYNC];
    for kind in [Kind::Pgbench, Kind::Empty] {
        let segments = wal.segments(kind, MANY);
        let mut table = Table::new(&[
            kind.title(),
            "200 archived",
            "all in the store after",
            "each",
            "to one by one",
            "CPU each",
            "requests each",
        ]);
        let mut base = None;
        for contender in peers::present(&contenders) {
            match drain(&wal, contender, &segments) {
                Ok(Some(drained)) => {
                    let base = *base.get_or_insert(drained.each);
                    table.row(row(contender.name, drained, base));
                }
                Ok(None) => println!("({}: this binary cannot.)\n", contender.name),
                Err(why) => println!("({}: {why})\n", contender.name),
            }
        }
        table.print();
    }
}

#[derive(Clone, Copy)]
struct Drained {
    each: Duration,
    /// Until the last of them was in the store, whoever had been told so by then.
    stored: Duration,
    /// Without what detached processes use.
    cpu: Duration,
    requests: f64,
}

fn row(name: &str, drained: Drained, base: Duration) -> Vec<String> {
    let Drained { each, stored, cpu, requests } = drained;
    let cpu = if name.contains("async") { "not seen".to_owned() } else { milliseconds(cpu) };
    vec![
        name.to_owned(),
        seconds(each * u32::try_from(MANY).expect("not that many")),
        seconds(stored),
        milliseconds(each),
        ratio(each, base),
        cpu,
        format!("{requests:.1}"),
    ]
}

/// All wait, and the calls come in order, each when the one before it has ended well. `None` where
/// the binary does not know how.
fn drain(wal: &Wal, contender: Contender, all: &[PathBuf]) -> Result<Option<Drained>, String> {
    let scratch = Scratch::new();
    let store = Rc::new(Store::start());
    let place = Place::Bucket { store: store.clone(), prefix: "home".to_owned() };
    let home = Home::new(scratch.join("home"), &wal.control_file(), place);
    let looking_ahead = contender.name == LOOKING_AHEAD.name;
    if looking_ahead && !peers::looks_ahead(&home) {
        return Ok(None);
    }
    (contender.prepare)(&home)?;
    store.set_road(Road { delay: DELAY, bandwidth: None });
    let by_several = looking_ahead || contender.name == peers::PGBACKREST_ASYNC.name;
    let asked = if by_several { all } else { &all[..SAMPLE] };
    for segment in all {
        home.finish_segment(segment);
        home.mark_ready(race::name(segment));
    }
    let before = store.requests();
    let [mut wall, mut cpu, mut stored] = [Duration::ZERO; 3];
    let mut seen = before;
    for segment in asked {
        let path = home.finish_segment(segment);
        let took = (contender.push)(&home, &path).time()?;
        home.mark_done(race::name(segment));
        wall += took.wall;
        cpu += took.cpu;
        // Whoever goes on asking the store goes on storing.
        if store.requests() > seen {
            (seen, stored) = (store.requests(), wall);
        }
    }
    let count = u32::try_from(asked.len()).expect("not that many");
    let requests = (store.requests() - before) as f64 / f64::from(count);
    let stored = stored * u32::try_from(all.len()).expect("not that many") / count;
    Ok(Some(Drained { each: wall / count, stored, cpu: cpu / count, requests }))
}
