//! The files that are being written, by several threads: each knows how much of it is still to
//! come, and gets its owner, mode and time with the last byte, while it is open anyway.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::os::unix::fs::{
    FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::Advice;

use crate::commands::restore::host_failed;
use crate::commands::restore::pieces::Piece;
use crate::commands::restore::placement::{Placed, Placement};
use crate::error::{Error, Result};
use crate::host::privileges::User;

/// Root may be writing into a directory of a user who must not lead it elsewhere.
pub const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
const NEW_FILE_MODE: u32 = 0o600;
/// A page of PostgreSQL: whole ones of zeros are left out where nothing else lies.
const PAGE_BYTES: usize = 8192;
/// The disk is told to begin once so much of a file was written: what it has done by the end need
/// not be waited for then.
const BEHIND_BYTES: u64 = 4 << 20;

pub struct Targets<'a> {
    pub placement: &'a Placement,
    owner: Option<&'a User>,
    states: Vec<State>,
}

struct State {
    /// Bytes of its pieces that are neither written nor found in place, and one more for each part
    /// of it that is still to be compared.
    left: AtomicU64,
    /// Bytes that lay there before, if it did. Beyond them zeros need not be written.
    was: Option<u64>,
    /// Its end was left out, or is made of no piece: its length must be set.
    ends_in_zeros: AtomicBool,
}

impl<'a> Targets<'a> {
    /// None of the files is there.
    pub fn new(placement: &'a Placement, owner: Option<&'a User>) -> Targets<'a> {
        let state = |file: &Placed| {
            let pieces = placement.pieces_of(file);
            let left = AtomicU64::new(pieces.iter().map(|piece| piece.length).sum());
            let end = pieces.last().map_or(0, Piece::end);
            State { left, was: None, ends_in_zeros: AtomicBool::new(end < file.size) }
        };
        let states = placement.files.iter().map(state).collect();
        Targets { placement, owner, states }
    }

    /// Something lies in the place of this file, `was` bytes of it, and is compared in so many
    /// parts.
    pub fn is_there(&mut self, file: usize, was: u64, parts: u64) {
        let state = &mut self.states[file];
        *state.left.get_mut() += parts;
        (state.was, state.ends_in_zeros) = (Some(was), AtomicBool::new(false));
    }

    /// A part of what lies in place was compared, and so many bytes of its pieces agree. The last
    /// part finishes the file, where nothing is to be written into it.
    pub fn compared(&self, index: usize, kept: u64, file: &File) -> Result<()> {
        self.take_off(index, kept + 1, file)
    }

    fn take_off(&self, index: usize, count: u64, file: &File) -> Result<()> {
        if self.states[index].left.fetch_sub(count, Ordering::AcqRel) == count {
            self.finish(index, file)?;
        }
        Ok(())
    }

    pub fn file(&self, index: usize) -> &'a Placed {
        &self.placement.files[index]
    }

    /// Two threads may write one file: whoever comes first creates it, nobody truncates it.
    pub fn open(&self, index: usize) -> Result<Target<'_>> {
        let placed = self.file(index);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(NEW_FILE_MODE).custom_flags(NO_LINK);
        options.read(self.states[index].was.is_some());
        let file = options.open(&placed.path).map_err(|e| cannot("create", placed, e))?;
        Ok(Target { targets: self, index, file, behind: 0..0 })
    }

    /// A file that nothing is to be written into.
    pub fn finish_empty(&self, index: usize) -> Result<()> {
        let target = self.open(index)?;
        self.finish(index, &target.file)
    }

    pub fn has_nothing_to_come(&self, index: usize) -> bool {
        self.states[index].left.load(Ordering::Acquire) == 0
    }

    /// Its length, owner, time and mode, once all of it is there.
    fn finish(&self, index: usize, file: &File) -> Result<()> {
        let state = &self.states[index];
        let placed = self.file(index);
        let finish = || -> std::io::Result<()> {
            if state.ends_in_zeros.load(Ordering::Acquire) {
                file.set_len(placed.size)?;
            }
            // Nothing is written, not even to the inode, where all is as it should be.
            let was = state.was.map(|_| file.metadata()).transpose()?;
            let differs = |is_so: &dyn Fn(&Metadata) -> bool| !was.as_ref().is_some_and(is_so);
            if let Some(user) = self.owner
                && differs(&|was| (was.uid(), was.gid()) == (user.uid, user.gid))
            {
                fchown(file, Some(user.uid), Some(user.gid))?;
            }
            if let Ok(seconds) = u64::try_from(placed.modified)
                && differs(&|was| (was.mtime(), was.mtime_nsec()) == (placed.modified, 0))
            {
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))?;
            }
            let has_mode = |mode: u32| mode & 0o7777 == placed.mode;
            if !was.map_or(has_mode(NEW_FILE_MODE), |was| has_mode(was.mode())) {
                file.set_permissions(Permissions::from_mode(placed.mode))?;
            }
            Ok(())
        };
        finish().map_err(|error| cannot("finish", placed, error))
    }
}

