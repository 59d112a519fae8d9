//! Segments read from the repository, for what their digests leave open.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::error::{Context as _, ErrorKind, Result};
use crate::postgres::wal::class_row::{ClassRow, class_row};
use crate::postgres::wal::digest::{Digest, Ending, RelationFile};
use crate::postgres::wal::record::ResourceManager;
use crate::postgres::wal::{self, Digester, Reader, Record};
use crate::postgres::{SegmentName, WalFileName};
use crate::repository::Home;

/// Of the ends of transactions, which may be hundreds of thousands in a segment.
const KEPT_MAX: usize = 32;

/// Its file, until it is rewritten.
const PG_CLASS: u32 = 1259;

/// Reads segments, and remembers how transactions ended in those read last.
pub struct Segments<'h> {
    home: &'h Home,
    ends: HashMap<SegmentName, Rc<Vec<Ending>>>,
    /// Oldest first.
    order: Vec<SegmentName>,
    read: usize,
}

impl<'h> Segments<'h> {
    pub fn new(home: &'h Home) -> Self {
        Segments { home, ends: HashMap::new(), order: Vec::new(), read: 0 }
    }

    /// How many were read so far.
    pub fn read(&self) -> usize {
        self.read
    }

    /// Whether asking for its ends costs nothing.
    pub fn knows(&self, name: SegmentName) -> bool {
        self.ends.contains_key(&name)
    }

    /// Hands every whole record to `visit`; `false` where the segment is not there any more or
    /// cannot be read.
    pub fn visit(&mut self, name: SegmentName, mut visit: impl FnMut(&Record<'_>)) -> Result<bool> {
        let mut reader = Reader::new(name);
        let is_there = self.pieces(name, |piece| reader.write(piece, &mut visit))?;
        reader.finish();
        Ok(is_there)
    }

    /// What the relations are called that were made in the segment.
    pub fn class_rows(&mut self, name: SegmentName) -> Result<Vec<ClassRow>> {
        let mut rows = Vec::new();
        self.visit(name, |record| rows.extend(class_row(record, PG_CLASS)))?;
        Ok(rows)
    }

    /// Whether any of the files, made by one of the transactions, is not an index: of an index the
    /// first page is logged as soon as it is made.
    pub fn has_heap_among(
        &mut self,
        names: &[SegmentName],
        xids: &[u32],
        files: &[RelationFile],
    ) -> Result<bool> {
        let mut indexes = HashSet::new();
        for name in names {
            self.visit(*name, |record| {
                let manager = record.header.resource_manager;
                let is_of_heap = [ResourceManager::HEAP, ResourceManager::HEAP2].contains(&manager);
                if !is_of_heap && xids.contains(&record.header.xid) {
                    let file = record.parts().ok().and_then(|parts| parts.first_file);
                    indexes.extend(file.filter(|file| files.contains(file)));
                }
            })?;
        }
        Ok(files.iter().any(|file| !indexes.contains(file)))
    }

    /// Every end of a transaction that lies whole in the segment, in the order of the WAL.
    pub fn ends(&mut self, name: SegmentName) -> Result<Rc<Vec<Ending>>> {
        if let Some(known) = self.ends.get(&name) {
            return Ok(known.clone());
        }
        let mut ends = Vec::new();
        self.visit(name, |record| ends.extend(wal::ending(record)))?;
        let ends = Rc::new(ends);
        if self.order.len() == KEPT_MAX {
            let oldest = self.order.remove(0);
            self.ends.remove(&oldest);
        }
        self.order.push(name);
        self.ends.insert(name, ends.clone());
        Ok(ends)
    }

    /// The digest with nothing left out; `None` of a version that is not known, and of what cannot
    /// be read.
    pub fn digest(&mut self, name: SegmentName) -> Result<Option<Digest>> {
        let mut digester = Digester::whole(name);
        let is_there = self.pieces(name, |piece| digester.write(piece))?;
        Ok(digester.finish().filter(|_| is_there))
    }

    /// Of a record that begins in `name` and ends in `next`, its end if it ends a transaction.
    pub fn across(&mut self, name: SegmentName, next: SegmentName) -> Result<Option<Ending>> {
        let (Some(first), Some(second)) = (self.digest(name)?, self.digest(next)?) else {
            return Ok(None);
        };
        Ok(wal::joint(&first.unfinished, &second.continued))
    }

    fn pieces(&mut self, name: SegmentName, mut take: impl FnMut(&[u8])) -> Result<bool> {
        self.read += 1;
        let got = self.home.get_wal(&WalFileName::Segment(name), |piece| {
            take(piece);
            Ok(())
        });
        match got {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::Absent | ErrorKind::Corrupt) => {
                tracing::warn!("{name} is left out: {error}");
                Ok(false)
            }
            Err(error) => Err(error).context(|| format!("read {name}")),
        }
    }
}
