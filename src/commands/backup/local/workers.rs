//! The threads of a local backup: each takes the next pack, makes it, and hands it to those who
//! upload.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::Duration;

use crate::codec::PackBuilder;
use crate::commands::backup::copy::{Target, UPLOADS_MAX, note, store_packs};
use crate::commands::backup::halt::{Halt, others_stopped};
use crate::commands::backup::local::frames::PackWriter;
use crate::commands::backup::local::pack::Maker;
use crate::error::Result;
use crate::repository::manifest::{PACK_BYTES, Pack};

/// Each holds a pack that is being made, and each upload one twice: with 32 MiB of what does not
/// compress in each, these stay below what a backup may take.
const MAKERS_MAX: usize = 6;
/// How often the session that the backup depends on is looked at.
const PULSE: Duration = Duration::from_secs(20);

/// Packs on their way into the repository.
pub struct Uploads {
    to_store: SyncSender<(u32, PackBuilder)>,
}

/// Runs `work`, which sends packs, while other threads upload them. All packs, in order.
pub fn uploading<T>(
    target: &Target<'_>,
    halt: &Halt<'_>,
    work: impl FnOnce(&Uploads) -> Result<T>,
) -> Result<(T, Vec<Pack>)> {
    let stored = Mutex::new(BTreeMap::new());
    // No queue: a pack waits where it was made.
    let (to_store, packs) = sync_channel(0);
    let done = thread::scope(|scope| {
        let packs = Arc::new(Mutex::new(packs));
        for _ in 0..target.jobs.clamp(2, UPLOADS_MAX) {
            upload(scope, target, halt, packs.clone(), &stored);
        }
        drop(packs);
        let uploads = Uploads { to_store };
        work(&uploads).map_err(|error| halt.fail(error)).ok()
    });
    match (halt.error(), done) {
        (None, Some(done)) => {
            let stored = stored.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok((done, stored.into_values().collect()))
        }
        (error, _) => Err(error.unwrap_or_else(others_stopped)),
    }
}

fn upload<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    target: &'env Target<'_>,
    halt: &'env Halt<'_>,
    packs: Arc<Mutex<Receiver<(u32, PackBuilder)>>>,
    stored: &'env Mutex<BTreeMap<u32, Pack>>,
) {
    scope.spawn(move || note(halt, store_packs(target, halt, &packs, stored)));
}

impl Uploads {
    pub fn send(&self, number: u32, pack: PackBuilder) -> Result<()> {
        self.to_store.send((number, pack)).map_err(|_| others_stopped())
    }
}

/// Makes the stream up to the end of the plan, on all cores. What is left open is the last pack,
/// which the caller goes on with. `pulse` is called every now and then meanwhile.
pub fn make_all(
    maker: &Maker<'_>,
    target: &Target<'_>,
    halt: &Halt<'_>,
    uploads: &Uploads,
    mut pulse: impl FnMut() -> Result<()>,
) -> Result<PackWriter> {
    let work = Work { maker, halt, target, next: AtomicU32::new(0), open: Mutex::new(None) };
    thread::scope(|scope| {
        let (at_work, all_done) = channel::<()>();
        for _ in 0..target.jobs.clamp(1, MAKERS_MAX) {
            let (at_work, work, to_store) = (at_work.clone(), &work, uploads.to_store.clone());
            scope.spawn(move || {
                let _at_work = at_work;
                note(halt, work.make_packs(&to_store));
            });
        }
        drop(at_work);
        while all_done.recv_timeout(PULSE) == Err(RecvTimeoutError::Timeout) {
            if let Err(error) = pulse() {
                halt.fail(error);
            }
        }
    });
    if halt.is_on() {
        return Err(others_stopped());
    }
    match work.open.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(writer) => Ok(writer),
        // The plan ends where a pack does.
        None => PackWriter::new(target.compression),
    }
}

/// What the makers share.
struct Work<'w> {
    maker: &'w Maker<'w>,
    halt: &'w Halt<'w>,
    target: &'w Target<'w>,
    next: AtomicU32,
    /// The last pack, which has room for more.
    open: Mutex<Option<PackWriter>>,
}

impl Work<'_> {
    fn make_packs(&self, to_store: &SyncSender<(u32, PackBuilder)>) -> Result<()> {
        let end = self.maker.plan.end();
        let mut writer = PackWriter::new(self.target.compression)?;
        while !self.halt.is_on() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let range = pack_range(number);
            if range.start >= end {
                break;
            }
            self.maker.make(range.start..range.end.min(end), &mut writer)?;
            if range.end > end {
                *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
                break;
            }
            to_store.send((number, writer.take()?)).map_err(|_| others_stopped())?;
        }
        Ok(())
    }
}

/// What pack `number` holds of the stream, if that goes on so long.
pub fn pack_range(number: u32) -> Range<u64> {
    let start = u64::from(number) * PACK_BYTES;
    start..start + PACK_BYTES
}
