//! `walden list`: the backups as a table, one of them in detail, or both as JSON.

use std::io::Write as _;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;

use crate::cli::backup;
use crate::cli::table::{Align, table};
use crate::commands::list::{self, Cluster, Detail, Listed, Report, Type};
use crate::commands::{App, Retries};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::BackupId;
use crate::repository::manifest::{Mode, Taken};

/// A person waits.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// Lists the backups, oldest first.
///
/// A backup is usable if the WAL it needs to become consistent is listed by the store; what its
/// objects hold is not read. Say the id of one to see it in detail; then its packs are looked for,
/// too.
#[derive(Debug, clap::Args)]
pub struct List {
    /// This backup, in detail.
    #[arg(value_name = "ID")]
    id: Option<BackupId>,
    /// The same.
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    backup: Option<BackupId>,
}

impl List {
    pub fn run(self, app: &App) -> Result<()> {
        let output = app.settings.output;
        let repository = app.repository(Retries::PerCall(RETRY_FOR))?;
        let one = self.id.or(self.backup);
        let report = match &one {
            Some(id) => list::show(&repository, id)?,
            None => list::list(&repository)?,
        };
        let text = match (output.json, output.quiet, one) {
            (true, ..) => json(&report)?,
            (_, true, _) => ids(&report),
            (_, _, Some(_)) => details(&report),
            (_, _, None) => tables(&report),
        };
        // Who reads no further has read enough.
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(())
    }
}

fn json(report: &Report) -> Result<String> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|error| Error::new(ErrorKind::Bug, "write the list").source(error))?;
    Ok(text + "\n")
}

fn ids(report: &Report) -> String {
    let all = report.clusters.iter().flat_map(|cluster| &cluster.backups);
    all.map(|backup| format!("{}\n", backup.id)).collect()
}

fn tables(report: &Report) -> String {
    let mut text = format!("cluster {} in {}\n", report.cluster, report.repository);
    for Cluster { system_identifier, backups } in &report.clusters {
        text += &format!("\nsystem identifier {system_identifier}\n");
        if backups.is_empty() {
            text += "no backup yet; take one with: walden backup\n";
            continue;
        }
        text += &table(&HEADS, &backups.iter().map(row).collect::<Vec<_>>());
        for backup in backups {
            if let Some(reason) = &backup.reason {
                text += &format!("{} is not usable: {reason}\n", backup.id);
            }
            if let Some(damage) = damage(backup) {
                text += &format!("{} has {damage}\n", backup.id);
            }
        }
    }
    text
}

const HEADS: [(&str, Align); 15] = [
    ("ID", Align::Left),
    ("TYPE", Align::Left),
    ("CHAIN", Align::Right),
    ("BEGAN", Align::Left),
    ("ENDED", Align::Left),
    ("TOOK", Align::Right),
    ("SIZE", Align::Right),
    ("STORED", Align::Right),
    ("RATIO", Align::Right),
    ("WAL NEEDED", Align::Left),
    ("TIMELINE", Align::Right),
    ("SERVER", Align::Left),
    ("VERIFIED", Align::Left),
    ("HELD", Align::Left),
    ("USABLE", Align::Left),
];

fn row(backup: &Listed) -> Vec<String> {
    let or_unknown = |word: Option<String>| word.unwrap_or_else(|| "?".to_owned());
    vec![
        backup.id.to_string(),
        or_unknown(backup.kind.map(kind)),
        or_unknown((!backup.chain.is_empty()).then(|| backup.chain.len().to_string())),
        or_unknown(backup.began.map(time)),
        or_unknown(backup.ended.map(time)),
        or_unknown(backup.duration_ms.map(duration)),
        or_unknown(backup.size.map(size)),
        or_unknown(backup.stored.map(size)),
        or_unknown(ratio(backup)),
        or_unknown(wal(backup)),
        or_unknown(backup.timeline.map(|timeline| timeline.to_string())),
        or_unknown(backup.server_version_num.map(version)),
        backup.verified.map_or_else(|| "never".to_owned(), time),
        yes(backup.held),
        yes(backup.usable),
    ]
}

fn details(report: &Report) -> String {
    let blocks = report.clusters.iter().flat_map(|cluster| {
        let one = |backup| detail(report, cluster, backup);
        cluster.backups.iter().map(one)
    });
    blocks.collect::<Vec<_>>().join("\n")
}

