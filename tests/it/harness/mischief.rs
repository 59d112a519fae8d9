//! Everything a server does to its files, over and over, by chance: tables, indexes, databases and
//! tablespaces that come, grow, shrink, move and go while somebody copies them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use fastrand::Rng;

use super::Cluster;
use super::cluster::PORT;
use super::session::Session;

/// Directories that stand ready for tablespaces.
const PLACES: usize = 8;
/// So that a long run does not fill the disk.
const TABLES_MAX: usize = 12;
const DATABASES_MAX: usize = 2;

/// What every new database begins as.
const TEMPLATE: &str = "pattern";

/// At work until `finish`; two sessions, one for tables, one for what holds them.
pub struct Mischief {
    stop: Arc<AtomicBool>,
    doers: Vec<JoinHandle<Tally>>,
}

/// How often what was done, and what the server refused.
#[derive(Debug, Default)]
pub struct Tally {
    pub done: BTreeMap<&'static str, usize>,
    pub refused: BTreeMap<String, usize>,
}

impl Mischief {
    /// With tables in the database postgres and in others. Autovacuum must be off.
    #[track_caller]
    pub fn start(cluster: &Cluster, seed: u64) -> Mischief {
        cluster.sql(&format!("CREATE DATABASE {TEMPLATE}"));
        let mut pattern = cluster.session(TEMPLATE).unwrap();
        let fill =
            "CREATE TABLE of_pattern AS SELECT n, md5(n::text) FROM generate_series(1, 3000) n";
        // Nothing is left to do to it: what changes a template during a backup changes what replay
        // makes of databases copied from it ("Caveats" of continuous archiving in the manual).
        for statement in [fill, "VACUUM (FREEZE, ANALYZE)", "CHECKPOINT"] {
            pattern.query(statement).unwrap();
        }
        drop(pattern);
        cluster.sql(
            "CREATE TABLE prepared (n bigint PRIMARY KEY); CREATE SEQUENCE counter; \
             CREATE TABLE nested (n int)",
        );
        let directories = places(cluster);
        let first = directories[0].display();
        cluster.sql(&format!("CREATE TABLESPACE first LOCATION '{first}'"));
        let stop = Arc::<AtomicBool>::default();
        let doer = |number: u64, act: fn(&mut Doer) -> Act| {
            let mut doer = Doer {
                place: cluster.socket_directory().to_owned(),
                random: Rng::with_seed(seed.wrapping_add(number)),
                next: number * 1_000_000,
                tables: Vec::new(),
                databases: Vec::new(),
                spaces: Vec::new(),
                directories: directories.clone(),
                is_prepared: false,
                sessions: BTreeMap::new(),
                tally: Tally::default(),
            };
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let act = act(&mut doer);
                    doer.carry_out(act);
                }
                doer.end();
                doer.tally
            })
        };
        let doers = vec![doer(1, Doer::with_a_table), doer(2, Doer::with_what_holds_tables)];
        Mischief { stop, doers }
    }

    #[track_caller]
    pub fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let tallies = self.doers.drain(..).map(|doer| doer.join().expect("a doer"));
        tallies.fold(Tally::default(), Tally::and)
    }
}

impl Drop for Mischief {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.doers.drain(..).for_each(|doer| drop(doer.join()));
    }
}

impl Tally {
    fn and(mut self, other: Tally) -> Tally {
        other.done.into_iter().for_each(|(what, n)| *self.done.entry(what).or_default() += n);
        other.refused.into_iter().for_each(|(why, n)| *self.refused.entry(why).or_default() += n);
        self
    }

    pub fn total(&self) -> usize {
        self.done.values().sum()
    }
}

/// The directories that tablespaces are made in, some not yet. Who recovers beside a source empties
/// them first: replay makes tablespaces where the source had them.
pub fn places(cluster: &Cluster) -> Vec<PathBuf> {
    (0..PLACES).map(|n| cluster.scratch().directory(&format!("place-{n}"))).collect()
}

/// What is done: a name for the tally, the database, and statements, each a transaction of its own.
struct Act {
    name: &'static str,
    database: String,
    statements: Vec<String>,
}

impl Act {
    fn new(name: &'static str, statements: impl IntoIterator<Item = String>) -> Act {
        let statements = statements.into_iter().collect();
        Act { name, database: "postgres".to_owned(), statements }
    }
}

struct Doer {
    place: PathBuf,
    random: Rng,
    next: u64,
    /// By number; each is `m<number>`.
    tables: Vec<u64>,
    databases: Vec<u64>,
    /// With the directory each lies in.
    spaces: Vec<(u64, PathBuf)>,
    directories: Vec<PathBuf>,
    is_prepared: bool,
    /// Kept open: temporary tables live as long.
    sessions: BTreeMap<String, Session>,
    tally: Tally,
}

