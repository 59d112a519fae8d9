//! Packs back to raw bytes: whole where most of one is wanted, else by the ranges of its frames.

use std::ops::Range;

use bytes::Bytes;

use crate::codec::{Content, Frame, FrameOpener, Header, Kind, SeekTable};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::manifest::{FileKind, Manifest};
use crate::repository::{BackupId, Home, layout, unopened};
use crate::storage::Key;

/// What is handed over at once: few large writes cost less than many small ones.
const PIECE_BYTES: usize = 1 << 20;
/// A table of a pack of 128 KiB frames has a fourth of it.
const TAIL_BYTES: u64 = 8 << 10;
/// Below it one request for all is cheaper than three.
const SMALL_BYTES: u64 = 256 << 10;
/// What lies between two ranges is fetched too where that is quicker than to ask again: a request
/// to a store takes some 30 ms, one to a disk next to nothing.
const GAP_BYTES: u64 = 1 << 20;
const GAP_BYTES_ON_DISK: u64 = 32 << 10;

/// A pack's header has no digest and no summary: far more than any.
const HEADER_BYTES: u64 = 16 << 10;

/// Takes what a pack holds, in the order of the stream.
pub trait PackSink {
    /// Raw bytes of the pack, from `at` on. There may be more of them than were wanted, and when
    /// the whole pack is read they count only once that has ended well.
    fn take(&mut self, at: u64, piece: &[u8]) -> Result<()>;

    /// For people: whose bytes these are. Empty: of nobody that matters.
    fn owner(&self, _raw: &Range<u64>) -> String {
        String::new()
    }
}

/// One for each thread.
pub struct PackReader<'a> {
    home: &'a Home,
    opener: FrameOpener,
    /// Room for what was opened; only the first `filled` bytes are of this pack.
    piece: Vec<u8>,
    filled: usize,
    gap_bytes: u64,
}

impl<'a> PackReader<'a> {
    pub fn new(home: &'a Home) -> Result<Self> {
        let on_disk = home.storage.url().starts_with("file:");
        let gap_bytes = if on_disk { GAP_BYTES_ON_DISK } else { GAP_BYTES };
        let (opener, piece) = (FrameOpener::new()?, vec![0; PIECE_BYTES]);
        Ok(PackReader { home, opener, piece, filled: 0, gap_bytes })
    }

