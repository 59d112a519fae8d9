//! A file read once, in order, by as many threads as seal its frames.
//!
//! There is no queue: who is free reads the next frame into a buffer of its own, under a lock, and
//! compresses it outside of it. So memory is a buffer for each thread, and what is sealed. What
//! the digest needs is taken from the same buffer on the way, while the next one is read.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::codec::{Compression, Content, FRAME_BYTES, FrameSealer};
use crate::error::{Error, ErrorKind, Result};
use crate::host::{self, spill::Spill};
use crate::postgres::wal::Digester;
use crate::postgres::wal_file_check::WalFileCheck;
use crate::storage::Part;

/// More would mostly wait for their turn to read, and the server's backends want processors too.
const THREADS_MAX: usize = 4;

/// As many threads as a file should have that PostgreSQL waits for.
pub fn threads() -> usize {
    host::processors().min(THREADS_MAX)
}

/// What is to be read, and who looks at every byte of it on the way.
pub struct Input<'a, R> {
    pub file: R,
    /// Fewer bytes are an error; more are not looked at.
    pub size: u64,
    pub check: &'a mut WalFileCheck,
    /// Of a segment: it reads the records.
    pub digester: Option<&'a mut Digester>,
    /// What it means that the file cannot be read.
    pub unreadable: &'a (dyn Fn(io::Error) -> Error + Sync),
}

/// Where frames are until they are stored.
pub struct Keep {
    /// What more there is goes into a file.
    pub memory_bytes_max: u64,
    /// The file is in the first of these that takes one.
    pub folders: Vec<PathBuf>,
}

/// The content, and the frames it became. Of several failures the first in the file's order counts.
pub fn seal<R: Read + Send>(
    mut input: Input<'_, R>,
    keep: &Keep,
    compression: Compression,
    threads: usize,
) -> Result<(Content, Vec<Part>)> {
    let digester = input.digester.take();
    let threads = threads.min(input.size.div_ceil(FRAME_BYTES as u64) as usize);
    let work = Work {
        reading: Mutex::new(Reading { input, next: 0, has_ended: false }),
        digester: Mutex::new(digester),
        sealed: Mutex::default(),
        compression,
        keep,
        in_memory: AtomicU64::new(0),
        spill: Mutex::default(),
    };
    if threads <= 1 {
        work.help();
    } else {
        thread::scope(|scope| {
            for _ in 1..threads {
                // Where no more threads may be had, those there are do the work.
                let started = thread::Builder::new()
                    .name("seal".to_owned())
                    .spawn_scoped(scope, || work.help());
                if started.is_err() {
                    break;
                }
            }
            work.help();
        });
    }
    work.finish()
}

struct Work<'a, R> {
    reading: Mutex<Reading<'a, R>>,
    /// Locked by who holds `reading`, and kept when that is given back.
    digester: Mutex<Option<&'a mut Digester>>,
    /// By the number of the frame.
    sealed: Mutex<Vec<Option<Result<Sealed>>>>,
    compression: Compression,
    keep: &'a Keep,
    in_memory: AtomicU64,
    spill: Mutex<Option<Arc<Spill>>>,
}

struct Reading<'a, R> {
    input: Input<'a, R>,
    next: usize,
    /// The file has, or somebody failed.
    has_ended: bool,
}

struct Sealed {
    content: Content,
    part: Part,
}