/// One of them, open.
pub struct Target<'a> {
    targets: &'a Targets<'a>,
    pub index: usize,
    file: File,
    /// What was written and the disk was not told of.
    behind: std::ops::Range<u64>,
}

impl Target<'_> {
    /// Bytes of its pieces, which begin at `at`. The last ones finish the file.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let state = &self.targets.states[self.index];
        self.write_out(state, at, bytes)
            .map_err(|error| cannot("write", self.targets.file(self.index), error))?;
        self.targets.take_off(self.index, bytes.len() as u64, &self.file)
    }

    /// Pages that are there already are not written: zeros where nothing lies, and in what lies
    /// there those that are the same, which of a chunk that differs most are.
    fn write_out(&mut self, state: &State, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        let there = match state.was {
            Some(was) => self.read_there(was, at, bytes.len())?,
            None => Vec::new(),
        };
        let is_there = |range: std::ops::Range<usize>| match there.get(range.clone()) {
            Some(there) => *there == bytes[range],
            None => range.start >= there.len() && is_zeros(&bytes[range]),
        };
        // From here on, up to where it was looked, all is to be written.
        let (mut begin, mut looked) = (0, 0);
        while looked < bytes.len() {
            // Pages of the file, not of what happens to come at once.
            let to_next = PAGE_BYTES - ((at + looked as u64) % PAGE_BYTES as u64) as usize;
            let page = looked..bytes.len().min(looked + to_next);
            if is_there(page.clone()) {
                self.file.write_all_at(&bytes[begin..looked], at + begin as u64)?;
                begin = page.end;
            }
            looked = page.end;
        }
        self.file.write_all_at(&bytes[begin..], at + begin as u64)?;
        let end = at + bytes.len() as u64;
        if begin == bytes.len() && end == self.targets.file(self.index).size {
            state.ends_in_zeros.store(true, Ordering::Release);
        }
        self.begin_writeback(at, end);
        Ok(())
    }

    /// What lies in the place of `length` bytes from `at` on, of the `was` bytes that lay there.
    fn read_there(&self, was: u64, at: u64, length: usize) -> std::io::Result<Vec<u8>> {
        let length = was.saturating_sub(at).min(length as u64) as usize;
        let mut there = vec![0; length];
        self.file.read_exact_at(&mut there, at)?;
        Ok(there)
    }

    /// `POSIX_FADV_DONTNEED` writes back what is dirty without waiting for it (`generic_fadvise`,
    /// mm/fadvise.c), which is all that is wanted: it is no promise.
    fn begin_writeback(&mut self, at: u64, end: u64) {
        if self.behind.end != at {
            self.behind = at..at;
        }
        self.behind.end = end;
        let length = end - self.behind.start;
        if length >= BEHIND_BYTES {
            let length = std::num::NonZeroU64::new(length);
            let _ = rustix::fs::fadvise(&self.file, self.behind.start, length, Advice::DontNeed);
            self.behind = end..end;
        }
    }
}

/// By comparing pages: what is not all zeros seldom begins with many of them.
pub fn is_zeros(bytes: &[u8]) -> bool {
    static PAGE: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    bytes.chunks(PAGE.len()).all(|piece| *piece == PAGE[..piece.len()])
}

pub fn cannot(verb: &str, file: &Placed, error: std::io::Error) -> Error {
    host_failed(format!("{verb} {}", file.path.display()), error)
}
