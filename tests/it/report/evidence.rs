//! What was done in three months: drills on Sundays, a sample verified every night, everything
//! once a month, a restore, and what went wrong meanwhile.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use walden::repository::audit::{AuditEntry, Outcome, Verb};
use walden::repository::drill_record::{
    Check, Commit, DrillRecord, Objectives, Plan, Postgresql, Reached, TableRows, Target, Timings,
    Verdict,
};
use walden::repository::verification::{Verification, VerifiedBackup, VerifiedWal};
use walden::repository::{BackupId, Home};

use super::history::{Backup, History, Written, days, set_time, timeline};

pub fn write(history: &History, chance: &mut fastrand::Rng) {
    let trail = Trail { history, home: &history.home };
    for backup in &history.backups {
        let kind = if backup.is_full { "full" } else { "incremental" };
        let summary = format!("{kind} backup {} of {} MiB stored", backup.id, backup.stored >> 20);
        let details = json!({ "id": backup.id.to_string(), "type": kind, "stored": backup.stored });
        trail.enter(Verb::Backup, (backup.began, backup.ended), (Outcome::Done, &summary), details);
    }
    let failed = history.at(33, 2.1);
    let why = "cannot connect to PostgreSQL: connection refused";
    trail.enter(Verb::Backup, (failed, failed + minutes(1)), (Outcome::Failed, why), Value::Null);
    let restored = history.at(66, 11.2);
    let summary = "restored into /var/lib/postgresql/17/restored, to just before the drop of \
                   public.orders";
    trail.enter(
        Verb::Restore,
        (restored, restored + minutes(24)),
        (Outcome::Done, summary),
        json!({}),
    );
    for day in 1..92 {
        trail.verify(day);
    }
    let mut rows = 1_200_000;
    for (number, day) in (6..92).step_by(7).enumerate() {
        let before = (number > 0).then_some(rows);
        rows += 40_000 + u64::from(chance.u32(..9000));
        trail.drill(number, history.at(day, 4.0), (rows, before), chance);
    }
    let held = history.backups.iter().find(|backup| backup.is_full).unwrap();
    let path = history.path(history.home.holds_key().as_str());
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join(format!("{}.json", held.id)), "{}").unwrap();
}

struct Trail<'h> {
    history: &'h History,
    home: &'h Home,
}

