//! The settings, signal file, links and map that make PostgreSQL recover what was placed.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::Path;

use crate::catalog::{Decision, Target, TargetTimeline};
use crate::commands::restore::destination::Destination;
use crate::commands::restore::placement::Link;
use crate::commands::restore::targets::NO_LINK;
use crate::commands::restore::{Request, host_failed, settle};
use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges::{self, User};
use crate::postgres::recovery_settings::{RecoverySettings, restore_command};
use crate::postgres::{MajorVersion, tablespace_map};

pub const AUTO_CONF: &str = "postgresql.auto.conf";

/// How PostgreSQL shall call us: this program, with what flags, environment and file said of where
/// the repository is. Credentials stay in the environment.
pub fn fetch_call(
    program: &Path,
    config_file: Option<&Path>,
    carried: &[(String, OsString)],
) -> Result<Vec<String>> {
    let text = |word: OsString| {
        word.into_string().map_err(|word| {
            Error::new(ErrorKind::Usage, format!("{} is not UTF-8", word.display()))
                .hint("restore_command can hold UTF-8 only: choose another name.")
        })
    };
    let mut words = Vec::new();
    if !carried.is_empty() {
        words.push("env".to_owned());
    }
    for (name, value) in carried {
        words.push(format!("{name}={}", text(value.clone())?));
    }
    words.push(text(program.into())?);
    if let Some(file) = config_file {
        words.push("--config".to_owned());
        words.push(text(file.into())?);
    }
    Ok(words)
}

/// A standby follows whatever timeline comes; any other recovery follows the one that was planned.
pub fn settings(request: &Request, version: MajorVersion, decision: &Decision) -> RecoverySettings {
    let follows = request.standby && request.wanted.timeline == TargetTimeline::Latest;
    RecoverySettings {
        version,
        restore_command: restore_command(&request.fetch_call),
        target: target(&decision.stop.target),
        inclusive: !decision.stop.exclusive,
        timeline: if follows { "latest".to_owned() } else { decision.path.last().to_string() },
        action: request.action().as_str(),
        archive_mode_off: !request.adopt,
        ignore_invalid_pages: !request.include_databases.is_empty(),
    }
}

pub fn signal_file(request: &Request) -> &'static str {
    if request.standby { "standby.signal" } else { "recovery.signal" }
}

/// Everything but `pg_control`; durable on return.
pub fn write(
    destination: &Destination,
    settings: &RecoverySettings,
    signal_file: &str,
) -> Result<()> {
    let (directory, owner) = (&destination.directory, destination.owner.as_ref());
    if !destination.links.is_empty() {
        link(directory, &destination.links, owner)?;
    }
    let auto_conf = directory.join(AUTO_CONF);
    let source = match fs::read(&auto_conf) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(host_failed(format!("read {}", auto_conf.display()), error)),
    };
    write_file(&auto_conf, settings.apply(&source).as_bytes(), owner)?;
    write_file(&directory.join(signal_file), b"", owner)?;
    settle::sync(directory)
}

/// The server links once more by `tablespace_map` when it first starts; a map of the source's
/// places would send it there.
fn link(directory: &Path, links: &[Link], owner: Option<&User>) -> Result<()> {
    let folder = directory.join("pg_tblspc");
    let mut map = Vec::new();
    for link in links {
        let name = folder.join(link.oid.to_string());
        symlink(&link.to, &name)
            .map_err(|error| host_failed(format!("link {}", name.display()), error))?;
        privileges::give(&name, owner)?;
        let to = link.to.to_str().ok_or_else(|| {
            Error::new(ErrorKind::Usage, format!("{} is not UTF-8", link.to.display()))
                .hint("Give the tablespace another directory.")
        })?;
        map.push((link.oid, to));
    }
    settle::sync(&folder)?;
    let map = tablespace_map::render(map);
    write_file(&directory.join("tablespace_map"), map.as_bytes(), owner)
}

/// A small file, private, whole and durable but for its name.
pub fn write_file(path: &Path, bytes: &[u8], owner: Option<&User>) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(NO_LINK);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| host_failed(format!("write {}", path.display()), error))?;
    privileges::give(path, owner)
}

/// PostgreSQL's setting for the target; times in UTC with `+00`, since the server's own zone reads
/// a time without one.
fn target(target: &Target) -> Option<(&'static str, String)> {
    match target {
        Target::Time(time) => {
            Some(("recovery_target_time", time.strftime("%Y-%m-%d %H:%M:%S%.f+00").to_string()))
        }
        Target::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
        Target::Xid(xid) => Some(("recovery_target_xid", xid.to_string())),
        Target::Name(name) => Some(("recovery_target_name", name.clone())),
        Target::Immediate => Some(("recovery_target", "immediate".to_owned())),
        Target::Latest => None,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use super::{fetch_call, target, write_file};
    use crate::catalog::Target;
    use crate::postgres::Lsn;
    use crate::postgres::recovery_settings::restore_command;

    #[test]
    fn each_target_is_one_setting_and_times_are_in_utc() {
        let time = |text: &str| Target::Time(text.parse().unwrap());
        for (asked, setting) in [
            (time("2026-11-21T12:00:00+02:00"), "recovery_target_time = 2026-11-21 10:00:00+00"),
            (time("2026-11-21T10:00:00.25Z"), "recovery_target_time = 2026-11-21 10:00:00.25+00"),
            (Target::Lsn(Lsn(0x1_0000_0028)), "recovery_target_lsn = 1/28"),
            (Target::Xid(745), "recovery_target_xid = 745"),
            (Target::Name("it's".into()), "recovery_target_name = it's"),
            (Target::Immediate, "recovery_target = immediate"),
        ] {
            let (name, value) = target(&asked).unwrap();
            assert_eq!(format!("{name} = {value}"), setting);
        }
        assert_eq!(target(&Target::Latest), None);
    }

    #[test]
    fn what_is_written_follows_no_link() {
        let scratch = tempfile::tempdir().unwrap();
        let (victim, link) = (scratch.path().join("victim"), scratch.path().join("link"));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(write_file(&link, b"", None).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn the_call_carries_what_finds_the_repository() {
        let program = Path::new("/usr/bin/walden");
        let call = fetch_call(program, Some(Path::new("/etc/my walden.toml")), &[]).unwrap();
        assert_eq!(
            restore_command(&call),
            r#"/usr/bin/walden --config '/etc/my walden.toml' fetch "%f" "%p""#
        );
        let carried = [("WALDEN_CLUSTER".to_owned(), OsString::from("a b"))];
        let call = fetch_call(program, None, &carried).unwrap();
        assert_eq!(
            restore_command(&call),
            r#"env 'WALDEN_CLUSTER=a b' /usr/bin/walden fetch "%f" "%p""#
        );
    }
}
