//! Chains of backups: an incremental one rests on its parent, that on its own, down to a full one.
//! Without any of them it is worth nothing.

use std::fmt;

use crate::catalog::{BackupSummary, TimelinePath, TimelineTree};
use crate::postgres::{Lsn, MajorVersion, TimelineId};

/// A backup with all that it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain<'a> {
    /// The full one first; never empty.
    links: Vec<&'a BackupSummary>,
}

impl<'a> Chain<'a> {
    /// The whole chain of `backup`, of which `backups` holds the other links, or what is wrong with
    /// it.
    pub fn of(
        backup: &'a BackupSummary,
        backups: &'a [BackupSummary],
        tree: &TimelineTree,
    ) -> Result<Chain<'a>, Broken> {
        let mut links = vec![backup];
        let mut child = backup;
        while let Some(id) = &child.parent {
            let broken = |why| Broken { backup: child.id.clone(), parent: id.clone(), why };
            if links.iter().any(|link| link.id == *id) {
                return Err(broken(Fault::Loop));
            }
            let parent = backups.iter().find(|backup| backup.id == *id);
            let parent = parent.ok_or_else(|| broken(Fault::Missing))?;
            let path = tree.path(child.timeline).map_err(|_| broken(Fault::NoHistory))?;
            check_link(child, parent, &path).map_err(broken)?;
            links.push(parent);
            child = parent;
        }
        links.reverse();
        Ok(Chain { links })
    }

    /// The full one first.
    pub fn links(&self) -> &[&'a BackupSummary] {
        &self.links
    }

    pub fn full(&self) -> &'a BackupSummary {
        self.links[0]
    }

    /// That the chain is of.
    pub fn last(&self) -> &'a BackupSummary {
        self.links[self.links.len() - 1]
    }

    /// How many backups it has; 1 for a full one.
    pub fn length(&self) -> usize {
        self.links.len()
    }

    /// What a restore has to fetch, in bytes as stored, at the most.
    pub fn stored(&self) -> u64 {
        self.links.iter().map(|link| link.stored).sum()
    }
}

/// Why a backup cannot be used: the link that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub backup: String,
    pub parent: String,
    pub why: Fault,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    Missing,
    Loop,
    /// The child's timeline has no history file.
    NoHistory,
    /// The parent holds WAL positions that are not of the child's history.
    OtherBranch {
        parent: TimelineId,
        end: Lsn,
        path: String,
    },
    Later {
        parent: Lsn,
        child: Lsn,
    },
    OtherMajor(MajorVersion, MajorVersion),
    OtherSegmentSize(u32, u32),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { backup, parent, why } = self;
        match why {
            Fault::Missing => {
                write!(f, "backup {parent}, the parent of {backup}, is missing or cannot be read")
            }
            Fault::Loop => write!(f, "backup {parent} rests on itself, by way of {backup}"),
            Fault::NoHistory => {
                write!(f, "{backup} rests on {parent}, and the history of its timeline is missing")
            }
            Fault::OtherBranch { parent: timeline, end, path } => write!(
                f,
                "{backup} rests on {parent}, which ends at {end} of timeline {timeline}: that is \
                 not on its own way ({path})"
            ),
            Fault::Later { parent: later, child } => write!(
                f,
                "{backup} begins at {child} and rests on {parent}, which begins later, at {later}"
            ),
            Fault::OtherMajor(parents, childs) => write!(
                f,
                "{backup} is of PostgreSQL {childs} and rests on {parent}, which is of {parents}"
            ),
            Fault::OtherSegmentSize(parents, childs) => write!(
                f,
                "{backup} has WAL segments of {childs} bytes and rests on {parent}, which has \
                 {parents}"
            ),
        }
    }
}

/// `path` is the way to the child's timeline.
fn check_link(
    child: &BackupSummary,
    parent: &BackupSummary,
    path: &TimelinePath,
) -> Result<(), Fault> {
    if parent.major != child.major {
        return Err(Fault::OtherMajor(parent.major, child.major));
    }
    if parent.wal_segment_size != child.wal_segment_size {
        return Err(Fault::OtherSegmentSize(parent.wal_segment_size, child.wal_segment_size));
    }
    if !path.contains(parent.timeline, parent.end_lsn) {
        let (parent, end, path) = (parent.timeline, parent.end_lsn, path.to_string());
        return Err(Fault::OtherBranch { parent, end, path });
    }
    if parent.start_lsn > child.start_lsn || parent.end_lsn > child.end_lsn {
        return Err(Fault::Later { parent: parent.start_lsn, child: child.start_lsn });
    }
    Ok(())
}