impl<R: Read> Work<'_, R> {
    /// Until there is nothing left to do.
    fn help(&self) {
        let mut raw = Vec::new();
        let mut sealer = None;
        while let Some((number, read)) = self.next(&mut raw) {
            let outcome = read.and_then(|()| self.seal(&raw, &mut sealer));
            if outcome.is_err() {
                lock(&self.reading).has_ended = true;
            }
            let mut sealed = lock(&self.sealed);
            if sealed.len() <= number {
                sealed.resize_with(number + 1, || None);
            }
            sealed[number] = Some(outcome);
        }
    }

    /// A function of its own, since the locks must be free again before the frame is compressed.
    fn next(&self, raw: &mut Vec<u8>) -> Option<(usize, Result<()>)> {
        let mut reading = lock(&self.reading);
        let (number, read) = reading.next(raw)?;
        // Nobody can come in between, so the digester gets the pieces in order too; but the next
        // one may be read meanwhile.
        let mut digester = lock(&self.digester);
        drop(reading);
        if let (Some(digester), Ok(())) = (&mut *digester, &read) {
            digester.write(raw);
        }
        Some((number, read))
    }

    fn seal(&self, raw: &[u8], sealer: &mut Option<FrameSealer>) -> Result<Sealed> {
        let sealer = match sealer {
            Some(sealer) => sealer,
            None => sealer.insert(FrameSealer::new(self.compression)?),
        };
        let frame = sealer.seal(raw)?;
        let part = self.keep(Part::new(frame.bytes))?;
        Ok(Sealed { content: frame.content, part })
    }

    fn keep(&self, part: Part) -> Result<Part> {
        let before = self.in_memory.fetch_add(part.size(), Ordering::Relaxed);
        let Some(bytes) = part.bytes() else { return Ok(part) };
        if before + part.size() <= self.keep.memory_bytes_max {
            return Ok(part);
        }
        let spill = self.spill()?;
        let offset = spill.add(bytes).map_err(|error| unspilled(spill.folder(), error))?;
        Ok(part.moved_to(spill.file(), offset))
    }

    fn spill(&self) -> Result<Arc<Spill>> {
        let mut spill = lock(&self.spill);
        if let Some(spill) = &*spill {
            return Ok(spill.clone());
        }
        let folders = &self.keep.folders;
        let last = folders.last().map_or(Path::new("/var/tmp"), PathBuf::as_path);
        let opened = Spill::open(folders).map_err(|error| unspilled(last, error))?;
        Ok(spill.insert(Arc::new(opened)).clone())
    }

    fn finish(self) -> Result<(Content, Vec<Part>)> {
        let sealed = self.sealed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut content = Content::default();
        let mut parts = Vec::with_capacity(sealed.len());
        // Frames are begun in order, and what was begun is ended: before the first failure none is
        // missing.
        for frame in sealed.into_iter().flatten() {
            let frame = frame?;
            content = content.followed_by(frame.content);
            parts.push(frame.part);
        }
        Ok((content, parts))
    }
}

impl<R: Read> Reading<'_, R> {
    /// The number of a frame whose bytes are now in `raw`. An empty file has one, too.
    fn next(&mut self, raw: &mut Vec<u8>) -> Option<(usize, Result<()>)> {
        if self.has_ended {
            return None;
        }
        let Input { file, size, check, unreadable, .. } = &mut self.input;
        let done = self.next as u64 * FRAME_BYTES as u64;
        raw.resize((*size - done).min(FRAME_BYTES as u64) as usize, 0);
        let read = file.read_exact(raw).map_err(&**unreadable).and_then(|()| check.write(raw));
        self.has_ended = read.is_err() || done + raw.len() as u64 == *size;
        let number = self.next;
        self.next += 1;
        Some((number, read))
    }
}

fn unspilled(folder: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Host,
    };
    let folder = folder.display();
    Error::new(kind, format!("cannot write a temporary file in {folder}")).source(error).hint(
        "Large segments wait there until they are stored: make room, or set state_dir to a \
         directory on a larger disk.",
    )
}

