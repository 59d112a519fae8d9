//! What a backup builds on: an earlier one, its parent, or nothing. Where an incremental one is not
//! possible, a full one is taken, and the reason is kept.

use std::time::Duration;

use crate::catalog::chain::{Coming, chain_to_extend};
use crate::catalog::{BackupSummary, TimelinePath, TimelineTree};
use crate::commands::backup::Request;
use crate::commands::backup::session::Session;
use crate::commands::backup::source::Source;
use crate::commands::survey;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::clock;
use crate::postgres::history_file::HistoryFile;
use crate::repository::{BackupFacts, BackupId, Home, Manifest};

/// Which kind of backup is wanted.
#[derive(Debug, Clone, Default)]
pub struct Incremental {
    pub is_wanted: bool,
    /// This parent and no other.
    pub parent: Option<BackupId>,
    /// Backups in a chain, the full one included.
    pub chain_max: usize,
    /// A full one is taken when that of the chain is older.
    pub full_every: Option<Duration>,
}

#[derive(Debug)]
pub enum Basis {
    /// All is copied; why, where an incremental one was wanted.
    Full {
        because: Option<String>,
    },
    Parent(Box<Parent>),
}

#[derive(Debug)]
pub struct Parent {
    pub manifest: Manifest,
    /// How many backups its chain has.
    pub chain_length: usize,
}

/// What a backup was in the end.
#[derive(Debug, Clone, Default)]
pub struct Lineage {
    pub parent: Option<BackupId>,
    /// How many backups its chain has, itself included.
    pub chain_length: usize,
    pub full_because: Option<String>,
}

impl Basis {
    /// A full one in place of the incremental one that was wanted, with one line that says why.
    pub fn full(because: String) -> Basis {
        tracing::warn!("taking a full backup: {because}");
        Basis::Full { because: Some(because) }
    }

    /// The server's `backup_label` with the lines that 17 and later add for an incremental one, so
    /// that pg_combinebackup knows to which backup it belongs (`build_backup_content`,
    /// xlogbackup.c).
    pub fn label(&self, label_file: &str) -> String {
        let Basis::Parent(parent) = self else { return label_file.to_owned() };
        let Manifest { start_lsn, timeline, .. } = &parent.manifest;
        format!("{label_file}INCREMENTAL FROM LSN: {start_lsn}\nINCREMENTAL FROM TLI: {timeline}\n")
    }

    pub fn lineage(&self) -> Lineage {
        match self {
            Basis::Full { because } => {
                Lineage { parent: None, chain_length: 1, full_because: because.clone() }
            }
            Basis::Parent(parent) => Lineage {
                parent: Some(parent.manifest.id.clone()),
                chain_length: parent.chain_length + 1,
                full_because: None,
            },
        }
    }
}

/// How many backups are named where one was not found.
const NAMED: usize = 5;

/// A parent that is not there is a slip of the pen, and no reason for a full backup that nobody
/// asked for: refused, before anything is asked of the server but who it is.
pub fn refuse_unknown_parent(home: &Home, wanted: &Incremental) -> Result<()> {
    let Some(parent) = &wanted.parent else { return Ok(()) };
    let backups = if home.is_claimed()? { home.backups()? } else { Vec::new() };
    if backups.contains(parent) {
        return Ok(());
    }
    let newest: Vec<&str> = backups.iter().rev().take(NAMED).map(BackupId::as_str).collect();
    let hint = match newest.as_slice() {
        [] => "There is no backup of this cluster yet: leave --parent away.".to_owned(),
        newest => format!("The newest are: {}.", newest.join(", ")),
    };
    let message = format!("backup {parent} is not in the repository");
    Err(Error::new(ErrorKind::Refused, message).hint(hint))
}

