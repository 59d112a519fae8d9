//! One drill from the choice of its point to the last answer, each step noted in its record.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::catalog::{Decision, Target, TargetAction};
use crate::commands::drill::checks::Answers;
use crate::commands::drill::ended::{Ended, Expected};
use crate::commands::drill::failure::{self, Finding};
use crate::commands::drill::guard::Guard;
use crate::commands::drill::isolation::{self, Limits};
use crate::commands::drill::moments::Moments;
use crate::commands::drill::point;
use crate::commands::drill::record::{self, elapsed_ms};
use crate::commands::drill::recovered::Recovered;
use crate::commands::drill::scratch::Scratch;
use crate::commands::drill::stages::{self, Come};
use crate::commands::drill::{Ask, Request, dump, objectives, superuser, sweep};
use crate::commands::progress::Progress;
use crate::commands::restore::{self, Decided, Prepared, recovery};
use crate::commands::survey::{self, Memory, Survey};
use crate::commands::{App, restore::destination};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::{self, Deadline};
use crate::host::privileges::{self, User};
use crate::host::termination;
use crate::postgres::installation::Installation;
use crate::postgres::recovery_settings::{rehearsal_command, shell_word};
use crate::postgres::server::Stop;
use crate::repository::drill_record::{Check, DrillRecord, Kept, Verdict};
use crate::repository::{Home, Repository};

const STATE_VARIABLE: &str = "WALDEN_STATE_DIR";
/// What is thrown away needs no checkpoint.
const STOP: Duration = Duration::from_secs(20);

pub struct Rehearsal<'a> {
    pub app: &'a App,
    pub request: &'a Request,
    pub purpose: Purpose,
    pub repository: Repository,
    pub home: Home,
    pub deadline: Deadline,
    pub record: DrillRecord,
}

/// What the recovered server is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// To see whether it can be recovered.
    Evidence,
    /// For some of what is in it, which must not be taken from another point: of this database, if
    /// it is known and the backup has it, else of all.
    Tables { database: Option<String>, needs_dump: bool },
}

/// What the steps after the choice work with.
struct Means<'a> {
    survey: &'a Survey,
    installation: &'a Installation,
    ask: Ask<'a>,
    progress: &'a Progress,
    /// When the choice began.
    begun: Timestamp,
}

type Step<T> = std::result::Result<T, Finding>;