    /// Hands over the `wanted` raw bytes of a pack, rising and apart, and maybe others; returns how
    /// many stored bytes were fetched. Every byte was checked against a checksum.
    pub fn read(
        &mut self,
        manifest: &Manifest,
        number: u32,
        wanted: &[Range<u64>],
        sink: &mut impl PackSink,
    ) -> Result<u64> {
        let id = &manifest.id;
        let key = self.home.pack_key(id, number);
        let outcome = match manifest.packs.get(number as usize) {
            Some(_) => self.read_pack(&Place { manifest, number, key: &key }, wanted, sink),
            None => Err(Error::new(ErrorKind::Corrupt, "the manifest has no such pack")),
        };
        outcome.map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.with_kind(ErrorKind::Corrupt).hint(LOST),
            ErrorKind::Corrupt => error.hint(LOST),
            _ => error,
        })
    }

    /// By one small request: whether the object is the one that the manifest means.
    pub fn expect_header(&self, manifest: &Manifest, number: u32) -> Result<()> {
        let key = self.home.pack_key(&manifest.id, number);
        let (start, _) = self.home.storage.get_start(&key, HEADER_BYTES)?;
        let (header, _) = Header::split(&start).map_err(|error| unopened(error, &key))?;
        Place { manifest, number, key: &key }.expect(&header)
    }

    fn read_pack(
        &mut self,
        place: &Place<'_>,
        wanted: &[Range<u64>],
        sink: &mut impl PackSink,
    ) -> Result<u64> {
        let (size, stored) = (place.size(), place.stored());
        // What a pack that failed has left.
        self.filled = 0;
        let bytes: u64 = wanted.iter().map(|range| range.end - range.start).sum();
        if bytes == 0 {
            return Ok(0);
        }
        if bytes * 2 > size {
            return self.read_whole(place, sink);
        }
        if stored <= SMALL_BYTES {
            return self.read_of_whole(place, wanted, sink);
        }
        let table = self.seek_table(place)?;
        let frames = frames_of(&table, wanted);
        let spans = spans(table.header, &frames, self.gap_bytes);
        let in_spans: u64 = spans.iter().map(|span| span.end - span.start).sum();
        if in_spans * 5 > stored * 3 {
            return self.read_of_whole(place, wanted, sink);
        }
        let mut frames = frames.into_iter().peekable();
        for (index, span) in spans.iter().enumerate() {
            let bytes = self.home.storage.get_range(place.key, span.clone())?;
            if index == 0 {
                let (header, _) = Header::split(&bytes).map_err(|e| unopened(e, place.key))?;
                place.expect(&header)?;
            }
            while let Some(frame) = frames.next_if(|frame| frame.stored.end <= span.end) {
                let part = frame.stored.start - span.start..frame.stored.end - span.start;
                self.open(place, frame, &bytes[part.start as usize..part.end as usize], sink)?;
                if frames.peek().is_none_or(|next| next.raw.start != frame.raw.end) {
                    self.hand_over(frame.raw.end, sink)?;
                }
            }
        }
        Ok(in_spans + stored.min(TAIL_BYTES))
    }

    /// In one request all; of it only what is wanted is opened, which costs more than to fetch it
    /// where content compresses well.
    fn read_of_whole(
        &mut self,
        place: &Place<'_>,
        wanted: &[Range<u64>],
        sink: &mut impl PackSink,
    ) -> Result<u64> {
        let (sealed, _, table) = self.get_whole(place)?;
        let mut frames = frames_of(&table, wanted).into_iter().peekable();
        while let Some(frame) = frames.next() {
            let stored = &sealed[frame.stored.start as usize..frame.stored.end as usize];
            self.open(place, frame, stored, sink)?;
            if frames.peek().is_none_or(|next| next.raw.start != frame.raw.end) {
                self.hand_over(frame.raw.end, sink)?;
            }
        }
        Ok(sealed.len() as u64)
    }

    fn read_whole(&mut self, place: &Place<'_>, sink: &mut impl PackSink) -> Result<u64> {
        let (sealed, header, table) = self.get_whole(place)?;
        let mut crc32 = crc32fast::Hasher::new();
        for frame in table.frames() {
            let stored = &sealed[frame.stored.start as usize..frame.stored.end as usize];
            crc32.update(self.open(place, frame, stored, sink)?);
        }
        self.hand_over(table.size(), sink)?;
        let found = Content { size: table.size(), crc32: crc32.finalize() };
        if found != (Content { size: header.size, crc32: header.crc32 }) {
            let wrong = Error::new(ErrorKind::Corrupt, "content does not match its CRC-32");
            return Err(unopened(wrong, place.key));
        }
        Ok(sealed.len() as u64)
    }

    fn get_whole(&self, place: &Place<'_>) -> Result<(Bytes, Header, SeekTable)> {
        let sealed = self.home.storage.get(place.key)?;
        let (header, _) = Header::split(&sealed).map_err(|e| unopened(e, place.key))?;
        place.expect(&header)?;
        let table = SeekTable::parse(&sealed, sealed.len() as u64);
        let table = table.map_err(|error| unopened(error, place.key))?;
        place.expect_size(&table)?;
        Ok((sealed, header, table))
    }

    /// One request, and another one where the table is unusually long.
    fn seek_table(&self, place: &Place<'_>) -> Result<SeekTable> {
        let stored = place.stored();
        let tail = |bytes: u64| -> Result<Bytes> {
            let begin = stored.saturating_sub(bytes);
            self.home.storage.get_range(place.key, begin..stored)
        };
        let of_this = |error| unopened(error, place.key);
        let end = tail(TAIL_BYTES)?;
        let length = SeekTable::length(&end).map_err(of_this)?;
        let end = if length > end.len() as u64 { tail(length)? } else { end };
        let table = SeekTable::parse(&end, stored).map_err(of_this)?;
        place.expect_size(&table)?;
        Ok(table)
    }

    /// Opens a frame behind those that were not handed over yet.
    fn open(
        &mut self,
        place: &Place<'_>,
        frame: &Frame,
        stored: &[u8],
        sink: &mut impl PackSink,
    ) -> Result<&[u8]> {
        let length = (frame.raw.end - frame.raw.start) as usize;
        if self.filled > 0 && self.filled + length > PIECE_BYTES {
            self.hand_over(frame.raw.start, sink)?;
        }
        let begin = self.filled;
        self.filled += length;
        // A frame may be longer than any that we write.
        if self.filled > self.piece.len() {
            self.piece.resize(self.filled, 0);
        }
        let raw = &mut self.piece[begin..self.filled];
        match self.opener.open(stored, raw) {
            Ok(()) => Ok(raw),
            Err(error) => {
                let owner = sink.owner(&frame.raw);
                let error = if owner.is_empty() { error } else { error.context(owner) };
                Err(unopened(error, place.key))
            }
        }
    }

    /// All that was opened, which ends at `end`.
    fn hand_over(&mut self, end: u64, sink: &mut impl PackSink) -> Result<()> {
        match std::mem::take(&mut self.filled) {
            0 => Ok(()),
            filled => sink.take(end - filled as u64, &self.piece[..filled]),
        }
    }
}

