//! Look-ahead: while one file is pushed, so are the next ones that PostgreSQL will ask for.
//!
//! They never get in the way of the file asked for: they are read and compressed while it is on its
//! way, and sent when it is done. What becomes of them is no part of the call's outcome; those that
//! every repository has confirmed are remembered, for the calls to come.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::commands::archive::push::acknowledged::{Acknowledged, Identity};
use crate::commands::archive::push::delivery::Delivery;
use crate::commands::archive::push::pace::Pace;
use crate::error::{Error, ErrorKind};
use crate::host;
use crate::host::atomic_file;
use crate::host::clock::Deadline;
use crate::postgres::{WalFileName, archive_status};

/// What sealed files may take in memory, together; a larger one goes alone.
const HELD_BYTES_MAX: u64 = 64 << 20;
/// So many failures of the store in a row, and nothing is begun any more.
const FAILURES_MAX: u32 = 3;
const PATIENCE_WITH_DISK: Duration = Duration::from_millis(200);
/// How often a wait looks at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The files ahead of one call's own.
pub struct LookAhead {
    work: Arc<Work>,
    begun: AtomicBool,
}

impl LookAhead {
    pub fn new(
        delivery: &Arc<Delivery>,
        acknowledged: Acknowledged,
        path: &Path,
        own: &WalFileName,
    ) -> Self {
        let pg_wal = path.parent().unwrap_or(Path::new("")).to_owned();
        let state = State { seen: HashSet::from([*own]), ..State::default() };
        let work = Work {
            delivery: delivery.clone(),
            acknowledged,
            pg_wal,
            files_max: delivery.app.look_ahead(),
            cores: host::processors(),
            time: delivery.app.settings.push.look_ahead_deadline,
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        LookAhead { work: Arc::new(work), begun: AtomicBool::new(false) }
    }

    /// From now on there is time for other files: our own is compressed.
    pub fn begin(&self) {
        if self.begun.swap(true, Ordering::Relaxed) || self.work.time.is_zero() {
            return;
        }
        let work = self.work.clone();
        self.work.lock().is_looking = true;
        // Not joined: whatever hangs, the process ends with our own file.
        let started = thread::Builder::new().name("ahead".into()).spawn(move || work.look());
        if let Err(error) = started {
            tracing::info!(%error, "no look-ahead");
            self.work.lock().is_looking = false;
        }
    }

    /// Our own file is done: the others may be sent. Returns when they have arrived, or time is up.
    ///
    /// `took`: how long the repositories took for it, where they have it.
    pub fn finish(&self, took: Option<Duration>) {
        let time = self.work.time.min(self.work.delivery.deadline.remaining());
        let until = Deadline::after(time);
        {
            let mut state = self.work.lock();
            state.own_done = Some(until);
            if let Some(took) = took {
                state.pace.learn(took, 1);
            }
        }
        self.work.changed.notify_all();
        self.begin();
        let mut state = self.work.lock();
        while state.is_busy() && !until.has_passed() {
            state = self.work.wait(state, until.remaining());
        }
        state.is_called_off = true;
        let is_busy = state.is_busy();
        drop(state);
        self.work.changed.notify_all();
        if is_busy {
            leave_nothing_behind();
        }
    }
}

/// What is under way in a directory is not waited for, and would leave its temporary files there.
fn leave_nothing_behind() {
    let (done, is_done) = mpsc::channel::<()>();
    let remove = move || {
        atomic_file::abandon_unpublished();
        drop(done);
    };
    // The disk may hang, and the process ends all the same.
    if thread::Builder::new().spawn(remove).is_ok() {
        let _ = is_done.recv_timeout(PATIENCE_WITH_DISK);
    }
}

/// What the threads share.
struct Work {
    delivery: Arc<Delivery>,
    acknowledged: Acknowledged,
    pg_wal: PathBuf,
    files_max: usize,
    cores: usize,
    time: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Our own, and whatever was looked at in this call.
    seen: HashSet<WalFileName>,
    waiting: VecDeque<WalFileName>,
    /// Somebody looks for files.
    is_looking: bool,
    /// Being read and compressed.
    sealing: usize,
    /// Being sealed, waiting to be sent, and on their way.
    held: usize,
    held_bytes: u64,
    sending: usize,
    failures: u32,
    pace: Pace,
    /// Until when there is time for the others, once our own file is done.
    own_done: Option<Deadline>,
    is_called_off: bool,
}

impl State {
    fn is_busy(&self) -> bool {
        self.is_looking || self.held > 0
    }

