//! Lookups, words, and the way through JSON.

use crate::postgres::Lsn;
use crate::postgres::names::relations::{Builder, Row};
use crate::postgres::names::{Database, Names, Persistence, RelationKind, Relations, SHARED};
use crate::postgres::wal::digest::RelationFile;

fn row(oid: u32, schema: &'static str, name: &'static str, kind: RelationKind) -> Row<'static> {
    Row {
        oid,
        schema,
        name,
        number: oid,
        tablespace: 1663,
        parent: 0,
        rows: -1.0,
        kind,
        persistence: Persistence::Permanent,
    }
}

fn relations(rows: &[Row<'_>], toasts: &[(u32, u32)]) -> Relations {
    let mut builder = Builder::default();
    rows.iter().for_each(|row| builder.push(*row).unwrap());
    toasts.iter().for_each(|(toast, table)| builder.note_toast(*toast, *table));
    builder.finish().unwrap()
}

fn names(databases: Vec<(u32, &str, Relations)>) -> Names {
    let databases = databases.into_iter();
    Names {
        system_identifier: None,
        time: "2026-11-21T10:00:00.123456Z".parse().unwrap(),
        lsn: Some(Lsn(0x300_0028)),
        databases: databases
            .map(|(oid, name, relations)| Database {
                oid,
                name: name.into(),
                unread: None,
                relations,
            })
            .collect(),
    }
}

/// A table that was rewritten, its TOAST table and that one's index, a view, a shared catalog, and
/// the same numbers in another database.
fn sample() -> Names {
    let table =
        Row { number: 17000, rows: 1000.0, ..row(16390, "public", "orders", RelationKind::Table) };
    let toast = row(16393, "pg_toast", "pg_toast_16390", RelationKind::Toast);
    let index = row(16394, "pg_toast", "pg_toast_16390_index", RelationKind::Index);
    let index = Row { parent: 16393, ..index };
    let view = Row { number: 0, ..row(16400, "public", "recent", RelationKind::View) };
    let temporary = row(16500, "pg_temp_3", "scratch", RelationKind::Table);
    let temporary = Row { persistence: Persistence::Temporary, ..temporary };
    let shared = row(1262, "pg_catalog", "pg_database", RelationKind::Table);
    let shared = Row { tablespace: 1664, ..shared };
    let other = Row { tablespace: 16380, ..row(17000, "public", "other", RelationKind::Table) };
    let other = Row { persistence: Persistence::Unlogged, ..other };
    names(vec![
        (SHARED, "", relations(&[shared], &[])),
        (5, "postgres", relations(&[view, temporary, index, toast, table], &[(16393, 16390)])),
        (16384, "shop", relations(&[other], &[])),
    ])
}

fn file(tablespace: u32, database: u32, number: u32) -> RelationFile {
    RelationFile { tablespace, database, number }
}

#[test]
fn a_file_is_found_by_all_three_of_its_numbers() {
    let names = sample();
    let table = names.by_file(&file(1663, 5, 17000)).unwrap();
    assert_eq!(table.to_string(), "postgres.public.orders");
    assert_eq!((table.oid, table.rows), (16390, Some(1000)));
    assert_eq!(names.by_oid(5, 16390), Some(table));
    assert_eq!(names.by_file(&file(16380, 16384, 17000)).unwrap().to_string(), "shop.public.other");
    for wrong in
        [file(1663, 5, 16390), file(1663, 16384, 17000), file(1663, 4, 1), file(1663, 5, 0)]
    {
        assert_eq!(names.by_file(&wrong), None, "{wrong}");
    }
}

#[test]
fn shared_relations_belong_to_database_0_and_have_no_name_of_one() {
    let names = sample();
    let shared = names.by_file(&file(1664, 0, 1262)).unwrap();
    assert_eq!((shared.to_string().as_str(), shared.database), ("pg_catalog.pg_database", None));
    assert_eq!(names.database(0), None);
    assert_eq!(names.database(16384), Some("shop"));
    assert_eq!(names.databases().collect::<Vec<_>>(), [(5, "postgres"), (16384, "shop")]);
}

#[test]
fn toast_and_its_index_lead_to_their_table() {
    let names = sample();
    let index = names.by_oid(5, 16394).unwrap();
    assert_eq!(index.kind, RelationKind::Index);
    assert_eq!(names.table_of(index).name, "orders");
    assert_eq!(names.table_of(names.by_oid(5, 16393).unwrap()).name, "orders");
    assert_eq!(names.table_of(names.by_oid(5, 16390).unwrap()).name, "orders");
}

#[test]
fn what_has_no_file_and_what_is_not_in_the_wal_is_known_as_such() {
    let names = sample();
    let view = names.by_oid(5, 16400).unwrap();
    assert_eq!((view.kind, view.file, view.rows), (RelationKind::View, None, None));
    assert!(names.by_oid(5, 16500).unwrap().is_temporary);
    assert!(names.by_oid(16384, 17000).unwrap().is_unlogged);
    assert_eq!(names.iter().count(), names.relation_count());
    assert_eq!(names.relation_count(), 7);
}

#[test]
fn names_are_quoted_where_postgresql_would() {
    let odd = [("Größe", "a.b"), ("1st", "say \"hi\""), ("_ok_1", "UPPER")];
    let rows: Vec<Row<'_>> = odd
        .iter()
        .zip(1..)
        .map(|((schema, name), oid)| row(oid, schema, name, RelationKind::Table))
        .collect();
    let names = names(vec![(5, "my db", relations(&rows, &[]))]);
    let shown: Vec<String> = names.iter().map(|named| named.to_string()).collect();
    assert_eq!(
        shown,
        [r#""my db"."Größe"."a.b""#, r#""my db"."1st"."say ""hi""""#, r#""my db"._ok_1."UPPER""#]
    );
}

#[test]
fn json_brings_back_the_same_and_what_is_newer_is_refused() {
    let names = sample();
    let json = serde_json::to_string(&names).unwrap();
    assert_eq!(serde_json::from_str::<Names>(&json).unwrap(), names);
    let newer = json.replace("{\"walden\":1,", "{\"walden\":2,");
    assert!(serde_json::from_str::<Names>(&newer).is_err());
}

#[test]
fn twenty_thousand_relations_are_small_and_each_is_found() {
    let count = 20_000_u32;
    let mut builder = Builder::default();
    for oid in (1..=count).rev() {
        let (schema, name) = (format!("tenant_{}", oid % 500), format!("orders_of_day_{oid}"));
        let placed = row(oid, "", "", RelationKind::Table);
        let number = 1_000_000 - oid;
        builder.push(Row { schema: &schema, name: &name, number, ..placed }).unwrap();
    }
    let relations = builder.finish().unwrap();
    assert!(size_of_val(relations.iter().as_slice()) <= count as usize * 40);
    let names = names(vec![(5, "postgres", relations)]);
    let json = serde_json::to_vec(&names).unwrap();
    let read: Names = serde_json::from_slice(&json).unwrap();
    assert!(read == names);
    for oid in 1..=count {
        let found = read.by_file(&file(1663, 5, 1_000_000 - oid)).unwrap();
        assert_eq!((found.oid, found.name), (oid, format!("orders_of_day_{oid}").as_str()));
        assert_eq!(found.schema, format!("tenant_{}", oid % 500));
    }
}
