//! The pipeline: a stream of bytes becomes frames, sealed on all cores, put together into packs,
//! uploaded.
//!
//! Every queue is bounded, so that memory is, whatever the size: about one pack for each upload and
//! two more.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::codec::{
    Compression, FrameSealer, Header, Kind, Origin, PACK_FRAME_BYTES, PackBuilder, SealedFrame,
};
use crate::commands::backup::halt::{Halt, others_stopped};
use crate::error::{Context, Result};
use crate::repository::manifest::{PACK_BYTES, Pack};
use crate::repository::{BackupId, Home, layout};
use crate::storage::Body;

/// More at once would cost memory, 32 MiB each, and help little.
pub(super) const UPLOADS_MAX: usize = 4;

/// Where the packs go and what stands in their headers.
#[derive(Debug)]
pub struct Target<'t> {
    pub home: &'t Home,
    pub id: &'t BackupId,
    pub origin: &'t Origin,
    pub compression: Compression,
    /// Threads that compress.
    pub jobs: usize,
}

/// A frame on its way to be sealed, and where its sealed form is waited for.
struct Job {
    raw: Vec<u8>,
    sealed: Sender<SealedFrame>,
}

/// Runs `feed`, which writes the stream, and stores it. The packs, in order, and what `feed`
/// returned.
///
/// The first error, of `feed`, of any thread here, or of who else holds `halt`, ends all of them
/// and is returned.
pub fn run<T>(
    target: &Target<'_>,
    halt: &Halt<'_>,
    feed: impl FnOnce(&mut StreamWriter<'_>) -> Result<T>,
) -> Result<(T, Vec<Pack>)> {
    let jobs = target.jobs.max(1);
    let (to_seal, raw) = sync_channel::<Job>(4 * jobs);
    let (in_order, ordered) = sync_channel::<Receiver<SealedFrame>>(8 * jobs);
    // No queue before the uploads: a pack waits where it was put together.
    let (to_store, packs) = sync_channel::<(u32, PackBuilder)>(0);
    let stored = Mutex::new(BTreeMap::new());
    let spare = Mutex::new(Vec::new());
    let fed = thread::scope(|scope| {
        // Each thread owns its ends of the queues, so that the others see it go.
        let (raw, packs) = (Arc::new(Mutex::new(raw)), Arc::new(Mutex::new(packs)));
        for _ in 0..jobs {
            let (raw, spare) = (raw.clone(), &spare);
            scope.spawn(move || note(halt, seal_frames(&raw, spare, target.compression)));
        }
        for _ in 0..jobs.clamp(2, UPLOADS_MAX) {
            let (packs, stored) = (packs.clone(), &stored);
            scope.spawn(move || note(halt, store_packs(target, halt, &packs, stored)));
        }
        drop((raw, packs));
        scope.spawn(move || note(halt, assemble(&ordered, &to_store)));
        let frame = Vec::with_capacity(PACK_FRAME_BYTES);
        let mut writer =
            StreamWriter { frame, position: 0, to_seal, in_order, spare: &spare, halt };
        let fed = feed(&mut writer).and_then(|fed| writer.flush().map(|()| fed));
        fed.map_err(|error| halt.fail(error)).ok()
    });
    match (halt.error(), fed) {
        (None, Some(fed)) => {
            let stored = stored.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok((fed, stored.into_values().collect()))
        }
        (error, _) => Err(error.unwrap_or_else(others_stopped)),
    }
}

/// What `feed` writes to.
pub struct StreamWriter<'w> {
    frame: Vec<u8>,
    /// Bytes of the stream before the frame begun.
    position: u64,
    to_seal: SyncSender<Job>,
    in_order: SyncSender<Receiver<SealedFrame>>,
    spare: &'w Mutex<Vec<Vec<u8>>>,
    halt: &'w Halt<'w>,
}

impl StreamWriter<'_> {
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let taken = bytes.len().min(self.room() - self.frame.len());
            self.frame.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.frame.len() == self.room() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// For the frame begun: none goes beyond the end of its pack.
    fn room(&self) -> usize {
        let to_end = PACK_BYTES - self.position % PACK_BYTES;
        PACK_FRAME_BYTES.min(usize::try_from(to_end).unwrap_or(PACK_FRAME_BYTES))
    }

    /// What is written next begins a frame.
    pub fn flush(&mut self) -> Result<()> {
        if self.halt.is_on() {
            return Err(others_stopped());
        }
        if self.frame.is_empty() {
            return Ok(());
        }
        self.position += self.frame.len() as u64;
        // Frames are used again: fresh memory costs a page fault for every 4 KiB.
        let spare = self.spare.lock().ok().and_then(|mut spare| spare.pop());
        let raw = std::mem::replace(
            &mut self.frame,
            spare.unwrap_or_else(|| Vec::with_capacity(PACK_FRAME_BYTES)),
        );
        let (sealed, waiting) = channel();
        self.in_order.send(waiting).map_err(|_| others_stopped())?;
        self.to_seal.send(Job { raw, sealed }).map_err(|_| others_stopped())
    }
}

pub(super) fn note(halt: &Halt<'_>, outcome: Result<()>) {
    if let Err(error) = outcome {
        halt.fail(error);
    }
}

fn next<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    queue.lock().ok()?.recv().ok()
}

fn seal_frames(
    raw: &Mutex<Receiver<Job>>,
    spare: &Mutex<Vec<Vec<u8>>>,
    compression: Compression,
) -> Result<()> {
    let mut sealer = FrameSealer::new(compression)?;
    while let Some(mut job) = next(raw) {
        // Nobody waits any more once another thread has failed; its error is the one that counts.
        let _ = job.sealed.send(sealer.seal(&job.raw)?);
        job.raw.clear();
        if let Ok(mut spare) = spare.lock() {
            spare.push(job.raw);
        }
    }
    Ok(())
}

fn assemble(
    ordered: &Receiver<Receiver<SealedFrame>>,
    to_store: &SyncSender<(u32, PackBuilder)>,
) -> Result<()> {
    let mut pack = PackBuilder::default();
    let mut number = 0;
    while let Ok(waiting) = ordered.recv() {
        pack.push(waiting.recv().map_err(|_| others_stopped())?);
        if pack.size() == PACK_BYTES {
            let whole = std::mem::take(&mut pack);
            to_store.send((number, whole)).map_err(|_| others_stopped())?;
            number += 1;
        }
    }
    if pack.is_empty() {
        return Ok(());
    }
    to_store.send((number, pack)).map_err(|_| others_stopped())
}

pub(super) fn store_packs(
    target: &Target<'_>,
    halt: &Halt<'_>,
    packs: &Mutex<Receiver<(u32, PackBuilder)>>,
    stored: &Mutex<BTreeMap<u32, Pack>>,
) -> Result<()> {
    while let Some((number, pack)) = next(packs) {
        if halt.is_on() {
            break;
        }
        let size = pack.size();
        let name = layout::pack_name(number);
        let object = pack.finish(|content| {
            Header::new(Kind::Pack, name.as_str(), content, target.origin.clone())
        });
        let body = Body::new(object);
        let about = Pack { size, stored: body.size() };
        target
            .home
            .put_pack(target.id, number, &body)
            .context(|| format!("store {name} of backup {}", target.id))?;
        stored.lock().unwrap_or_else(PoisonError::into_inner).insert(number, about);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
