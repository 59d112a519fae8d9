//! `restore`: survey → decide → examine the host → (the plan is printed) → place → settle →
//! recovery settings → `pg_control`, last of all → start the server and wait, where asked to.

pub mod records;
pub mod check_wal;
pub mod chain;
pub mod pieces;
pub mod databases;
pub mod placement;
pub mod marker;
pub mod occupied;
pub mod destination;
pub mod in_place;
pub mod plan;
pub mod carry_out;
pub mod compare;
pub mod targets;
pub mod packs;
pub mod place;
pub mod renew;
pub mod settle;
pub mod configuration;
pub mod recovery;
pub mod wait;
pub mod trail;
pub mod extract;

use std::path::{Path, PathBuf};

use crate::catalog::recovery_plan::{Known, decide};
use crate::catalog::{Decision, Target, TargetAction, Wanted};
use crate::commands::survey::{self, Memory, Survey};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::{self, Deadline};
use crate::host::privileges::{self, User};
use crate::postgres::installation::Installation;
use crate::postgres::{MajorVersion, SystemIdentifier};
use crate::repository::manifest::FileEntry;
use crate::repository::{Home, Manifest, Repository};

pub use carry_out::Done;
pub use plan::Plan;

use chain::Chain;
use configuration::Configuration;
use databases::Databases;
use destination::Destination;
use occupied::Into;
use placement::{Link, Placement};
use records::WalRecords;

/// What a restore is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    pub directory: PathBuf,
    pub wanted: Wanted,
    /// `None`: not said.
    pub action: Option<TargetAction>,
    pub standby: bool,
    /// Let the restored server archive as the source did.
    pub adopt: bool,
    /// Old path to new path.
    pub tablespace_map: Vec<(PathBuf, PathBuf)>,
    /// Tablespaces that are not mapped go to `<root>/<oid>`.
    pub tablespace_root: Option<PathBuf>,
    /// Whom the files shall belong to, where root restores.
    pub owner: Option<String>,
    pub system_identifier: Option<SystemIdentifier>,
    /// Below which directory the configuration files are brought that the cluster keeps outside of
    /// its data directory.
    pub configuration: Option<PathBuf>,
    /// In bytes fetched in a second.
    pub max_rate: Option<u64>,
    /// Nothing more is fetched after it; `None`: it may take as long as it takes.
    pub deadline: Option<Deadline>,
    /// Keep what is right in a directory that holds this cluster, and change the rest.
    pub delta: bool,
    /// The databases that are restored with their content; none: all of them.
    pub include_databases: Vec<String>,
    /// Packs fetched and placed at the same time; each holds up to 64 MiB.
    pub jobs: usize,
    /// The words of a call of walden that finds this repository; see `recovery::fetch_call`.
    pub fetch_call: Vec<String>,
    /// PostgreSQL's programs, where somebody said which.
    pub pg_bin: Option<PathBuf>,
}

impl Request {
    /// PostgreSQL's own default is to pause. At the end of the archived WAL it promotes, whatever
    /// `recovery_target_action` says.
    fn action(&self) -> TargetAction {
        match self.wanted.target {
            Target::Latest => TargetAction::Promote,
            _ => self.action.unwrap_or(TargetAction::Pause),
        }
    }

    fn refuse_action_nobody_heeds(&self) -> Result<()> {
        match (&self.wanted.target, self.action) {
            (Target::Latest, Some(TargetAction::Pause | TargetAction::Shutdown)) => {
                Err(Error::new(
                    ErrorKind::Usage,
                    "--target-latest ends in a promotion, whatever --target-action says",
                )
                .hint("Leave --target-action out, or name a target to stop at."))
            }
            _ => Ok(()),
        }
    }

    /// A standby has no target, and would replay what the parent wrote after the fork.
    fn refuse_standby_at_a_fork(&self, decision: &Decision) -> Result<()> {
        let stops = decision.stop.target != Target::Latest;
        if !self.standby || self.wanted.target != Target::Latest || !stops {
            return Ok(());
        }
        let timeline = decision.path.last();
        Err(Error::new(ErrorKind::Refused, format!("timeline {timeline} has archived no WAL yet"))
            .hint("Run pg_switch_wal() on its server, or name another --target-timeline."))
    }
}

/// A restore that was decided, and not yet begun.
#[derive(Debug)]
pub struct Prepared {
    pub plan: Plan,
    pub decision: Decision,
    home: Home,
    chain: Chain,
    destination: Destination,
    placement: Placement,
    configuration: Option<Configuration>,
    request: Request,
}

/// Decides, and changes nothing: all refusals come from here.
pub fn prepare(repository: &Repository, request: Request) -> Result<Prepared> {
    request.refuse_action_nobody_heeds()?;
    let asked = request.wanted.backup.as_deref().map(str::parse).transpose()?;
    let home = survey::find_home(repository, request.system_identifier, asked.as_ref())?;
    let survey = survey::survey(&home, &Memory::none())?;
    let decision = decide_on(&home, &survey, &request.wanted)?;
    request.refuse_standby_at_a_fork(&decision)?;
    let chain = load_chain(&home, &decision)?;
    prepare_decided(repository, Decided { home, chain, decision, notes: survey.notes }, request)
}