    /// Whether nothing will be sent any more.
    fn is_over(&self) -> bool {
        let is_late = |until: &Deadline| self.pace.fitting(until.remaining()) == 0;
        self.is_called_off
            || self.failures >= FAILURES_MAX
            || self.own_done.as_ref().is_some_and(is_late)
    }

    /// Whether another of so many bytes may be compressed now.
    fn has_room(&self, bytes: u64, files_max: usize, cores: usize) -> bool {
        // Before our own file is done nobody knows whether there will be time to send them.
        let held_max = if self.own_done.is_some() { files_max } else { files_max.min(4 * cores) };
        let fits = self.held_bytes + bytes <= HELD_BYTES_MAX || self.held == 0;
        fits && self.sealing < cores && self.held < held_max
    }

    /// Whether another may be sent now.
    fn may_send(&self, files_max: usize) -> bool {
        let fitting = self.own_done.map_or(0, |until| self.pace.fitting(until.remaining()));
        self.sending < fitting.min(files_max)
    }
}

/// A file that is worth pushing.
struct Found {
    name: WalFileName,
    path: PathBuf,
    identity: Identity,
}

impl Work {
    /// The files beside the one we were called for are pushed only where they are the server's.
    fn is_in_our_pg_wal(&self) -> bool {
        let ours = Path::new(&self.delivery.caller.place).join("pg_wal").canonicalize();
        let real = self.pg_wal.canonicalize();
        ours.is_ok_and(|ours| real.is_ok_and(|real| real == ours))
    }

    /// Begins one file after the other, each in a thread of its own.
    fn look(self: Arc<Self>) {
        if self.is_in_our_pg_wal() {
            self.acknowledged.forget_old();
            while let Some(found) = self.next() {
                let Some(seat) = self.seat(found.identity.size) else { break };
                let work = self.clone();
                let push = move || work.push(&found, seat);
                if let Err(error) = thread::Builder::new().name("ahead".into()).spawn(push) {
                    tracing::info!(%error, "no look-ahead");
                    break;
                }
            }
        }
        self.lock().is_looking = false;
        self.changed.notify_all();
    }

    /// The next file that is not acknowledged yet; `None` when there is none, or no time for it.
    fn next(&self) -> Option<Found> {
        loop {
            let name = self.lock().waiting.pop_front();
            match name {
                Some(name) => {
                    if let Some(found) = self.worth_pushing(name) {
                        return Some(found);
                    }
                }
                None if self.list() => {}
                None if self.lock().own_done.is_some() => return None,
                // There may be more by then.
                None => self.until(|state| state.own_done.map(|_| ()))?,
            }
        }
    }

    /// Looks for files that wait; whether there are any that were not seen before.
    fn list(&self) -> bool {
        let ready = match archive_status::ready(&self.pg_wal.join(archive_status::FOLDER)) {
            Ok(ready) => ready,
            Err(error) => {
                tracing::info!(%error, "no look-ahead: cannot list archive_status");
                return false;
            }
        };
        let mut state = self.lock();
        let new: Vec<_> = ready.into_iter().filter(|name| state.seen.insert(*name)).collect();
        state.waiting.extend(new);
        !state.waiting.is_empty()
    }

    fn worth_pushing(&self, name: WalFileName) -> Option<Found> {
        let path = self.pg_wal.join(name.to_string());
        match Identity::of(&path) {
            Ok(_) if self.acknowledged.knows(&name, &path) => None,
            Ok(identity) => Some(Found { name, path, identity }),
            // PostgreSQL removes what waits for a file that is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::info!(%name, %error, "not pushed ahead");
                None
            }
        }
    }

    /// Waits for room to compress a file of this size; `None` when there is no time left for it.
    fn seat(self: &Arc<Self>, size: u64) -> Option<Seat> {
        // How small it becomes is known once it is sealed.
        let bytes = size;
        self.until(|state| {
            let has_time = |until: Deadline| state.pace.leaves_time(until.remaining(), self.time);
            if !state.own_done.is_none_or(has_time) {
                return Some(None);
            }
            state.has_room(bytes, self.files_max, self.cores).then(|| {
                state.sealing += 1;
                state.held += 1;
                state.held_bytes += bytes;
                Some(Seat { work: self.clone(), bytes, stage: Stage::Sealing })
            })
        })?
    }

