//! The files of a backup, as its packs bring them: each against the checksums of its chunks, and
//! against what the server itself listed.

use std::collections::HashMap;

use crate::postgres::backup_manifest::{Checksum, FileHasher, ListedFile};
use crate::repository::manifest::{FileEntry, FileKind, Manifest};
use crate::repository::sums::CHUNK_BYTES;
use crate::repository::{ChunkHasher, Sums};

const OWN_MANIFEST: &str = "backup_manifest";
/// More of one backup say no more.
const FAULTS_MAX: usize = 20;

/// Takes the stream of a backup pack by pack, some of which may be left out.
pub struct Files<'a> {
    manifest: &'a Manifest,
    sums: Option<&'a Sums>,
    listed: Option<HashMap<&'a str, &'a ListedFile>>,
    /// In the order of the stream, without directories.
    order: Vec<usize>,
    next: usize,
    open: Option<OpenFile>,
    /// Files of which not every byte came.
    pub unread: u64,
    faults: Vec<String>,
    more_faults: u64,
}

struct OpenFile {
    /// In the manifest's list.
    file: usize,
    /// How many bytes of it have come, or were left out.
    at: u64,
    /// `None` where a part did not come.
    hasher: Option<FileHasher>,
    chunks: ChunkHasher,
    /// The chunk that `chunks` began with.
    first_chunk: usize,
    /// Bytes before its beginning, of a chunk the beginning of which did not come.
    skip: u64,
}

impl<'a> Files<'a> {
    pub fn new(
        manifest: &'a Manifest,
        sums: Option<&'a Sums>,
        listed: Option<&'a [ListedFile]>,
    ) -> Files<'a> {
        let mut order: Vec<usize> = (0..manifest.files.len())
            .filter(|at| manifest.files[*at].kind == FileKind::File && manifest.files[*at].size > 0)
            .collect();
        order.sort_by_key(|at| manifest.files[*at].offset);
        let by_path =
            |files: &'a [ListedFile]| files.iter().map(|file| (file.path.as_str(), file)).collect();
        let mut files = Files {
            manifest,
            sums,
            listed: listed.map(by_path),
            order,
            next: 0,
            open: None,
            unread: 0,
            faults: Vec::new(),
            more_faults: 0,
        };
        files.compare_lists();
        files
    }

    /// The raw bytes of one pack; `None`: they could not be read, or were not asked for. Every pack
    /// is told of, in order.
    pub fn take(&mut self, number: u32, raw: Option<&[u8]>) {
        let begin = u64::from(number) * self.manifest.pack_bytes;
        let size = self.manifest.packs[number as usize].size;
        let end = begin + size;
        loop {
            if self.open.is_none() && !self.begin_next(end) {
                return;
            }
            let Some(open) = &mut self.open else { return };
            let entry = &self.manifest.files[open.file];
            let from = entry.offset + open.at;
            let to = (entry.offset + entry.size).min(end);
            if from >= to {
                // Not yet here: it goes on in the next pack.
                return;
            }
            if from < begin {
                self.open = None;
                self.fault(Some("its manifest has two files in one place".to_owned()));
                continue;
            }
            match raw {
                Some(raw) => open.take(&raw[(from - begin) as usize..(to - begin) as usize]),
                None => {
                    let fault = open.leave_out(to - from, entry, self.sums);
                    self.fault(fault);
                }
            }
            self.close_if_whole();
        }
    }

    pub fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// What is wrong, as sentences about files.
    pub fn finish(mut self) -> Vec<String> {
        if self.open.take().is_some() || self.next < self.order.len() {
            self.fault(Some("not all of its files lie in its packs".to_owned()));
        }
        if self.more_faults > 0 {
            self.faults.push(format!("{} more files are wrong", self.more_faults));
        }
        self.faults
    }

    /// Opens the file that begins before `end`; `false` where there is none.
    fn begin_next(&mut self, end: u64) -> bool {
        let Some(file) = self.order.get(self.next).copied() else { return false };
        let entry = &self.manifest.files[file];
        if entry.offset >= end {
            return false;
        }
        self.next += 1;
        let checksum = self
            .listed
            .as_ref()
            .and_then(|listed| listed.get(entry.path.as_str()))
            .map_or(Checksum::None, |listed| listed.checksum.clone());
        self.open = Some(OpenFile {
            file,
            at: 0,
            hasher: Some(FileHasher::new(checksum)),
            chunks: ChunkHasher::default(),
            first_chunk: 0,
            skip: 0,
        });
        true
    }

    fn close_if_whole(&mut self) {
        let is_whole = |open: &mut OpenFile| open.at == self.manifest.files[open.file].size;
        let Some(mut open) = self.open.take_if(is_whole) else { return };
        let entry = &self.manifest.files[open.file];
        let path = &entry.path;
        let chunk = open.wrong_chunk(entry, self.sums);
        let is_as_listed = open.hasher.map(FileHasher::is_as_listed);
        self.unread += u64::from(is_as_listed.is_none());
        let chunk = match is_as_listed {
            Some(false) => Some(format!("{path} is not as the server listed it")),
            _ => chunk,
        };
        self.fault(chunk);
    }

    fn fault(&mut self, fault: Option<String>) {
        let Some(fault) = fault else { return };
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        } else {
            self.more_faults += 1;
        }
    }

    /// Both list the same files with the same sizes.
    fn compare_lists(&mut self) {
        let Some(listed) = self.listed.take() else { return };
        let mut faults = Vec::new();
        let mut met = 0;
        for entry in &self.manifest.files {
            if entry.kind != FileKind::File || entry.path == OWN_MANIFEST {
                continue;
            }
            match listed.get(entry.path.as_str()) {
                Some(file) if file.size == entry.size => met += 1,
                Some(file) => {
                    met += 1;
                    let (path, size, says) = (&entry.path, entry.size, file.size);
                    faults.push(format!("{path} has {size} bytes where the server lists {says}"));
                }
                None => faults.push(format!("{} is not listed by the server", entry.path)),
            }
        }
        if met < listed.len() {
            let missing = listed.len() - met;
            faults.push(format!("{missing} files that the server lists are not in its manifest"));
        }
        faults.into_iter().for_each(|fault| self.fault(Some(fault)));
        self.listed = Some(listed);
    }
}

