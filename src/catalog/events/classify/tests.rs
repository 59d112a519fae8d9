//! Signatures as real servers wrote them (15 and 17 agree in all of them).

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::catalog::events::classify::{What, deeds};
use crate::catalog::events::names::{Known, Lookup};
use crate::catalog::events::transactions::{Transaction, Transactions};
use crate::postgres::names::RelationKind as Kind;
use crate::postgres::wal::digest::{
    Activity, Deleted, Digest, Ending, Lock, ObjectStats, RelationFile, TransactionEnd, Truncated,
};
use crate::postgres::{Lsn, SegmentName};

const DATABASE: u32 = 5;

/// Oid, file, name and kind; all in schema `public` of database `shop`.
#[derive(Default)]
struct Map(BTreeMap<u32, (u32, Known)>);

impl Map {
    fn of(relations: &[(u32, u32, &str, Kind, Option<u32>)]) -> Map {
        let known = relations.iter().map(|(oid, file, name, kind, table)| {
            let schema = if *kind == Kind::Toast { "pg_toast" } else { "public" };
            let known = Known {
                oid: *oid,
                database: Some("shop".to_owned()),
                schema: schema.to_owned(),
                name: (*name).to_owned(),
                full_name: format!("shop.{schema}.{name}"),
                kind: *kind,
                table: *table,
                is_temporary: false,
                is_unlogged: false,
            };
            (*oid, (*file, known))
        });
        Map(known.collect())
    }

    /// As the samples below were made.
    fn usual() -> Map {
        Map::of(&[
            (16401, 16401, "t1", Kind::Table, None),
            (16404, 16404, "pg_toast_16401", Kind::Toast, Some(16401)),
            (16405, 16405, "pg_toast_16401_index", Kind::Index, Some(16401)),
            (16406, 16406, "t1_pkey", Kind::Index, Some(16401)),
            (16408, 16408, "t2", Kind::Table, None),
            (16411, 16411, "t3_id_seq", Kind::Sequence, None),
            (16412, 16412, "t3", Kind::Table, None),
            (16437, 16441, "mv", Kind::MaterializedView, None),
            (16444, 0, "part", Kind::PartitionedTable, None),
            (16447, 16447, "part1", Kind::Table, None),
            (16398, 16398, "sq", Kind::Sequence, None),
            (16399, 16399, "ti", Kind::Index, Some(16401)),
        ])
    }
}

impl Lookup for Map {
    fn by_oid(&self, _: u32, oid: u32, _: Timestamp) -> Option<Known> {
        self.0.get(&oid).map(|(_, known)| known.clone())
    }

    fn by_file(&self, file: RelationFile, _: Timestamp) -> Option<Known> {
        let mut all = self.0.values();
        all.find(|(number, _)| *number == file.number).map(|(_, known)| known.clone())
    }
}

/// One transaction, as its records stand in the WAL.
#[derive(Default)]
struct Wal {
    activity: Activity,
    dropped: Vec<RelationFile>,
    stats: Vec<ObjectStats>,
}

fn file(number: u32) -> RelationFile {
    RelationFile { tablespace: 1663, database: DATABASE, number }
}

impl Wal {
    fn locks(mut self, relations: &[u32]) -> Wal {
        let lsns = 0x100..;
        self.activity.locks = relations
            .iter()
            .zip(lsns)
            .map(|(relation, lsn)| Lock { lsn: Lsn(lsn), database: DATABASE, relation: *relation })
            .collect();
        self
    }

    fn creates(mut self, numbers: &[u32]) -> Wal {
        self.activity.created = numbers.iter().map(|number| file(*number)).collect();
        self
    }

    fn deletes(mut self, rows: &[(u32, u64)]) -> Wal {
        let deleted = rows.iter();
        let deleted =
            deleted.map(|(number, rows)| Deleted { file: file(*number), rows: *rows, lsn: Lsn(9) });
        self.activity.deleted = deleted.collect();
        self
    }

    fn rels(mut self, numbers: &[u32]) -> Wal {
        self.dropped = numbers.iter().map(|number| file(*number)).collect();
        self
    }

    fn stats(mut self, oids: &[u64]) -> Wal {
        let stats = oids.iter().map(|oid| ObjectStats { kind: 2, database: DATABASE, oid: *oid });
        self.stats = stats.collect();
        self
    }

