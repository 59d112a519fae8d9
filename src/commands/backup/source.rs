//! What is known of the server before anything is copied.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::Connection;
use crate::postgres::replication::base_backup;
use crate::postgres::{MajorVersion, SystemIdentifier};

#[derive(Debug)]
pub struct Source {
    pub system_identifier: SystemIdentifier,
    pub server_version_num: u32,
    /// As the server says it.
    pub server_version: String,
    /// `None`: the server did not say.
    pub data_checksums: Option<bool>,
    /// In bytes.
    pub segment_size: u32,
    pub is_standby: bool,
    pub time_zone: Option<String>,
    pub log_time_zone: Option<String>,
}

impl Source {
    /// By the replication protocol.
    pub fn of_replication(connection: &mut Connection) -> Result<Self> {
        Source::identify(connection, |connection| {
            Ok(base_backup::identify_system(connection)?.system_identifier)
        })
    }

    /// By SQL.
    pub fn of_sql(connection: &mut Connection) -> Result<Self> {
        Source::identify(connection, |connection| {
            let sql = "SELECT system_identifier FROM pg_control_system()";
            connection.value(sql)?.unwrap_or_default().parse()
        })
    }

    fn identify(
        connection: &mut Connection,
        system_identifier: impl Fn(&mut Connection) -> Result<SystemIdentifier>,
    ) -> Result<Self> {
        let server_version_num = connection.server_version_num()?;
        let major = MajorVersion::from_server_version_num(server_version_num);
        if major < MajorVersion::OLDEST {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("this is PostgreSQL {major}, which is too old"),
            )
            .hint(format!("walden backs up PostgreSQL {} and later.", MajorVersion::OLDEST)));
        }
        if !major.is_supported() {
            tracing::warn!("PostgreSQL {major} is newer than this walden was tested with");
        }
        let server_version = connection.parameter("server_version").unwrap_or_default().to_owned();
        let checksums = base_backup::show(connection, "data_checksums").ok();
        Ok(Source {
            system_identifier: system_identifier(connection)?,
            server_version_num,
            server_version,
            data_checksums: checksums.map(|checksums| checksums == "on"),
            segment_size: segment_size(&base_backup::show(connection, "wal_segment_size")?)?,
            is_standby: connection.parameter("in_hot_standby") == Some("on"),
            time_zone: base_backup::show(connection, "TimeZone").ok(),
            log_time_zone: base_backup::show(connection, "log_timezone").ok(),
        })
    }
}

/// `1MB` to `1GB`, as SHOW prints it.
fn segment_size(text: &str) -> Result<u32> {
    let bytes = |number: &str, shift: u32| number.parse::<u32>().ok()?.checked_mul(1 << shift);
    let size = match (text.strip_suffix("GB"), text.strip_suffix("MB")) {
        (Some(gibibytes), _) => bytes(gibibytes, 30),
        (None, Some(mebibytes)) => bytes(mebibytes, 20),
        (None, None) => None,
    };
    size.filter(|size| size.is_power_of_two()).ok_or_else(|| {
        Error::new(ErrorKind::Server, format!("{text:?} is not a size of WAL segments"))
            .hint("Report it with the server's version.")
    })
}