    /// One file, from pg_wal into every repository.
    fn push(&self, found: &Found, mut seat: Seat) {
        let Found { name, path, identity } = found;
        let sealed = match self.delivery.seal(path, name, 1) {
            Ok(sealed) => sealed,
            Err(error) => return tell(name, &error),
        };
        seat.sealed(sealed.body.size());
        if !seat.wait_to_send() {
            return;
        }
        let began = Instant::now();
        match self.delivery.store(name, &sealed) {
            Ok(()) => {
                seat.sent(began.elapsed());
                self.acknowledged.record(name, path, *identity, sealed.crc32);
                sealed.tell(name);
                tracing::info!(%name, "pushed ahead");
            }
            Err(error) => {
                tell(name, &error);
                if error.kind() != ErrorKind::Conflict {
                    self.lock().failures += 1;
                }
            }
        }
    }

    /// Waits until `ready` says something; `None` once nothing will be sent any more.
    fn until<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.is_over() {
                return None;
            }
            if let Some(answer) = ready(&mut state) {
                return Some(answer);
            }
            state = self.wait(state, LOOK_EVERY);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, longest: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, longest.min(LOOK_EVERY));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody asked for this file yet; its own call will tell what is wrong, if it still is.
fn tell(name: &WalFileName, error: &Error) {
    tracing::info!(%name, %error, "not pushed ahead");
}

/// A file's share of processors, memory and network; given back when dropped, whatever happened.
struct Seat {
    work: Arc<Work>,
    bytes: u64,
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    Sealing,
    Waiting,
    Sending,
}

impl Seat {
    fn sealed(&mut self, bytes: u64) {
        let mut state = self.work.lock();
        state.sealing -= 1;
        state.held_bytes = state.held_bytes - self.bytes + bytes;
        drop(state);
        (self.bytes, self.stage) = (bytes, Stage::Waiting);
        self.work.changed.notify_all();
    }

    /// Whether there is time to send it.
    fn wait_to_send(&mut self) -> bool {
        let files_max = self.work.files_max;
        let sends = self.work.until(|state| {
            state.may_send(files_max).then(|| {
                state.sending += 1;
            })
        });
        if sends.is_some() {
            self.stage = Stage::Sending;
        }
        sends.is_some()
    }

    fn sent(&mut self, took: Duration) {
        let mut state = self.work.lock();
        let at_once = state.sending;
        state.pace.learn(took, at_once);
        state.failures = 0;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.work.lock();
        state.held -= 1;
        state.held_bytes -= self.bytes;
        match self.stage {
            Stage::Sealing => state.sealing -= 1,
            Stage::Waiting => {}
            Stage::Sending => state.sending -= 1,
        }
        drop(state);
        self.work.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::commands::archive::push::look_ahead::{FAILURES_MAX, HELD_BYTES_MAX, State};
    use crate::host::clock::Deadline;

    fn own_done(took: Duration) -> State {
        let until = Deadline::after(Duration::from_secs(3600));
        let mut state = State { own_done: Some(until), ..State::default() };
        state.pace.learn(took, 1);
        state
    }

    #[test]
    fn nothing_is_sent_before_our_own_file_is_done() {
        assert!(!State::default().may_send(16));
        assert!(!State::default().is_over());
        assert!(own_done(Duration::from_millis(50)).may_send(16));
    }

    #[test]
    fn never_more_are_on_their_way_than_allowed_or_will_arrive() {
        let sending = |took, sending| State { sending, ..own_done(took) }.may_send(16);
        assert!(sending(Duration::from_millis(50), 15));
        assert!(!sending(Duration::from_millis(50), 16));
        assert!(sending(Duration::from_secs(1000), 2));
        assert!(!sending(Duration::from_secs(1000), 3));
        assert!(own_done(Duration::from_secs(4000)).is_over());
    }

    #[test]
    fn what_is_held_has_its_limits() {
        let has_room = |state: State, bytes| state.has_room(bytes, 16, 2);
        let held = |held, held_bytes| State { held, held_bytes, ..own_done(Duration::ZERO) };
        assert!(has_room(held(0, 0), 1 << 30), "a large one alone");
        assert!(!has_room(held(1, 1), HELD_BYTES_MAX));
        assert!(has_room(held(15, 32 << 20), 32 << 20));
        assert!(!has_room(held(15, 33 << 20), 32 << 20));
        assert!(!has_room(held(16, 16), 1));
        assert!(!has_room(State { sealing: 2, ..held(2, 2) }, 1));
        let own_under_way = |held| State { held, ..State::default() };
        assert!(has_room(own_under_way(7), 1) && !has_room(own_under_way(8), 1));
    }

    #[test]
    fn a_store_that_fails_again_and_again_is_left_alone() {
        let after = |failures| State { failures, ..own_done(Duration::from_millis(50)) }.is_over();
        assert!(!after(FAILURES_MAX - 1));
        assert!(after(FAILURES_MAX));
    }
}
