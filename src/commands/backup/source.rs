//! What is known of the server before anything is copied.

use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::Connection;
use crate::postgres::replication::{SystemIdentity, base_backup};
use crate::postgres::{MajorVersion, SystemIdentifier, TimelineId};

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
    /// When it was asked.
    pub timeline: TimelineId,
    pub is_standby: bool,
    pub time_zone: Option<String>,
    pub log_time_zone: Option<String>,
}

impl Source {
    pub fn major(&self) -> MajorVersion {
        MajorVersion::from_server_version_num(self.server_version_num)
    }

    /// By the replication protocol.
    pub fn of_replication(connection: &mut Connection) -> Result<Self> {
        Source::identify(connection, base_backup::identify_system)
    }

    /// By SQL.
    pub fn of_sql(connection: &mut Connection) -> Result<Self> {
        Source::identify(connection, identify_by_sql)
    }

    fn identify(
        connection: &mut Connection,
        identity: impl Fn(&mut Connection) -> Result<SystemIdentity>,
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
        let identity = identity(connection)?;
        Ok(Source {
            system_identifier: identity.system_identifier,
            server_version_num,
            server_version,
            data_checksums: checksums.map(|checksums| checksums == "on"),
            segment_size: segment_size(&base_backup::show(connection, "wal_segment_size")?)?,
            timeline: identity.timeline,
            is_standby: connection.parameter("in_hot_standby") == Some("on"),
            time_zone: base_backup::show(connection, "TimeZone").ok(),
            log_time_zone: base_backup::show(connection, "log_timezone").ok(),
        })
    }
}

/// What IDENTIFY_SYSTEM would say. Soon after a promotion `pg_control` still has the timeline
/// before.
fn identify_by_sql(connection: &mut Connection) -> Result<SystemIdentity> {
    const SQL: &str = "SELECT system_identifier, \
        CASE WHEN pg_is_in_recovery() THEN \
            (SELECT greatest(min_recovery_end_timeline, timeline_id)::text \
            FROM pg_control_recovery(), pg_control_checkpoint()) \
        END, \
        CASE WHEN NOT pg_is_in_recovery() THEN \
            substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) \
        END FROM pg_control_system()";
    let row = connection.query(SQL)?.into_iter().next();
    let unknown = || {
        Error::new(ErrorKind::Server, "the server does not say which cluster it is")
            .hint("Does a pooler stand between? Then connect to the server itself.")
    };
    let Some([Some(system_identifier), replayed, written]) =
        row.and_then(|row| <[_; 3]>::try_from(row).ok())
    else {
        return Err(unknown());
    };
    let timeline = match (replayed, written) {
        (Some(number), _) => TimelineId::new(number.parse().map_err(|_| unknown())?)?,
        (None, Some(digits)) => TimelineId::from_hex(&digits)?,
        (None, None) => return Err(unknown()),
    };
    Ok(SystemIdentity { system_identifier: system_identifier.parse()?, timeline })
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
