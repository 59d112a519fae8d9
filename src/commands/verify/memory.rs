//! How far a deep run has come, on this host: one that was interrupted goes on from there. Only
//! what was found sound is remembered; the rest is read again, and found again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::commands::App;
use crate::commands::archive::place;
use crate::error::Result;
use crate::host::state::StateDirectory;
use crate::host::termination::{self, Errand};
use crate::postgres::SegmentName;
use crate::repository::{BackupId, Contents, Home, Kept, ListedSegment};

const NOTE: &str = "verify";
/// What was read longer ago is read again.
const LASTS: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What a kill may lose.
const PERIOD: Duration = Duration::from_secs(30);

/// What has been read.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Done {
    /// What was to be read: another run does not go on with it.
    pub scope: String,
    /// When the first of the runs began.
    pub began: Timestamp,
    /// The first pack of each backup that is still to be read.
    pub packs: BTreeMap<BackupId, u32>,
    /// Runs of segments that were read, of all that were to be.
    pub segments: Vec<(SegmentName, SegmentName)>,
}

/// Writes it down every now and then, and when the process is told to stop.
pub struct Memory {
    shared: Arc<Shared>,
    _errand: Option<Errand>,
}

struct Shared {
    state: Option<StateDirectory>,
    done: Mutex<Done>,
    noted: Mutex<Instant>,
}

impl Memory {
    /// What an earlier run of the same scope left, and where this one writes.
    pub fn open(app: &App, home: &Home, scope: String) -> Result<(Memory, Option<Done>)> {
        let repository = &app.settings.require_repositories()?[0];
        let name = place::name_of(app, repository);
        let identity = format!("verify of {} in {name}", home.url());
        let state = StateDirectory::of_reader(app.settings.state_dir.as_deref(), identity);
        let began = crate::host::clock::now();
        let before = state.noted(NOTE, LASTS).and_then(|text| serde_json::from_str(&text).ok());
        let before = before.filter(|before: &Done| before.scope == scope);
        let fresh = Done { scope, began, packs: BTreeMap::new(), segments: Vec::new() };
        let done = Mutex::new(before.clone().unwrap_or(fresh));
        let shared = Shared { state: Some(state), done, noted: Mutex::new(Instant::now()) };
        let shared = Arc::new(shared);
        let to_leave = shared.clone();
        let errand = Some(termination::before_leaving(move || to_leave.write()));
        Ok((Memory { shared, _errand: errand }, before))
    }

    /// For a run that reads nothing much.
    pub fn none() -> Memory {
        let began = Timestamp::UNIX_EPOCH;
        let (packs, segments) = (BTreeMap::new(), Vec::new());
        let done = Mutex::new(Done { scope: String::new(), began, packs, segments });
        let shared = Shared { state: None, done, noted: Mutex::new(Instant::now()) };
        Memory { shared: Arc::new(shared), _errand: None }
    }

    /// Every pack of this backup below `next` that was to be read is sound.
    pub fn packs(&self, id: &BackupId, next: u32) {
        self.shared.done().packs.insert(id.clone(), next);
        self.shared.write_if_due();
    }

    /// These segments were read and are sound, in the order of their names.
    pub fn segments(&self, name: SegmentName, follows: bool) {
        {
            let mut done = self.shared.done();
            match done.segments.last_mut().filter(|_| follows) {
                Some((_, last)) => *last = name,
                None => done.segments.push((name, name)),
            }
        }
        self.shared.write_if_due();
    }

    /// All is done.
    pub fn forget(self) {
        if let Some(state) = &self.shared.state {
            state.forget(NOTE);
        }
    }
}

impl Done {
    /// Those of `wanted` that were read, but for the first and the last of each run: they are read
    /// again, to see that their neighbours join them. What was stored since is, too.
    pub fn of(
        &self,
        wanted: &BTreeSet<SegmentName>,
        listed: &[ListedSegment],
    ) -> BTreeSet<SegmentName> {
        let runs = self.segments.iter().filter(|(first, last)| first < last);
        let within = runs.flat_map(|(first, last)| {
            wanted.range(*first..*last).filter(move |name| *name != first).copied()
        });
        let mut read: BTreeSet<SegmentName> = within.collect();
        for segment in listed.iter().filter(|segment| self.is_younger(segment.stored)) {
            read.remove(&segment.name);
        }
        read
    }

    /// The first pack of a backup that is to be read: what was stored since is not what was read.
    pub fn first_pack(&self, id: &BackupId, contents: &Contents) -> u32 {
        let next = self.packs.get(id).copied().unwrap_or_default();
        let younger = contents.objects.iter().filter(|object| self.is_younger(object.stored));
        let first = younger.filter_map(|object| match &object.kept {
            Kept::Pack(of, number) if of == id => Some(*number),
            Kept::Manifest(of) | Kept::Sums(of) if of == id => Some(0),
            _ => None,
        });
        first.min().map_or(next, |first| first.min(next))
    }

    /// Stores tell the time to the second.
    fn is_younger(&self, stored: Timestamp) -> bool {
        stored.as_second() >= self.began.as_second()
    }
}

impl Shared {
    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_if_due(&self) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.elapsed() >= PERIOD {
            *noted = Instant::now();
            self.write();
        }
    }

    fn write(&self) {
        let Some(state) = &self.state else { return };
        let text = serde_json::to_string(&*self.done()).unwrap_or_default();
        if let Err(error) = state.note(NOTE, &text) {
            tracing::info!(%error, "cannot remember how far it came: another run begins anew");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use jiff::Timestamp;

    use super::Done;
    use crate::postgres::SegmentName;
    use crate::repository::{BackupId, Contents, Kept, ListedSegment, Object};

    #[test]
    fn what_was_stored_since_is_read_again() {
        let time = |text: &str| -> Timestamp { text.parse().unwrap() };
        let (old, new) = (time("2026-11-20T00:00:00Z"), time("2026-11-21T10:00:00Z"));
        let id = BackupId::new(old, 7);
        let name = |n: u32| SegmentName::parse(&format!("0000000100000000{n:08X}")).unwrap();
        let done = Done {
            scope: String::new(),
            began: time("2026-11-21T10:00:00.5Z"),
            packs: BTreeMap::from([(id.clone(), 3)]),
            segments: vec![(name(1), name(5))],
        };
        let wanted: BTreeSet<SegmentName> = (1..=6).map(name).collect();
        let listed = |stored| ListedSegment { name: name(3), stored, size: 1 };
        let read = |stored| done.of(&wanted, &[listed(stored)]);
        assert_eq!(read(old), [2, 3, 4].map(name).into());
        assert_eq!(read(new), [2, 4].map(name).into());
        let contents = |kept, stored| Contents {
            objects: vec![Object { kept, size: 1, stored }],
            ..Contents::default()
        };
        let first = |kept, stored| done.first_pack(&id, &contents(kept, stored));
        assert_eq!(first(Kept::Pack(id.clone(), 1), old), 3);
        assert_eq!(first(Kept::Pack(id.clone(), 1), new), 1);
        assert_eq!(first(Kept::Pack(id.clone(), 4), new), 3);
        assert_eq!(first(Kept::Manifest(id.clone()), new), 0);
    }
}
