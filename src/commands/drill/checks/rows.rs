//! How many rows each table has, beside those that the drill before has counted.
//!
//! Estimates are no evidence: every table is read from end to end, which takes less than writing it
//! took, and shows that the server can read it.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::events::Pattern;
use crate::commands::drill::Recovered;
use crate::commands::drill::checks::sharing::{Relation, ask_of_each};
use crate::commands::drill::checks::{Answer, CountRows, listed, speaks_of_damage};
use crate::error::{Error, Result};
use crate::repository::drill_record::{DrillRecord, TableRows, Verdict};

/// A loss of more percent than this is told in any case.
const LOSS_TOLD: u8 = 50;
const LISTED_MAX: usize = 10;

/// An index would answer for its table.
const PREPARE: &str =
    "SET enable_indexonlyscan = off; SET enable_indexscan = off; SET enable_bitmapscan = off";

/// The large ones first, so that all cores are busy to the end. Without those that recovery
/// empties, unlogged and temporary ones.
const TABLES: &str = "\
    SELECT c.oid, n.nspname, c.relname, c.relkind, \
        quote_ident(n.nspname) || '.' || quote_ident(c.relname), \
        CASE WHEN c.relkind = 'p' THEN ARRAY(SELECT relid::oid FROM pg_partition_tree(c.oid) \
            WHERE isleaf)::text END \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence = 'p' \
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
    ORDER BY pg_relation_size(c.oid) DESC";

struct Table {
    relation: Relation,
    is_wanted: bool,
    /// Of a partitioned table: the oids of those that hold its rows.
    leaves: Option<BTreeSet<u32>>,
}

/// And the counts themselves, by database and name.
pub fn count(
    server: &Recovered,
    wanted: &CountRows,
    previous: Option<&DrillRecord>,
) -> (Answer, Vec<TableRows>) {
    let tables = match tables(server, &wanted.of) {
        Ok(tables) => tables,
        Err(error) => return (Answer::of_error(&error), Vec::new()),
    };
    let needed = |table: &&Table| {
        let is_within = |other: &Table| {
            other.relation.database == table.relation.database
                && other.leaves.as_ref().is_some_and(|all| all.contains(&table.relation.oid))
        };
        table.leaves.is_none()
            && (table.is_wanted || tables.iter().any(|other| other.is_wanted && is_within(other)))
    };
    let counted: Vec<&Relation> =
        tables.iter().filter(needed).map(|table| &table.relation).collect();
    let counts = ask_of_each(server, &counted, PREPARE, |connection, relation| {
        let rows = connection.value(&format!("SELECT count(*) FROM ONLY {}", relation.name))?;
        Ok(rows.and_then(|rows| rows.parse::<u64>().ok()).unwrap_or_default())
    });
    let mut findings = Findings::default();
    let mut known = BTreeMap::new();
    for (relation, count) in counted.iter().zip(counts) {
        match count {
            Ok(rows) => {
                known.insert((relation.database.clone(), relation.oid), rows);
            }
            // A materialized view that was never filled has no rows.
            Err(error) if is_unfilled(&error) => {}
            Err(error) => findings.note_error(relation, &error),
        }
    }
    let rows = collect(&tables, &known, previous);
    findings.compare(&rows, wanted, previous, &tables);
    (findings.answer(&rows), rows)
}

fn tables(server: &Recovered, of: &[Pattern]) -> Result<Vec<Table>> {
    let mut found = Vec::new();
    for database in server.databases()? {
        let mut connection = server.connect(&database)?;
        connection.each_row(TABLES, &mut |row| {
            let [Some(oid), Some(schema), Some(bare), Some(kind), Some(name), leaves] = &row[..]
            else {
                return;
            };
            let is_wanted = of.is_empty()
                || of.iter().any(|pattern| pattern.fits(Some(&database), schema, bare));
            found.push(Table {
                relation: Relation {
                    database: database.clone(),
                    oid: oid.parse().unwrap_or_default(),
                    name: name.clone(),
                    kind: kind.clone(),
                },
                is_wanted,
                leaves: leaves.as_deref().map(oids),
            });
        })?;
    }
    Ok(found)
}

/// `{16384,16390}`
fn oids(array: &str) -> BTreeSet<u32> {
    let inside = array.trim_start_matches('{').trim_end_matches('}');
    inside.split(',').filter_map(|oid| oid.parse().ok()).collect()
}

fn is_unfilled(error: &Error) -> bool {
    crate::postgres::connection::sqlstate(error) == Some("55000")
}

