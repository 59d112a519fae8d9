//! Who may ask everything: the names of superusers, as a backup's own files have them, since nobody
//! can be asked before somebody has logged in.

use std::fs;
use std::path::Path;

/// `pg_authid`, unless it was rewritten.
const FILE: &str = "global/1260";
const PAGE_BYTES: usize = 8192;
const PAGE_HEADER_BYTES: usize = 24;
/// `t_hoff` in a tuple's header.
const DATA_AT: usize = 22;
/// oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin: fixed since 9.5.
const NAME: std::ops::Range<usize> = 4..68;
const IS_SUPER: usize = 68;
const CAN_LOG_IN: usize = 72;
const USED: u32 = 1;

/// Names worth a try, the likeliest first. Each is only believed once the server has let it in as a
/// superuser.
pub fn candidates(pgdata: &Path, backup_user: Option<&str>) -> Vec<String> {
    let mut names = vec!["postgres".to_owned()];
    names.extend(backup_user.map(str::to_owned));
    names.extend(in_catalog(&fs::read(pgdata.join(FILE)).unwrap_or_default()));
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

fn in_catalog(file: &[u8]) -> Vec<String> {
    file.chunks_exact(PAGE_BYTES).flat_map(in_page).collect()
}

fn in_page(page: &[u8]) -> Vec<String> {
    let lower = usize::from(u16::from_le_bytes([page[12], page[13]])).min(PAGE_BYTES);
    let pointers = page.get(PAGE_HEADER_BYTES..lower).unwrap_or_default().chunks_exact(4);
    let pointers = pointers.map(|at| u32::from_le_bytes([at[0], at[1], at[2], at[3]]));
    let used = pointers.filter(|pointer| (pointer >> 15) & 3 == USED);
    used.filter_map(|pointer| {
        let (offset, length) = ((pointer & 0x7FFF) as usize, (pointer >> 17) as usize);
        in_tuple(page.get(offset..offset.checked_add(length)?)?)
    })
    .collect()
}

fn in_tuple(tuple: &[u8]) -> Option<String> {
    let data = tuple.get(usize::from(*tuple.get(DATA_AT)?)..)?;
    if *data.get(IS_SUPER)? != 1 || *data.get(CAN_LOG_IN)? != 1 {
        return None;
    }
    let name = data.get(NAME)?.split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::{candidates, in_catalog};

    /// A page with these roles: name, superuser, may log in.
    fn page(roles: &[(&str, bool, bool)]) -> Vec<u8> {
        let mut page = vec![0u8; 8192];
        let mut upper = 8192usize;
        for (at, (name, is_super, can_log_in)) in roles.iter().enumerate() {
            let mut tuple = vec![0u8; 24 + 80];
            tuple[22] = 24;
            tuple[24 + 4..24 + 4 + name.len()].copy_from_slice(name.as_bytes());
            tuple[24 + 68] = u8::from(*is_super);
            tuple[24 + 72] = u8::from(*can_log_in);
            upper -= tuple.len();
            page[upper..upper + tuple.len()].copy_from_slice(&tuple);
            let pointer = upper as u32 | 1 << 15 | (tuple.len() as u32) << 17;
            page[24 + 4 * at..28 + 4 * at].copy_from_slice(&pointer.to_le_bytes());
        }
        let lower = (24 + 4 * roles.len()) as u16;
        page[12..14].copy_from_slice(&lower.to_le_bytes());
        page
    }

    #[test]
    fn superusers_who_may_log_in_are_found() {
        let roles = [("walter", false, true), ("owner", true, true), ("locked", true, false)];
        assert_eq!(in_catalog(&page(&roles)), ["owner"]);
        assert!(in_catalog(&[0xFF; 8192]).is_empty(), "nonsense");
        assert!(in_catalog(b"short").is_empty());
    }

    #[test]
    fn the_likely_come_first_and_each_once() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join("global")).unwrap();
        let roles = page(&[("dba", true, true), ("postgres", true, true)]);
        std::fs::write(scratch.path().join("global/1260"), roles).unwrap();
        assert_eq!(candidates(scratch.path(), Some("backup")), ["postgres", "backup", "dba"]);
        assert_eq!(candidates(std::path::Path::new("/no"), None), ["postgres"]);
    }
}
