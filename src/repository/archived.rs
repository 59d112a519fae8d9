//! What the store lists of a timeline's WAL, with the time each segment was stored.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::postgres::{SegmentName, TimelineId};
use crate::repository::{Home, layout};

impl Home {
    /// The segments of a timeline from the log file `first_log` (4 GiB of WAL each) on.
    pub fn archived(
        &self,
        timeline: TimelineId,
        first_log: u32,
    ) -> Result<BTreeMap<SegmentName, jiff::Timestamp>> {
        let folders = self.storage.list(Some(&self.timeline_key(timeline)))?.folders;
        let logs = folders.iter().filter_map(|folder| layout::log_of(folder));
        let mut archived = BTreeMap::new();
        for log in logs.filter(|log| *log >= first_log) {
            for object in self.storage.list(Some(&self.log_key(timeline, log)))?.objects {
                if let Some(segment) = layout::segment_of(&object.key) {
                    archived.insert(segment, object.modified);
                }
            }
        }
        Ok(archived)
    }
}
