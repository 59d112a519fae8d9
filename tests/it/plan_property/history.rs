//! A cluster's life: commits, rollbacks, savepoints, restore points, backups, copies that take
//! over, lost WAL; and what really happened, as pg_walinspect tells it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use jiff::Timestamp;
use walden::postgres::history_file::HistoryFile;
use walden::postgres::{Lsn, SegmentName, TimelineId};

use crate::harness::{ANY_MAJOR, Cluster, Scratch, Walden};

pub const SEGMENT_BYTES: u32 = 1 << 20;

pub struct History {
    repository: Scratch,
    pub events: Vec<Event>,
    /// Where records begin, by timeline.
    pub starts: BTreeMap<u32, Vec<Lsn>>,
    /// Of a timeline: the one it branched off, and where.
    pub forks: BTreeMap<u32, (u32, Lsn)>,
    pub backups: Vec<Backup>,
    /// In the repository, once what was to be lost is lost.
    pub archived: Vec<SegmentName>,
    /// By timeline and transaction.
    inserted: BTreeMap<(u32, u32), Vec<i64>>,
    next_id: i64,
}

#[derive(Debug)]
pub struct Event {
    pub timeline: u32,
    pub lsn: Lsn,
    pub xid: u32,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    Commit { time: Timestamp, subtransactions: Vec<u32>, ids: Vec<i64> },
    Abort { time: Timestamp },
    RestorePoint { name: String },
}

#[derive(Debug)]
pub struct Backup {
    pub id: String,
    pub timeline: u32,
    pub end: Lsn,
    pub ended: Timestamp,
}

impl Event {
    pub fn time(&self) -> Option<Timestamp> {
        match &self.what {
            What::Commit { time, .. } | What::Abort { time } => Some(*time),
            What::RestorePoint { .. } => None,
        }
    }
}

impl History {
    /// Timeline 1, then a copy that was recovered to a point in time and takes over, then another
    /// or a standby after a crash; the servers before may have gone on for a while.
    pub fn live(chance: &mut fastrand::Rng) -> History {
        let repository = Scratch::new();
        let url = format!("file://{}", repository.path().display());
        let first = Cluster::builder(ANY_MAJOR)
            .archive_to(url, "main")
            .setting("wal_keep_size", "'1GB'")
            .setting("hot_standby", "on")
            .start();
        first.sql("CREATE EXTENSION pg_walinspect");
        first.sql("CREATE TABLE t (id bigint)");
        let mut history = History {
            repository,
            events: Vec::new(),
            starts: BTreeMap::new(),
            forks: BTreeMap::new(),
            backups: Vec::new(),
            archived: Vec::new(),
            inserted: BTreeMap::new(),
            next_id: 1,
        };
        let place = Scratch::new();
        history.act(&first, 1, chance, 6);
        history.back_up(&first);
        history.act(&first, 1, chance, 14);
        first.archive_everything();
        let mut second = history.take_over(&first, (1, 2), &place, chance);
        // Two servers, both archiving, as after a recovery that is only tried out.
        history.act(&first, 1, chance, 6);
        history.act(&second, 2, chance, 12);
        history.end(first, 1, chance);
        second.archive_everything();
        if chance.bool() {
            let third = history.fail_over(&second, chance);
            history.act(&third, 3, chance, 8);
            history.learn(&second, 2);
            second.crash();
            history.end(third, 3, chance);
        } else {
            let third = history.take_over(&second, (2, 3), &place, chance);
            history.act(&third, 3, chance, 8);
            history.end(second, 2, chance);
            history.end(third, 3, chance);
        }
        history.lose(chance);
        history
    }

    /// walden, as its user would call it when no server is left.
    pub fn walden(&self) -> Walden {
        let url = format!("file://{}", self.repository.path().display());
        Walden::new().as_server_user().current_dir("/tmp").repository(url).cluster("main")
    }

    pub fn timelines(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(1).chain(self.forks.keys().copied())
    }

    pub fn newest(&self) -> u32 {
        self.timelines().max().unwrap()
    }

    /// What happened since the first backup began.
    pub fn told(&self) -> impl Iterator<Item = &Event> {
        let first = self.backups.iter().map(|backup| backup.end).min().unwrap_or_default();
        self.events.iter().filter(move |event| event.lsn.0 >= first.0.saturating_sub(0x1000))
    }

