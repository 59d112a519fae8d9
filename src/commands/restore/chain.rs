//! The backups that a restore takes from: the chosen one and, where that is a difference, its
//! parents down to a full one, each proven to be the one that is meant.

use crate::error::{Context, Error, ErrorKind, Result};
use crate::postgres::Lsn;
use crate::repository::{Home, Manifest};

pub const LABEL: &str = "backup_label";
/// The lines that the server writes into the label of a backup that is a difference, and refuses to
/// start on (`read_backup_label` in xlogrecovery.c, since 17): they are gone once it was put
/// together.
const FROM_LSN: &str = "INCREMENTAL FROM LSN: ";
const FROM_TIMELINE: &str = "INCREMENTAL FROM TLI: ";

/// What to do, whatever link is broken.
const ANOTHER: &str = "Choose another backup with --backup; walden list shows which can be used.";

/// The chosen backup and its parents, the newest first.
#[derive(Debug)]
pub struct Chain {
    /// At least one.
    pub manifests: Vec<Manifest>,
    /// `backup_label` as it must be in the restored directory, where that is not as it was stored.
    pub label: Option<Vec<u8>>,
}

impl Chain {
    /// Reads all manifests, and refuses a chain that is not whole before anything is written.
    pub fn load(home: &Home, newest: Manifest) -> Result<Chain> {
        let mut manifests = vec![newest];
        let mut label = None;
        while let Some((child, id)) = manifests.last().and_then(|it| Some((it, it.parent.clone()?)))
        {
            if manifests.iter().any(|manifest| manifest.id == id) {
                return Err(broken(child, "it is its own parent's parent"));
            }
            let parent = home.manifest(&id).map_err(|error| match error.kind() {
                ErrorKind::NotFound => broken(child, &format!("its parent {id} is missing")),
                _ => error.context(format!("read the parent of backup {}", child.id)),
            })?;
            let text = read_label(home, child)?;
            expect_parent(child, &text, &parent)?;
            label.get_or_insert_with(|| without_parent(&text).into_bytes());
            manifests.push(parent);
        }
        Ok(Chain { manifests, label })
    }

    /// The one that was chosen.
    pub fn newest(&self) -> &Manifest {
        &self.manifests[0]
    }

    pub fn is_combined(&self) -> bool {
        self.manifests.len() > 1
    }
}

fn read_label(home: &Home, manifest: &Manifest) -> Result<String> {
    let label = home.read_file(manifest, LABEL);
    let label = label.context(|| format!("read {LABEL} of backup {}", manifest.id))?;
    let label = label.ok_or_else(|| broken(manifest, "it has no backup_label"))?;
    String::from_utf8(label).map_err(|_| broken(manifest, "its backup_label is no text"))
}

/// As pg_combinebackup does (`check_backup_label_files`), and by what the manifests say besides.
fn expect_parent(child: &Manifest, label: &str, parent: &Manifest) -> Result<()> {
    let wrong = |what: String| Err(broken(child, &format!("its parent {}: {what}", parent.id)));
    let major = |manifest: &Manifest| manifest.server_version_num / 10_000;
    if major(child) != major(parent) {
        return wrong(format!("is of PostgreSQL {}", major(parent)));
    }
    if parent.start_lsn > child.start_lsn {
        return wrong(format!("began at {}, after this one", parent.start_lsn));
    }
    let value = |name: &str| label.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let from: Option<Lsn> = value(FROM_LSN).and_then(|lsn| lsn.parse().ok());
    let timeline: Option<u32> = value(FROM_TIMELINE).and_then(|timeline| timeline.parse().ok());
    let Some((from, timeline)) = from.zip(timeline) else {
        return Err(broken(child, "its backup_label does not say what it is the difference to"));
    };
    if from != parent.start_lsn || timeline != u32::from(parent.timeline) {
        return wrong(format!(
            "began at {} of timeline {}, and {from} of timeline {timeline} is needed",
            parent.start_lsn, parent.timeline
        ));
    }
    Ok(())
}

fn without_parent(label: &str) -> String {
    let is_kept = |line: &&str| !line.starts_with(FROM_LSN) && !line.starts_with(FROM_TIMELINE);
    label.split_inclusive('\n').filter(is_kept).collect()
}

fn broken(child: &Manifest, what: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("backup {} cannot be put together: {what}", child.id))
        .hint(ANOTHER)
}