/// Whoever panicked over it is told of by the end of the scope.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use bytes::Bytes;

    use super::{Input, Keep, seal};
    use crate::codec::{Compression, Content, FRAME_BYTES};
    use crate::error::{Error, ErrorKind, Result};
    use crate::postgres::WalFileName;
    use crate::postgres::wal::Digester;
    use crate::postgres::wal::segment::samples;
    use crate::postgres::wal_file_check::WalFileCheck;
    use crate::storage::{Body, Part};

    fn sealed(file: impl Read + Send, size: u64, threads: usize) -> Result<(Content, Vec<Part>)> {
        let keep = Keep { memory_bytes_max: u64::MAX, folders: Vec::new() };
        sealed_and_kept(file, size, threads, &keep)
    }

    fn sealed_and_kept(
        file: impl Read + Send,
        size: u64,
        threads: usize,
        keep: &Keep,
    ) -> Result<(Content, Vec<Part>)> {
        let name = WalFileName::parse(&samples::name().to_string()).unwrap();
        let mut check = WalFileCheck::new(&name);
        let unreadable = |error| Error::new(ErrorKind::InvalidSource, "cannot read").source(error);
        let input =
            Input { file, size, check: &mut check, digester: None, unreadable: &unreadable };
        let sealed = seal(input, keep, Compression::default(), threads)?;
        check.finish()?;
        Ok(sealed)
    }

    /// Eight frames, the last three of zeros.
    fn segment() -> Vec<u8> {
        samples::segment_of(8 * FRAME_BYTES as u32, samples::name(), 300)
    }

    #[test]
    fn any_number_of_threads_seals_the_same_and_plain_zstd_reads_it() {
        let raw = segment();
        let size = raw.len() as u64;
        let alone = Body::of(sealed(&raw[..], size, 1).unwrap().1).to_bytes().unwrap();
        for threads in [0, 1, 2, 3, 4, 9] {
            let (content, parts) = sealed(&raw[..], size, threads).unwrap();
            assert_eq!(content, Content::of(&raw));
            assert_eq!(parts.len(), raw.len().div_ceil(FRAME_BYTES));
            assert!(Body::of(parts).to_bytes().unwrap() == alone, "{threads} threads");
        }
        assert!(zstd::stream::decode_all(&alone[..]).unwrap() == raw);
    }

    #[test]
    fn whoever_reads_the_digest_gets_the_pieces_in_order() {
        let raw = segment();
        let mut alone = Digester::new(samples::name());
        alone.write(&raw);
        let alone = alone.finish().unwrap();
        assert!(alone.invalid.is_none() && alone.records > 1000, "{alone:?}");
        for threads in [1, 2, 4, 9] {
            let name = WalFileName::Segment(samples::name());
            let (mut check, mut digester) =
                (WalFileCheck::new(&name), Digester::new(samples::name()));
            let input = Input {
                file: &raw[..],
                size: raw.len() as u64,
                check: &mut check,
                digester: Some(&mut digester),
                unreadable: &|error| Error::new(ErrorKind::InvalidSource, "read").source(error),
            };
            let keep = Keep { memory_bytes_max: u64::MAX, folders: Vec::new() };
            seal(input, &keep, Compression::default(), threads).unwrap();
            assert_eq!(digester.finish().unwrap(), alone, "{threads} threads");
        }
    }

    #[test]
    fn what_is_too_much_for_memory_goes_into_a_file_and_is_the_same() {
        let raw = segment();
        let size = raw.len() as u64;
        let whole = Body::of(sealed(&raw[..], size, 2).unwrap().1).to_bytes().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (memory_bytes_max, threads) in [(0, 1), (0, 4), (whole.len() as u64 / 2, 2)] {
            let keep = Keep { memory_bytes_max, folders: vec![folder.path().to_owned()] };
            let (content, parts) = sealed_and_kept(&raw[..], size, threads, &keep).unwrap();
            assert_eq!(content, Content::of(&raw));
            let in_memory = parts.iter().filter_map(Part::bytes).map(Bytes::len).sum::<usize>();
            assert!(in_memory as u64 <= memory_bytes_max, "{in_memory}");
            assert!(Body::of(parts).to_bytes().unwrap() == whole);
        }
        let keep = Keep { memory_bytes_max: 0, folders: vec!["/nonexistent".into()] };
        let refused = sealed_and_kept(&raw[..], size, 2, &keep).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Host);
        assert!(refused.one_line().contains("state_dir"), "{}", refused.one_line());
    }

    /// Gives so many bytes, then fails.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let given = to.len().min(self.0);
            self.0 -= given;
            if given == 0 { Err(io::Error::other("bad sector")) } else { Ok(given) }
        }
    }

    #[test]
    fn the_first_failure_in_the_order_of_the_file_ends_it() {
        let raw = segment();
        for threads in [1, 2, 4] {
            let mut damaged = raw.clone();
            damaged[9] ^= 0xFF;
            let file = (&damaged[..2 * FRAME_BYTES]).chain(Broken(7));
            let error = sealed(file, raw.len() as u64, threads).unwrap_err();
            assert!(!error.to_string().contains("cannot read"), "{error}");
            let file = (&raw[..FRAME_BYTES]).chain(Broken(FRAME_BYTES / 2));
            let error = sealed(file, raw.len() as u64, threads).unwrap_err();
            assert!(error.to_string().contains("cannot read"), "{error}");
            let short = sealed(&raw[..raw.len() - 1], raw.len() as u64, threads).unwrap_err();
            assert_eq!(short.kind(), ErrorKind::InvalidSource);
        }
    }
}