    fn transaction(self) -> Transaction {
        let xid = 746;
        let time = "2026-11-21T10:00:00.123456Z".parse().unwrap();
        let ending = Ending {
            at: TransactionEnd { lsn: Lsn(0x900), xid, time },
            is_commit: true,
            subtransactions: Vec::new(),
            dropped: self.dropped,
            dropped_stats: self.stats,
            database: Some(DATABASE),
            is_cut: false,
            is_prepared: false,
        };
        let activity = Activity { xid, ..self.activity };
        let digest =
            Digest { activities: vec![activity], endings: vec![ending], ..Digest::default() };
        let segment = SegmentName::parse("000000010000000000000001").unwrap();
        let mut ended = Transactions::default().take(segment, &digest, None);
        assert_eq!(ended.len(), 1);
        ended.remove(0)
    }

    /// `drop t1`, `truncate t2`, `delete t1 1500`, sorted.
    fn means(self, names: &Map) -> Vec<String> {
        let transaction = self.transaction();
        let mut told: Vec<String> = deeds(&transaction, names, 1000)
            .into_iter()
            .map(|deed| {
                let what = match deed.what {
                    What::Drop => "drop",
                    What::Truncate => "truncate",
                    What::Delete => "delete",
                    What::DropDatabase => "drop database",
                };
                let named = deed.relation.map(|known| known.name);
                let name = named.or(deed.oid.map(|oid| oid.to_string()));
                let name = name.or(deed.file.map(|file| file.to_string()));
                let rows = deed.rows.map_or(String::new(), |rows| format!(" {rows}"));
                let unsure = if deed.note.is_some() { " (note)" } else { "" };
                format!("{what} {}{rows}{unsure}", name.unwrap_or_default())
            })
            .collect();
        told.sort();
        told
    }
}

fn drop_table() -> Wal {
    Wal::default()
        .locks(&[16401, 16404, 16406, 16405])
        .deletes(&[(2610, 2), (1249, 30), (1259, 4), (2608, 9), (2606, 1), (1247, 2)])
        .rels(&[16401, 16404, 16405, 16406])
        .stats(&[16406, 16405, 16404, 16401])
}

fn drop_schema() -> Wal {
    Wal::default()
        .locks(&[16420, 16421, 16429, 16425, 16427, 16426])
        .deletes(&[(2610, 2), (1259, 6), (1247, 4), (2224, 1), (2615, 1)])
        .rels(&[16421, 16420, 16425, 16426, 16427, 16429])
        .stats(&[16429, 16427, 16426, 16425, 16420, 16421])
}

fn vacuum_full(heap: u32) -> Wal {
    Wal::default()
        .locks(&[heap, 16474, 16477, 16478, heap + 3, heap + 4, heap + 5])
        .creates(&[16474, 16477, 16478, 16479])
        .deletes(&[(2610, 1), (1259, 3), (1247, 2)])
        .rels(&[heap, heap + 3, heap + 4, heap + 5])
        .stats(&[16478, 16477, 16474])
}

fn alter_rewrite() -> Wal {
    Wal::default()
        .locks(&[16401, 16494, 16497, 16498, 16404, 16405])
        .creates(&[16494, 16497, 16498, 16499])
        .deletes(&[(2610, 1), (1259, 3), (1247, 2)])
        .rels(&[16401, 16404, 16405, 16406])
        .stats(&[16405, 16404, 16494])
}

fn reindex(relations: &[u32], new: &[u32]) -> Wal {
    Wal::default().locks(relations).creates(new).rels(relations)
}

#[test]
fn a_dropped_table_takes_its_indexes_and_toast_along_in_one_event() {
    assert_eq!(drop_table().means(&Map::usual()), ["drop t1"]);
}

#[test]
fn a_dropped_table_that_no_backup_knows_is_one_event_by_oid() {
    assert_eq!(drop_table().means(&Map::default()), ["drop 16401 (note)"]);
    assert_eq!(
        drop_schema().means(&Map::default()),
        ["drop 16421 (note)", "drop 16429 (note)"],
        "the sequence and the toast table are not told"
    );
}

#[test]
fn a_schema_dropped_with_what_was_in_it_is_one_event_for_each_table() {
    let names = Map::of(&[
        (16420, 16420, "a_x_seq", Kind::Sequence, None),
        (16421, 16421, "a", Kind::Table, None),
        (16425, 16425, "pg_toast_16421", Kind::Toast, Some(16421)),
        (16426, 16426, "pg_toast_16421_index", Kind::Index, Some(16421)),
        (16427, 16427, "a_pkey", Kind::Index, Some(16421)),
        (16429, 16429, "b", Kind::Table, None),
    ]);
    assert_eq!(drop_schema().means(&names), ["drop a", "drop b"]);
}

