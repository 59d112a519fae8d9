//! Timeline history files: from which timelines, and where in the WAL, a timeline descends.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Lsn, TimelineId};

/// What `<timeline>.history` says. Timeline 1 has no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryFile {
    pub timeline: TimelineId,
    /// Oldest first; never empty.
    pub ancestors: Vec<Ancestor>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    pub timeline: TimelineId,
    /// Where the next timeline branched off: WAL of this one counts up to here, exclusive.
    pub end: Lsn,
    /// Why, in PostgreSQL's words.
    pub reason: String,
}

impl HistoryFile {
    /// Reads it as `readTimeLineHistory` (timeline.c) does: `#` begins a comment, ancestors rise.
    pub fn parse(timeline: TimelineId, text: &str) -> Result<Self> {
        let damaged = |what: String| {
            Error::new(ErrorKind::Corrupt, format!("{}.history: {what}", timeline.to_hex()))
                .hint("Compare it with the copy in pg_wal of a server that is on this timeline.")
        };
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let ancestor =
                Ancestor::parse(line).ok_or_else(|| damaged(format!("cannot read {line:?}")))?;
            let rises = ancestors.last().is_none_or(|last| last.timeline < ancestor.timeline);
            if !rises || ancestor.timeline >= timeline {
                return Err(damaged(format!("timeline {} is out of order", ancestor.timeline)));
            }
            ancestors.push(ancestor);
        }
        if ancestors.is_empty() {
            return Err(damaged("names no parent".to_owned()));
        }
        Ok(HistoryFile { timeline, ancestors })
    }
}

impl Ancestor {
    fn parse(line: &str) -> Option<Ancestor> {
        let mut words = line.split_whitespace();
        let timeline = TimelineId::new(words.next()?.parse().ok()?).ok()?;
        let end = words.next()?.parse().ok()?;
        let reason = words.collect::<Vec<_>>().join(" ");
        Some(Ancestor { timeline, end, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::HistoryFile;
    use crate::postgres::{Lsn, TimelineId};

    fn parse(timeline: u32, text: &str) -> crate::error::Result<HistoryFile> {
        HistoryFile::parse(TimelineId::new(timeline).unwrap(), text)
    }

    #[test]
    fn reads_what_postgresql_writes() {
        let text = "1\t0/A000198\tno recovery target specified\n\n\
                    # a comment\n2\t0/B0000A0\tbefore 2026-11-21 10:00:00.5+00\n";
        let history = parse(3, text).unwrap();
        assert_eq!(history.ancestors.len(), 2);
        assert_eq!(history.ancestors[0].timeline.get(), 1);
        assert_eq!(history.ancestors[0].end, Lsn(0xA00_0198));
        assert_eq!(history.ancestors[0].reason, "no recovery target specified");
        assert_eq!(history.ancestors[1].reason, "before 2026-11-21 10:00:00.5+00");
    }

    #[test]
    fn refuses_what_postgresql_would_refuse() {
        for text in ["", "# nothing\n", "1\n", "x\t0/1\n", "2\t0/1\n1\t0/2\n", "3\t0/1\n"] {
            assert!(parse(3, text).is_err(), "{text:?}");
        }
    }
}
