//! A file in pg_wal: read once, checked against its name, its server and its records, and sealed.

use std::fs::File;
use std::io::{self, Read};
use std::iter;
use std::path::Path;

use crate::codec::{Compression, Content, Header, Kind, Origin};
use crate::commands::archive::Caller;
use crate::commands::archive::push::frames::{self, Input, Keep};
use crate::commands::archive::push::{lost_record, timeline_end};
use crate::config::OnInvalid;
use crate::error::{Error, ErrorKind, Result};
use crate::host::{page_cache, spill};
use crate::postgres::wal::digest::{Digest, InvalidRecord};
use crate::postgres::wal::{Digester, SegmentFacts};
use crate::postgres::wal_file_check::WalFileCheck;
use crate::postgres::{SystemIdentifier, WalFileName};
use crate::storage::{Body, Part};

/// Segments of 16 and 32 MiB stay in memory, whatever they hold; of larger ones, the rest goes into
/// a temporary file.
const MEMORY_BYTES_MAX: u64 = 32 << 20;

/// A file in pg_wal, and the server it belongs to.
pub struct Source<'a> {
    pub path: &'a Path,
    pub name: WalFileName,
    pub caller: &'a Caller,
    /// As it is configured; what is too large for memory waits there.
    pub state_dir: Option<&'a Path>,
    pub on_invalid: OnInvalid,
}

/// By whom a file is sealed.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub compression: Compression,
    /// At most.
    pub threads: usize,
}

/// A file ready to be stored.
pub struct Sealed {
    pub body: Body,
    pub origin: Origin,
    /// Of the raw content.
    pub crc32: u32,
    /// What somebody should know of it, once it is stored.
    remark: Option<String>,
}

/// Which bytes of a file are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    /// Those at hand.
    Cached,
    /// Those on the disk.
    OnDisk,
}

/// What one reading of the file gave.
struct Reading {
    content: Content,
    parts: Vec<Part>,
    /// `None` for text files.
    facts: Option<SegmentFacts>,
    owner: SystemIdentifier,
    digest: Option<Digest>,
    /// WAL that is not valid, in what is the right file otherwise.
    damage: Option<Error>,
}

impl Sealed {
    /// To be called once it is stored.
    pub fn tell(&self, name: &WalFileName) {
        if let Some(remark) = &self.remark {
            tracing::warn!(%name, "{remark}");
        }
    }
}