/// A partitioned table has the rows of its partitions, where all of them could be counted.
fn collect(
    tables: &[Table],
    known: &BTreeMap<(String, u32), u64>,
    previous: Option<&DrillRecord>,
) -> Vec<TableRows> {
    let before: BTreeMap<(&str, &str), u64> = previous
        .into_iter()
        .flat_map(|record| &record.tables)
        .map(|table| ((table.database.as_str(), table.relation.as_str()), table.rows))
        .collect();
    let mut all: Vec<TableRows> = Vec::new();
    for table in tables.iter().filter(|table| table.is_wanted) {
        let Relation { database, oid, name, .. } = &table.relation;
        let rows_of = |oid: u32| known.get(&(database.clone(), oid)).copied();
        let rows = match &table.leaves {
            None => rows_of(*oid),
            Some(leaves) => leaves.iter().map(|leaf| rows_of(*leaf)).sum(),
        };
        let Some(rows) = rows else { continue };
        all.push(TableRows {
            database: database.clone(),
            relation: name.clone(),
            rows,
            before: before.get(&(database.as_str(), name.as_str())).copied(),
        });
    }
    all.sort_by(|one, other| {
        (&one.database, &one.relation).cmp(&(&other.database, &other.relation))
    });
    all
}

#[derive(Default)]
struct Findings {
    damaged: Vec<String>,
    uncounted: Vec<String>,
    lost: Vec<String>,
    /// More than is allowed.
    is_loss: bool,
}

impl Findings {
    fn note_error(&mut self, relation: &Relation, error: &Error) {
        let line = format!("{} in {}: {error}", relation.name, relation.database);
        match speaks_of_damage(error) {
            true => self.damaged.push(line),
            false => self.uncounted.push(line),
        }
    }

    fn compare(
        &mut self,
        rows: &[TableRows],
        wanted: &CountRows,
        previous: Option<&DrillRecord>,
        tables: &[Table],
    ) {
        for table in rows {
            let Some(before) = table.before else { continue };
            if has_lost(before, table.rows, wanted.loss_max.unwrap_or(LOSS_TOLD)) {
                let TableRows { database, relation, rows, .. } = table;
                self.lost.push(format!("{relation} in {database} has {rows} rows, had {before}"));
            }
        }
        let is_there = |gone: &TableRows| {
            tables.iter().any(|table| {
                table.relation.database == gone.database && table.relation.name == gone.relation
            })
        };
        let before = previous.into_iter().flat_map(|record| &record.tables);
        // What was not asked for now is not missed.
        let gone = before.filter(|table| wanted.of.is_empty() && !is_there(table));
        self.lost.extend(gone.map(|table| {
            let TableRows { database, relation, rows, .. } = table;
            format!("{relation} in {database} is gone, had {rows} rows")
        }));
        self.is_loss = wanted.loss_max.is_some() && !self.lost.is_empty();
    }

    fn answer(&self, rows: &[TableRows]) -> Answer {
        let total: u64 = rows.iter().map(|table| table.rows).sum();
        let mut words = format!("{} tables, {total} rows", rows.len());
        for (intro, list) in [
            ("cannot be read: ", &self.damaged),
            ("not counted: ", &self.uncounted),
            ("since the drill before: ", &self.lost),
        ] {
            if !list.is_empty() {
                words = format!("{words}; {intro}{}", listed(list, LISTED_MAX));
            }
        }
        let verdict = match (self.damaged.is_empty() && !self.is_loss, self.uncounted.is_empty()) {
            (false, _) => Verdict::Failed,
            (true, false) => Verdict::Incomplete,
            (true, true) => Verdict::Passed,
        };
        Answer { verdict, words }
    }
}

/// More than so many percent of them.
fn has_lost(before: u64, now: u64, percent: u8) -> bool {
    let lost = u128::from(before.saturating_sub(now));
    lost * 100 > u128::from(before) * u128::from(percent)
}

#[cfg(test)]
mod tests {
    use super::{Findings, has_lost, oids};
    use crate::commands::drill::checks::CountRows;
    use crate::repository::drill_record::{TableRows, Verdict};

    fn table(rows: u64, before: Option<u64>) -> TableRows {
        TableRows { database: "shop".into(), relation: "public.t".into(), rows, before }
    }

    #[test]
    fn a_loss_is_told_and_a_failure_where_it_is_too_much() {
        assert!(has_lost(1000, 999, 0) && !has_lost(0, 5, 0) && !has_lost(2, 1, 50));
        let judge = |table: TableRows, loss_max| {
            let mut findings = Findings::default();
            let wanted = CountRows { of: Vec::new(), loss_max };
            let tables = [table];
            findings.compare(&tables, &wanted, None, &[]);
            let answer = findings.answer(&tables);
            (answer.verdict, answer.words.contains("had 100"))
        };
        assert_eq!(judge(table(40, Some(100)), None), (Verdict::Passed, true));
        assert_eq!(judge(table(60, Some(100)), None), (Verdict::Passed, false));
        assert_eq!(judge(table(60, Some(100)), Some(50)), (Verdict::Passed, false));
        assert_eq!(judge(table(40, Some(100)), Some(50)), (Verdict::Failed, true));
        assert_eq!(judge(table(99, Some(100)), Some(0)), (Verdict::Failed, true));
        assert_eq!(judge(table(0, None), Some(0)), (Verdict::Passed, false));
    }

    #[test]
    fn arrays_of_oids_are_read() {
        assert_eq!(oids("{16384,16390}").into_iter().collect::<Vec<_>>(), [16384, 16390]);
        assert!(oids("{}").is_empty());
    }
}