impl Rehearsal<'_> {
    /// What comes of it is in the record.
    pub fn carry_out(&mut self, ask: Ask<'_>, progress: &Progress) {
        self.record.verdict = Verdict::Passed;
        if let Err(finding) = self.rehearse(ask, progress) {
            self.record.verdict = finding.verdict;
            let hint = finding.error.hint_text().map(|hint| format!(" {hint}")).unwrap_or_default();
            self.record.reasons.push(format!("{}.{hint}", finding.error));
        }
        // Told to stop, it is not for this thread to say how the drill went.
        termination::stand_still_if_leaving();
    }

    /// As `carry_out`, for those who need what went wrong as an error.
    pub fn attempt(&mut self, ask: Ask<'_>, progress: &Progress) -> Result<()> {
        let outcome = self.rehearse(ask, progress).map_err(|finding| finding.error);
        termination::stand_still_if_leaving();
        outcome
    }

    fn rehearse(&mut self, ask: Ask<'_>, progress: &Progress) -> Step<()> {
        self.sweep();
        let begun = clock::now();
        let survey = survey::survey(&self.home, &Memory::none()).map_err(Finding::of_repository)?;
        let decision = self.decide(&survey)?;
        let chain = restore::load_chain(&self.home, &decision).map_err(Finding::of_repository)?;
        let installation = self.installation(chain.newest()).map_err(Finding::open)?;
        let user = self.user().map_err(Finding::open)?;
        if let Purpose::Tables { needs_dump: true, .. } = self.purpose {
            // Its want is no news that anybody should wait for.
            let program = dump::program(&installation, self.request.bin.as_deref(), user.as_ref());
            program.map_err(Finding::open)?;
        }
        let place = Scratch::place(&self.request.root, &self.record.id);
        destination::refuse_dangerous(&place, &self.repository.url()).map_err(Finding::open)?;
        // Posted first: whenever we are killed from here on, it removes what is there.
        let guard = Guard::post(&place).map_err(Finding::open)?;
        let scratch = Scratch::make(&self.request.root, &self.record.id, user);
        let scratch = scratch.map_err(Finding::open)?;
        let decided = Decided { home: self.home.clone(), chain, decision, notes: Vec::new() };
        let (survey, installation) = (&survey, &installation);
        let means = Means { survey, installation, ask, progress, begun };
        let outcome = self.recover(&scratch, decided, &means);
        let outcome = match outcome {
            Ok((come, server)) if self.request.keep => self.keep(scratch, come, &server),
            outcome => {
                let removed = outcome.map(|(come, _)| self.stop(come));
                self.clear(scratch);
                removed
            }
        };
        guard.dismiss();
        outcome
    }

    fn sweep(&mut self) {
        let swept = sweep::sweep(&self.request.root, false);
        let removed = swept.removed.iter().map(|directory| {
            let directory = directory.display();
            format!("{directory} was left behind by a drill that was killed, and was removed.")
        });
        self.record.notes.extend(removed);
        self.record.notes.extend(swept.failed);
    }

    fn decide(&mut self, survey: &Survey) -> Step<Decision> {
        let point = point::choose(&self.home, survey, self.request);
        let point = point.map_err(Finding::of_repository)?;
        self.record.target = record::target(&point, None);
        self.record.notes.extend(point.notes.iter().cloned());
        let decision = restore::decide_on(&self.home, survey, &point.wanted);
        let decision = decision.map_err(Finding::of_repository)?;
        self.record.target = record::target(&point, Some(&decision));
        if let (Target::Latest, Some(commit)) = (&point.wanted.target, decision.last_commit) {
            let age = elapsed_ms(commit.time, clock::now()) / 1000;
            self.record
                .notes
                .push(format!("The last commit that can be recovered is {age} s old."));
        }
        Ok(decision)
    }

    /// The programs that recover: of the right major version, and told from the source's.
    fn installation(&mut self, manifest: &crate::repository::Manifest) -> Result<Installation> {
        let number = manifest.server_version_num;
        let source = format!("{}.{}", number / 10_000, number % 10_000);
        self.record.postgresql.source = Some(source.clone());
        let major = crate::postgres::MajorVersion::from_server_version_num(number);
        let found = Installation::find(major, self.request.bin.as_deref())?;
        self.record.postgresql.used = Some(found.version.clone());
        self.record.postgresql.bin = Some(found.bin.clone());
        if found.version == source {
            return Ok(found);
        }
        let differs =
            format!("the source is PostgreSQL {source}, the programs are {}", found.version);
        if self.request.same_minor {
            return Err(Error::new(ErrorKind::Refused, differs)
                .hint("Name the right ones by --pg-bin, or leave --same-minor away."));
        }
        self.record.notes.push(format!("Of another minor version: {differs}."));
        Ok(found)
    }

    fn user(&self) -> Result<Option<User>> {
        match &self.request.owner {
            None => privileges::server_user(),
            Some(name) if privileges::is_root() => {
                let user = privileges::user_named(name).map(Some);
                user.ok_or_else(|| {
                    Error::new(
                        ErrorKind::Refused,
                        format!("{name} is no user who could run PostgreSQL"),
                    )
                    .hint("Name an existing user other than root with --owner.")
                })
            }
            Some(_) => Err(Error::new(ErrorKind::Refused, "only root can drill as somebody else")
                .hint("Leave --owner away, or run walden as root.")),
        }
    }

    /// From the empty directory to the last answer; the server that comes back still runs.
    fn recover(
        &mut self,
        scratch: &Scratch,
        decided: Decided,
        means: &Means<'_>,
    ) -> Step<(Come, Recovered)> {
        let Means { installation, progress, .. } = means;
        let prepared = self.prepare(scratch, decided).map_err(Finding::of_host)?;
        self.record.plan = Some(record::plan(&prepared).map_err(Finding::open)?);
        self.record.notes.extend(prepared.decision.notes.iter().cloned());
        self.record.notes.extend(means.survey.notes.iter().cloned());
        let chosen = clock::now();
        self.record.timings.choose_ms = Some(elapsed_ms(means.begun, chosen));
        progress.enter("restoring");
        progress.expect(prepared.stream_bytes());
        let placed = prepared.carry_out(&|bytes| {
            termination::stand_still_if_leaving();
            progress.add(bytes);
        });
        placed.map_err(Finding::of_host)?;
        self.configure(scratch, &prepared, installation).map_err(Finding::open)?;
        self.record.timings.fetch_ms = Some(elapsed_ms(chosen, clock::now()));
        let come = self.replay(scratch, &prepared, means)?;
        progress.enter("asking");
        let server = self.question(&come, &prepared, means)?;
        Ok((come, server))
    }

    fn replay(&mut self, scratch: &Scratch, prepared: &Prepared, means: &Means<'_>) -> Step<Come> {
        let (progress, last) = (means.progress, RefCell::new(String::new()));
        progress.enter("replaying");
        let told = |file: &str| {
            if *last.borrow() != file {
                progress.enter(format!("replaying {file}"));
                file.clone_into(&mut last.borrow_mut());
            }
        };
        let launch = stages::launch(scratch, means.installation);
        let come = match stages::recover(launch, self.deadline, &told) {
            Ok(come) => come,
            Err(stuck) => {
                self.note_moments(&stuck.moments, stuck.started);
                return Err(failure::explain(*stuck, &self.home, &prepared.decision));
            }
        };
        self.note_moments(&come.moments, come.started);
        self.record.notes.extend(come.tablespaces.iter().map(|tablespace| {
            format!(
                "The WAL makes {tablespace}: the drill kept it inside, but an ordinary restore \
                 needs that directory."
            )
        }));
        Ok(come)
    }

    fn prepare(&self, scratch: &Scratch, decided: Decided) -> Result<Prepared> {
        let request = restore::Request {
            directory: scratch.data(),
            wanted: crate::catalog::Wanted {
                target: decided.decision.stop.target.clone(),
                exclusive: decided.decision.stop.exclusive,
                timeline: self.request.timeline,
                backup: Some(decided.decision.backup.id.clone()),
            },
            action: Some(TargetAction::Promote),
            standby: false,
            adopt: false,
            tablespace_map: Vec::new(),
            tablespace_root: Some(scratch.tablespaces()),
            owner: scratch.user().map(|user| user.name.clone()),
            system_identifier: Some(self.home.system_identifier()),
            configuration: None,
            max_rate: self.request.max_rate.or(self.app.settings.restore.max_rate),
            deadline: Some(self.deadline),
            delta: false,
            include_databases: self.databases(&decided),
            jobs: self.request.jobs,
            fetch_call: self.fetch_call(scratch)?,
            pg_bin: self.record.postgresql.bin.clone(),
        };
        restore::prepare_decided(&self.repository, decided, request)
    }

    /// Which databases are restored with their content; none: all of them.
    fn databases(&self, decided: &Decided) -> Vec<String> {
        let Purpose::Tables { database: Some(wanted), .. } = &self.purpose else {
            return Vec::new();
        };
        let backup = decided.decision.backup.id.parse();
        let names = backup.and_then(|id| self.home.names(&id)).ok().flatten();
        let has_it = names.is_some_and(|names| names.databases().any(|(_, name)| name == wanted));
        // One that was made later comes with the WAL.
        if has_it { vec![wanted.clone()] } else { Vec::new() }
    }

    /// `fetch` keeps what it remembers in our directory, and nothing in anybody else's.
    fn fetch_call(&self, scratch: &Scratch) -> Result<Vec<String>> {
        let settings = &self.app.settings;
        let carried = settings.carried().iter().filter(|(name, _)| name != STATE_VARIABLE);
        let mut carried: Vec<_> = carried.cloned().collect();
        carried.push((STATE_VARIABLE.to_owned(), scratch.state().into_os_string()));
        let program = scratch.bring_program(&self.request.program)?;
        recovery::fetch_call(&program, settings.config_file.as_deref(), &carried)
    }

    fn configure(
        &mut self,
        scratch: &Scratch,
        prepared: &Prepared,
        installation: &Installation,
    ) -> Result<()> {
        let request = prepared.request();
        let mut settings = recovery::settings(request, prepared.version(), &prepared.decision);
        settings.restore_command = rehearsal_command(&request.fetch_call);
        self.note_libraries(&scratch.data());
        let limits = Limits { memory: self.request.memory, preload: self.request.preload.clone() };
        isolation::write(scratch, installation.major, &settings, &limits)
    }

    /// What the source preloads, by the files of the backup.
    fn note_libraries(&mut self, pgdata: &Path) {
        let left_out: Vec<String> = isolation::preloaded(pgdata)
            .into_iter()
            .filter(|library| !self.request.preload.contains(library))
            .collect();
        if !left_out.is_empty() {
            let list = left_out.join(",");
            self.record.notes.push(format!(
                "The source preloads {list}, the drill does not; --allow-preload {list} lets it."
            ));
        }
    }

    fn note_moments(&mut self, moments: &Moments, started: Timestamp) {
        let timings = &mut self.record.timings;
        timings.consistent_ms = moments.consistent.map(|at| elapsed_ms(started, at));
        let between = |from: Option<_>, to: Option<_>| Some(elapsed_ms(from?, to?));
        timings.replay_ms = between(moments.consistent, moments.replayed);
        timings.ready_ms = between(moments.replayed, moments.ready);
    }

    fn question(&mut self, come: &Come, prepared: &Prepared, means: &Means<'_>) -> Step<Recovered> {
        let began = Instant::now();
        let launch = come.server.launch().clone();
        let backup_user = prepared.manifest().taken.as_ref().map(|taken| &*taken.database_user);
        let names = superuser::candidates(&launch.pgdata, backup_user);
        let ended = Ended::read(&come.log, &launch.pgdata).map_err(Finding::open)?;
        let decision = &prepared.decision;
        self.record.reached = Some(ended.reached(decision));
        objectives::judge(
            &mut self.record,
            self.app.settings.objectives,
            decision,
            &means.survey.inventory,
        );
        let server = Recovered::find_superuser(launch, &names, self.deadline);
        let server = server.map_err(Finding::open)?;
        let expected = Expected { home: &self.home, survey: means.survey, decision };
        let mut checks = expected.compare(&ended, &server);
        checks.append(&mut self.record.checks);
        self.record.checks = checks;
        self.expect_the_point_that_was_asked_for()?;
        let previous = self.previous();
        let Answers { checks, tables } = (means.ask)(&server, previous.as_ref());
        self.record.checks.extend(checks);
        self.record.tables = tables;
        let checks_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.record.timings.checks_ms = Some(checks_ms);
        Ok(server)
    }

    /// Rows of another point would look just like those that are wanted.
    fn expect_the_point_that_was_asked_for(&self) -> Step<()> {
        let is_wrong = |check: &&Check| check.kind == "target" && check.verdict == Verdict::Failed;
        match self.record.checks.iter().find(is_wrong) {
            Some(check) if self.purpose != Purpose::Evidence => Err(Finding::wrong(
                Error::new(
                    ErrorKind::FoundWrong,
                    format!("recovery ended elsewhere: {}: {}", check.what, check.answer),
                )
                .hint("Nothing was brought back: walden verify looks for what is wrong."),
            )),
            _ => Ok(()),
        }
    }

    /// The newest that counted rows, else the newest there is.
    fn previous(&mut self) -> Option<DrillRecord> {
        let ids = match self.home.drills() {
            Ok(ids) => ids,
            Err(error) => {
                self.record.notes.push(format!("The drills before cannot be read: {error}."));
                return None;
            }
        };
        let mut newest = None;
        for id in ids.iter().rev().filter(|id| **id != self.record.id).take(20) {
            match self.home.drill(id) {
                Ok(record) if !record.tables.is_empty() => return Some(record),
                Ok(record) => {
                    newest.get_or_insert(record);
                }
                Err(error) => {
                    self.record.notes.push(format!("The drill {id} cannot be read: {error}."));
                }
            }
        }
        newest
    }

    fn stop(&mut self, come: Come) {
        let mut server = come.server;
        if let Err(error) = server.stop(Stop::Immediate, Deadline::after(STOP)) {
            self.record.notes.push(format!("{error}."));
        }
    }

    fn clear(&mut self, scratch: Scratch) {
        if let Err(error) = scratch.remove() {
            self.record.notes.push(format!("It could not be removed: {error}."));
        }
    }

    fn keep(&mut self, scratch: Scratch, come: Come, server: &Recovered) -> Step<()> {
        let launch = come.server.launch().clone();
        let word = |path: &Path| shell_word(&path.display().to_string());
        let (directory, data) = (scratch.path().to_owned(), word(&launch.pgdata));
        let user = scratch.user().map(|user| format!("runuser -u {} -- ", user.name));
        let user = user.unwrap_or_default();
        let elsewhere = match launch.socket_directory.starts_with(&directory) {
            true => String::new(),
            false => format!(" {}", word(&launch.socket_directory)),
        };
        scratch.keep().map_err(Finding::open)?;
        self.record.kept = Some(Kept {
            connect: format!(
                "{user}psql -h {} -p {} -U {} postgres",
                word(&launch.socket_directory),
                launch.port,
                shell_word(server.superuser())
            ),
            stop: format!(
                "{user}{} stop -m immediate -D {data}; rm -r {}{elsewhere}",
                word(&launch.installation.program("pg_ctl")),
                word(&directory)
            ),
            directory,
        });
        come.server.leave_running();
        Ok(())
    }
}