impl Source<'_> {
    /// Reads the file once: checked, digested, counted, compressed in the same pass; and once more
    /// where it is not what it should be, past the page cache, in case it is on the disk.
    pub fn seal(&self, effort: Effort) -> Result<Sealed> {
        self.seal_from(effort, |copy| {
            let file = File::open(self.path)?;
            if copy == Copy::OnDisk {
                page_cache::drop_pages_of(&file);
            }
            let size = file.metadata()?.len();
            Ok((file, size))
        })
    }

    /// `open` gives the bytes and their number.
    fn seal_from<R: Read + Send>(
        &self,
        effort: Effort,
        open: impl Fn(Copy) -> io::Result<(R, u64)>,
    ) -> Result<Sealed> {
        let read = |copy| {
            let (file, size) = open(copy).map_err(|error| self.unreadable(error))?;
            self.read(effort, file, size)
        };
        let at_first = match read(Copy::Cached) {
            Ok(reading @ Reading { damage: None, .. }) => return Ok(self.sealed(reading, None)),
            Ok(Reading { damage: Some(damage), .. }) => damage,
            Err(error) if is_of_content(&error) => error,
            Err(error) => return Err(error),
        };
        let mut again = read(Copy::OnDisk)?;
        let remark = match (again.damage.take(), self.on_invalid) {
            (None, ..) => format!(
                "archived as it is on the disk; the page cache or memory differed from that: \
                 {at_first}; test this machine's memory"
            ),
            (Some(damage), OnInvalid::Archive) => {
                format!("archived with a mark, recovery ends in it: {damage}; take a base backup")
            }
            (Some(damage), ..) => return Err(damage),
        };
        Ok(self.sealed(again, Some(remark)))
    }

    fn read<R: Read + Send>(&self, effort: Effort, file: R, size: u64) -> Result<Reading> {
        let mut check = WalFileCheck::new(&self.name);
        // Of a `.partial` nobody asks what is in it: recovery never reads one, and it ends in what
        // the recycled file held before.
        let mut digester = match self.name {
            WalFileName::Segment(segment) => Some(Digester::new(segment)),
            _ => None,
        };
        let unreadable = |error| self.unreadable(error);
        let input = Input {
            file,
            size,
            check: &mut check,
            digester: digester.as_mut(),
            unreadable: &unreadable,
        };
        let keep = Keep {
            memory_bytes_max: MEMORY_BYTES_MAX,
            folders: spill::folders(self.state_dir, Path::new(&self.caller.place)),
        };
        let (content, parts) = frames::seal(input, &keep, effort.compression, effort.threads)?;
        let facts = check.finish()?;
        let owner = self.owner(facts)?;
        let mut digest = digester.and_then(Digester::finish);
        if let Some(digest) = digest.as_mut().filter(|digest| self.ends_in_a_lost_record(digest)) {
            digest.invalid = None;
        }
        let is_the_end = digest.as_mut().is_some_and(|digest| self.ends_its_timeline(digest));
        let damage = match digest.as_ref().and_then(|digest| digest.invalid.as_ref()) {
            _ if is_the_end => None,
            invalid => invalid.map(|invalid| self.invalid(invalid)),
        };
        Ok(Reading { content, parts, facts, owner, digest, damage })
    }

    fn sealed(&self, reading: Reading, remark: Option<String>) -> Sealed {
        let Reading { content, parts, facts, owner, digest, .. } = reading;
        let origin = self.caller.origin(owner);
        let name = self.name.to_string();
        let mut header = Header::new(kind(&self.name), name, content, origin.clone());
        header.digest = digest.map(Box::new);
        let is_unknown = facts.is_some_and(|facts| facts.version.is_none());
        let unknown =
            || "archived unchecked: WAL of a PostgreSQL version unknown to walden".to_owned();
        let body = Body::of(iter::once(Part::new(header.to_frame())).chain(parts));
        let remark = remark.or_else(|| is_unknown.then(unknown));
        Sealed { body, origin, crc32: content.crc32, remark }
    }

    /// The cluster the file belongs to: what the WAL itself says, which must be what the data
    /// directory says.
    fn owner(&self, facts: Option<SegmentFacts>) -> Result<SystemIdentifier> {
        let Some(facts) = facts else { return self.caller.system_identifier() };
        let found = facts.system_identifier;
        match self.caller.control_file {
            Some(ours) if ours.system_identifier != found => Err(Error::new(
                ErrorKind::ForeignCluster,
                format!(
                    "file is of cluster {found}, {} is {}",
                    self.caller.place, ours.system_identifier
                ),
            )
            .hint("Somebody put WAL of another cluster into this pg_wal; nothing was archived.")),
            _ => Ok(found),
        }
    }

    fn ends_in_a_lost_record(&self, digest: &Digest) -> bool {
        let WalFileName::Segment(segment) = &self.name else { return false };
        lost_record::was_lost(self.path, segment, digest)
    }

    /// What is not valid is then no damage, but stays in the digest: recovery ends there.
    fn ends_its_timeline(&self, digest: &mut Digest) -> bool {
        let WalFileName::Segment(segment) = &self.name else { return false };
        let continued_by = timeline_end::continued_by(self.path, segment, digest);
        if let (Some(timeline), Some(invalid)) = (continued_by, &mut digest.invalid) {
            invalid.what = format!("the WAL goes on with timeline {timeline}");
            invalid.is_end_of_timeline = true;
        }
        continued_by.is_some()
    }

    fn invalid(&self, invalid: &InvalidRecord) -> Error {
        let InvalidRecord { lsn, what, .. } = invalid;
        let message = format!("not valid WAL of {}: record at {lsn}: {what}", self.name);
        Error::new(ErrorKind::InvalidSource, message).hint(
            "Recovery would end there. Read twice, the second time from the disk: look at the \
             disk and at who else writes to pg_wal; put the file of a standby in its place, or \
             set push.on_invalid to archive until the next base backup.",
        )
    }

    fn unreadable(&self, error: io::Error) -> Error {
        Error::new(ErrorKind::InvalidSource, format!("cannot read {}", self.path.display()))
            .source(error)
            .hint("Does the file exist, and may the server's user read it?")
    }
}