/// The newest backup that the coming one can build on, if it shall.
pub fn find(
    home: &Home,
    source: &Source,
    request: &Request,
    session: &mut Session,
) -> Result<Basis> {
    let wanted = &request.incremental;
    if !wanted.is_wanted {
        return Ok(Basis::Full { because: None });
    }
    let found = look_for(home, source, wanted, session).context(|| "look for a parent")?;
    Ok(match found {
        Ok(parent) => {
            let id = &parent.manifest.id;
            tracing::info!("building on backup {id}, {} in its chain", parent.chain_length);
            Basis::Parent(Box::new(parent))
        }
        Err(because) => Basis::full(because),
    })
}

type Found = std::result::Result<Parent, String>;

fn look_for(
    home: &Home,
    source: &Source,
    wanted: &Incremental,
    session: &mut Session,
) -> Result<Found> {
    let mut facts = readable(home)?;
    if facts.is_empty() {
        return Ok(Err("there is no backup yet to build on".to_owned()));
    }
    let path = match path_of(source, session) {
        Ok(path) => path,
        Err(error) => return Ok(Err(format!("the server gives no history: {error}"))),
    };
    let tree = survey::tree(home, &mut Vec::new())?;
    let coming = coming(source, wanted, path);
    // A backup whose packs are gone is no better than one that is not there.
    loop {
        let summaries: Vec<BackupSummary> = facts.iter().cloned().map(survey::summary).collect();
        let chain = match chain_to_extend(&summaries, &tree, &coming) {
            Ok(chain) => chain,
            Err(because) => return Ok(Err(because)),
        };
        let ids: Vec<&str> = chain.links().iter().map(|link| link.id.as_str()).collect();
        let links = facts.iter().filter(|facts| ids.contains(&facts.id.as_str()));
        let mut lost = None;
        for link in links {
            if !has_its_packs(home, link)? {
                lost = Some(link.id.clone());
                break;
            }
        }
        let parent: BackupId = chain.last().id.parse()?;
        let Some(lost) = lost else {
            return whole(home, &parent, chain.length());
        };
        if wanted.parent.is_some() {
            return Ok(Err(format!("packs of backup {lost} are missing")));
        }
        tracing::warn!("packs of backup {lost} are missing: it is passed over");
        facts.retain(|facts| facts.id != lost);
    }
}

/// Read to its end, and so checked.
fn whole(home: &Home, id: &BackupId, chain_length: usize) -> Result<Found> {
    match home.manifest(id) {
        Ok(manifest) => Ok(Ok(Parent { manifest, chain_length })),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
            Ok(Err(format!("the manifest of backup {id} cannot be read: {error}")))
        }
        Err(error) => Err(error),
    }
}

fn readable(home: &Home) -> Result<Vec<BackupFacts>> {
    if !home.is_claimed()? {
        return Ok(Vec::new());
    }
    let all = home.all_backup_facts()?;
    Ok(all.into_iter().filter_map(|(_, facts)| facts.ok()).collect())
}

fn coming(source: &Source, wanted: &Incremental, path: TimelinePath) -> Coming {
    // A timer that fires a little early must not put the full one off to the next time.
    let age = wanted.full_every.map(|every| every - every / 50);
    let since = age.and_then(|age| clock::now().checked_sub(age).ok());
    Coming {
        path,
        major: source.major(),
        wal_segment_size: source.segment_size,
        parent: wanted.parent.as_ref().map(BackupId::to_string),
        chain_max: wanted.chain_max,
        full_since: since,
    }
}

/// The way to the server's own timeline, as it tells it: what is archived may be behind.
fn path_of(source: &Source, session: &mut Session) -> Result<TimelinePath> {
    let timeline = source.timeline;
    let history = session.history(timeline);
    let history = history.map(|text| HistoryFile::parse(timeline, &text)).transpose()?;
    TimelineTree::new(history).path(timeline)
}

/// As many as it was published with, and as large.
fn has_its_packs(home: &Home, facts: &BackupFacts) -> Result<bool> {
    let packs = home.packs(&facts.id)?;
    Ok(packs.len() == facts.packs && packs.values().sum::<u64>() == facts.stored)
}
