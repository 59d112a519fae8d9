//! What was written, resolved once into what it means.

pub mod keys;
pub mod sections;
mod file;
mod environment;
mod precedence;
pub mod values;
pub mod suggest;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::codec::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::ClusterName;
use crate::storage::s3;

pub use file::DEFAULT_PATH;
pub use precedence::Origin;
pub use sections::{
    BackupMode, BackupSettings, Checkpoint, DrillSettings, FetchSettings, ObjectiveSettings,
    OnInvalid, PushSettings, RepositorySettings, RestoreSettings, VerifySettings,
};

pub use values::share;

use precedence::{Merged, Written};

/// The flags every command takes, before or after its name. They may hold what must not be printed:
/// no Debug.
#[derive(Default, clap::Args)]
pub struct Overrides {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub config: Option<PathBuf>,
    /// The name of this PostgreSQL cluster in the repository.
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    pub cluster: Option<String>,
    /// Where WAL and backups are kept: s3://bucket/prefix or file:///directory.
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL)]
    pub repository: Option<String>,
    /// PostgreSQL's data directory.
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub pgdata: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

const GLOBAL: &str = "Global options";

/// How a command speaks. Flags only: what a person wants to see is no property of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct Output {
    /// Answer in JSON.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// Say nothing but errors and what was asked for.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = GLOBAL)]
    pub quiet: bool,
    /// Say what is being done; twice: in detail.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    pub verbose: u8,
}

/// All present and valid.
#[derive(Debug, Clone)]
pub struct Settings {
    pub cluster: ClusterName,
    /// `push` and `fetch` use the directory they are called in.
    pub pgdata: Option<PathBuf>,
    /// `None`: `host::state` chooses.
    pub state_dir: Option<PathBuf>,
    /// May be empty; `require_repositories` is for who needs one.
    pub repositories: Vec<RepositorySettings>,
    pub s3: s3::Options,
    pub compression: Compression,
    pub push: PushSettings,
    pub fetch: FetchSettings,
    pub backup: BackupSettings,
    pub restore: RestoreSettings,
    pub verify: VerifySettings,
    pub drill: DrillSettings,
    pub objectives: ObjectiveSettings,
    pub output: Output,
    /// The file that was read, absolute; `None` where there is none.
    pub config_file: Option<PathBuf>,
    origins: Vec<(&'static str, Origin)>,
    carried: Vec<(String, OsString)>,
}

impl Settings {
    pub fn resolve(overrides: &Overrides) -> Result<Settings> {
        Settings::resolve_from(overrides, std::env::vars_os(), Path::new(DEFAULT_PATH))
    }

    /// The same from an environment and a default file of the caller's.
    pub fn resolve_from(
        overrides: &Overrides,
        variables: impl Iterator<Item = (OsString, OsString)>,
        default_file: &Path,
    ) -> Result<Settings> {
        let environment = environment::read(variables)?;
        let by_flag = overrides.config.as_deref().map(|path| (path, Origin::Flag("--config")));
        let by_variable = || {
            let origin = Origin::Variable(keys::CONFIG_VARIABLE.to_owned());
            environment.config.as_deref().map(|path| (path, origin))
        };
        let file = file::read(by_flag.or_else(by_variable), default_file)?;
        let (config_file, in_file) = file.map(|file| (file.path, file.written)).unzip();
        let merged =
            Merged::new([overrides.written(), environment.written, in_file.unwrap_or_default()]);
        Settings::interpret(&merged, overrides.output, config_file)
    }

    /// Every key and where its value came from, in the order of the file.
    pub fn origins(&self) -> &[(&'static str, Origin)] {
        &self.origins
    }

    /// What flags and the environment said, as variables: with these and `config_file`, another
    /// process, such as a restore_command, resolves the same settings. Without `pgdata`, which
    /// `fetch` takes from where it is called.
    pub fn carried(&self) -> &[(String, OsString)] {
        &self.carried
    }

    /// One repository at least.
    pub fn require_repositories(&self) -> Result<&[RepositorySettings]> {
        if !self.repositories.is_empty() {
            return Ok(&self.repositories);
        }
        Err(Error::new(ErrorKind::Usage, "no repository is configured").hint(
            "Write `url = \"s3://bucket/prefix\"` under [repository] in /etc/walden/walden.toml, \
             set WALDEN_REPOSITORY_URL, or give --repository.",
        ))
    }

    fn interpret(
        merged: &Merged,
        output: Output,
        config_file: Option<PathBuf>,
    ) -> Result<Settings> {
        let cluster = merged.text("cluster")?.unwrap_or_default();
        let cluster = ClusterName::new(cluster).map_err(|error| {
            let origin = merged.origin("cluster");
            error.context(format!("cluster ({origin})"))
        })?;
        let level = merged.number("compression.level")?;
        let level = level.and_then(|level| i32::try_from(level).ok());
        Ok(Settings {
            cluster,
            pgdata: merged.path("pgdata")?,
            state_dir: merged.path("state_dir")?,
            repositories: RepositorySettings::all(merged)?,
            s3: sections::s3(merged)?,
            compression: level.map_or_else(Compression::default, |level| Compression { level }),
            push: PushSettings::interpret(merged)?,
            fetch: FetchSettings::interpret(merged)?,
            backup: BackupSettings::interpret(merged)?,
            restore: RestoreSettings::interpret(merged)?,
            verify: VerifySettings::interpret(merged)?,
            drill: DrillSettings::interpret(merged)?,
            objectives: ObjectiveSettings::interpret(merged)?,
            output,
            config_file,
            origins: merged.origins(),
            carried: merged.carried(),
        })
    }
}

impl Overrides {
    fn written(&self) -> Vec<(usize, Written)> {
        let flags = [
            ("cluster", "--cluster", self.cluster.as_ref().map(OsString::from)),
            ("repository.url", "--repository", self.repository.as_ref().map(OsString::from)),
            ("pgdata", "--pgdata", self.pgdata.as_ref().map(OsString::from)),
        ];
        flags
            .into_iter()
            .filter_map(|(path, flag, value)| {
                Some((keys::find(path)?, Written { value: value?, origin: Origin::Flag(flag) }))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
