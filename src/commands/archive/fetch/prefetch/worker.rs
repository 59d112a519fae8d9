//! The prefetcher itself: a process of its own that fills the spool, one for each cluster.
//!
//! One thread decides, and reads what `fetch` tells; each segment in flight has a thread that
//! brings it. Everything it writes lies in the spool.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::commands::archive::Caller;
use crate::commands::archive::fetch::first_that_has_it;
use crate::commands::archive::fetch::prefetch::Window;
use crate::commands::archive::fetch::prefetch::pace::Pace;
use crate::commands::archive::fetch::prefetch::plan::{self, Plan};
use crate::commands::archive::fetch::prefetch::vitals::Vitals;
use crate::commands::archive::fetch::spool::{Spool, Wanted};
use crate::commands::archive::fetch::target::Target;
use crate::commands::{App, Retries};
use crate::error::{Error, ErrorKind, Result};
use crate::host::lock::Lock;
use crate::postgres::{SegmentName, WalFileName};
use crate::repository::Repository;

/// Nothing was asked for in this time: whoever asks next starts another.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How soon a change is seen: while there are changes, and when there were none for a while.
const TICK: Duration = Duration::from_millis(5);
const SLOW_TICK: Duration = Duration::from_millis(100);
const BUSY_FOR: Duration = Duration::from_secs(2);
/// How soon the end of the server or of recovery is noticed, and how soon a new timeline: its file
/// is looked for among all that lies in pg_wal.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const HISTORIES_EVERY: Duration = Duration::from_secs(1);
const THREADS_MAX: usize = 8;

/// From beginning to end, which comes by itself.
pub fn run(app: &App, segment: SegmentName) -> Result<()> {
    // A signal to PostgreSQL's process group is none to us. It fails where a person started us at a
    // terminal, and matters nothing.
    let _ = rustix::process::setsid();
    let caller = Caller::find(None, app.settings.pgdata.as_deref())?;
    let Some(window) = Window::of(app, &caller) else { return Ok(()) };
    let (Some(data_directory), Some(spool)) = (caller.data_directory(), Spool::open(app, &caller))
    else {
        return Ok(());
    };
    let vitals = Vitals::take(data_directory, &spool);
    let Some(_alone) = occupy(&spool) else { return Ok(()) };
    spool.sweep();
    let wanted = spool.wanted().unwrap_or(Wanted { segment, is_served: false });
    let pg_wal = data_directory.join("pg_wal");
    let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, THREADS_MAX);
    let (told, outcomes) = mpsc::channel();
    let bearer = Bearer {
        repositories: app.repositories(Retries::None)?,
        caller: caller.clone(),
        segment_size: window.segment_size,
        spool,
    };
    let mut worker = Worker {
        plan: Plan::new(wanted, window.segment_size, &plan::histories(&pg_wal)),
        pace: Pace::new(threads),
        window: window.segments,
        reserve: app.settings.fetch.prefetch_bytes_max,
        in_flight: BTreeSet::new(),
        bearer: Arc::new(bearer),
        told,
        pg_wal,
        changed: Instant::now(),
    };
    let why = worker.work(&vitals, &outcomes);
    tracing::info!(why, "nothing more is fetched ahead");
    worker.bearer.spool.close();
    Ok(())
}

/// Who asks whether somebody holds the lock holds it for an instant.
fn occupy(spool: &Spool) -> Option<Lock> {
    for _ in 0..3 {
        match spool.occupy() {
            Ok(Some(lock)) => return Some(lock),
            Ok(None) => thread::sleep(TICK),
            Err(error) => {
                tracing::warn!(%error, "cannot lock the spool");
                return None;
            }
        }
    }
    None
}

/// The thread that decides.
struct Worker {
    plan: Plan,
    pace: Pace,
    window: u64,
    /// Bytes to leave free on the disk of the spool.
    reserve: u64,
    in_flight: BTreeSet<u64>,
    bearer: Arc<Bearer>,
    told: Sender<(u64, Outcome)>,
    pg_wal: PathBuf,
    /// When PostgreSQL last asked for something else.
    changed: Instant,
}

/// What came of one number.
enum Outcome {
    Found,
    /// No timeline's file of it is there.
    Missed(Wanted),
    /// PostgreSQL asks for it itself by now.
    Passed,
    Failed(Error),
}

