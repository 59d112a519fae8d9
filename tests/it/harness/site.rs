//! A data directory without a server: a pg_control, a pg_wal, and WAL made by hand. Quick, for what
//! PostgreSQL itself is not needed for.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use walden::postgres::SegmentName;

use super::wal::Pages;
use super::{Scratch, Walden, reference};

pub const SEGMENT_BYTES: usize = 1 << 20;
pub const SYSTEM_IDENTIFIER: u64 = 7_710_620_488_620_347_611;

pub struct Site {
    scratch: Scratch,
    repository: String,
    environment: Vec<(&'static str, String)>,
}

impl Site {
    /// With a directory for its repository.
    pub fn new() -> Site {
        let scratch = Scratch::new();
        let repository = scratch.directory("repository");
        Site::lay_out(scratch, format!("file://{}", repository.display()), Vec::new())
    }

    /// With a repository elsewhere; `environment` holds what reaching it takes.
    pub fn on(repository: &str, environment: Vec<(&'static str, String)>) -> Site {
        Site::lay_out(Scratch::new(), repository.to_owned(), environment)
    }

    fn lay_out(
        scratch: Scratch,
        repository: String,
        environment: Vec<(&'static str, String)>,
    ) -> Site {
        for directory in ["data", "data/global", "data/pg_wal", "state"] {
            scratch.directory(directory);
        }
        let site = Site { scratch, repository, environment };
        site.become_cluster(SYSTEM_IDENTIFIER);
        site
    }

    /// Another cluster's data directory from here on.
    pub fn become_cluster(&self, system_identifier: u64) {
        self.write_control_file(system_identifier, SEGMENT_BYTES);
    }

    /// Of a cluster whose segments have this size from here on; puts one that does not compress
    /// into pg_wal, without ever holding it whole.
    pub fn large_segment(&self, name: &str, bytes: usize) -> PathBuf {
        self.write_control_file(SYSTEM_IDENTIFIER, bytes);
        let path = self.pgdata().join("pg_wal").join(name);
        let file = fs::File::create(&path).expect("create a segment");
        let mut file = io::BufWriter::with_capacity(SEGMENT_BYTES, file);
        let name = SegmentName::parse(name).expect("the name of a segment");
        for page in Pages::of(name, bytes, 1, SYSTEM_IDENTIFIER) {
            file.write_all(&page).expect("write a segment");
        }
        path
    }

    fn write_control_file(&self, system_identifier: u64, segment_bytes: usize) {
        let path = self.pgdata().join("global/pg_control");
        fs::write(path, control_file(system_identifier, segment_bytes)).expect("write pg_control");
    }

    /// As in a recovery to the end of the archive.
    pub fn recover(&self) {
        fs::write(self.pgdata().join("recovery.signal"), "").expect("write recovery.signal");
    }

    /// Puts `standby.signal` beside.
    pub fn become_standby(&self) {
        fs::write(self.pgdata().join("standby.signal"), "").expect("write standby.signal");
    }

    /// A segment in pg_wal; `seed` makes its content.
    pub fn segment(&self, name: &str, seed: u8) -> Vec<u8> {
        let bytes = segment(name, seed, SYSTEM_IDENTIFIER);
        self.file(name, &bytes);
        bytes
    }

    /// Any file in pg_wal.
    pub fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.pgdata().join("pg_wal").join(name), bytes).expect("write into pg_wal");
    }

    /// A segment in pg_wal that waits to be archived.
    pub fn ready_segment(&self, name: &str, seed: u8) -> Vec<u8> {
        let bytes = self.segment(name, seed);
        self.ready(name);
        bytes
    }

    /// As PostgreSQL says that a file waits to be archived.
    pub fn ready(&self, name: &str) {
        let status = self.pgdata().join("pg_wal/archive_status");
        fs::create_dir_all(&status).expect("make archive_status");
        fs::write(status.join(format!("{name}.ready")), "").expect("write a .ready file");
    }

    /// As PostgreSQL says that archive_command has succeeded.
    pub fn done(&self, name: &str) {
        let status = self.pgdata().join("pg_wal/archive_status");
        let ready = status.join(format!("{name}.ready"));
        fs::rename(ready, status.join(format!("{name}.done"))).expect("rename a .ready file");
    }

