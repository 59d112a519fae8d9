//! A record that a crash cut off at the end of its segment: what is there of it is not damage.
//!
//! The last page of a segment may be written while a record at its end is still being copied into
//! it. If the server crashes then, recovery passes over that record and begins the next segment
//! with `XLP_FIRST_IS_OVERWRITE_CONTRECORD`: nobody will ever ask whether its parts fit together.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::postgres::SegmentName;
use crate::postgres::wal::digest::Digest;
use crate::postgres::wal::page::{LONG_HEADER_BYTES, LongPageHeader};

/// Whether the next segment, beside this one, says that the record was lost.
pub fn was_lost(path: &Path, segment: &SegmentName, digest: &Digest) -> bool {
    let Some(invalid) = digest.invalid.as_ref() else { return false };
    if !invalid.goes_on {
        return false;
    }
    let next = segment.next(digest.segment_size);
    let mut header = [0; LONG_HEADER_BYTES];
    let read = File::open(path.with_file_name(next.to_string()))
        .and_then(|mut file| file.read_exact(&mut header));
    let first = LongPageHeader::parse(&header);
    read.is_ok()
        && first.page.address == next.start(digest.segment_size)
        && first.segment_size == digest.segment_size
        && first.page.is_overwrite
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::was_lost;
    use crate::postgres::wal::Digester;
    use crate::postgres::wal::samples::{Draft, Pen, SEGMENT, commit, insert, main_data};

    #[test]
    fn only_if_the_next_segment_says_so() {
        let mut pen = Pen::new(17);
        pen.record(&insert(8));
        pen.fill_with(&insert(8));
        let last = pen.record(&commit(7, 1));
        let body = main_data(&[3; 9000]);
        let cut_off = pen.record(&Draft { xid: 0, resource_manager: 21, info: 0, body });
        let (name, bytes) = pen.segments().remove(0);
        let digest_of = |bytes: &[u8]| {
            let mut digester = Digester::new(name);
            digester.write(bytes);
            digester.finish().unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name.to_string());
        let next = path.with_file_name(name.next(SEGMENT as u32).to_string());

        // Of the record, the header was there and what follows it was not.
        let mut torn = bytes.clone();
        torn[(cut_off.0 % SEGMENT) as usize + 24..].fill(0);
        let torn = digest_of(&torn);
        assert_eq!(torn.invalid.as_ref().map(|invalid| invalid.lsn), Some(cut_off));
        assert!(!was_lost(&path, &name, &torn), "nobody says so");
        fs::write(&next, &pen.segments()[1].1).unwrap();
        assert!(!was_lost(&path, &name, &torn), "the next segment goes on with it");
        pen.crash(1, last);
        fs::write(&next, &pen.segments()[1].1).unwrap();
        assert!(was_lost(&path, &name, &torn));

        let mut damaged = bytes.clone();
        damaged[(last.0 % SEGMENT) as usize + 26] ^= 1;
        assert!(!was_lost(&path, &name, &digest_of(&damaged)), "a record before it");
        assert!(!was_lost(&path, &name, &digest_of(&bytes)), "nothing is wrong");
    }
}
