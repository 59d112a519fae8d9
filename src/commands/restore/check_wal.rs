//! `--check-wal`: everything that will be replayed is fetched and read record by record before a
//! byte is written.

use crate::commands::restore::records::read_with_first_page;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::wal::Link;
use crate::postgres::wal::link::Ends;
use crate::postgres::{Lsn, SegmentName};
use crate::repository::Home;
use crate::repository::parallel::ask_all;

/// What was read, for the plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CheckedWal {
    pub segments: u64,
    pub records: u64,
}

/// `until`: nothing from there on is replayed. `progress` is told of each segment, from any thread.
pub fn check_wal(
    home: &Home,
    segments: &[SegmentName],
    until: Option<Lsn>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<CheckedWal> {
    let links = ask_all(segments, |segment| {
        let link = read(home, *segment)?;
        progress(1);
        Ok(link)
    })?;
    for link in &links {
        expect_valid(link, until)?;
    }
    for pair in links.windows(2) {
        if let [before, after] = pair
            && let Err(what) = before.joins(after)
        {
            return Err(refused(format!(
                "{} does not go on where {} ends: {what}",
                after.name, before.name
            )));
        }
    }
    let records = links.iter().map(|link| link.outcome.records).sum();
    Ok(CheckedWal { segments: links.len() as u64, records })
}

fn read(home: &Home, name: SegmentName) -> Result<Link> {
    let mut ends = Ends::default();
    let (outcome, first_page) = read_with_first_page(home, name, |record| ends.see(record))?;
    // No checksum covers it, and the header of the object may say another.
    let found = first_page.system_identifier;
    if found != home.system_identifier() {
        return Err(refused(format!(
            "the WAL in {name} is of cluster {found}, not of {}",
            home.system_identifier()
        )));
    }
    Ok(ends.link(name, outcome))
}

fn expect_valid(link: &Link, until: Option<Lsn>) -> Result<()> {
    if link.outcome.version.is_none() && link.outcome.invalid.is_none() {
        return Err(refused(format!("{} is WAL of a version that walden cannot read", link.name)));
    }
    match &link.outcome.invalid {
        Some(invalid) if until.is_none_or(|until| invalid.lsn < until) => Err(refused(format!(
            "the WAL at {} in {} is not valid: {}",
            invalid.lsn, link.name, invalid.what
        ))),
        _ => Ok(()),
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Refused, message).hint(
        "Recovery would end there: choose a target before it, or archive the file anew if a \
         server still has it in pg_wal.",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::check_wal;
    use crate::catalog::recovery_plan::ReadRecords as _;
    use crate::commands::restore::records::WalRecords;
    use crate::commands::restore::samples::{origin, put_wal};
    use crate::error::{ErrorKind, Result};
    use crate::postgres::wal::samples::{Pen, commit, end, insert};
    use crate::postgres::{Lsn, SegmentName, SystemIdentifier};
    use crate::repository::{ClusterName, Home, Repository};
    use crate::storage::memory::Memory;

    fn home(segments: &[(SegmentName, Vec<u8>)]) -> Home {
        let name = ClusterName::new("main").unwrap();
        let home = Repository::new(Arc::new(Memory::new()), name).home(SystemIdentifier(7));
        home.claim(&origin()).unwrap();
        segments.iter().for_each(|(name, bytes)| put_wal(&home, &name.to_string(), bytes));
        home
    }

    /// Two segments, with a commit that begins in one and ends in the next.
    fn written(xid: u32) -> (Vec<(SegmentName, Vec<u8>)>, Lsn) {
        let mut pen = Pen::new(17);
        pen.record(&insert(xid));
        pen.fill_with(&insert(xid));
        let subtransactions: Vec<u32> = (800..2000).collect();
        let across = pen.record(&end(xid, 0, 9_000_000, &subtransactions, &[]));
        pen.fill_with(&insert(xid + 1));
        pen.record(&commit(xid + 1, 10_000_000));
        pen.switch();
        (ours(pen.segments()), across)
    }

    /// Of the cluster that the samples of backups are of: no checksum covers it.
    fn ours(mut segments: Vec<(SegmentName, Vec<u8>)>) -> Vec<(SegmentName, Vec<u8>)> {
        for (_, bytes) in &mut segments {
            bytes[24..32].copy_from_slice(&7_u64.to_le_bytes());
        }
        segments
    }

    fn check(segments: &[(SegmentName, Vec<u8>)], until: Option<Lsn>) -> Result<u64> {
        let names: Vec<SegmentName> = segments.iter().map(|(name, _)| *name).collect();
        let told = AtomicU64::new(0);
        let progress = |count| {
            told.fetch_add(count, Ordering::Relaxed);
        };
        let checked = check_wal(&home(segments), &names, until, &progress)?;
        assert_eq!(told.into_inner(), checked.segments);
        assert!(checked.records > 1000, "{checked:?}");
        Ok(checked.segments)
    }

    fn refusal(segments: &[(SegmentName, Vec<u8>)]) -> String {
        let error = check(segments, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.hint_text().is_some());
        error.to_string()
    }

    #[test]
    fn sound_wal_passes_and_a_flipped_byte_does_not() {
        let (segments, _) = written(700);
        assert_eq!(check(&segments, None).unwrap(), segments.len() as u64);
        let mut flipped = segments.clone();
        flipped[1].1[9000] ^= 1;
        let said = refusal(&flipped);
        assert!(said.contains("in 000000010000000000000006 is not valid: record has"), "{said}");
        let start = flipped[1].0.start(1 << 20);
        assert!(check(&flipped, Some(start)).is_ok(), "what is not replayed does not matter");
    }

    #[test]
    fn segments_of_different_histories_do_not_go_on_from_each_other() {
        let (segments, _) = written(700);
        let mut mixed = segments.clone();
        mixed[1].1[40..48].copy_from_slice(&[7; 8]);
        let said = refusal(&mixed);
        assert!(said.contains("000000010000000000000006 does not go on where"), "{said}");
        assert!(said.contains("wrong checksum"), "{said}");

        // Of the same shape but for one record.
        let mut pen = Pen::new(17);
        pen.record(&insert(700));
        pen.switch();
        let mut mixed = segments;
        mixed[0] = ours(pen.segments()).swap_remove(0);
        assert!(refusal(&mixed).contains("continues a record that was not begun"));
    }

    #[test]
    fn another_clusters_wal_is_told_by_its_first_page() {
        let (mut segments, _) = written(700);
        segments[1].1[24] ^= 1;
        let said = refusal(&segments);
        assert!(said.contains("000000010000000000000006 is of cluster"), "{said}");
    }

    #[test]
    fn a_commit_across_two_segments_is_read_with_the_one_before() {
        let (segments, across) = written(700);
        let home = home(&segments);
        let reader = WalRecords::new(&home);
        let (before, segment) = (segments[0].0, segments[1].0);
        let records = reader.records(segment, Some(before)).unwrap();
        assert_eq!(records.starts[0], across);
        let ends: Vec<(u32, Lsn)> =
            records.endings.iter().map(|end| (end.at.xid, end.at.lsn)).collect();
        assert_eq!(ends[0], (700, across));
        let alone = reader.records(segment, None).unwrap();
        assert_eq!(alone.starts.len() + 1, records.starts.len());
        assert!(reader.records(before, None).unwrap().endings.is_empty(), "it does not end there");
    }
}
