//! Some databases of a cluster without the others, whose files keep their length and lose their
//! content.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};
use crate::repository::{Home, Manifest};

/// A server cannot do without these.
const ALWAYS: [&str; 3] = ["template0", "template1", "postgres"];
/// What a database cannot be opened, and thus not dropped with care, without.
const KEPT: [&str; 2] = ["PG_VERSION", "pg_filenode.map"];

/// Which databases are restored with their content; `None`: all of them.
#[derive(Debug, Default)]
pub struct Databases {
    included: Option<BTreeSet<u32>>,
    /// The names of the others.
    pub left_out: Vec<String>,
}

impl Databases {
    /// Those that are asked for, by the names they had when the backup was taken, or by their oid.
    pub fn find(home: &Home, manifest: &Manifest, asked: &[String]) -> Result<Databases> {
        if asked.is_empty() {
            return Ok(Databases::default());
        }
        let names = home.names(&manifest.id)?.ok_or_else(|| {
            Error::new(ErrorKind::Refused, format!("backup {} has no names", manifest.id))
                .hint("Which files belong to which database is not known: restore all of it.")
        })?;
        let known: Vec<(u32, &str)> =
            names.databases().filter(|(oid, name)| *oid != 0 && !name.is_empty()).collect();
        let mut included = BTreeSet::new();
        for wanted in asked {
            let is_it = |(oid, name): &&(u32, &str)| name == wanted || oid.to_string() == *wanted;
            let Some((oid, _)) = known.iter().find(is_it) else {
                let all: Vec<&str> = known.iter().map(|(_, name)| *name).collect();
                let message = format!("backup {} has no database {wanted}", manifest.id);
                return Err(Error::new(ErrorKind::Refused, message)
                    .hint(format!("Its databases: {}.", all.join(", "))));
            };
            included.insert(*oid);
        }
        let always = known.iter().filter(|(_, name)| ALWAYS.contains(name));
        included.extend(always.map(|(oid, _)| *oid));
        let left_out = known.iter().filter(|(oid, _)| !included.contains(oid));
        let left_out = left_out.map(|(_, name)| (*name).to_owned()).collect();
        Ok(Databases { included: Some(included), left_out })
    }

    pub fn are_all(&self) -> bool {
        self.included.is_none()
    }

    /// Whether this file, by its path in the data directory, is of a database that is left out.
    pub fn is_empty(&self, path: &str) -> bool {
        let Some(included) = &self.included else { return false };
        let name = path.rsplit('/').next().unwrap_or_default();
        database_of(path).is_some_and(|oid| !included.contains(&oid)) && !KEPT.contains(&name)
    }
}

/// `base/<database>/…` and `pg_tblspc/<tablespace>/PG_<version>/<database>/…`.
fn database_of(path: &str) -> Option<u32> {
    let mut parts = path.split('/');
    let database = match parts.next()? {
        "base" => parts.next()?,
        "pg_tblspc" => parts.nth(2)?,
        _ => return None,
    };
    // What follows it is a file.
    parts.next().and(database.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Databases, database_of};

    #[test]
    fn files_are_told_by_their_database() {
        for (path, database) in [
            ("base/5/1259", Some(5)),
            ("base/5/16384_fsm", Some(5)),
            ("pg_tblspc/16390/PG_17_202406281/16384/2619.1", Some(16_384)),
            ("base/pgsql_tmp/x", None),
            ("base/5", None),
            ("global/1262", None),
            ("pg_xact/0000", None),
            ("PG_VERSION", None),
        ] {
            assert_eq!(database_of(path), database, "{path}");
        }
        let included = Some(BTreeSet::from([1, 5]));
        let databases = Databases { included, left_out: Vec::new() };
        assert!(databases.is_empty("base/7/1259") && !databases.is_empty("base/5/1259"));
        assert!(!databases.is_empty("base/7/PG_VERSION") && !databases.is_empty("global/1262"));
        assert!(!Databases::default().is_empty("base/7/1259"));
    }
}