#[test]
fn a_table_dropped_after_a_rewrite_is_known_by_its_oid() {
    let rewritten = drop_table().rels(&[16500, 16503, 16504, 16505]);
    assert_eq!(rewritten.means(&Map::usual()), ["drop t1"]);
    let nameless = drop_table().rels(&[16500, 16503, 16504, 16505]);
    assert_eq!(nameless.means(&Map::default()), ["drop 16401 (note)"]);
}

#[test]
fn a_truncated_table_has_new_files_and_keeps_its_statistics() {
    let plain = || Wal::default().locks(&[16408]).creates(&[16464]).rels(&[16408]);
    assert_eq!(plain().means(&Map::usual()), ["truncate t2"]);
    assert_eq!(plain().means(&Map::default()), ["truncate 16408 (note)"]);
    let rewritten = Wal::default().locks(&[16408]).creates(&[16464]).rels(&[16460]);
    assert_eq!(rewritten.means(&Map::usual()), ["truncate t2"], "by its lock");

    let with_all = Wal::default()
        .locks(&[16401, 16404, 16405, 16406])
        .creates(&[16465, 16466, 16467, 16468])
        .rels(&[16406, 16405, 16404, 16401]);
    assert_eq!(with_all.means(&Map::usual()), ["truncate t1"]);
    let restarted =
        Wal::default().locks(&[16412, 16411]).creates(&[16465, 16469]).rels(&[16411, 16412]);
    assert_eq!(restarted.means(&Map::usual()), ["truncate t3"]);
}

#[test]
fn a_truncate_said_in_so_many_words_is_taken_at_its_word() {
    let mut wal = Wal::default().locks(&[16408]).creates(&[16464, 16470]).rels(&[16408]);
    let (database, lsn) = (DATABASE, Lsn(0x200));
    // 16470 was made in this transaction, 16444 is the parent of partitions.
    wal.activity.truncated =
        vec![Truncated { lsn, database, relations: vec![16408, 16470, 16444] }];
    assert_eq!(wal.means(&Map::usual()), ["truncate t2"]);
}

#[test]
fn a_table_moved_to_another_tablespace_was_not_emptied() {
    let mut moved = Wal::default().locks(&[16408]).rels(&[16408]);
    moved.activity.created = vec![RelationFile { tablespace: 16600, ..file(16601) }];
    assert!(moved.means(&Map::usual()).is_empty());
}

#[test]
fn rewrites_and_reindexing_are_no_events() {
    for names in [Map::usual(), Map::default()] {
        assert!(vacuum_full(16401).means(&names).is_empty());
        assert!(vacuum_full(17000).means(&names).is_empty());
        assert!(alter_rewrite().means(&names).is_empty());
        let refresh = Wal::default()
            .locks(&[16437, 16509])
            .creates(&[16509])
            .deletes(&[(1259, 1), (1247, 2)])
            .rels(&[16441])
            .stats(&[16509]);
        assert!(refresh.means(&names).is_empty());
    }
    let names = Map::usual();
    assert!(reindex(&[16405, 16406, 16399], &[16488, 16489, 16490]).means(&names).is_empty());
    let again =
        Wal::default().locks(&[16405, 16399]).creates(&[16488, 16489]).rels(&[16481, 16483]);
    assert!(again.means(&names).is_empty(), "indexes known by their locks only");
    // Its last transaction drops the old indexes, which it locks; their table it does not.
    let concurrently = || {
        Wal::default()
            .locks(&[16405, 16406, 16399])
            .deletes(&[(2610, 3), (1259, 3)])
            .rels(&[16488, 16490, 16489])
            .stats(&[16405, 16406, 16399])
    };
    assert!(concurrently().means(&names).is_empty());
    assert!(concurrently().means(&Map::default()).is_empty());
}

#[test]
fn a_migration_that_empties_one_table_and_rewrites_another_is_told_apart() {
    let both = Wal::default()
        .locks(&[16408, 16401, 16494, 16497, 16498, 16404, 16405])
        .creates(&[16490, 16494, 16497, 16498, 16499])
        .deletes(&[(2610, 1), (1259, 3), (1247, 2)])
        .rels(&[16408, 16401, 16404, 16405, 16406])
        .stats(&[16405, 16404, 16494]);
    assert_eq!(both.means(&Map::usual()), ["truncate t2"]);
    let with_drop = Wal::default()
        .locks(&[16401, 16494, 16497, 16498, 16404, 16405, 16408])
        .creates(&[16494, 16497, 16498, 16499])
        .deletes(&[(2610, 1), (1259, 4), (1247, 4)])
        .rels(&[16401, 16404, 16405, 16406, 16408])
        .stats(&[16405, 16404, 16494, 16408]);
    assert_eq!(with_drop.means(&Map::usual()), ["drop t2"]);
}