fn detail(report: &Report, cluster: &Cluster, backup: &Listed) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!("{name:<18}{value}\n");
        }
    };
    line("backup", Some(backup.id.to_string()));
    line("cluster", Some(report.cluster.clone()));
    line("system identifier", Some(cluster.system_identifier.to_string()));
    let detail = backup.detail.as_ref();
    line("place", detail.map(|detail| detail.url.clone()));
    line("type", backup.kind.map(kind));
    line("parent", backup.parent.as_ref().map(BackupId::to_string));
    line("chain", (backup.chain.len() > 1).then(|| backup.chain.join(", ")));
    line("label", backup.label.clone());
    for (key, value) in &backup.notes {
        line("note", Some(format!("{key}: {value}")));
    }
    line("taken by", detail.map(|detail| format!("{}", detail.origin)));
    let taken = detail.and_then(|detail| detail.taken.as_ref());
    line("user", taken.map(users));
    line("how", taken.map(|taken| how(backup.mode, taken)));
    line("server", server(backup));
    line("began", backup.began.map(time));
    line("ended", backup.ended.map(time));
    line("took", backup.duration_ms.map(duration));
    line("size", sizes(backup));
    line("packs", detail.map(packs));
    line("timeline", backup.timeline.map(|timeline| timeline.to_string()));
    let lsns = backup.start_lsn.zip(backup.end_lsn);
    line("LSN", lsns.map(|(start, end)| format!("{start} to {end}")));
    line("WAL needed", wal(backup));
    let segment_size = detail.map(|detail| u64::from(detail.wal_segment_size));
    line("WAL segment", segment_size.map(size));
    for space in detail.map(|detail| detail.tablespaces.as_slice()).unwrap_or_default() {
        line("tablespace", Some(format!("{} {}", space.oid, space.path)));
    }
    for file in detail.map(|detail| detail.configuration.as_slice()).unwrap_or_default() {
        line("configuration", Some(file.path.clone()));
    }
    line("names", detail.map(names));
    line("verified", Some(backup.verified.map_or_else(|| "never".to_owned(), time)));
    line("held", Some(yes(backup.held)));
    let usable = match &backup.reason {
        Some(reason) => format!("no: {reason}"),
        None => yes(backup.usable),
    };
    line("usable", Some(usable));
    line("damage", damage(backup));
    for segment in &backup.missing_wal {
        line("missing", Some(segment.clone()));
    }
    text
}

fn damage(backup: &Listed) -> Option<String> {
    let pages = backup.damaged.filter(|pages| *pages > 0)?;
    Some(format!("{} damaged on the server already", backup::pages(pages)))
}

fn users(taken: &Taken) -> String {
    format!("{}, as {} in the database", taken.os_user, taken.database_user)
}

/// `stream, 2 jobs, level 1, 212.4 MiB/s, 41:38 min for the copy`
fn how(mode: Option<Mode>, taken: &Taken) -> String {
    let mode = match mode {
        Some(Mode::Local) => "local",
        _ => "stream",
    };
    let jobs = if taken.jobs == 1 { "1 job".to_owned() } else { format!("{} jobs", taken.jobs) };
    let (rate, copy) = (size(taken.rate), duration(taken.copy_ms));
    let level = taken.compression_level;
    format!("{mode}, {jobs}, level {level}, {rate}/s, {copy} for the copy")
}

fn packs(detail: &Detail) -> String {
    match detail.wrong_packs.len() {
        0 => detail.packs.to_string(),
        wrong => format!("{}, {wrong} of them missing or of another size", detail.packs),
    }
}

fn names(detail: &Detail) -> String {
    let Some(names) = &detail.names else { return "not saved".to_owned() };
    let all = format!("{} relations in {} databases", names.relations, names.databases);
    match names.unread.is_empty() {
        true => all,
        false => format!("{all}, without {}", names.unread.join(", ")),
    }
}

fn server(backup: &Listed) -> Option<String> {
    let version = version(backup.server_version_num?);
    let standby = if backup.from_standby? { ", a standby" } else { "" };
    let taken = backup.detail.as_ref().and_then(|detail| detail.taken.as_ref());
    let version = taken.map_or(version, |taken| taken.server_version.clone());
    let checksums = match taken.and_then(|taken| taken.data_checksums) {
        Some(true) => ", with data checksums",
        Some(false) => ", without data checksums",
        None => "",
    };
    Some(format!("PostgreSQL {version}{standby}{checksums}"))
}

fn sizes(backup: &Listed) -> Option<String> {
    let (raw, stored) = (size(backup.size?), size(backup.stored?));
    Some(format!("{raw} in {} files, {stored} stored", backup.files?))
}

fn kind(kind: Type) -> String {
    match kind {
        Type::Full => "full",
        Type::Incremental => "incremental",
    }
    .to_owned()
}

fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S+00").to_string()
}

/// `3.2 s`, `4:05 min`, `12:04:05 h`
fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{:.1} s", milliseconds as f64 / 1000.0),
        (0, _) => format!("{minutes}:{rest:02} min"),
        _ => format!("{hours}:{minutes:02}:{rest:02} h"),
    }
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// How many times smaller it is as stored.
fn ratio(backup: &Listed) -> Option<String> {
    let (size, stored) = (backup.size?, backup.stored?);
    (stored > 0).then(|| format!("{:.1}", size as f64 / stored as f64))
}

/// `000000010000000000000002..00000005`: the end is short where it lies in the same log file.
fn wal(backup: &Listed) -> Option<String> {
    let (first, last) = (backup.first_wal.as_ref()?, backup.last_wal.as_ref()?);
    let log = |segment: &str| segment.get(..16).map(str::to_owned);
    Some(match last.get(16..) {
        _ if first == last => first.clone(),
        Some(segment) if log(first) == log(last) => format!("{first}..{segment}"),
        _ => format!("{first}..{last}"),
    })
}

fn version(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

fn yes(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}