impl Trail<'_> {
    fn enter(
        &self,
        verb: Verb,
        (began, ended): (Timestamp, Timestamp),
        (outcome, summary): (Outcome, &str),
        details: Value,
    ) {
        let entry = AuditEntry {
            walden: 1,
            verb,
            began,
            ended,
            outcome,
            summary: summary.to_owned(),
            host: if verb == Verb::Drill { "drill1" } else { "db1" }.to_owned(),
            os_user: if verb == Verb::Restore { "anna" } else { "postgres" }.to_owned(),
            version: if began < self.history.at(50, 0.0) { "0.1.0" } else { "0.2.0" }.to_owned(),
            details,
        };
        self.home.put_audit(&entry).unwrap();
        set_time(self.path(self.home.audit_key(began, verb).as_str()).as_ref(), ended);
    }

    /// A twentieth each night, in turn; everything on every thirtieth day, and after a finding.
    fn verify(&self, day: i64) {
        let began = self.history.at(day, 5.0);
        let is_everything = day % 30 == 0 || day == 51;
        let turn = day as usize % 20;
        let stored: Vec<&Written> =
            self.history.segments.iter().filter(|it| it.stored < began).collect();
        let taken: Vec<&Backup> =
            self.history.backups.iter().filter(|it| it.ended < began).collect();
        let is_meant = |n: usize| is_everything || n % 20 == turn;
        let part = stored.len().div_ceil(20).max(1);
        let parts = stored.chunks(part).enumerate().filter(|(n, _)| is_meant(*n));
        let wal: Vec<VerifiedWal> = parts.flat_map(|(_, part)| runs(part)).collect();
        let backups: Vec<VerifiedBackup> = taken
            .iter()
            .enumerate()
            .filter(|(n, _)| is_meant(*n))
            .map(|(_, backup)| VerifiedBackup {
                id: backup.id.clone(),
                packs: vec![(0, 3)],
                whole: true,
                sound: true,
            })
            .collect();
        let found = u64::from(day == 50);
        let finding = "00000001000000000000014A: a record at 1/4A31F0 does not match its checksum; \
                       recovery into 2026-09-01 10:02 to 10:07 is impossible";
        let verification = Verification {
            deep: true,
            sample: if is_everything { 1.0 } else { 0.05 },
            read_bytes: wal.len() as u64 * (1 << 30) + backups.len() as u64 * (900 << 20),
            backups,
            wal,
            findings: (found > 0).then(|| finding.to_owned()).into_iter().collect(),
            found,
        };
        let outcome = if found > 0 { Outcome::FoundWrong } else { Outcome::Done };
        let summary = match (found, is_everything) {
            (0, true) => "everything was read, and is sound",
            (0, false) => "5 % was read, and is sound",
            _ => "1 segment is damaged",
        };
        let details = serde_json::to_value(&verification).unwrap();
        let took = minutes(if is_everything { 95 } else { 7 });
        self.enter(Verb::Verify, (began, began + took), (outcome, summary), details);
    }

    fn drill(
        &self,
        number: usize,
        began: Timestamp,
        (rows, before): (u64, Option<u64>),
        chance: &mut fastrand::Rng,
    ) {
        let verdict = match number {
            4 => Verdict::Failed,
            9 => Verdict::Incomplete,
            _ => Verdict::Passed,
        };
        let mut ms = |about: u64| about * u64::from(chance.u16(80..125)) * 10;
        let slow = if verdict == Verdict::Failed { 4 } else { 1 };
        let phases = [ms(2), ms(230 + 6 * number as u64), ms(14), ms(190) * slow, ms(2)];
        let rto: u64 = phases.iter().sum();
        let ended = began + SignedDuration::from_millis(rto as i64 + 40_000);
        let target = *self.history.segments.iter().rfind(|it| it.stored < began - days(2)).unwrap();
        let lsn = target.name.start(super::history::SEGMENT_BYTES);
        let id = BackupId::new(began, chance.u16(..));
        let record = DrillRecord {
            walden: 1,
            id: id.clone(),
            repository: self.home.url(),
            cluster: "shop".to_owned(),
            system_identifier: self.home.system_identifier(),
            verdict,
            reasons: reasons(verdict),
            notes: vec!["pg_stat_statements was left out of shared_preload_libraries.".to_owned()],
            began,
            ended,
            host: "drill1".to_owned(),
            os_user: "postgres".to_owned(),
            version: "0.1.0".to_owned(),
            postgresql: postgresql(),
            target: Target {
                mode: "random".to_owned(),
                options: vec!["--target-lsn".to_owned(), lsn.to_string()],
                seed: Some(7),
                last_commit: Some(Commit { lsn, xid: 88_121, time: target.ended }),
            },
            plan: self.plan(began, target),
            reached: Some(Reached {
                last_commit: Some(target.ended),
                lsn: Some(lsn),
                timeline: Some(target.name.timeline),
                stopped: Some("recovery stopping after commit of transaction 88121".to_owned()),
            }),
            timings: timings(phases),
            objectives: Objectives {
                rto_ms: Some(900_000),
                rpo_ms: Some(900_000),
                rpo_measured_ms: Some(212_000),
            },
            checks: checks(verdict, rto),
            tables: tables(rows, before),
            kept: None,
        };
        self.home.put_drill(&record).unwrap();
        set_time(self.path(self.home.drill_key(&id).as_str()).as_ref(), ended);
        let (outcome, summary) = match verdict {
            Verdict::Passed => (Outcome::Done, "recovered to a random commit, all checks passed"),
            Verdict::Failed => (Outcome::FoundWrong, "recovered, but it took too long"),
            Verdict::Incomplete => (Outcome::CouldNotCheck, "recovered; amcheck is not installed"),
        };
        let details = json!({ "id": id.to_string() });
        self.enter(Verb::Drill, (began, ended), (outcome, summary), details);
    }

    fn plan(&self, began: Timestamp, target: Written) -> Option<Plan> {
        let backups: Vec<&Backup> =
            self.history.backups.iter().filter(|it| it.ended < began - days(2)).collect();
        let full = backups.iter().rposition(|backup| backup.is_full)?;
        let chain = &backups[full..];
        Some(Plan {
            backup: chain.last()?.id.clone(),
            chain: chain.iter().map(|backup| backup.id.clone()).collect(),
            timeline: timeline(1),
            timeline_path: target.name.timeline.to_string(),
            first_wal: target.name.to_string(),
            last_wal: target.name.to_string(),
            segments: 131,
            size: chain[0].size,
            stored: chain.iter().map(|backup| backup.stored).sum(),
        })
    }

    fn path(&self, key: &str) -> impl AsRef<Path> + use<> {
        self.history.path(key)
    }
}

