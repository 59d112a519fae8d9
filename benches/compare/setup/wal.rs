//! Real WAL of five kinds, written once by a server and kept under target/ from run to run.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::scratch::{self, Scratch};
use super::server::{Bench, Settings};
use super::workload;

/// What a measured call is given, and three more for the rounds that ask for memory.
pub const SEGMENTS: usize = 27;
/// For a backlog, and for a replay.
pub const MANY: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pgbench,
    Documents,
    Bulk,
    Compressed,
    Empty,
}

impl Kind {
    pub const ALL: [Kind; 5] =
        [Kind::Pgbench, Kind::Documents, Kind::Bulk, Kind::Compressed, Kind::Empty];

    pub fn title(self) -> &'static str {
        match self {
            Kind::Pgbench => "pgbench",
            Kind::Documents => "uuid and jsonb",
            Kind::Bulk => "bulk load",
            Kind::Compressed => "pgbench, `wal_compression = lz4`",
            Kind::Empty => "mostly empty",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Kind::Pgbench => "pgbench",
            Kind::Documents => "documents",
            Kind::Bulk => "bulk",
            Kind::Compressed => "compressed",
            Kind::Empty => "empty",
        }
    }

    fn segments(self) -> usize {
        if matches!(self, Kind::Pgbench | Kind::Empty) { MANY + 5 } else { SEGMENTS }
    }
}

/// Segments as files, unpacked for one run.
pub struct Wal {
    kept: PathBuf,
    unpacked: Scratch,
}

/// Half of it full page images, as with the default checkpoint_timeout and a busy server.
const SETTINGS: Settings<'_> = &[
    ("fsync", "off"),
    ("wal_keep_size", "32GB"),
    ("max_wal_size", "1GB"),
    ("full_page_writes", "on"),
    ("autovacuum", "off"),
    ("shared_buffers", "512MB"),
    ("synchronous_commit", "off"),
];

impl Wal {
    /// Makes it where it is not kept yet, which takes a few minutes and about 1 GiB.
    pub fn ready() -> Wal {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-wal-1");
        if !kept.exists() {
            make(&kept);
        }
        Wal { kept, unpacked: Scratch::new() }
    }

    /// The first segments of a kind, in order.
    pub fn segments(&self, kind: Kind, count: usize) -> Vec<PathBuf> {
        let folder = scratch::directory(self.unpacked.join(kind.folder()));
        let kept = self.kept.join(kind.folder());
        let mut segments = Vec::new();
        for packed in scratch::names(&kept).iter().take(count) {
            let segment = folder.join(packed.trim_end_matches(".zst"));
            if !segment.exists() {
                let from = File::open(kept.join(packed)).expect("open a segment");
                let to = File::create(&segment).expect("create a segment");
                zstd::stream::copy_decode(from, to).expect("unpack a segment");
            }
            segments.push(segment);
        }
        assert!(segments.len() + 3 >= count, "target/bench-wal-1 lacks segments: remove it");
        scratch::give(&folder);
        scratch::settle();
        segments
    }

    /// The control file of the cluster that wrote them.
    pub fn control_file(&self) -> PathBuf {
        self.kept.join("pg_control")
    }

    /// The data directory, stopped, from just before the first segment of pgbench.
    pub fn base(&self) -> PathBuf {
        self.kept.join("base")
    }
}

fn make(kept: &Path) {
    eprintln!("bench: writing WAL, once: {}", kept.display());
    let scratch = Scratch::new();
    let pgdata = scratch.join("data");
    let making = scratch::directory(scratch.join("kept"));
    let bench = Bench::start(&pgdata, SETTINGS);
    workload::accounts(&bench);
    bench.sql("SELECT pg_switch_wal()");
    bench.stop();
    let base = making.join("base");
    scratch::copy_tree(&pgdata, &base);
    for name in scratch::names(&base.join("pg_wal")).iter().filter(|name| name.len() == 24) {
        fs::remove_file(base.join("pg_wal").join(name)).expect("remove a segment");
    }
    let bench = Bench::start(&pgdata, SETTINGS);
    for kind in Kind::ALL {
        // In its own segments, and each page's first change with its image.
        bench.sql("SELECT pg_switch_wal()");
        bench.sql("CHECKPOINT");
        let first = bench.value("SELECT pg_walfile_name(pg_current_wal_lsn())");
        let wanted = kind.segments() as u64 + 1;
        match kind {
            Kind::Pgbench => workload::transactions(&bench, wanted, false),
            Kind::Documents => workload::documents(&bench, wanted),
            Kind::Bulk => workload::bulk_load(&bench, wanted),
            Kind::Compressed => workload::transactions(&bench, wanted, true),
            Kind::Empty => workload::switches(&bench, wanted),
        }
        let last = bench.value("SELECT pg_walfile_name(pg_current_wal_lsn())");
        keep(&pgdata.join("pg_wal"), &making.join(kind.folder()), kind, [first, last]);
    }
    bench.stop();
    fs::copy(pgdata.join("global/pg_control"), making.join("pg_control")).expect("copy it");
    let moved = Command::new("mv").arg("-T").args([&making, kept]).status().expect("run mv");
    assert!(moved.success(), "mv: {moved}");
}

/// Packs the segments of a kind; of pgbench from the very first on, for a replay needs all.
fn keep(pg_wal: &Path, folder: &Path, kind: Kind, [first, last]: [String; 2]) {
    scratch::directory(folder.to_owned());
    let is_whole = |name: &String| name.len() == 24 && *name < last;
    let is_wanted = |name: &String| is_whole(name) && (kind == Kind::Pgbench || *name > first);
    let names = scratch::names(pg_wal);
    let wanted: Vec<&String> = names.iter().filter(|name| is_wanted(name)).collect();
    // Segments from before the copy of the data directory are not missed.
    let skipped = wanted.iter().position(|name| ***name >= *first).unwrap_or(0).saturating_sub(1);
    let wanted = &wanted[skipped..];
    assert!(wanted.len() >= kind.segments(), "{kind:?}: only {} segments", wanted.len());
    for name in &wanted[..kind.segments()] {
        let from = File::open(pg_wal.join(name)).expect("open a segment");
        let to = io::BufWriter::new(
            File::create(folder.join(format!("{name}.zst"))).expect("create a file"),
        );
        zstd::stream::copy_encode(from, to, 1).expect("pack a segment");
    }
}