#[test]
fn tables_of_a_session_and_of_one_transaction_are_no_events() {
    let temporary = || {
        Wal::default()
            .locks(&[16514, 16517, 16519, 16518])
            .deletes(&[(2610, 2), (1259, 4), (1247, 2)])
            .stats(&[16519, 16518, 16517, 16514])
    };
    assert!(temporary().means(&Map::usual()).is_empty());
    let mut beside = temporary().rels(&[16408]).deletes(&[(2610, 2), (1259, 5), (1247, 4)]);
    beside.stats.push(ObjectStats { kind: 2, database: DATABASE, oid: 16408 });
    assert_eq!(beside.means(&Map::usual()), ["drop t2"]);

    let made_here = Wal::default()
        .locks(&[16544])
        .creates(&[16544])
        .deletes(&[(1259, 1), (1247, 2)])
        .rels(&[16544])
        .stats(&[16544]);
    assert!(made_here.means(&Map::usual()).is_empty());
    let emptied_and_dropped = Wal::default()
        .locks(&[16408])
        .creates(&[16470])
        .deletes(&[(1259, 1), (1247, 2)])
        .rels(&[16470, 16408])
        .stats(&[16408]);
    assert_eq!(emptied_and_dropped.means(&Map::usual()), ["drop t2"]);
}

#[test]
fn a_table_swapped_for_a_new_one_is_dropped() {
    let swapped = Wal::default()
        .locks(&[16559, 16408])
        .creates(&[16559])
        .deletes(&[(1259, 1), (1247, 2)])
        .rels(&[16408])
        .stats(&[16408]);
    assert_eq!(swapped.means(&Map::usual()), ["drop t2"]);
}

#[test]
fn other_kinds_are_told_as_what_they_are() {
    let names = Map::usual();
    let index = Wal::default()
        .locks(&[16401, 16399])
        .deletes(&[(2610, 1), (1259, 1)])
        .rels(&[16399])
        .stats(&[16399]);
    assert_eq!(index.means(&names), ["drop ti"]);
    let sequence = Wal::default()
        .locks(&[16398])
        .deletes(&[(2224, 1), (1259, 1)])
        .rels(&[16398])
        .stats(&[16398]);
    assert_eq!(sequence.means(&names), ["drop sq"]);
    let view = Wal::default()
        .locks(&[16437])
        .deletes(&[(1259, 1), (1247, 2)])
        .rels(&[16509])
        .stats(&[16437]);
    assert_eq!(view.means(&names), ["drop mv"]);
    let partitions = Wal::default()
        .locks(&[16444, 16447])
        .deletes(&[(1259, 2), (1247, 4)])
        .rels(&[16447])
        .stats(&[16447, 16444]);
    assert_eq!(partitions.means(&names), ["drop part", "drop part1"]);
}

#[test]
fn a_dropped_database_is_known_by_its_statistics() {
    let stats = vec![ObjectStats { kind: 1, database: 16455, oid: 0 }];
    let mut dropped = Wal { stats, ..Wal::default() };
    dropped.activity.dropped_databases = vec![16455];
    assert_eq!(dropped.means(&Map::usual()), ["drop database 16455"]);
    // ALTER DATABASE SET TABLESPACE removes a directory and drops nothing.
    let mut moved = Wal::default();
    moved.activity.dropped_databases = vec![16455];
    assert!(moved.means(&Map::usual()).is_empty());
}

#[test]
fn many_deleted_rows_are_an_event_and_few_or_those_of_the_system_are_none() {
    let names = Map::usual();
    let delete = |rows: &[(u32, u64)]| Wal::default().deletes(rows).means(&names);
    assert_eq!(delete(&[(16401, 1500), (16404, 3000)]), ["delete t1 1500"], "toast is not told");
    assert!(delete(&[(16401, 999)]).is_empty());
    assert_eq!(delete(&[(17777, 5000)]), ["delete 1663/5/17777 5000"]);
    assert!(delete(&[(2608, 5000), (1249, 5000)]).is_empty());
    assert_eq!(delete(&[(2613, 5000)]), ["delete 1663/5/2613 5000"], "large objects");
    let then_dropped = drop_table().deletes(&[(16401, 5000), (1259, 4), (1247, 2)]);
    assert_eq!(then_dropped.means(&names), ["drop t1"]);
}