/// What leads to the target, by what the repository holds; of this host nothing is asked.
pub fn decide_on(home: &Home, survey: &Survey, wanted: &Wanted) -> Result<Decision> {
    let known = Known {
        backups: &survey.backups,
        tree: &survey.tree,
        inventory: &survey.inventory,
        records: &WalRecords::new(home),
        now: clock::now(),
    };
    let decision = decide(&known, wanted);
    // Whoever is told that there is no backup must hear of the one that cannot be read.
    decision.map_err(|error| {
        survey.notes.iter().fold(error, |error, note| error.context(note.trim_end_matches('.')))
    })
}

/// The backup that was chosen, with all it rests on, as their manifests have them.
pub fn load_chain(home: &Home, decision: &Decision) -> Result<Chain> {
    let manifest = home.manifest(&decision.backup.id.parse()?)?;
    survey::expect_as_summarized(&decision.backup, &manifest)?;
    Chain::load(home, manifest)
}

/// What a restore knows once it is decided.
#[derive(Debug)]
pub struct Decided {
    pub home: Home,
    pub chain: Chain,
    pub decision: Decision,
    /// They go with the plan.
    pub notes: Vec<String>,
}

/// Whether this host can take it.
pub fn prepare_decided(
    repository: &Repository,
    decided: Decided,
    request: Request,
) -> Result<Prepared> {
    let Decided { home, chain, decision, notes } = decided;
    let manifest = chain.newest();
    let destination = destination::examine(&request, manifest, &repository.url())?;
    let databases = Databases::find(&home, manifest, &request.include_databases)?;
    let is_empty = |path: &str| databases.is_empty(path);
    let placement = Placement::new(&chain, &destination.directory, &destination.links, &is_empty)?;
    let mut plan = Plan::new(&request, &chain, &placement, &decision);
    let in_place = match destination.into {
        Into::Empty => None,
        Into::Unfinished | Into::Delta => Some(in_place::look(&placement, &destination.roots())?),
    };
    let disk_bytes = in_place.as_ref().map_or(0, |found| found.disk_bytes);
    destination::refuse_full(&placement, &destination, &plan.estimate, disk_bytes)?;
    let settings = recovery::settings(&request, version(chain.newest()), &decision);
    plan.place(home.url(), &destination, recovery::signal_file(&request), settings.block());
    plan.describe_in_place(&destination, in_place.as_ref(), &placement);
    plan.databases_left_out = databases.left_out;
    plan.notes.extend(notes);
    let configuration = request
        .configuration
        .as_deref()
        .map(|root| Configuration::prepare(&home, chain.newest(), root, &destination.directory));
    let configuration = configuration.transpose()?;
    plan.configuration = configuration.as_ref().map(Configuration::paths).unwrap_or_default();
    let mut prepared =
        Prepared { plan, decision, home, chain, destination, placement, configuration, request };
    prepared.warn();
    Ok(prepared)
}

impl Prepared {
    /// Reads all WAL that will be replayed. `progress` is told of each segment, from any thread.
    pub fn check_wal(&mut self, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let until = self.decision.stop.place.map(|place| place.lsn);
        let segments = &self.decision.segments;
        let checked = check_wal::check_wal(&self.home, segments, until, progress)?;
        self.plan.wal.checked = Some(checked);
        Ok(())
    }

    pub fn version(&self) -> MajorVersion {
        version(self.chain.newest())
    }

    /// What `progress` will have been told in the end.
    pub fn stream_bytes(&self) -> u64 {
        self.placement.bytes()
    }

    pub fn directory(&self) -> &Path {
        &self.destination.directory
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Of the backup that was chosen.
    pub fn manifest(&self) -> &Manifest {
        self.chain.newest()
    }

    /// Where tablespaces go.
    pub fn links(&self) -> &[Link] {
        &self.destination.links
    }

    pub fn owner(&self) -> Option<&User> {
        self.destination.owner.as_ref()
    }

    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Whether the server would find a `postgresql.conf`; packages such as Debian's keep it
    /// elsewhere.
    pub fn has_configuration(&self) -> bool {
        let is_brought = self.configuration.as_ref().is_some_and(Configuration::has_main_file);
        let is_it = |file: &FileEntry| file.path == "postgresql.conf";
        is_brought || self.chain.newest().files.iter().any(is_it)
    }

    /// What will keep the server from starting, but is not ours to refuse.
    fn warn(&mut self) {
        if let Err(error) = Installation::find(self.version(), self.request.pg_bin.as_deref()) {
            self.plan.notes.push(format!("{error}: the server cannot be started here yet."));
        }
        let brought = self.configuration.as_ref();
        let note = configuration::note(self.chain.newest(), brought, self.directory());
        self.plan.notes.extend(note);
        let program = self.request.fetch_call.iter().map(Path::new).find(|word| word.is_absolute());
        if let (Some(user), Some(program)) = (self.owner(), program)
            && !privileges::everybody_can_read(program)
        {
            let (name, program) = (user.name.clone(), program.display());
            self.plan.notes.push(format!(
                "{name} may not be able to run {program}, which restore_command calls: install \
                 walden where everybody can read it."
            ));
        }
    }
}

fn version(manifest: &Manifest) -> MajorVersion {
    MajorVersion::from_server_version_num(manifest.server_version_num)
}

/// A local file or directory failed us.
fn host_failed(doing: String, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::new(ErrorKind::Full, doing).hint("Free space, or restore elsewhere.")
        }
        _ => Error::new(ErrorKind::Host, doing)
            .hint("Look at the directory's permissions and at the disk."),
    }
    .source(error)
}

#[cfg(test)]
pub mod samples;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod chain_tests;