const LOST: &str = "Choose another backup with --backup; this one is damaged.";

/// One pack of a backup.
struct Place<'a> {
    manifest: &'a Manifest,
    number: u32,
    key: &'a Key,
}

impl Place<'_> {
    fn size(&self) -> u64 {
        self.manifest.packs[self.number as usize].size
    }

    fn stored(&self) -> u64 {
        self.manifest.packs[self.number as usize].stored
    }

    /// All full packs have one size: what tells those of two backups apart is who made them when.
    fn expect(&self, header: &Header) -> Result<()> {
        let Header { kind, name, size, origin, .. } = header;
        let is_named_so = *kind == Kind::Pack && *name == layout::pack_name(self.number);
        if is_named_so && *size == self.size() && *origin == self.manifest.origin {
            return Ok(());
        }
        Err(self.is_another(&format!("it is {name} of {size} bytes from {origin}")))
    }

    fn expect_size(&self, table: &SeekTable) -> Result<()> {
        match table.size() {
            size if size == self.size() => Ok(()),
            size => Err(self.is_another(&format!("its frames hold {size} bytes"))),
        }
    }

    fn is_another(&self, found: &str) -> Error {
        let (number, id) = (self.number, &self.manifest.id);
        let message = format!("pack {number} of backup {id} is not the one of its manifest");
        Error::new(ErrorKind::Corrupt, format!("{message}: {found}"))
    }
}

/// Each once, though several ranges may lie in one.
fn frames_of<'t>(table: &'t SeekTable, wanted: &[Range<u64>]) -> Vec<&'t Frame> {
    let mut frames: Vec<&Frame> = wanted.iter().flat_map(|range| table.frames_of(range)).collect();
    frames.dedup_by_key(|frame| frame.raw.start);
    frames
}

/// What to ask for: the header, which tells whose pack it is, and the frames.
fn spans(header: u64, frames: &[&Frame], gap_bytes: u64) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    spans.push(0..header);
    for frame in frames {
        match spans.last_mut() {
            Some(last) if frame.stored.start - last.end <= gap_bytes => {
                last.end = frame.stored.end;
            }
            _ => spans.push(frame.stored.clone()),
        }
    }
    spans
}

impl Home {
    /// The content of one file as a backup has it: of one that is there in part, that part.
    /// `None` where the backup has no such file.
    pub fn read_file(&self, manifest: &Manifest, path: &str) -> Result<Option<Vec<u8>>> {
        let is_it = |file: &&_| is_file(file, path);
        let Some(file) = manifest.files.iter().find(is_it) else { return Ok(None) };
        let stream: u64 = manifest.packs.iter().map(|pack| pack.size).sum();
        let end = file.offset.checked_add(file.size).filter(|end| *end <= stream);
        let (Some(end), true) = (end, manifest.pack_bytes > 0) else {
            return Err(outside(&manifest.id, path));
        };
        let mut content = Whole { bytes: Vec::new(), wanted: 0..0 };
        let mut reader = PackReader::new(self)?;
        let mut at = file.offset;
        while at < end {
            let begin = at / manifest.pack_bytes * manifest.pack_bytes;
            let until = end.min(begin + manifest.pack_bytes);
            content.wanted = at - begin..until - begin;
            let number = u32::try_from(begin / manifest.pack_bytes).unwrap_or(u32::MAX);
            let wanted = [content.wanted.clone()];
            reader.read(manifest, number, &wanted, &mut content)?;
            at = until;
        }
        match content.bytes.len() as u64 == file.size {
            true => Ok(Some(content.bytes)),
            false => Err(outside(&manifest.id, path)),
        }
    }
}

fn is_file(file: &crate::repository::manifest::FileEntry, path: &str) -> bool {
    file.kind == FileKind::File && file.path == path
}

fn outside(id: &BackupId, path: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{path} lies outside of the packs of backup {id}"))
        .hint(LOST)
}

/// Gathers what is wanted of a pack.
struct Whole {
    bytes: Vec<u8>,
    wanted: Range<u64>,
}

impl PackSink for Whole {
    fn take(&mut self, at: u64, piece: &[u8]) -> Result<()> {
        let from = self.wanted.start.clamp(at, at + piece.len() as u64) - at;
        let to = self.wanted.end.clamp(at, at + piece.len() as u64) - at;
        self.bytes.extend_from_slice(&piece[from as usize..to as usize]);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
