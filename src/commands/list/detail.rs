//! All there is to say of one backup: its manifest read whole, its packs looked for.

use crate::codec::Origin;
use crate::commands::list::Listed;
use crate::error::{ErrorKind, Result};
use crate::repository::manifest::{ConfigurationFile, Tablespace, Taken};
use crate::repository::{BackupFacts, Home, Manifest, NamesFacts, layout};

/// More of the same is in `wrong_packs`.
const REASONS_MAX: usize = 3;

#[derive(Debug, Clone, serde::Serialize)]
pub struct Detail {
    /// Who took it, and when, by that machine's clock.
    pub origin: Origin,
    /// By what, by whom and how; `None` in backups of before.
    pub taken: Option<Taken>,
    /// In bytes.
    pub wal_segment_size: u32,
    pub tablespaces: Vec<Tablespace>,
    /// Configuration files outside of the data directory that were saved along.
    pub configuration: Vec<ConfigurationFile>,
    pub packs: usize,
    /// Packs that are not there, or with another size than the manifest says; by name.
    pub wrong_packs: Vec<String>,
    /// `None`: no names of tables were saved.
    pub names: Option<NamesFacts>,
    pub url: String,
}

/// A manifest whose header can be read may still be damaged.
pub fn add(listed: &mut Listed, facts: &BackupFacts, home: &Home) -> Result<()> {
    let manifest = match home.manifest(&listed.id) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            listed.usable = false;
            listed.reason.get_or_insert_with(|| format!("it cannot be read: {error}"));
            return Ok(());
        }
        manifest => manifest?,
    };
    let wrong_packs = wrong_packs(&manifest, home)?;
    let mut reasons: Vec<String> = listed.reason.take().into_iter().collect();
    reasons.extend(wrong_packs.iter().take(REASONS_MAX).cloned());
    if *facts != manifest.facts() {
        reasons.push("the header of its manifest says other than its content".to_owned());
    }
    listed.usable = reasons.is_empty();
    listed.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    let names = match home.names_facts(&listed.id) {
        // Nothing that a restore needs.
        Err(error) if error.kind() == ErrorKind::Corrupt => None,
        names => names?,
    };
    listed.detail = Some(Detail {
        taken: manifest.taken,
        wal_segment_size: manifest.wal_segment_size,
        tablespaces: manifest.tablespaces,
        configuration: manifest.configuration,
        packs: manifest.packs.len(),
        wrong_packs,
        names,
        url: format!("{}/backup/{}", home.url(), listed.id),
        origin: manifest.origin,
    });
    Ok(())
}

fn wrong_packs(manifest: &Manifest, home: &Home) -> Result<Vec<String>> {
    let there = home.packs(&manifest.id)?;
    let numbered = (0..).zip(&manifest.packs);
    let wrong = numbered.filter_map(|(number, pack)| {
        let name = layout::pack_name(number);
        match there.get(&number) {
            None => Some(format!("{name} is missing")),
            Some(stored) if *stored != pack.stored => {
                Some(format!("{name} has {stored} bytes, not {}", pack.stored))
            }
            Some(_) => None,
        }
    });
    Ok(wrong.collect())
}
