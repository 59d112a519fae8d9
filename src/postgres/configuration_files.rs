//! Where a server's configuration comes from, as it says itself, and what stands there.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::Connection;

/// What a server reads of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// `config_file`
    Config,
    /// `hba_file`
    Hba,
    /// `ident_file`
    Ident,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationFiles {
    pub data_directory: String,
    /// Absolute paths; what is included has no role.
    pub files: BTreeMap<String, Option<Role>>,
}

/// What Debian's tools keep beside `postgresql.conf`.
const BESIDE: [&str; 3] = ["environment", "pg_ctl.conf", "start.conf"];

impl ConfigurationFiles {
    pub fn ask(connection: &mut Connection) -> Result<Self> {
        let rows = connection.query(
            "SELECT name, setting FROM pg_settings WHERE name IN \
             ('data_directory', 'config_file', 'hba_file', 'ident_file', 'ssl_key_file')",
        )?;
        let rows = rows.into_iter().filter_map(|row| <[_; 2]>::try_from(row).ok());
        let told: BTreeMap<String, String> =
            rows.filter_map(|[name, value]| name.zip(value)).collect();
        let mut included = Vec::new();
        for sql in [
            "SELECT DISTINCT sourcefile FROM pg_settings WHERE sourcefile IS NOT NULL",
            // These are for superusers, or whom they let; the last two have the column since 16.
            "SELECT DISTINCT sourcefile FROM pg_file_settings",
            "SELECT DISTINCT file_name FROM pg_hba_file_rules",
            "SELECT DISTINCT file_name FROM pg_ident_file_mappings",
        ] {
            let rows = connection.query(sql).unwrap_or_default();
            included.extend(rows.into_iter().flatten().flatten());
        }
        ConfigurationFiles::from_answers(&told, included)
    }

    fn from_answers(told: &BTreeMap<String, String>, included: Vec<String>) -> Result<Self> {
        let Some(data_directory) = told.get("data_directory").filter(|it| !it.is_empty()) else {
            return Err(Error::new(
                ErrorKind::NotAllowed,
                "the server does not say where its configuration is",
            )
            .hint("GRANT pg_read_all_settings to the role."));
        };
        let mut files: BTreeMap<String, Option<Role>> =
            included.into_iter().map(|path| (path, None)).collect();
        let roles =
            [("config_file", Role::Config), ("hba_file", Role::Hba), ("ident_file", Role::Ident)];
        for (name, role) in roles {
            files.extend(told.get(name).map(|path| (path.clone(), Some(role))));
        }
        let config_file = told.get("config_file").map(String::as_str).unwrap_or_default();
        if let Some((folder, _)) = config_file.rsplit_once('/') {
            files.extend(BESIDE.map(|name| (format!("{folder}/{name}"), None)));
        }
        let key = told.get("ssl_key_file");
        files.retain(|path, _| path.starts_with('/') && Some(path) != key && !is_secret(path));
        Ok(ConfigurationFiles { data_directory: data_directory.clone(), files })
    }
}

/// What holds a secret by its name.
fn is_secret(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    name.contains("pgpass") || name.ends_with(".key") || name.ends_with(".pem")
}

/// Through the server; `None` where there is no such file. Of a longer one, as many bytes and one.
pub fn read_through(
    connection: &mut Connection,
    path: &str,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>> {
    let path = path.replace('\'', "''");
    let length = bytes_max + 1;
    let hex = connection.value(&format!(
        "SELECT encode(pg_read_binary_file('{path}', 0, {length}, true), 'hex')"
    ))?;
    hex.map(|hex| from_hex(&hex)).transpose()
}

fn from_hex(hex: &str) -> Result<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
    bytes.ok_or_else(|| Error::new(ErrorKind::Server, "the server's answer is not hexadecimal"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{ConfigurationFiles, Role, from_hex};
    use crate::error::ErrorKind;

    fn told(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_debian_cluster_is_told_with_what_is_beside_and_without_secrets() {
        let folder = "/etc/postgresql/17/main";
        let told = told(&[
            ("data_directory", "/var/lib/postgresql/17/main"),
            ("config_file", &format!("{folder}/postgresql.conf")),
            ("hba_file", &format!("{folder}/pg_hba.conf")),
            ("ident_file", &format!("{folder}/pg_ident.conf")),
            ("ssl_key_file", "/etc/ssl/private/snakeoil"),
        ]);
        let included = [
            format!("{folder}/postgresql.conf"),
            format!("{folder}/conf.d/memory.conf"),
            "/etc/ssl/private/snakeoil".to_owned(),
            "/root/.pgpass".to_owned(),
            "server.key".to_owned(),
            "/etc/my.key".to_owned(),
        ];
        let found = ConfigurationFiles::from_answers(&told, included.to_vec()).unwrap();
        let expected = [
            ("conf.d/memory.conf", None),
            ("environment", None),
            ("pg_ctl.conf", None),
            ("pg_hba.conf", Some(Role::Hba)),
            ("pg_ident.conf", Some(Role::Ident)),
            ("postgresql.conf", Some(Role::Config)),
            ("start.conf", None),
        ];
        let expected = expected.map(|(name, role)| (format!("{folder}/{name}"), role));
        assert_eq!(found.files, expected.into_iter().collect());
    }

    #[test]
    fn a_role_that_may_not_know_is_told_what_it_needs() {
        let error = ConfigurationFiles::from_answers(&told(&[]), Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAllowed);
    }

    #[test]
    fn hexadecimal_is_bytes() {
        assert_eq!(from_hex("00ff2a").unwrap(), [0, 255, 42]);
        assert!(from_hex("0").is_ok_and(|bytes| bytes == [0]));
        assert!(from_hex("xx").is_err());
    }
}
