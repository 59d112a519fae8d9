//! Pages that are damaged on the source itself: named, told, and kept in the manifest.

use crate::postgres::Names;
use crate::postgres::data_files::RelationDirectory;
use crate::postgres::page::{BLOCKS_PER_FILE, PAGE_BYTES};
use crate::postgres::wal::digest::RelationFile;
use crate::repository::Manifest;
use crate::repository::manifest::DamagedPage;

/// So many are told one by one; the manifest lists more of them.
const TOLD_MAX: usize = 100;

/// Says of each page which relation it belongs to, in the manifest and in the log.
pub fn tell(manifest: &mut Manifest, names: Option<&Names>) {
    for page in &mut manifest.damaged_pages {
        page.relation = names.and_then(|names| relation(names, &page.path));
    }
    for page in manifest.damaged_pages.iter().take(TOLD_MAX) {
        tracing::warn!("{}", in_words(page));
    }
    let told = manifest.damaged_pages.len().min(TOLD_MAX) as u64;
    if manifest.damaged > told {
        tracing::warn!("and {} more damaged pages", manifest.damaged - told);
    }
}

/// `database.schema.table`, where the names know it.
fn relation(names: &Names, path: &str) -> Option<String> {
    let (RelationDirectory { tablespace, database }, name) = RelationDirectory::of_file(path)?;
    let file = RelationFile { tablespace, database, number: name.number };
    names.by_file(&file).map(|named| named.to_string())
}

fn in_words(page: &DamagedPage) -> String {
    let DamagedPage { path, block, what, relation } = page;
    let segment = RelationDirectory::of_file(path).map_or(0, |(_, name)| name.segment);
    let whole = u64::from(segment) * u64::from(BLOCKS_PER_FILE) + u64::from(*block);
    let relation = relation.as_deref().unwrap_or("a relation whose name is not known");
    let at = u64::from(*block) * PAGE_BYTES as u64;
    format!("damaged page: block {whole} of {relation}, in {path} at byte {at}: {what}")
}

#[cfg(test)]
mod tests {
    use super::in_words;
    use crate::repository::manifest::DamagedPage;

    #[test]
    fn blocks_are_counted_through_all_files_of_a_relation() {
        let page = DamagedPage {
            path: "base/5/16384.2".to_owned(),
            block: 3,
            what: "why".to_owned(),
            relation: Some("postgres.public.t".to_owned()),
        };
        assert_eq!(
            in_words(&page),
            "damaged page: block 262147 of postgres.public.t, in base/5/16384.2 at byte 24576: why"
        );
    }
}