fn postgresql() -> Postgresql {
    Postgresql {
        source: Some("17.5".to_owned()),
        used: Some("17.6".to_owned()),
        bin: Some("/usr/lib/postgresql/17/bin".into()),
    }
}

fn timings(phases: [u64; 5]) -> Timings {
    let [choose, fetch, consistent, replay, ready] = phases.map(Some);
    Timings {
        choose_ms: choose,
        fetch_ms: fetch,
        consistent_ms: consistent,
        replay_ms: replay,
        ready_ms: ready,
        rto_ms: Some(phases.iter().sum()),
        checks_ms: Some(40_000),
    }
}

/// A name may be anything.
fn tables(rows: u64, before: Option<u64>) -> Vec<TableRows> {
    let table = |relation: &str, rows, before| TableRows {
        database: "shop".to_owned(),
        relation: relation.to_owned(),
        rows,
        before,
    };
    let orders = table("public.orders", rows, before);
    vec![orders, table("public.<script>alert(1)</script>", 4, Some(4))]
}

fn reasons(verdict: Verdict) -> Vec<String> {
    match verdict {
        Verdict::Passed => Vec::new(),
        Verdict::Failed => vec!["Recovery took longer than objectives.rto allows.".to_owned()],
        Verdict::Incomplete => vec!["amcheck is not installed in shop.".to_owned()],
    }
}

fn checks(verdict: Verdict, rto: u64) -> Vec<Check> {
    let check = |kind: &str, what: &str, verdict, answer: &str, duration_ms| Check {
        kind: kind.to_owned(),
        what: what.to_owned(),
        verdict,
        answer: answer.to_owned(),
        duration_ms,
    };
    let passed = Verdict::Passed;
    let amcheck = match verdict {
        Verdict::Incomplete => (Verdict::Incomplete, "the extension is not installed"),
        _ => (passed, "214 indexes are sound"),
    };
    let in_time = if verdict == Verdict::Failed { Verdict::Failed } else { passed };
    let statement =
        "SELECT count(*) > 1000000 FROM orders WHERE placed > now() - interval '90 days'";
    vec![
        check("target", "last commit 88121", passed, "recovery ended right there", 3),
        check("checksums", "all data files", passed, "6 291 456 pages are sound", 21_000),
        check("amcheck", "shop", amcheck.0, amcheck.1, 14_000),
        check("sql", statement, passed, "true", 1_850),
        check("rto", "15 min", in_time, &format!("{} s", rto / 1000), 0),
    ]
}

/// Segments that follow each other, of one timeline.
fn runs(part: &[&Written]) -> Vec<VerifiedWal> {
    let mut runs: Vec<VerifiedWal> = Vec::new();
    for written in part {
        match runs.last_mut() {
            Some(run) if run.last.next(super::history::SEGMENT_BYTES) == written.name => {
                run.last = written.name;
            }
            _ => {
                let (first, last) = (written.name, written.name);
                runs.push(VerifiedWal { first, last, deep: true });
            }
        }
    }
    runs
}

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}