/// Whether other bytes would have made no error.
fn is_of_content(error: &Error) -> bool {
    let is_read = error.cause::<io::Error>().is_none();
    is_read && matches!(error.kind(), ErrorKind::InvalidSource | ErrorKind::ForeignCluster)
}

fn kind(name: &WalFileName) -> Kind {
    match name {
        WalFileName::Segment(_) => Kind::Segment,
        WalFileName::Partial(_) => Kind::Partial,
        WalFileName::History(_) => Kind::History,
        WalFileName::BackupHistory(..) => Kind::BackupHistory,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::path::Path;

    use super::{Copy, Effort, Sealed, Source};
    use crate::codec::{self, Compression, Header};
    use crate::commands::archive::Caller;
    use crate::config::OnInvalid;
    use crate::error::{ErrorKind, Result};
    use crate::postgres::control_file::ControlFile;
    use crate::postgres::wal::segment::samples;
    use crate::postgres::{SystemIdentifier, WalFileName};

    const EFFORT: Effort = Effort { compression: Compression { level: 1 }, threads: 2 };

    fn segment() -> Vec<u8> {
        samples::segment(samples::name(), 100)
    }

    fn damaged_at(at: usize) -> Vec<u8> {
        let mut bytes = segment();
        bytes[at] ^= 0x10;
        bytes
    }

    /// Of a file that is `cached` in memory and another one `on_disk`, and how often it was read.
    fn sealed(
        name: &str,
        [cached, on_disk]: [&[u8]; 2],
        on_invalid: OnInvalid,
    ) -> (Result<Sealed>, usize) {
        let control_file = ControlFile {
            system_identifier: SystemIdentifier(samples::SYSTEM_IDENTIFIER),
            wal_segment_size: None,
            max_prepared_transactions: None,
            checkpoint: None,
        };
        let caller = Caller { control_file: Some(control_file), place: "/data".to_owned() };
        let name = WalFileName::parse(name).unwrap();
        let path = Path::new("/data/pg_wal/it");
        let source = Source { path, name, caller: &caller, state_dir: None, on_invalid };
        let asked = RefCell::new(Vec::new());
        let sealed = source.seal_from(EFFORT, |copy| {
            asked.borrow_mut().push(copy);
            let bytes = if copy == Copy::Cached { cached } else { on_disk };
            Ok::<_, io::Error>((bytes, bytes.len() as u64))
        });
        let asked = asked.into_inner();
        assert_eq!(asked, [Copy::Cached, Copy::OnDisk][..asked.len()]);
        (sealed, asked.len())
    }

    fn opened(sealed: &Sealed) -> (Header, Vec<u8>) {
        let object = sealed.body.to_bytes().unwrap();
        let mut content = Vec::new();
        let header = codec::open(&object[..], |piece| {
            content.extend_from_slice(piece);
            Ok(())
        });
        (header.unwrap(), content)
    }

    fn name() -> String {
        samples::name().to_string()
    }

    #[test]
    fn a_segment_is_read_once_and_takes_its_digest_along() {
        let good = segment();
        let (sealed, readings) = sealed(&name(), [&good, &[]], OnInvalid::Refuse);
        let sealed = sealed.unwrap();
        let (header, content) = opened(&sealed);
        assert_eq!((readings, &sealed.remark), (1, &None));
        assert!(content == good);
        let digest = header.digest.unwrap();
        assert_eq!((digest.segment_size, digest.invalid), (samples::SEGMENT_SIZE, None));
        assert!(digest.records > 100, "{}", digest.records);
    }

    /// A crash in the middle of it leaves what the recycled file held before, and the server goes
    /// on in the next segment (`CopyXLogRecordToWAL`, xlog.c).
    #[test]
    fn what_lies_behind_a_switch_is_no_damage() {
        let mut interrupted = segment();
        interrupted[110 * 8192..].fill(0x55);
        let (sealed, readings) = sealed(&name(), [&interrupted, &[]], OnInvalid::Refuse);
        let (header, content) = opened(&sealed.unwrap());
        assert_eq!((readings, header.digest.unwrap().invalid), (1, None));
        assert!(content == interrupted);
    }

    #[test]
    fn what_is_wrong_in_memory_only_is_archived_as_it_is_on_the_disk() {
        let good = segment();
        let other_cluster = damaged_at(25);
        for wrong in [damaged_at(300_000), damaged_at(5 * 8192), damaged_at(9), other_cluster] {
            let (sealed, readings) = sealed(&name(), [&wrong, &good], OnInvalid::Refuse);
            let sealed = sealed.unwrap();
            let (header, content) = opened(&sealed);
            assert_eq!(readings, 2);
            assert!(content == good);
            assert_eq!(header.digest.unwrap().invalid, None);
            let remark = sealed.remark.unwrap();
            assert!(remark.contains("memory differed"), "{remark}");
        }
    }

    #[test]
    fn what_is_wrong_on_the_disk_too_is_refused_and_the_record_named() {
        let wrong = damaged_at(300_000);
        let (refused, readings) = sealed(&name(), [&wrong, &wrong], OnInvalid::Refuse);
        let refused = refused.err().unwrap();
        assert_eq!((refused.kind(), readings), (ErrorKind::InvalidSource, 2));
        assert!(refused.to_string().contains("record at A/FF48F30"), "{refused}");
        assert!(refused.one_line().contains("on_invalid"), "{}", refused.one_line());
        // Wrong in another place, which is no better.
        let (refused, _) = sealed(&name(), [&wrong, &damaged_at(9)], OnInvalid::Refuse);
        assert_eq!(refused.err().unwrap().kind(), ErrorKind::InvalidSource);
    }

    #[test]
    fn told_to_archive_it_all_the_same_it_gets_a_mark() {
        let in_a_record = damaged_at(300_000);
        let page_header = damaged_at(5 * 8192 + 9);
        for wrong in [in_a_record, page_header] {
            let (sealed, readings) = sealed(&name(), [&wrong, &wrong], OnInvalid::Archive);
            let sealed = sealed.unwrap();
            let (header, content) = opened(&sealed);
            assert_eq!(readings, 2);
            assert!(content == wrong);
            let invalid = header.digest.unwrap().invalid.unwrap();
            let remark = sealed.remark.unwrap();
            assert!(remark.contains("archived with a mark"), "{remark}");
            assert!(invalid.lsn >= samples::name().start(samples::SEGMENT_SIZE), "{invalid:?}");
        }
    }

    #[test]
    fn what_is_another_file_is_refused_whatever_was_told() {
        let mut elsewhere = segment();
        elsewhere[9] ^= 1;
        let short = &segment()[..samples::SEGMENT_SIZE as usize - 8192];
        for wrong in [&elsewhere, short, &[]] {
            let (refused, readings) = sealed(&name(), [wrong, wrong], OnInvalid::Archive);
            assert_eq!(refused.err().unwrap().kind(), ErrorKind::InvalidSource);
            assert_eq!(readings, 2);
        }
    }

    #[test]
    fn of_a_partial_and_of_wal_to_come_the_records_are_not_read() {
        let mut recycled = segment();
        recycled[50 * 8192..].fill(0x55);
        let (partial, readings) =
            sealed(&format!("{}.partial", name()), [&recycled, &[]], OnInvalid::Refuse);
        assert_eq!((opened(&partial.unwrap()).0.digest, readings), (None, 1));

        let mut unknown = segment();
        unknown[..2].copy_from_slice(&0xD120u16.to_le_bytes());
        unknown[300_000] ^= 1;
        let (unknown, readings) = sealed(&name(), [&unknown, &[]], OnInvalid::Refuse);
        let unknown = unknown.unwrap();
        assert_eq!((opened(&unknown).0.digest, readings), (None, 1));
        assert!(unknown.remark.unwrap().contains("unchecked"));
    }
}
