//! What earlier surveys on this host learned: a cache. Losing it costs time, never an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::catalog::WalPart;
use crate::catalog::inventory::Segment;
use crate::commands::App;
use crate::commands::archive::place;
use crate::error::Result;
use crate::host::state::StateDirectory;
use crate::postgres::wal::digest::{Fragment, RestorePoint};
use crate::postgres::{SegmentName, TimelineId};
use crate::repository::Home;

/// Of the shape of what is written down: another walden's is not read.
const VERSION: u32 = 1;
/// How long a listing of older log files may be believed.
const LISTING_LASTS: Duration = Duration::from_secs(60 * 60);
/// What was not learned anew for so long is most likely of WAL that was removed.
const LOG_LASTS: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Which log files of a timeline there were.
pub type Listing = BTreeMap<TimelineId, Vec<u32>>;

/// Of one home, on one host.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub(super) state: Option<StateDirectory>,
    pub(super) lists_anew: bool,
}

/// What is remembered of a log file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LearnedLog {
    pub part: WalPart,
    /// In bytes, where any header told.
    pub segment_size: Option<u32>,
    /// No segment will come to it any more, and it has been asked for an index.
    pub is_closed: bool,
}

impl Memory {
    /// Forgets at once.
    pub fn none() -> Memory {
        Memory::default()
    }

    /// A directory is always listed anew: there it costs next to nothing.
    pub fn open(app: &App, home: &Home) -> Result<Memory> {
        let repository = &app.settings.require_repositories()?[0];
        let name = place::name_of(app, repository);
        let identity = format!("survey of {} in {name}", home.url());
        let state = StateDirectory::of_reader(app.settings.state_dir.as_deref(), identity);
        let lists_anew = place::is_directory(&repository.url);
        Ok(Memory { state: Some(state), lists_anew })
    }

    /// For decisions that must not rest on what was listed a while ago.
    #[must_use]
    pub fn listing_anew(self) -> Memory {
        Memory { lists_anew: true, ..self }
    }

    pub(super) fn listing(&self) -> Option<Listing> {
        let state = self.state.as_ref().filter(|_| !self.lists_anew)?;
        serde_json::from_str(&state.noted("listing", LISTING_LASTS)?).ok()
    }

    /// `listing`: as the store gave it just now, all of it.
    pub(super) fn remember_listing(&self, listing: &Listing) {
        if self.lists_anew {
            return;
        }
        if let Ok(text) = serde_json::to_string(listing) {
            self.note("listing", &text);
        }
        if let Some(state) = &self.state {
            state.forget_old("wal-", LOG_LASTS);
        }
    }

    pub(super) fn log(&self, timeline: TimelineId, log: u32) -> Option<LearnedLog> {
        let text = self.state.as_ref()?.noted(&name(timeline, log), Duration::MAX)?;
        let noted: Noted = serde_json::from_str(&text).ok()?;
        (noted.walden == VERSION).then(|| noted.into_learned(timeline, log))
    }

    /// But for what is damaged: it may be brought back.
    pub(super) fn remember_log(&self, timeline: TimelineId, log: u32, learned: &LearnedLog) {
        if self.state.is_none() {
            return;
        }
        if let Ok(text) = serde_json::to_string(&Noted::of(learned)) {
            self.note(&name(timeline, log), &text);
        }
    }

    fn note(&self, name: &str, text: &str) {
        let noted = self.state.as_ref().map(|state| state.note(name, text));
        if let Some(Err(error)) = noted {
            tracing::info!(%name, %error, "cannot remember, will ask again");
        }
    }
}

fn name(timeline: TimelineId, log: u32) -> String {
    format!("wal-{}{log:08X}", timeline.to_hex())
}

/// By the number of each segment within its log file.
#[derive(serde::Serialize, serde::Deserialize)]
struct Noted {
    walden: u32,
    segment_size: Option<u32>,
    is_closed: bool,
    segments: Vec<(u32, Segment)>,
    restore_points: Vec<(u32, RestorePoint)>,
    continued: Vec<(u32, Fragment)>,
    unfinished: Vec<(u32, Fragment)>,
    unclear: Vec<u32>,
}

impl Noted {
    fn of(learned: &LearnedLog) -> Noted {
        let part = &learned.part;
        let sound = part.segments.iter().filter(|(_, segment)| !segment.is_damaged);
        let fragments = |fragments: &BTreeMap<SegmentName, Fragment>| {
            fragments.iter().map(|(name, fragment)| (name.segment, fragment.clone())).collect()
        };
        Noted {
            walden: VERSION,
            segment_size: learned.segment_size,
            is_closed: learned.is_closed,
            segments: sound.map(|(name, segment)| (name.segment, *segment)).collect(),
            restore_points: part
                .restore_points
                .iter()
                .map(|(name, point)| (name.segment, point.clone()))
                .collect(),
            continued: fragments(&part.continued),
            unfinished: fragments(&part.unfinished),
            unclear: part.unclear.iter().map(|name| name.segment).collect(),
        }
    }

    fn into_learned(self, timeline: TimelineId, log: u32) -> LearnedLog {
        let name = |segment| SegmentName { timeline, log, segment };
        fn named<T, C: FromIterator<(SegmentName, T)>>(
            list: Vec<(u32, T)>,
            name: impl Fn(u32) -> SegmentName,
        ) -> C {
            list.into_iter().map(|(segment, what)| (name(segment), what)).collect()
        }
        LearnedLog {
            part: WalPart {
                segments: named(self.segments, name),
                restore_points: named(self.restore_points, name),
                continued: named(self.continued, name),
                unfinished: named(self.unfinished, name),
                unclear: self.unclear.into_iter().map(name).collect(),
            },
            segment_size: self.segment_size,
            is_closed: self.is_closed,
        }
    }
}