impl Worker {
    /// Returns why it ended.
    fn work(&mut self, vitals: &Vitals, outcomes: &Receiver<(u64, Outcome)>) -> &'static str {
        let (mut look, mut histories) = (Every::new(LOOK_EVERY), Every::new(HISTORIES_EVERY));
        loop {
            if look.is_due()
                && let Some(why) = vitals.end(&self.bearer.spool)
            {
                return why;
            }
            self.listen(histories.is_due());
            if self.changed.elapsed() > IDLE_MAX {
                return "nothing was asked for in a while";
            }
            if self.pace.is_hopeless() {
                return "the store does not answer";
            }
            self.begin_what_may_be_begun();
            let tick = if self.changed.elapsed() < BUSY_FOR { TICK } else { SLOW_TICK };
            if let Ok((number, outcome)) = outcomes.recv_timeout(tick) {
                if let Outcome::Failed(error) = &outcome
                    && error.kind() == ErrorKind::Full
                {
                    return "the disk is full";
                }
                self.learn(number, outcome);
            }
        }
    }

    /// What PostgreSQL asked for last, and at times which timelines there are.
    fn listen(&mut self, with_histories: bool) {
        let wanted = self.bearer.spool.wanted().unwrap_or(self.plan.wanted);
        let has_changed = wanted != self.plan.wanted;
        if has_changed {
            self.changed = Instant::now();
        }
        if with_histories || wanted.segment.timeline != self.plan.wanted.segment.timeline {
            let histories = plan::histories(&self.pg_wal);
            self.plan = Plan::new(wanted, self.bearer.segment_size, &histories);
        } else if has_changed {
            self.plan.wanted = wanted;
        } else {
            return;
        }
        for spooled in self.bearer.spool.segments() {
            if !self.plan.has_use_for(&spooled.name, self.window) {
                spooled.remove();
            }
        }
    }

    fn begin_what_may_be_begun(&mut self) {
        while self.pace.allows(self.in_flight.len()) {
            let Some(number) = self.next() else { return };
            let (candidates, wanted) = (self.plan.candidates(number), self.plan.wanted);
            let (bearer, told) = (self.bearer.clone(), self.told.clone());
            let bring = move || {
                let outcome = bearer.bring(number, &candidates, wanted);
                // Nobody listens any more: then nobody needs to know.
                let _ = told.send((number, outcome));
            };
            // Not scoped: at the end nobody waits for a request that may take a minute.
            if let Err(error) = thread::Builder::new().name("bring".into()).spawn(bring) {
                tracing::warn!(%error, "no thread to fetch ahead");
                self.pace.failed(None);
                return;
            }
            self.in_flight.insert(number);
        }
    }

    /// The first number ahead that is neither there nor on its way, if there is room for it.
    fn next(&mut self) -> Option<u64> {
        let end = self.pace.end(&self.plan);
        let wanted = self.plan.wanted_number();
        let ahead = wanted + 1..end.min(wanted + self.window + 1);
        if ahead.is_empty() {
            return None;
        }
        let spooled = self.bearer.spool.segments();
        let held = spooled.len() + self.in_flight.len();
        if held as u64 >= self.window || !self.bearer.has_disk_for(self.reserve) {
            return None;
        }
        let there: BTreeSet<u64> =
            spooled.iter().map(|spooled| self.plan.number(&spooled.name)).collect();
        ahead.into_iter().find(|number| !there.contains(number) && !self.in_flight.contains(number))
    }

    fn learn(&mut self, number: u64, outcome: Outcome) {
        self.in_flight.remove(&number);
        match outcome {
            Outcome::Found => self.pace.found(),
            Outcome::Missed(wanted) => self.pace.missed(number, wanted),
            Outcome::Passed => {}
            Outcome::Failed(error) => {
                tracing::info!(%error, "not now");
                self.pace.failed(error.retry_after());
            }
        }
    }
}

/// What is done at once, and then no more often than this.
struct Every {
    time: Duration,
    last: Option<Instant>,
}

impl Every {
    fn new(time: Duration) -> Self {
        Every { time, last: None }
    }

    fn is_due(&mut self) -> bool {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= self.time);
        if is_due {
            self.last = Some(Instant::now());
        }
        is_due
    }
}

/// What the threads share that bring segments.
struct Bearer {
    repositories: Vec<Repository>,
    caller: Caller,
    spool: Spool,
    segment_size: u32,
}

impl Bearer {
    /// The first of the candidates that is there.
    fn bring(&self, number: u64, candidates: &[SegmentName], known: Wanted) -> Outcome {
        let mut wanted = known;
        for candidate in candidates {
            let coming = self.spool.announce(candidate);
            // After the announcement: whoever asks from now on sees it, and waits.
            wanted = self.spool.wanted().unwrap_or(known);
            if self.number(&wanted.segment) >= number {
                return Outcome::Passed;
            }
            match coming.map_err(unannounced).and_then(|_coming| self.fetch(candidate)) {
                Ok(()) => return Outcome::Found,
                Err(error) if error.kind() == ErrorKind::Absent => {}
                Err(error) => return Outcome::Failed(error),
            }
        }
        Outcome::Missed(wanted)
    }

    fn fetch(&self, segment: &SegmentName) -> Result<()> {
        let ours = self.caller.system_identifier()?;
        let name = WalFileName::Segment(*segment);
        let target = Target { name, destination: Path::new("the spool"), caller: &self.caller };
        first_that_has_it(&self.repositories, |repository| {
            target.put_aside(&repository.home(ours), &self.spool)
        })
    }

    fn number(&self, segment: &SegmentName) -> u64 {
        segment.start(self.segment_size).0 / u64::from(self.segment_size)
    }

    fn has_disk_for(&self, reserve: u64) -> bool {
        let free = self.spool.bytes_free();
        free.is_some_and(|free| free >= reserve.saturating_add(u64::from(self.segment_size)))
    }
}

fn unannounced(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Host, "cannot write into the spool").source(error)
}
