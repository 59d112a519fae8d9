//! Unlogged relations that were made just when their directory was listed: the main fork was there,
//! the init fork, which comes a moment later, was not.
//!
//! At the end of recovery the server makes the main fork anew, and ends in FATAL where it finds one
//! that it had no reason to remove in the beginning (`ResetUnloggedRelations`, reinit.c).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::commands::backup::local::plan::Plan;
use crate::commands::backup::local::walk::{names_in, unlogged};
use crate::error::Result;
use crate::postgres::data_files::Fork;

/// The entries of the plan that are an unlogged relation's, and not its init fork.
///
/// To be asked before the end of the backup: whatever is dropped by then is dropped by replay too.
pub fn seen_too_early(plan: &Plan, pgdata: &Path) -> Result<BTreeSet<usize>> {
    let mut relations: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for (number, entry) in plan.entries().iter().enumerate() {
        let Some((_, name)) = entry.relation() else { continue };
        let directory = entry.file().rsplit_once('/').map_or("", |(directory, _)| directory);
        if !relations.contains_key(directory) {
            let names = names_in(&pgdata.join(directory))?.unwrap_or_default();
            relations.insert(directory, unlogged(&names));
        }
        if name.fork != Fork::Init && relations[directory].contains(&name.number) {
            found.insert(number);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::commands::backup::local::plan::{Content, Item, Plan};
    use crate::commands::backup::local::unlogged::seen_too_early;

    #[test]
    fn a_relation_whose_init_fork_came_after_the_listing_is_left_out() {
        let pgdata = tempfile::tempdir().unwrap();
        fs::create_dir_all(pgdata.path().join("base/5")).unwrap();
        let listed = ["16384", "16384_fsm", "16385", "16386_init"];
        let item = |name: &&str| Item {
            path: format!("base/5/{name}"),
            mode: 0o600,
            modified: 0,
            size: 8192,
            content: Content::File,
        };
        let plan = Plan::new(listed.iter().map(item));
        assert!(seen_too_early(&plan, pgdata.path()).unwrap().is_empty());
        for name in ["16384_init", "16386_init", "16387_init"] {
            fs::write(pgdata.path().join("base/5").join(name), "").unwrap();
        }
        let found = seen_too_early(&plan, pgdata.path()).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [0, 1]);
        fs::remove_dir_all(pgdata.path().join("base/5")).unwrap();
        assert!(seen_too_early(&plan, pgdata.path()).unwrap().is_empty(), "dropped by then");
    }
}
