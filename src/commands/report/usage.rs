//! What takes how much room, by kind, and how it grew.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use crate::commands::list::{Listed, Type};
use crate::commands::report::days::{Days, midnight};
use crate::postgres::WalFileName;
use crate::repository::{BackupId, Contents, Kept};

#[derive(Debug, Clone, Serialize)]
pub struct Storage {
    pub objects: u64,
    pub bytes: u64,
    /// The largest first; none that is empty.
    pub kinds: Vec<KindUsage>,
    /// What is there today, by when it was stored: what there was by the end of each day.
    pub days: Vec<StorageDay>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    FullBackups,
    IncrementalBackups,
    /// Folders of backups that cannot be read, or were never published.
    OtherBackups,
    Wal,
    /// Timeline histories, partial segments, labels of backups.
    WalBeside,
    Indexes,
    /// The audit trail and the records of drills.
    Evidence,
    /// Proofs of the place, and holds.
    Marks,
    /// Under names that walden does not give.
    Unknown,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct KindUsage {
    pub kind: Kind,
    pub objects: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct StorageDay {
    pub day: Date,
    pub full_backups: u64,
    pub incremental_backups: u64,
    pub wal: u64,
    pub other: u64,
    pub bytes: u64,
}

impl Storage {
    pub fn of(contents: &Contents, backups: &[Listed], days: &Days) -> Storage {
        let of_type = |wanted: Type| -> BTreeSet<&BackupId> {
            backups.iter().filter(|it| it.kind == Some(wanted)).map(|it| &it.id).collect()
        };
        let (full, incremental) = (of_type(Type::Full), of_type(Type::Incremental));
        let kind = |kept: &Kept| match (kept, kept.backup()) {
            (_, Some(id)) if full.contains(id) => Kind::FullBackups,
            (_, Some(id)) if incremental.contains(id) => Kind::IncrementalBackups,
            (_, Some(_)) => Kind::OtherBackups,
            (Kept::Wal(WalFileName::Segment(_)), _) => Kind::Wal,
            (Kept::Wal(_), _) => Kind::WalBeside,
            (Kept::Index(..), _) => Kind::Indexes,
            (Kept::Audit(..) | Kept::Drill(_), _) => Kind::Evidence,
            _ => Kind::Marks,
        };
        let mut ledger = Ledger { days: *days, kinds: BTreeMap::new(), grown: BTreeMap::new() };
        for object in &contents.objects {
            ledger.enter(kind(&object.kept), object.size, object.stored);
        }
        for object in &contents.unknown {
            ledger.enter(Kind::Unknown, object.size, object.modified);
        }
        ledger.close()
    }
}

struct Ledger {
    days: Days,
    kinds: BTreeMap<Kind, KindUsage>,
    /// Bytes that came on a day; all that came before is of the first.
    grown: BTreeMap<(Date, Kind), u64>,
}

impl Ledger {
    fn enter(&mut self, kind: Kind, size: u64, stored: Timestamp) {
        let usage = self.kinds.entry(kind).or_insert(KindUsage { kind, objects: 0, bytes: 0 });
        usage.objects += 1;
        usage.bytes += size;
        let first = midnight(self.days.first());
        let day = self.days.of(stored.max(first)).unwrap_or(self.days.first());
        *self.grown.entry((day, kind)).or_default() += size;
    }

    fn close(self) -> Storage {
        let mut sums: BTreeMap<Kind, u64> = BTreeMap::new();
        let days = self.days.all().map(|day| {
            for ((_, kind), size) in
                self.grown.range((day, Kind::FullBackups)..=(day, Kind::Unknown))
            {
                *sums.entry(*kind).or_default() += size;
            }
            let of = |kind| sums.get(&kind).copied().unwrap_or_default();
            let bytes: u64 = sums.values().sum();
            let (full, incremental) = (of(Kind::FullBackups), of(Kind::IncrementalBackups));
            let wal = of(Kind::Wal);
            StorageDay {
                day,
                full_backups: full,
                incremental_backups: incremental,
                wal,
                other: bytes - full - incremental - wal,
                bytes,
            }
        });
        let days = days.collect();
        let mut kinds: Vec<KindUsage> = self.kinds.into_values().collect();
        kinds.sort_by_key(|usage| std::cmp::Reverse(usage.bytes));
        Storage {
            objects: kinds.iter().map(|usage| usage.objects).sum(),
            bytes: kinds.iter().map(|usage| usage.bytes).sum(),
            kinds,
            days,
        }
    }
}
