//! Whether a digest can be true: of the segment it stands with, and beside that of its neighbour.

use crate::postgres::wal::Digest;
use crate::postgres::wal::digest::{self, Fragment};
use crate::postgres::{Lsn, SegmentName};

impl Digest {
    /// What it says that cannot be so of a segment of this name and size.
    pub fn contradiction(&self, name: SegmentName, segment_size: u64) -> Option<String> {
        if u64::from(self.segment_size) != segment_size {
            let (says, has) = (self.segment_size, segment_size);
            return Some(format!("its digest is of a segment of {says} bytes, and it has {has}"));
        }
        let start = name.start(self.segment_size);
        let end = Lsn(start.0 + u64::from(self.segment_size));
        let outside = |lsn: &Lsn| *lsn < start || *lsn > end;
        // The record that an end or a commit belongs to lies here whole.
        let places = [
            self.first_record,
            self.end,
            self.first_commit.map(|commit| commit.lsn),
            self.last_commit.map(|commit| commit.lsn),
            self.checkpoint.map(|checkpoint| checkpoint.lsn),
            self.end_of_recovery.map(|recovery| recovery.lsn),
            self.unfinished.as_ref().map(|begun| begun.lsn),
        ];
        if let Some(lsn) = places.into_iter().flatten().find(outside) {
            return Some(format!("its digest tells of WAL at {lsn}, which is not in it"));
        }
        let (first, last) = (self.first_commit, self.last_commit);
        let disordered = first.zip(last).is_some_and(|(first, last)| first.lsn > last.lsn);
        let miscounted =
            (self.commits == 0) != first.is_none() || first.is_some() != last.is_some();
        if disordered || miscounted || self.commits + self.aborts > self.records {
            return Some("its digest contradicts itself".to_owned());
        }
        None
    }

    /// Why the segment of `after` cannot be the one that follows, as far as digests can tell.
    pub fn parts_from(&self, after: &Digest) -> Option<&'static str> {
        let (begun, rest) = (self.unfinished.as_ref()?, after.continued.as_ref()?);
        let here = bytes(begun);
        let is_cut = here + u64::from(rest.total) < u64::from(begun.total);
        if here + u64::from(rest.total) > u64::from(begun.total) {
            return Some("it continues a record of another length");
        }
        // Both are there to the last byte: together they are one record with its checksum.
        let is_whole = !is_cut && bytes(rest) == u64::from(rest.total);
        (is_whole && digest::join(begun, rest, |_| ()).is_none())
            .then_some("the record across both has a wrong checksum")
    }

    /// The first thing in which two digests of one segment differ, as a header would say it; what
    /// only who stored it could know counts as equal.
    pub fn difference(&self, other: &Digest) -> Option<String> {
        let told = |digest: &Digest| {
            let mut digest = digest.clone();
            if let Some(invalid) = &mut digest.invalid {
                (invalid.goes_on, invalid.is_end_of_timeline) = (false, false);
            }
            serde_json::to_value(digest).unwrap_or_default()
        };
        let (one, other) = (told(self), told(other));
        let (one, other) = (one.as_object()?, other.as_object()?);
        let keys = one.keys().chain(other.keys());
        let differs = |key: &&String| one.get(*key) != other.get(*key);
        keys.into_iter().find(differs).map(|key| {
            let word = |value: Option<&serde_json::Value>| match value.map(ToString::to_string) {
                Some(text) if text.len() <= 120 => text,
                Some(_) => "another list".to_owned(),
                None => "nothing".to_owned(),
            };
            format!("{key}: {} is stored, {} is true", word(one.get(key)), word(other.get(key)))
        })
    }
}

/// Of it that are kept.
fn bytes(fragment: &Fragment) -> u64 {
    fragment.bytes.len() as u64 / 2
}

#[cfg(test)]
mod tests {
    use crate::postgres::SegmentName;
    use crate::postgres::wal::samples::{Pen, SEGMENT, commit, end, insert};
    use crate::postgres::wal::{Digest, Digester};

    fn digests() -> Vec<(SegmentName, Digest)> {
        let mut pen = Pen::new(17);
        pen.record(&insert(700));
        pen.record(&commit(700, 8_000_000));
        // To the last few bytes of the segment.
        while pen.lsn().0 % SEGMENT < SEGMENT - 200 {
            pen.record(&insert(700));
        }
        let subtransactions: Vec<u32> = (800..900).collect();
        pen.record(&end(700, 0, 9_000_000, &subtransactions, &[]));
        pen.switch();
        let digest = |(name, bytes): (SegmentName, Vec<u8>)| {
            let mut digester = Digester::new(name);
            digester.write(&bytes);
            (name, digester.finish().unwrap())
        };
        pen.segments().into_iter().map(digest).collect()
    }

    #[test]
    fn a_digest_fits_its_own_segment_and_no_other() {
        let digests = digests();
        let (first, second) = (&digests[0], &digests[1]);
        assert_eq!(first.1.contradiction(first.0, 1 << 20), None);
        assert_eq!(second.1.contradiction(second.0, 1 << 20), None);
        assert!(first.1.contradiction(second.0, 1 << 20).unwrap().contains("not in it"));
        assert!(first.1.contradiction(first.0, 2 << 20).unwrap().contains("bytes"));
        let lying = Digest { commits: 0, ..first.1.clone() };
        assert_eq!(lying.contradiction(first.0, 1 << 20).unwrap(), "its digest contradicts itself");
    }

    #[test]
    fn neighbours_share_the_record_across_both() {
        let digests = digests();
        let (first, second) = (&digests[0].1, &digests[1].1);
        assert!(first.unfinished.is_some() && second.continued.is_some());
        assert_eq!(first.parts_from(second), None);
        let mut other = second.clone();
        let rest = other.continued.as_mut().unwrap();
        rest.bytes.replace_range(0..2, if &rest.bytes[0..2] == "00" { "01" } else { "00" });
        assert!(first.parts_from(&other).unwrap().contains("checksum"));
        let mut longer = second.clone();
        longer.continued.as_mut().unwrap().total += 8;
        assert!(first.parts_from(&longer).unwrap().contains("another length"));
    }

    #[test]
    fn what_differs_is_named() {
        let digest = digests().remove(0).1;
        assert_eq!(digest.difference(&digest), None);
        let lying = Digest { commits: digest.commits + 7, ..digest.clone() };
        let said = lying.difference(&digest).unwrap();
        assert_eq!(said, "commits: 8 is stored, 1 is true");
    }
}
