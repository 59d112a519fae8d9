//! libpq's keywords: which there are, which variable gives each, and who wins.
//!
//! As in libpq: what was given explicitly, then the service file, then the environment, then
//! defaults.

use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::account;
use crate::postgres::connection::conninfo::{self, Keywords};
use crate::postgres::connection::service_file::{self, Places};

/// How a variable of the environment is asked; tests give their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Keyword and variable of all that is obeyed.
const OBEYED: [(&str, &str); 19] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslsni", "PGSSLSNI"),
    ("keepalives", ""),
    ("fallback_application_name", ""),
];

/// Known, and harmless to leave: they tune, or they ask for what is done anyway.
const LEFT: [&str; 14] = [
    "client_encoding",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "replication",
    "sslcompression",
    "ssl_min_protocol_version",
    "sslnegotiation",
    "tcp_user_timeout",
];

/// Everything that was said, one value for each keyword.
pub fn gather(explicit: Option<&str>, environment: Environment<'_>) -> Result<Keywords> {
    let mut keywords = explicit.map_or_else(|| Ok(Keywords::new()), conninfo::parse)?;
    refuse_unknown(&keywords, "the connection string")?;
    let service = keywords.get("service").cloned().or_else(|| said(environment, "PGSERVICE"));
    if let Some(service) = service {
        let places = Places {
            file: said(environment, "PGSERVICEFILE").map(PathBuf::from),
            home: account::home(environment),
            system: said(environment, "PGSYSCONFDIR").map(PathBuf::from),
        };
        let of_service = service_file::read(&service, &places)?;
        refuse_unknown(&of_service, "the service file")?;
        for (keyword, value) in of_service {
            keywords.entry(keyword).or_insert(value);
        }
    }
    for (keyword, variable) in OBEYED {
        if let Some(value) = said(environment, variable) {
            keywords.entry(keyword.to_owned()).or_insert(value);
        }
    }
    keywords.retain(|_, value| !value.is_empty());
    Ok(keywords)
}

fn said(environment: Environment<'_>, variable: &str) -> Option<String> {
    if variable.is_empty() { None } else { environment(variable).filter(|value| !value.is_empty()) }
}

/// A keyword that would be silently disobeyed may be one that keeps somebody safe, such as
/// `require_auth` or `sslcrl`.
fn refuse_unknown(keywords: &Keywords, place: &str) -> Result<()> {
    let known = |keyword: &str| {
        OBEYED.iter().any(|(obeyed, _)| *obeyed == keyword) || LEFT.contains(&keyword)
    };
    match keywords.keys().find(|keyword| !known(keyword)) {
        None => Ok(()),
        Some(unknown) => Err(Error::new(
            ErrorKind::Usage,
            format!("{place} has the parameter {unknown:?}, which walden does not know"),
        )
        .hint(
            "Leave it out; walden obeys host, port, user, dbname, the sslmode family and others.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::gather;

    #[test]
    fn explicit_beats_service_beats_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services");
        std::fs::write(&file, "[shop]\nhost=service\nport=2\nuser=service\n").unwrap();
        let environment = |name: &str| match name {
            "PGSERVICE" => Some("shop".to_owned()),
            "PGSERVICEFILE" => Some(file.display().to_string()),
            "PGHOST" | "PGUSER" => Some("environment".to_owned()),
            "PGDATABASE" => Some("db".to_owned()),
            "PGPORT" => Some("3".to_owned()),
            _ => None,
        };
        let keywords = gather(Some("host=explicit"), &environment).unwrap();
        let value = |keyword: &str| keywords[keyword].as_str();
        assert_eq!(value("host"), "explicit");
        assert_eq!(value("port"), "2");
        assert_eq!(value("user"), "service");
        assert_eq!(value("dbname"), "db");
    }

    #[test]
    fn what_would_be_disobeyed_is_refused() {
        let error = gather(Some("host=a require_auth=scram-sha-256"), &|_| None).unwrap_err();
        assert!(error.to_string().contains("require_auth"), "{error}");
        assert!(gather(Some("host=a keepalives_idle=3"), &|_| None).is_ok());
    }
}