impl Doer {
    fn with_a_table(&mut self) -> Act {
        let kind = self.random.u32(..20);
        let Some(table) = self.random.choice(&self.tables).copied() else { return self.create() };
        let m = format!("m{table}");
        let rows = self.random.u32(1..2000);
        let add = format!(
            "INSERT INTO {m} SELECT n, repeat(md5(n::text), n % 9) FROM generate_series((SELECT \
             coalesce(max(id), 0) FROM {m}) + 1, (SELECT coalesce(max(id), 0) FROM {m}) + {rows}) n"
        );
        match kind {
            0..=2 if self.tables.len() < TABLES_MAX => self.create(),
            0 | 1 => {
                self.tables.retain(|known| *known != table);
                Act::new("drop table", [format!("DROP TABLE {m}")])
            }
            2 => Act::new("truncate", [format!("TRUNCATE {m}")]),
            3 => Act::new("truncate and fill", [format!("TRUNCATE {m}; {add}")]),
            4 | 5 => Act::new("extend", [add]),
            6 => {
                Act::new("update", [format!("UPDATE {m} SET what = what || 'x' WHERE id % 7 = 0")])
            }
            7 => {
                let shorten = format!("DELETE FROM {m} WHERE id > {}", rows / 4);
                Act::new("shorten", [shorten, format!("VACUUM (TRUNCATE) {m}")])
            }
            8 => Act::new("vacuum full", [format!("VACUUM FULL {m}")]),
            9 => Act::new("index", [self.index(&m)]),
            10 => Act::new("reindex", [format!("REINDEX TABLE {m}")]),
            11 => {
                let other = if self.random.bool() { "SET UNLOGGED" } else { "SET LOGGED" };
                Act::new("set logged or not", [format!("ALTER TABLE {m} {other}")])
            }
            12 => self.temporary(rows),
            13 => Act::new(
                "abort",
                [format!(
                    "BEGIN; CREATE TABLE aborted AS SELECT * FROM {m}; DELETE FROM {m}; ROLLBACK"
                )],
            ),
            14 => self.prepare(),
            15 => Act::new(
                "nest",
                [format!(
                    "DO $$ BEGIN FOR i IN 1..200 LOOP BEGIN \
                     INSERT INTO nested VALUES (i * {rows}); \
                 IF i % 3 = 0 THEN RAISE 'no'; END IF; EXCEPTION WHEN OTHERS THEN NULL; END; \
                 END LOOP; END $$"
                )],
            ),
            16 => Act::new("map anew", [self.mapped()]),
            17 => {
                Act::new("count", ["SELECT nextval('counter') FROM generate_series(1, 99)".into()])
            }
            18 => {
                Act::new("move table", [format!("ALTER TABLE {m} SET TABLESPACE {}", self.space())])
            }
            _ => Act::new("vacuum", [format!("VACUUM (FREEZE) {m}")]),
        }
    }