    pub fn push(&self, name: &str) -> Walden {
        self.walden().arg("push").arg(format!("pg_wal/{name}"))
    }

    /// Four pushers here and four on `other`, which has other content under this name, all at once:
    /// one content must win, and its pushers only may say so.
    #[track_caller]
    pub fn race(&self, other: &Site, name: &str) {
        let sites = [self, other];
        let contents = [self.segment(name, 1), other.segment(name, 2)];
        let patient = |site: &Site| site.push(name).patiently();
        let running: Vec<_> = (0..8).map(|number| patient(sites[number % 2]).spawn()).collect();
        let codes: Vec<_> = running.into_iter().map(|call| call.wait().code()).collect();

        self.fetch(name).run().succeeds();
        let won = contents.iter().position(|content| Some(content) == self.fetched().as_ref());
        let won = won.expect("one of the two contents, whole");
        for (number, code) in codes.into_iter().enumerate() {
            assert_eq!(code, Some(if number % 2 == won { 0 } else { 11 }), "pusher {number}");
        }
    }

    /// Pushes `count` segments, each killed at some instant and then repeated with all the time it
    /// needs: every one must be there in the end, and right.
    #[track_caller]
    pub fn kill_and_repeat(&self, count: u8, longest: Duration) {
        let mut random = fastrand::Rng::with_seed(u64::from(count));
        for number in 0..count {
            let name = format!("0000000100000000000001{number:02X}");
            let content = self.segment(&name, number);
            let mut running = self.push(&name).spawn();
            std::thread::sleep(longest.mul_f64(random.f64()));
            running.kill();
            drop(running.wait());
            self.push(&name).patiently().run().succeeds();
            self.fetch(&name).patiently().run().succeeds();
            assert_eq!(self.fetched(), Some(content), "{name}");
        }
    }

    pub fn fetch(&self, name: &str) -> Walden {
        self.walden().arg("fetch").arg(name).arg("pg_wal/RECOVERYXLOG")
    }

    /// What the last fetch put there.
    pub fn fetched(&self) -> Option<Vec<u8>> {
        fs::read(self.pgdata().join("pg_wal/RECOVERYXLOG")).ok()
    }

    /// Where segments lie that were fetched ahead; with the files that tell of them.
    pub fn spooled(&self) -> Vec<PathBuf> {
        let is_spooled = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.len() == 33 && SegmentName::parse(&name[..24]).is_some()
        };
        files_below(&self.scratch.join("state")).into_iter().filter(is_spooled).collect()
    }

    pub fn walden(&self) -> Walden {
        self.walden_of(&self.repository)
    }

    /// The same with another repository.
    pub fn walden_of(&self, repository: &str) -> Walden {
        let walden = Walden::new().as_server_user().current_dir(self.pgdata());
        let walden = walden.env("WALDEN_STATE_DIR", self.scratch.join("state"));
        let walden = walden.repository(repository).cluster("main");
        self.environment.iter().fold(walden, |walden, (name, value)| walden.env(name, value))
    }

    pub fn pgdata(&self) -> PathBuf {
        self.scratch.join("data")
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub fn repository_directory(&self) -> PathBuf {
        PathBuf::from(self.repository.strip_prefix("file://").expect("a directory repository"))
    }

    /// The object of a WAL file, where the repository is a directory.
    pub fn object(&self, name: &str) -> PathBuf {
        let place = reference::place_of(name);
        self.repository_directory().join(format!("main/{SYSTEM_IDENTIFIER}/{place}"))
    }
}

/// A segment full of valid records that hold, from `seed`, bytes that hardly compress.
pub fn segment(name: &str, seed: u8, system_identifier: u64) -> Vec<u8> {
    let name = SegmentName::parse(&name[..24]).expect("the name of a segment");
    Pages::of(name, SEGMENT_BYTES, seed, system_identifier).flatten().collect()
}

/// A `global/pg_control` as 17 writes it, as far as walden reads it.
fn control_file(system_identifier: u64, segment_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[..8].copy_from_slice(&system_identifier.to_le_bytes());
    bytes[8..12].copy_from_slice(&1700u32.to_le_bytes());
    bytes[228..232].copy_from_slice(&(segment_bytes as u32).to_le_bytes());
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[..288]) as u32;
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Every file below a directory, temporary ones included, sorted.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
