//! Being told to stop.

use std::io::Write as _;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

const PATIENCE_WITH_READER: Duration = Duration::from_secs(1);
/// For all errands together.
const PATIENCE_WITH_ERRANDS: Duration = Duration::from_secs(4);
const SMALL_STACK: usize = 64 << 10;

/// From now on SIGTERM, SIGINT and SIGHUP end the process with `code` and one line: at once, or
/// where there are errands (`before_leaving`), after those. The second one always at once.
///
/// For `push`: PostgreSQL takes death by a signal for a fault of the archiver itself, restarts it
/// and counts nothing (`pgarch_archiveXlog`, pgarch.c). Nothing needs undoing: an object is there
/// whole or not at all.
pub fn exit_when_told(code: u8, line: &'static str) {
    let mut signals = match signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP]) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "cannot wait for signals");
            return;
        }
    };
    let wait = move || {
        for _ in signals.forever() {
            match told() {
                Answer::Leave(line_of_step) => leave(code, line_of_step.unwrap_or(line).to_owned()),
                Answer::DoErrands(errands) => do_errands(errands, code, line),
                Answer::LetItEnd => {}
            }
        }
    };
    start("signals", SMALL_STACK, wait);
}

/// `errand` is done when the process is told to stop, in the moments it has left; not any more once
/// what is returned is dropped.
pub fn before_leaving(errand: impl Fn() + Send + Sync + 'static) -> Errand {
    let mut situation = situation();
    situation.errands_begun += 1;
    let number = situation.errands_begun;
    situation.errands.push((number, Arc::new(errand)));
    Errand(number)
}

/// Takes its errand back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Errand(u64);

impl Drop for Errand {
    fn drop(&mut self) {
        situation().errands.retain(|(number, _)| *number != self.0);
    }
}

/// Begins what makes everything before it count, and must not be cut off half way: from here on,
/// being told to stop once lets it end. Told twice, the process ends with this line. Does not
/// return where it was told before.
pub fn last_step(line: &'static str) -> LastStep {
    {
        let mut situation = situation();
        if !situation.is_told {
            situation.last_step = Some(line);
            return LastStep(());
        }
    }
    stand_still()
}

/// Over when dropped.
#[derive(Debug)]
#[must_use]
pub struct LastStep(());

impl Drop for LastStep {
    fn drop(&mut self) {
        situation().last_step = None;
    }
}

/// Whether the process was told to stop and is about to end.
pub fn is_leaving() -> bool {
    situation().is_leaving
}

/// Does not return where the process was told to stop and is about to end: what failed because of
/// that is no failure to speak of.
pub fn stand_still_if_leaving() {
    if is_leaving() {
        stand_still();
    }
}

fn stand_still() -> ! {
    loop {
        thread::park();
    }
}

type Errands = Vec<(u64, Arc<dyn Fn() + Send + Sync>)>;

struct Situation {
    is_told: bool,
    /// Told, and nothing can hold it.
    is_leaving: bool,
    last_step: Option<&'static str>,
    errands: Errands,
    errands_begun: u64,
}

static SITUATION: Mutex<Situation> = Mutex::new(Situation {
    is_told: false,
    is_leaving: false,
    last_step: None,
    errands: Vec::new(),
    errands_begun: 0,
});

fn situation() -> MutexGuard<'static, Situation> {
    SITUATION.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Answer {
    /// With this line, if it is not the usual one.
    Leave(Option<&'static str>),
    DoErrands(Errands),
    LetItEnd,
}

fn told() -> Answer {
    let mut situation = situation();
    let is_first = !std::mem::replace(&mut situation.is_told, true);
    match (is_first, situation.last_step) {
        (true, Some(_)) => Answer::LetItEnd,
        (false, line) => {
            situation.is_leaving = true;
            Answer::Leave(line)
        }
        (true, None) => {
            situation.is_leaving = true;
            match std::mem::take(&mut situation.errands) {
                errands if errands.is_empty() => Answer::Leave(None),
                errands => Answer::DoErrands(errands),
            }
        }
    }
}

/// From threads of their own, so that a second signal is heard.
fn do_errands(errands: Errands, code: u8, line: &'static str) {
    let (done, is_done) = channel::<()>();
    let work = move || {
        for (_, errand) in errands {
            errand();
        }
        drop(done);
    };
    let is_begun = start("errands", 2 << 20, work);
    let wait = move || {
        let _ = is_done.recv_timeout(PATIENCE_WITH_ERRANDS);
        leave(code, line.to_owned());
    };
    if !is_begun || !start("leaving", SMALL_STACK, wait) {
        leave(code, line.to_owned());
    }
}

fn start(name: &str, stack: usize, work: impl FnOnce() + Send + 'static) -> bool {
    let started = thread::Builder::new().name(name.into()).stack_size(stack).spawn(work);
    if let Err(error) = &started {
        tracing::warn!(%error, "cannot wait for signals");
    }
    started.is_ok()
}

/// Ends the process from any thread, without waiting for the others.
pub(super) fn leave(code: u8, line: String) -> ! {
    let (written, is_written) = channel::<()>();
    let say = move || {
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
        drop(written);
    };
    // Nobody may be reading, or the pipe be full because its reader is stuck; the exit code is what
    // counts.
    if thread::Builder::new().stack_size(SMALL_STACK).spawn(say).is_ok() {
        let _ = is_written.recv_timeout(PATIENCE_WITH_READER);
    }
    #[allow(clippy::disallowed_methods, reason = "the one place that ends the process from aside")]
    std::process::exit(i32::from(code))
}