impl OpenFile {
    fn take(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.write(bytes);
        }
        self.at += bytes.len() as u64;
        let skip = self.skip.min(bytes.len() as u64);
        self.skip -= skip;
        self.chunks.write(&bytes[skip as usize..]);
    }

    /// What came before is judged; what comes after begins with the next chunk.
    fn leave_out(&mut self, bytes: u64, entry: &FileEntry, sums: Option<&Sums>) -> Option<String> {
        let fault = self.wrong_chunk(entry, sums);
        self.hasher = None;
        self.at += bytes;
        let chunk = CHUNK_BYTES as u64;
        self.first_chunk = self.at.div_ceil(chunk) as usize;
        self.skip = self.first_chunk as u64 * chunk - self.at;
        fault
    }

    /// Of the chunks that came whole since the last look, the first that is not as it was.
    fn wrong_chunk(&mut self, entry: &FileEntry, sums: Option<&Sums>) -> Option<String> {
        let found = self.chunks.finish_file();
        let stored = sums.map(|sums| sums.of(self.file)).filter(|stored| !stored.is_empty())?;
        // The last one is cut off where the file goes on.
        let whole = match self.at == entry.size {
            true => found.len(),
            false => (self.at as usize / CHUNK_BYTES).saturating_sub(self.first_chunk),
        };
        let expected = stored.get(self.first_chunk..).unwrap_or_default();
        let wrong = found.iter().take(whole).zip(expected).position(|(found, sum)| found != sum)?;
        let at = (self.first_chunk + wrong) as u64 * CHUNK_BYTES as u64;
        Some(format!("{} does not match its checksums from byte {at} on", entry.path))
    }
}