    /// No `ALTER DATABASE … SET TABLESPACE`: its replay copies the old directory, which is in no
    /// base backup, whoever took it, where it moved from what was not read yet to what was
    /// (`dbase_redo`, dbcommands.c).
    fn with_what_holds_tables(&mut self) -> Act {
        let one_of = |random: &mut Rng, known: &[u64]| random.choice(known).copied();
        match self.random.u32(..9) {
            0 | 1 if self.databases.len() < DATABASES_MAX => self.create_database(),
            0 | 1 => {
                let n = self.databases.remove(self.random.usize(..self.databases.len()));
                self.sessions.remove(&format!("d{n}"));
                Act::new("drop database", [format!("DROP DATABASE d{n} WITH (FORCE)")])
            }
            2 | 3 => match one_of(&mut self.random, &self.databases) {
                Some(n) => {
                    let more = "INSERT INTO of_pattern SELECT * FROM of_pattern LIMIT 2000";
                    let act = Act::new("write into a database", [more.to_owned()]);
                    Act { database: format!("d{n}"), ..act }
                }
                None => self.create_database(),
            },
            4 | 5 => self.create_tablespace(),
            6 => self.drop_tablespace(),
            7 => Act::new("checkpoint", ["CHECKPOINT".to_owned()]),
            _ => Act::new("switch", ["SELECT pg_switch_wal()".to_owned()]),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn create(&mut self) -> Act {
        let n = self.number();
        self.tables.push(n);
        let unlogged = if self.random.u32(..6) == 0 { "UNLOGGED" } else { "" };
        let (rows, space) = (self.random.u32(1..3000), self.space());
        Act::new(
            "create table",
            [format!(
                "CREATE {unlogged} TABLE m{n} (id int PRIMARY KEY, what text) TABLESPACE {space}; \
                 INSERT INTO m{n} SELECT n, repeat(md5(n::text), n % 13) \
                 FROM generate_series(1, {rows}) n"
            )],
        )
    }

    /// One that is there as far as this session knows.
    fn space(&mut self) -> String {
        let own = self.random.choice(&self.spaces).map(|(n, _)| format!("s{n}"));
        let known = ["pg_default".to_owned(), "first".to_owned(), own.unwrap_or("first".into())];
        self.random.choice(known).expect("there are three")
    }

    fn index(&mut self, table: &str) -> String {
        let kinds = [
            "(what text_pattern_ops)",
            "USING hash (id)",
            "USING brin (id)",
            "USING gin (string_to_array(left(what, 20), 'a'))",
            "USING gist (int4range(id, id + 1))",
            "USING spgist (left(what, 20))",
        ];
        format!("CREATE INDEX ON {table} {}", self.random.choice(kinds).expect("there are six"))
    }

    fn temporary(&mut self, rows: u32) -> Act {
        let n = self.number();
        Act::new(
            "temporary table",
            [format!(
                "DROP TABLE IF EXISTS pg_temp.kept; CREATE TEMP TABLE kept AS SELECT {n} AS n, \
             repeat('x', 100) FROM generate_series(1, {rows}); CREATE INDEX ON kept (n)"
            )],
        )
    }

    fn prepare(&mut self) -> Act {
        self.is_prepared = !self.is_prepared;
        if !self.is_prepared {
            return Act::new("commit prepared", ["COMMIT PREPARED 'one'".to_owned()]);
        }
        let n = self.number();
        let write = format!("BEGIN; INSERT INTO prepared VALUES ({n}); PREPARE TRANSACTION 'one'");
        Act::new("prepare", [write])
    }

    /// What lies where `pg_filenode.map` says gets other files.
    fn mapped(&mut self) -> String {
        let kinds = [
            "VACUUM FULL pg_class",
            "VACUUM FULL pg_attribute",
            "REINDEX TABLE pg_proc",
            "VACUUM FULL pg_database",
            "REINDEX TABLE pg_authid",
        ];
        self.random.choice(kinds).expect("there are five").to_owned()
    }

    fn create_database(&mut self) -> Act {
        let n = self.number();
        self.databases.push(n);
        let strategy = if self.random.bool() { "file_copy" } else { "wal_log" };
        let space = self.space();
        let name = if strategy == "file_copy" { "copy database" } else { "log database" };
        Act::new(
            name,
            [format!(
                "CREATE DATABASE d{n} TEMPLATE {TEMPLATE} STRATEGY {strategy} TABLESPACE {space}"
            )],
        )
    }

    fn create_tablespace(&mut self) -> Act {
        let used = |directory: &PathBuf| self.spaces.iter().any(|(_, used)| used == directory);
        // The first is there from the beginning.
        let mut free = self.directories.iter().skip(1).filter(|directory| !used(directory));
        let Some(directory) = free.next().cloned() else { return self.drop_tablespace() };
        let n = self.number();
        let create = format!("CREATE TABLESPACE s{n} LOCATION '{}'", directory.display());
        self.spaces.push((n, directory));
        let fill = format!(
            "CREATE TABLE m{n} (id int PRIMARY KEY, what text) TABLESPACE s{n}; INSERT INTO m{n} \
             SELECT n, repeat('space', n % 50) FROM generate_series(1, 2000) n"
        );
        Act::new("create tablespace", [create, fill])
    }

    /// Refused where something lies in it.
    fn drop_tablespace(&mut self) -> Act {
        let Some((n, _)) = self.random.choice(&self.spaces).cloned() else {
            return Act::new("checkpoint", ["CHECKPOINT".to_owned()]);
        };
        let drop = [format!("DROP TABLE IF EXISTS m{n}"), format!("DROP TABLESPACE s{n}")];
        Act::new("drop tablespace", drop)
    }

    fn carry_out(&mut self, act: Act) {
        for statement in &act.statements {
            if let Err(why) = self.say(&act.database, statement) {
                let why = format!("{}: {}", act.name, without_names(&why));
                *self.tally.refused.entry(why).or_default() += 1;
                self.sessions.remove(&act.database);
                return;
            }
        }
        if let ("drop tablespace", Some(last)) = (act.name, act.statements.last()) {
            self.spaces.retain(|(n, _)| !last.ends_with(&format!(" s{n}")));
        }
        *self.tally.done.entry(act.name).or_default() += 1;
    }

    fn say(&mut self, database: &str, statement: &str) -> Result<(), String> {
        if !self.sessions.contains_key(database) {
            let mut session = Session::open(&self.place, PORT, database)?;
            // Two that wait for each other are told so at once.
            session.query("SET deadlock_timeout = '50ms'; SET lock_timeout = '5s'")?;
            self.sessions.insert(database.to_owned(), session);
        }
        let session = self.sessions.get_mut(database).expect("it was opened");
        session.query(statement).map(|_| ())
    }

    /// Nothing is left half done.
    fn end(&mut self) {
        if self.is_prepared {
            let act = self.prepare();
            self.carry_out(act);
        }
    }
}

/// The same complaint about another table is the same.
fn without_names(why: &str) -> String {
    why.chars().filter(|c| !c.is_ascii_digit()).collect()
}
