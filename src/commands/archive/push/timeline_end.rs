//! A segment in which its timeline ended: what follows the last record is not damage.
//!
//! A standby that archives (`archive_mode` = always) and follows a promotion closes the segment it
//! was receiving and archives it under its full name (`WalReceiverMain`, walreceiver.c). After the
//! last record it holds zeros, or what the recycled file held before. The history file that says
//! so is in pg_wal by then.

use std::fs;
use std::path::Path;

use crate::postgres::history_file::HistoryFile;
use crate::postgres::wal::digest::Digest;
use crate::postgres::{Lsn, SegmentName, TimelineId, WalFileName};

/// The timeline that goes on from before the first record that is not valid, as a history file
/// beside it says.
///
/// Mostly from the very place the records end at. But who followed the old timeline may have
/// received more of it than the one that was promoted: valid records behind the branch, or the
/// first part of a long one that goes on in this segment and ends nowhere.
pub fn continued_by(path: &Path, segment: &SegmentName, digest: &Digest) -> Option<TimelineId> {
    let invalid = digest.invalid.as_ref()?;
    let start = segment.start(digest.segment_size);
    // Named by where the segment begins: a record that began before it.
    let ends_nothing = digest.end.is_none() && invalid.lsn == start;
    let entries = fs::read_dir(path.parent()?).ok()?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let timelines = names.filter_map(|name| match WalFileName::parse(&name) {
        Ok(WalFileName::History(timeline)) => Some(timeline),
        _ => None,
    });
    timelines.filter(|timeline| *timeline > segment.timeline).find(|timeline| {
        let branched = branched_off(path, *timeline, segment.timeline);
        branched.is_some_and(|at| at <= invalid.lsn && (start <= at || ends_nothing))
    })
}

/// Where `timeline`, or an ancestor of its, branched off from `parent`.
fn branched_off(path: &Path, timeline: TimelineId, parent: TimelineId) -> Option<Lsn> {
    let name = WalFileName::History(timeline).to_string();
    let text = fs::read_to_string(path.with_file_name(name)).ok()?;
    let history = HistoryFile::parse(timeline, &text).ok()?;
    history.ancestors.iter().find(|one| one.timeline == parent).map(|one| one.end)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::continued_by;
    use crate::postgres::TimelineId;
    use crate::postgres::wal::Digester;
    use crate::postgres::wal::samples::{Draft, Pen, insert, main_data};
    use crate::postgres::wal::segment::samples;

    #[test]
    fn only_where_a_history_file_names_the_very_place_the_records_end_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(samples::name().to_string());
        let digest_of = |bytes: &[u8]| {
            let mut digester = Digester::new(samples::name());
            digester.write(bytes);
            digester.finish().unwrap()
        };
        let whole = samples::segment(samples::name(), 100);
        let cut_off = |at: usize, with: u8| {
            let mut bytes = whole.clone();
            bytes[at..].fill(with);
            digest_of(&bytes)
        };
        // Any place will do: the record there is torn, and the one before it is the last.
        let (zeros, recycled) = (cut_off(30 * 8192 - 16, 0), cut_off(30 * 8192 - 16, 0x55));
        let (further, earlier) = (cut_off(60 * 8192, 0x55), cut_off(20 * 8192, 0));
        let sound = digest_of(&whole);
        let end = zeros.end.unwrap();
        let continued = |digest| continued_by(&path, &samples::name(), digest).map(TimelineId::get);
        assert!(zeros.invalid.is_some() && recycled.invalid.is_some());
        assert_eq!(continued(&zeros), None, "no history file");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("00000003.history", "1\tA/10\tno\n2\tA/FE00028\tno\n");
        write("00000006.history", "2\tA/FFF0028\tno\n");
        write("00000004.history", "what is this");
        assert_eq!(continued(&zeros), None, "another place");
        write("00000005.history", &format!("2\t{end}\tno recovery target specified\n"));
        assert_eq!((continued(&zeros), continued(&recycled)), (Some(5), Some(5)));
        assert_eq!(continued(&sound), None, "nothing is wrong with it");
        assert_eq!(continued(&further), Some(5), "more had come than the promoted server had");
        assert_eq!(continued(&earlier), None, "damaged before the branch");
    }
    #[test]
    fn a_record_that_goes_on_behind_the_branch_and_ends_nowhere() {
        let mut pen = Pen::new(17);
        pen.record(&insert(8));
        pen.fill_with(&insert(8));
        let at = pen.record(&Draft { body: main_data(&[5; 700_000]), ..insert(8) });
        let (name, mut bytes) = pen.segments().remove(1);
        bytes[3 * 8192..].fill(0);
        let mut digester = Digester::new(name);
        digester.write(&bytes);
        let digest = digester.finish().unwrap();
        assert!(digest.invalid.is_some());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name.to_string());
        assert_eq!(continued_by(&path, &name, &digest), None, "no history file");
        let history = format!("1\t{at}\tno recovery target specified\n");
        fs::write(folder.path().join("00000002.history"), history).unwrap();
        assert!(continued_by(&path, &name, &digest).is_some());
    }
}