/// What is known of a backup that is about to be taken.
#[derive(Debug, Clone)]
pub struct Coming {
    /// The way to the timeline it will be on.
    pub path: TimelinePath,
    pub major: MajorVersion,
    /// In bytes.
    pub wal_segment_size: u32,
    /// This parent and no other.
    pub parent: Option<String>,
    /// A chain may have so many backups, the new one included.
    pub chain_max: usize,
    /// The full one may have begun so early, and no earlier.
    pub full_since: Option<jiff::Timestamp>,
}

/// The chain to go on with: of the newest backup on the way of the coming one, or of that asked
/// for. Or why there is none, as words that go on after "a full backup, since".
pub fn chain_to_extend<'a>(
    backups: &'a [BackupSummary],
    tree: &TimelineTree,
    coming: &Coming,
) -> Result<Chain<'a>, String> {
    let is_on_path =
        |backup: &&BackupSummary| coming.path.contains(backup.timeline, backup.end_lsn);
    let newest = match &coming.parent {
        Some(id) => backups
            .iter()
            .find(|backup| backup.id == *id)
            .ok_or_else(|| format!("backup {id} cannot be read"))?,
        None => backups
            .iter()
            .filter(is_on_path)
            .filter(|backup| backup.major == coming.major)
            .filter(|backup| Chain::of(backup, backups, tree).is_ok())
            .max_by_key(|backup| (backup.end_lsn, backup.ended))
            .ok_or_else(|| {
                format!("no usable backup lies on the way to timeline {}", coming.path.last())
            })?,
    };
    if !is_on_path(&newest) {
        let BackupSummary { id, timeline, end_lsn, .. } = newest;
        return Err(format!(
            "backup {id} ends at {end_lsn} of timeline {timeline}, which is not on the way of \
             this server ({})",
            coming.path
        ));
    }
    if newest.major != coming.major {
        return Err(format!("backup {} is of PostgreSQL {}", newest.id, newest.major));
    }
    if newest.wal_segment_size != coming.wal_segment_size {
        return Err(format!("backup {} has WAL segments of another size", newest.id));
    }
    let chain = Chain::of(newest, backups, tree).map_err(|broken| broken.to_string())?;
    if chain.length() >= coming.chain_max.max(1) {
        return Err(format!(
            "the chain of backup {} has {} backups already (backup.chain_max)",
            newest.id,
            chain.length()
        ));
    }
    let full = chain.full();
    if coming.full_since.is_some_and(|since| full.began < since) {
        return Err(format!(
            "{}, the full backup to build on, began at {:.0}, too long ago (backup.full_every)",
            full.id, full.began
        ));
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::{Chain, Coming, Fault, chain_to_extend};
    use crate::catalog::recovery_plan::samples::backup;
    use crate::catalog::timeline_tree::samples::{timeline, tree};
    use crate::catalog::{BackupSummary, TimelineTree};
    use crate::postgres::{Lsn, MajorVersion};

    fn full(id: &str, on: u32, at: u64) -> BackupSummary {
        backup(id, on, (Lsn(at), Lsn(at + 0x10)))
    }

    fn incremental(id: &str, parent: &str, on: u32, at: u64) -> BackupSummary {
        BackupSummary { parent: Some(parent.to_owned()), ..full(id, on, at) }
    }

    /// 2 branched off 1 at 0/400.
    fn forked() -> TimelineTree {
        tree(&[(2, "1 0/400"), (3, "1 0/150")])
    }

    fn ids<'a>(chain: &Chain<'a>) -> Vec<&'a str> {
        chain.links().iter().map(|link| link.id.as_str()).collect()
    }

    fn fault(backups: &[BackupSummary]) -> Fault {
        Chain::of(&backups[0], backups, &forked()).unwrap_err().why
    }

    #[test]
    fn a_chain_goes_down_to_the_full_backup_across_a_fork() {
        let backups = [
            full("full", 1, 0x100),
            incremental("one", "full", 1, 0x200),
            full("other", 1, 0x280),
            incremental("two", "one", 2, 0x500),
        ];
        let chain = Chain::of(&backups[3], &backups, &forked()).unwrap();
        assert_eq!(ids(&chain), ["full", "one", "two"]);
        assert_eq!((chain.full().id.as_str(), chain.length()), ("full", 3));
        assert_eq!(chain.stored(), backups.iter().map(|b| b.stored).sum::<u64>() / 4 * 3);
        assert_eq!(Chain::of(&backups[0], &backups, &forked()).unwrap().length(), 1);
    }

    #[test]
    fn what_breaks_a_chain_is_named() {
        let child = |parent| incremental("child", parent, 1, 0x200);
        assert_eq!(fault(&[child("gone")]), Fault::Missing);
        assert_eq!(fault(&[child("child")]), Fault::Loop);
        let round = [child("parent"), incremental("parent", "child", 1, 0x200)];
        assert_eq!(fault(&round), Fault::Loop);
        let grandparent = [child("parent"), incremental("parent", "gone", 1, 0x100)];
        let broken = Chain::of(&grandparent[0], &grandparent, &forked()).unwrap_err();
        assert_eq!(
            broken.to_string(),
            "backup gone, the parent of parent, is missing or cannot be read"
        );
        let later = Fault::Later { parent: Lsn(0x208), child: Lsn(0x200) };
        assert_eq!(fault(&[child("parent"), full("parent", 1, 0x208)]), later);
        let older = BackupSummary { major: MajorVersion(16), ..full("parent", 1, 0x100) };
        let other = Fault::OtherMajor(MajorVersion(16), MajorVersion(17));
        assert_eq!(fault(&[child("parent"), older]), other);
        let wide = BackupSummary { wal_segment_size: 1 << 24, ..full("parent", 1, 0x100) };
        assert!(matches!(fault(&[child("parent"), wide]), Fault::OtherSegmentSize(..)));
    }

    #[test]
    fn a_parent_of_another_branch_is_none() {
        for parent in [full("parent", 1, 0x3F8), full("parent", 3, 0x200)] {
            let backups = [incremental("child", "parent", 2, 0x500), parent];
            assert!(matches!(fault(&backups), Fault::OtherBranch { .. }));
        }
        let backups = [incremental("child", "parent", 9, 0x500), full("parent", 1, 0x100)];
        assert_eq!(fault(&backups), Fault::NoHistory);
    }

    fn coming(on: u32) -> Coming {
        Coming {
            path: forked().path(timeline(on)).unwrap(),
            major: MajorVersion(17),
            wal_segment_size: 1 << 20,
            parent: None,
            chain_max: 4,
            full_since: None,
        }
    }

    fn extended(backups: &[BackupSummary], coming: &Coming) -> Result<String, String> {
        let chain = chain_to_extend(backups, &forked(), coming)?;
        Ok(ids(&chain).join(" "))
    }

    #[test]
    fn the_newest_whole_chain_on_the_way_is_extended() {
        let backups = [
            full("full", 1, 0x100),
            incremental("one", "full", 1, 0x200),
            incremental("torn", "gone", 1, 0x300),
            full("late", 1, 0x600),
        ];
        assert_eq!(extended(&backups, &coming(2)).unwrap(), "full one");
        assert_eq!(extended(&backups, &coming(1)).unwrap(), "late");
        assert_eq!(extended(&backups, &coming(3)).unwrap(), "full");
        let named = |id: &str| Coming { parent: Some(id.to_owned()), ..coming(2) };
        assert_eq!(extended(&backups, &named("full")).unwrap(), "full");
        for (id, says) in [
            ("nobody", "backup nobody cannot be read"),
            ("torn", "backup gone, the parent of torn, is missing"),
            ("late", "not on the way of this server (1 until 0/400, 2)"),
        ] {
            let why = extended(&backups, &named(id)).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn a_chain_that_is_too_long_or_too_old_is_not_extended() {
        let backups = [
            full("full", 1, 0x100),
            incremental("one", "full", 1, 0x180),
            incremental("two", "one", 1, 0x200),
        ];
        assert!(extended(&backups, &coming(1)).is_ok());
        let short = Coming { chain_max: 3, ..coming(1) };
        assert!(extended(&backups, &short).unwrap_err().contains("has 3 backups already"));
        let since = |time: jiff::Timestamp| Coming { full_since: Some(time), ..coming(1) };
        assert!(extended(&backups, &since(backups[0].began)).is_ok());
        let late = since(backups[0].began + jiff::SignedDuration::from_secs(1));
        assert!(extended(&backups, &late).unwrap_err().contains("too long ago"));
        let other = Coming { major: MajorVersion(18), ..coming(1) };
        assert!(extended(&backups, &other).unwrap_err().contains("no usable backup"));
    }
}
