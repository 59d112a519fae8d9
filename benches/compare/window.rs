//! `walden window` and `walden report` over a repository of 100,000 segments in a directory: how
//! long, and how much memory at most.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use walden::codec::{Compression, Content, Header, Kind, Origin};
use walden::postgres::wal::Digest;
use walden::postgres::wal::digest::{self, Ending, TransactionEnd};
use walden::postgres::{Lsn, SegmentName, SystemIdentifier, TimelineId, WalFileName};
use walden::repository::manifest::{Manifest, PACK_BYTES};
use walden::repository::{BackupId, ClusterName, Home, Repository};
use walden::storage::directory::Directory;

use crate::setup::peers;
use crate::setup::scratch::{self, Scratch};
use crate::setup::stopwatch::Call;
use crate::setup::table::{Table, seconds, size};

const SEGMENTS: u64 = 100_000;
const SEGMENT_BYTES: u32 = 16 << 20;
const SYSTEM_IDENTIFIER: SystemIdentifier = SystemIdentifier(7_710_620_488_620_347_611);
/// Of the first segment, in units of segments.
const FIRST: u64 = 256;
/// Written long ago, so that a log file counts as closed.
const STORED: Duration = Duration::from_secs(1_780_000_000);

pub fn run() {
    let scratch = Scratch::new();
    let repository = scratch::directory(scratch.join("repository"));
    fill(&repository);
    scratch::give(scratch.path());
    let walden = peers::binary(scratch.path());
    let page = scratch.join("report.html").display().to_string();
    let window = ["window", "--json"];
    let report = ["report", "--since", "400d", "--output", &page];
    let call = |words: &[&str]| {
        let call = Call::within(scratch.path()).env("WALDEN_STATE_DIR", scratch.join("state"));
        let call = call.program([&walden]).arg("--cluster").arg("bench");
        let call = call.arg("--repository").arg(&repository);
        words.iter().fold(call, Call::arg)
    };
    println!("## A window and a report over {SEGMENTS} segments\n");
    let mut table = Table::new(&["a directory", "wall", "CPU", "peak memory"]);
    let mut row = |what: &str, words: &[&str], forget: &dyn Fn()| {
        forget();
        let took = call(words).time().unwrap_or_else(|why| panic!("{what}: {why}"));
        forget();
        let peak = call(words).peak_kib().unwrap_or_else(|why| panic!("{what}: {why}"));
        let peak = peak.map_or_else(|| "not seen".to_owned(), |kib| size(kib as f64 * 1024.0));
        table.row(vec![what.to_owned(), seconds(took.wall), seconds(took.cpu), peak]);
    };
    let index = repository.join(format!("bench/{SYSTEM_IDENTIFIER}/index"));
    let forget_all = || {
        fs::remove_dir_all(scratch.join("state")).ok();
        fs::remove_dir_all(&index).ok();
    };
    let forget_state = || {
        fs::remove_dir_all(scratch.join("state")).ok();
    };
    row("window, the first ever, which writes the index", &window, &forget_all);
    row("window on another host, from the index", &window, &forget_state);
    row("window again on the same host", &window, &|| {});
    row("report on another host, from the index", &report, &forget_state);
    row("report again on the same host", &report, &|| {});
    table.print();
}

/// A backup, then segments of which nothing but the headers is there.
fn fill(root: &Path) {
    let storage = Arc::new(Directory::new(root, None));
    let name = ClusterName::new("bench").expect("a name");
    let home = Repository::new(storage, name).home(SYSTEM_IDENTIFIER);
    home.claim(&origin(time_of(0))).expect("claim the place");
    for number in 0..SEGMENTS {
        put(root, &home, number);
    }
    home.publish(&manifest(), Compression::default()).expect("publish a backup");
}

fn put(root: &Path, home: &Home, number: u64) {
    let lsn = Lsn((FIRST + number) * u64::from(SEGMENT_BYTES));
    let name = SegmentName::containing(timeline(), lsn, SEGMENT_BYTES);
    let content = Content { size: u64::from(SEGMENT_BYTES), crc32: 0 };
    let mut header =
        Header::new(Kind::Segment, name.to_string(), content, origin(time_of(number + 1)));
    header.digest = Some(Box::new(digest_of(lsn, number)));
    let path = root.join(home.wal_key(&WalFileName::Segment(name)).as_str());
    let folder = path.parent().expect("it is in a folder");
    fs::create_dir_all(folder).expect("make a folder");
    fs::write(&path, header.to_frame()).expect("write an object");
    let file = File::options().write(true).open(&path).expect("open it again");
    file.set_modified(SystemTime::UNIX_EPOCH + STORED).expect("set its time");
}

/// As of pgbench with twelve clients: some transactions of the segment before end here.
fn digest_of(lsn: Lsn, number: u64) -> Digest {
    let end = |at: u64, xid: u64| TransactionEnd {
        lsn: Lsn(lsn.0 + at),
        xid: (number * 2_000 + xid) as u32,
        time: time_of(number) + SignedDuration::from_micros(at as i64),
    };
    let ending = |at: u64| Ending {
        at: end(at * 100, at),
        is_commit: true,
        subtransactions: Vec::new(),
        dropped: Vec::new(),
        dropped_stats: Vec::new(),
        database: None,
        is_cut: false,
        is_prepared: false,
    };
    let last = end(16_000_000, 1_999);
    Digest {
        version: digest::VERSION,
        segment_size: SEGMENT_BYTES,
        records: 150_000,
        commits: 2_000,
        aborts: 3,
        first_record: Some(Lsn(lsn.0 + 40)),
        end: Some(Lsn(lsn.0 + u64::from(SEGMENT_BYTES))),
        first_commit: Some(end(50, 1)),
        last_commit: Some(last),
        latest_time: Some(last.time),
        endings: (1..=12).map(ending).collect(),
        ..Digest::default()
    }
}

fn manifest() -> Manifest {
    let start = Lsn(FIRST * u64::from(SEGMENT_BYTES) + 40);
    Manifest {
        walden: 1,
        id: BackupId::new(time_of(0), 1),
        origin: origin(time_of(0)),
        server_version_num: 170_011,
        time_zone: None,
        log_time_zone: None,
        parent: None,
        mode: None,
        label: None,
        notes: Default::default(),
        taken: None,
        names: false,
        configuration: Vec::new(),
        damaged_pages: Vec::new(),
        damaged: 0,
        chunk_bytes: None,
        wal_segment_size: SEGMENT_BYTES,
        timeline: timeline(),
        start_lsn: start,
        end_lsn: Lsn(start.0 + 1_000),
        began: time_of(0),
        ended: time_of(0),
        from_standby: false,
        tablespaces: Vec::new(),
        pack_bytes: PACK_BYTES,
        packs: Vec::new(),
        files: Vec::new(),
    }
}

/// When segment `number` was begun: one takes a minute.
fn time_of(number: u64) -> Timestamp {
    let began = Timestamp::from_second(1_770_000_000).expect("a time");
    began + SignedDuration::from_mins(number as i64)
}

fn origin(time: Timestamp) -> Origin {
    Origin {
        host: "db1".to_owned(),
        source: "/var/lib/postgresql/17/main".to_owned(),
        system_identifier: SYSTEM_IDENTIFIER,
        time,
        version: "0.1.0".to_owned(),
    }
}

fn timeline() -> TimelineId {
    TimelineId::new(1).expect("not 0")
}
