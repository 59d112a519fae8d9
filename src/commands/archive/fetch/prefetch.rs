//! Fetching ahead: what `fetch` has to do with the prefetcher, the detached process that fills the
//! spool while PostgreSQL replays.
//!
//! The prefetcher saves time and decides nothing. What it does not find or cannot fetch proves
//! nothing, what it puts into the spool is checked again by `fetch`, and it may be killed at any
//! instant.

mod worker;
mod plan;
mod pace;
mod vitals;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::commands::App;
use crate::commands::archive::Caller;
use crate::commands::archive::fetch::spool::{Spool, Wanted};
use crate::commands::archive::fetch::target::Target;
use crate::error::ErrorKind;
use crate::host::clock::Deadline;
use crate::postgres::{SegmentName, WalFileName};

pub use worker::run;

/// What `fetch` has to do with it.
pub(super) struct Prefetch<'a> {
    app: &'a App,
    caller: &'a Caller,
    spool: Spool,
    segment: SegmentName,
}

/// How long `fetch` waits for what the prefetcher is fetching already.
const COMING_MAX: Duration = Duration::from_secs(5);
const COMING_POLL: Duration = Duration::from_millis(2);

impl<'a> Prefetch<'a> {
    /// For a segment, during recovery; `None` where everything comes straight from the store.
    pub fn of(app: &'a App, caller: &'a Caller, name: &WalFileName) -> Option<Self> {
        let WalFileName::Segment(segment) = *name else { return None };
        Window::of(app, caller)?;
        if !vitals::is_recovering(caller.data_directory()?) {
            return None;
        }
        let spool = Spool::open(app, caller)?;
        let prefetch = Prefetch { app, caller, spool, segment };
        prefetch.tell(false).then_some(prefetch)
    }

    /// Whether the spool has served it. Whatever goes wrong here, the store is there to ask.
    pub fn serves(&self, target: &Target<'_>, deadline: Deadline) -> bool {
        let until = Deadline::after(COMING_MAX.min(deadline.remaining()));
        loop {
            // Asked in this order, nothing that comes between the two questions is missed.
            let is_coming = self.spool.is_coming(&self.segment);
            if let Some(spooled) = self.spool.find(&self.segment) {
                let served = target
                    .caller
                    .system_identifier()
                    .and_then(|ours| target.take_spooled(&spooled, ours));
                match served {
                    Ok(()) => {
                        self.see_to_a_prefetcher();
                        return true;
                    }
                    Err(error) => {
                        tracing::info!(%error, "not served from the spool");
                        // A full pg_wal is no fault of what is in the spool.
                        if error.kind() != ErrorKind::Full {
                            spooled.remove();
                        }
                        return false;
                    }
                }
            }
            if !is_coming || until.has_passed() || !self.spool.has_prefetcher() {
                return false;
            }
            thread::sleep(COMING_POLL);
        }
    }

    /// The store has served it: there may be more.
    pub fn goes_on_from_here(&self) {
        self.tell(true);
        self.see_to_a_prefetcher();
    }

    fn tell(&self, is_served: bool) -> bool {
        let told = self.spool.tell_wanted(Wanted { segment: self.segment, is_served });
        told.inspect_err(|error| tracing::warn!(%error, "nothing is fetched ahead")).is_ok()
    }

    fn see_to_a_prefetcher(&self) {
        if self.spool.has_prefetcher() {
            return;
        }
        if let Some(Err(error)) = self.caller.data_directory().map(|place| self.start(place)) {
            tracing::warn!(%error, "cannot start the prefetcher");
        }
    }

    /// Starts this program anew with the settings it has, and does not wait for it.
    ///
    /// Where the server is process 1 (a container without an init) whoever loses his parent becomes
    /// its child, and a child that is killed it takes for a crash of its own: it gets none.
    #[allow(clippy::zombie_processes, reason = "it outlives us, and init waits for it")]
    fn start(&self, data_directory: &Path) -> std::io::Result<()> {
        if vitals::server(data_directory).is_some_and(rustix::process::Pid::is_init) {
            return Ok(());
        }
        let mut prefetcher = Command::new(std::env::current_exe()?);
        if let Some(file) = &self.app.settings.config_file {
            prefetcher.arg("--config").arg(file);
        }
        prefetcher
            .args(["prefetch", &self.segment.to_string()])
            .envs(self.app.settings.carried().iter().cloned())
            .current_dir(data_directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(|_| ())
    }
}

/// What the spool may hold.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// 1 or more.
    segments: u64,
    segment_size: u32,
}

impl Window {
    /// `None` where not even one segment fits, or their size is not known.
    fn of(app: &App, caller: &Caller) -> Option<Window> {
        let segment_size = caller.control_file?.wal_segment_size?;
        let bytes_max = app.settings.fetch.prefetch_bytes_max;
        let segments = bytes_max.checked_div(u64::from(segment_size))?;
        (segments > 0).then_some(Window { segments, segment_size })
    }
}