    fn act(&mut self, cluster: &Cluster, timeline: u32, chance: &mut fastrand::Rng, times: usize) {
        let mut session = cluster.session("postgres").unwrap();
        for _ in 0..times {
            let mut ask =
                |sql: &str| session.query(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
            let id = self.next_id;
            self.next_id += 2;
            match chance.u8(..100) {
                0..45 => {
                    let sql =
                        format!("WITH i AS (INSERT INTO t VALUES ({id})) SELECT txid_current()");
                    self.remember(timeline, &ask(&sql), vec![id]);
                }
                45..57 => {
                    ask(&format!("BEGIN; INSERT INTO t VALUES ({id}); ROLLBACK"));
                }
                57..67 => {
                    let sql = format!(
                        "BEGIN; INSERT INTO t VALUES ({id}); SAVEPOINT s; \
                         INSERT INTO t VALUES ({}); SELECT txid_current(); COMMIT",
                        id + 1
                    );
                    self.remember(timeline, &ask(&sql), vec![id, id + 1]);
                }
                67..77 => {
                    let number = if chance.u8(..4) == 0 { 0 } else { id };
                    ask(&format!("SELECT pg_create_restore_point('point {number}')"));
                }
                77..92 => {
                    ask("SELECT pg_switch_wal()");
                }
                92..96 => self.back_up(cluster),
                _ => {
                    ask("CHECKPOINT");
                }
            }
        }
    }

    fn remember(&mut self, timeline: u32, answer: &[Vec<Option<String>>], ids: Vec<i64>) {
        let xid = answer[0][0].as_ref().unwrap().parse().unwrap();
        self.inserted.insert((timeline, xid), ids);
    }

    fn back_up(&mut self, cluster: &Cluster) {
        let output = cluster.walden().args(["backup", "--json"]).run();
        assert_eq!(output.code(), Some(0), "{output}\n{}", cluster.log());
        let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        let text = |key: &str| report[key].as_str().unwrap();
        self.backups.push(Backup {
            id: text("id").to_owned(),
            timeline: u32::try_from(report["timeline"].as_u64().unwrap()).unwrap(),
            end: text("end_lsn").parse().unwrap(),
            ended: text("ended").parse().unwrap(),
        });
    }

    /// A copy recovered to some commit of `timeline`, which goes on as timeline `new`.
    fn take_over(
        &mut self,
        cluster: &Cluster,
        (timeline, new): (u32, u32),
        place: &Scratch,
        chance: &mut fastrand::Rng,
    ) -> Cluster {
        self.learn(cluster, timeline);
        let oldest = self.backups.iter().map(|backup| backup.end).min().unwrap();
        let reachable = |event: &&Event| {
            event.timeline == timeline
                && matches!(event.what, What::Commit { .. })
                && event.lsn >= oldest
        };
        let commits: Vec<&Event> = self.events.iter().filter(reachable).collect();
        // The switch that ends the WAL is itself a commit: there is one at least.
        let target = commits[chance.usize(..commits.len())].lsn;
        let directory = place.join(&format!("timeline-{new}"));
        let restore = cluster.walden().arg("restore").arg(&directory);
        let flags = ["--target-action", "promote", "--adopt", "--target-lsn", &target.to_string()];
        let timeline = timeline.to_string();
        restore.args(flags).args(["--target-timeline", &timeline]).run().succeeds();
        let mut copy = Cluster::over(ANY_MAJOR, &directory).archiving_as(cluster);
        copy.start_again();
        copy.wait_until("NOT pg_is_in_recovery()");
        self.branch(&copy, new);
        copy
    }

    /// A standby that has replayed what is archived is promoted; its primary crashes.
    fn fail_over(&mut self, primary: &Cluster, chance: &mut fastrand::Rng) -> Cluster {
        let mut standby = Cluster::copy_of(primary);
        // The primary was restored itself, to a target that is none of the standby's.
        fs::write(standby.pgdata().join("postgresql.auto.conf"), "").unwrap();
        standby.archive_again();
        standby.signal("standby.signal");
        self.act(primary, 2, chance, 4);
        let archived = primary.write_wal(1).remove(0);
        primary.wait_archived();
        let archived = SegmentName::parse(&archived).unwrap().start(SEGMENT_BYTES);
        // What comes now dies with the primary.
        self.act_quietly(primary);
        standby.start_again();
        standby.wait_until(&format!("pg_last_wal_replay_lsn() >= '{archived}'"));
        standby.promote();
        self.branch(&standby, 3);
        standby
    }

    fn act_quietly(&mut self, primary: &Cluster) {
        let id = self.next_id;
        self.next_id += 2;
        let sql = format!("WITH i AS (INSERT INTO t VALUES ({id})) SELECT txid_current()");
        let answer = primary.sql(&sql);
        self.remember(2, &answer, vec![id]);
    }

    /// Where it branched off, from the history file that the server wrote.
    fn branch(&mut self, cluster: &Cluster, new: u32) {
        let timeline = TimelineId::new(new).unwrap();
        let name = format!("{}.history", timeline.to_hex());
        let text = fs::read_to_string(cluster.pgdata().join("pg_wal").join(name)).unwrap();
        let parent = HistoryFile::parse(timeline, &text).unwrap().ancestors.pop().unwrap();
        self.forks.insert(new, (parent.timeline.get(), parent.end));
    }

    /// By a fast stop, which archives everything, or by a crash, which does not.
    fn end(&mut self, mut cluster: Cluster, timeline: u32, chance: &mut fastrand::Rng) {
        if chance.bool() {
            cluster.sql("SELECT pg_switch_wal()");
            cluster.wait_archived();
            self.act_at_the_end(&cluster, timeline, chance);
            self.learn(&cluster, timeline);
            cluster.crash();
        } else {
            cluster.archive_everything();
            self.learn(&cluster, timeline);
            cluster.stop();
        }
    }

    fn act_at_the_end(&mut self, cluster: &Cluster, timeline: u32, chance: &mut fastrand::Rng) {
        if chance.bool() {
            self.act(cluster, timeline, chance, 3);
        }
    }

    /// All that its WAL says of this timeline, anew.
    fn learn(&mut self, cluster: &Cluster, timeline: u32) {
        self.events.retain(|event| event.timeline != timeline);
        let from = match self.forks.get(&timeline) {
            Some((_, fork)) => fork.to_string(),
            None => {
                let oldest = cluster.value("SELECT min(name) FROM pg_ls_waldir()");
                let start = SegmentName::parse(&oldest).unwrap().start(SEGMENT_BYTES);
                Lsn(start.0 + 40).to_string()
            }
        };
        let records = cluster.sql(&format!(
            "SELECT start_lsn, xid, resource_manager || ' ' || split_part(record_type, ' ', 1), \
             description FROM pg_get_wal_records_info('{from}', pg_current_wal_flush_lsn())"
        ));
        let mut starts = Vec::new();
        for record in records {
            let [lsn, xid, kind, description] = <[String; 4]>::try_from(
                record.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>(),
            )
            .unwrap();
            let (lsn, xid): (Lsn, u32) = (lsn.parse().unwrap(), xid.parse().unwrap());
            starts.push(lsn);
            let what = match kind.as_str() {
                "Transaction COMMIT" => What::Commit {
                    time: time_in(&description),
                    subtransactions: subtransactions_in(&description),
                    ids: self.inserted.get(&(timeline, xid)).cloned().unwrap_or_default(),
                },
                "Transaction ABORT" => What::Abort { time: time_in(&description) },
                "XLOG RESTORE_POINT" => What::RestorePoint { name: description },
                _ => continue,
            };
            self.events.push(Event { timeline, lsn, xid, what });
        }
        self.starts.insert(timeline, starts);
    }

    /// Sometimes a segment is lost; then what is left is noted.
    fn lose(&mut self, chance: &mut fastrand::Rng) {
        let mut found = Vec::new();
        let mut folders = vec![self.repository.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else if let Some(segment) = name.strip_suffix(".zst").and_then(SegmentName::parse)
                {
                    found.push((segment, entry.path()));
                }
            }
        }
        found.sort();
        if chance.u8(..3) == 0 {
            // Not one that the first backup needs: little would be left to ask for.
            let needed = self.backups.iter().map(|backup| backup.end).min().unwrap_or_default();
            let from = found.partition_point(|(segment, _)| {
                segment.timeline.get() == 1 && segment.start(SEGMENT_BYTES) < needed
            });
            let (_, path) = found.remove(chance.usize(from..found.len()));
            fs::remove_file(path).unwrap();
        }
        self.archived = found.into_iter().map(|(segment, _)| segment).collect();
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "forks {:?}", self.forks)?;
        for backup in &self.backups {
            writeln!(f, "{backup:?}")?;
        }
        let names: Vec<String> = self.archived.iter().map(SegmentName::to_string).collect();
        writeln!(f, "archived {}", names.join(" "))?;
        for event in self.told() {
            writeln!(f, "{} {} {} {:?}", event.timeline, event.lsn, event.xid, event.what)?;
        }
        Ok(())
    }
}

/// `2026-11-21 10:15:30.123456+00; subxacts: 746`
fn time_in(description: &str) -> Timestamp {
    let time = description.split(';').next().unwrap_or_default();
    let words: Vec<&str> = time.split_whitespace().take(2).collect();
    words.join("T").parse().unwrap_or_else(|error| panic!("{description}: {error}"))
}

fn subtransactions_in(description: &str) -> Vec<u32> {
    let Some((_, list)) = description.split_once("subxacts: ") else { return Vec::new() };
    let list = list.split(';').next().unwrap_or_default();
    list.split_whitespace().map(|xid| xid.parse().unwrap()).collect()
}
