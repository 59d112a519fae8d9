//! Who we are: PostgreSQL refuses to run as root, so root starts it as an unprivileged user.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, ErrorKind, Result};

/// A user of this machine, as `/etc/passwd` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whom root should run PostgreSQL as: `postgres` where there is one, else `nobody`. `None` for
/// everybody but root, who run it as themselves.
pub fn server_user() -> Result<Option<User>> {
    if !is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").map_err(|error| {
        Error::new(ErrorKind::Host, "read /etc/passwd").hint(AS_A_USER).source(error)
    })?;
    match named(&passwd, "postgres").or_else(|| named(&passwd, "nobody")) {
        Some(user) => Ok(Some(user)),
        None => Err(Error::new(
            ErrorKind::Host,
            "PostgreSQL does not run as root, and there is neither a user postgres nor nobody",
        )
        .hint(AS_A_USER)),
    }
}

const AS_A_USER: &str = "Run walden as the user PostgreSQL belongs to.";

/// The user of this name, if this machine has one and it is not root.
pub fn user_named(name: &str) -> Option<User> {
    named(&fs::read_to_string("/etc/passwd").ok()?, name)
}

/// The user who owns `path`, unless that is root or nobody we know.
pub fn owner_of(path: &Path) -> Option<User> {
    let uid = fs::metadata(path).ok()?.uid();
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().filter_map(parse).find(|user| user.uid == uid && uid != 0)
}

/// Who we are to this machine: the name, or the number where it has none.
pub fn own_name() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let own = passwd.lines().filter_map(parse).find(|user| user.uid == uid);
    own.map_or_else(|| format!("uid {uid}"), |user| user.name)
}

/// Makes a child run as `user`; `None` leaves it as we are.
///
/// The standard library drops root's supplementary groups when it changes the user, so the child
/// keeps none.
pub fn run_as<'a>(command: &'a mut Command, user: Option<&User>) -> &'a mut Command {
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
        command.env("HOME", &user.home).env("USER", &user.name).env("LOGNAME", &user.name);
    }
    command
}

/// Gives a file or one directory to `user`; symbolic links are given, not followed.
pub fn give(path: &Path, user: Option<&User>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    lchown(path, Some(user.uid), Some(user.gid)).map_err(|error| {
        Error::new(ErrorKind::Host, format!("give {} to {}", path.display(), user.name))
            .hint("Only root may give files away.")
            .source(error)
    })
}

/// Gives a directory and everything in it to `user`.
pub fn give_tree(path: &Path, user: Option<&User>) -> Result<()> {
    if user.is_none() {
        return Ok(());
    }
    let walk = |error: std::io::Error| {
        Error::new(ErrorKind::Host, format!("walk {}", path.display()))
            .hint("Look at the directory's permissions.")
            .source(error)
    };
    if fs::symlink_metadata(path).map_err(walk)?.is_dir() {
        for entry in fs::read_dir(path).map_err(walk)? {
            give_tree(&entry.map_err(walk)?.path(), user)?;
        }
    }
    give(path, user)
}

/// Whether everybody may pass through every directory on the way to `path`, and read it.
pub fn everybody_can_read(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let allows = |path: &Path, bits: u32| {
        fs::metadata(path).is_ok_and(|metadata| metadata.mode() & bits == bits)
    };
    allows(&path, 0o004) && path.ancestors().skip(1).all(|directory| allows(directory, 0o001))
}

fn named(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().filter_map(parse).find(|user| user.name == name && user.uid != 0)
}

/// `name:password:uid:gid:comment:home:shell`, passwd(5).
fn parse(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, _] = fields[..] else { return None };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::{everybody_can_read, is_root, named, run_as, server_user};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                          broken line\n\
                          postgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn finds_a_user_and_never_root() {
        let user = named(PASSWD, "postgres").expect("it is there");
        assert_eq!((user.uid, user.gid), (101, 104));
        assert_eq!(user.home, Path::new("/var/lib/postgresql"));
        assert_eq!(named(PASSWD, "root"), None);
        assert_eq!(named(PASSWD, "nobody"), None);
    }

    #[test]
    fn a_child_runs_as_the_server_user_without_the_groups_of_root() {
        let user = server_user().expect("this machine has one");
        assert_eq!(user.is_some(), is_root());
        let ask = |flag: &str| {
            let mut id = Command::new("id");
            let output = run_as(id.arg(flag), user.as_ref()).output().expect("id runs");
            String::from_utf8(output.stdout).expect("id prints ASCII").trim().to_owned()
        };
        assert_ne!(ask("-u"), "0");
        if let Some(user) = &user {
            assert_eq!(ask("-u"), user.uid.to_string());
            assert_eq!(ask("-G"), user.gid.to_string());
        }
    }

    #[test]
    fn tells_what_everybody_can_read() {
        assert!(everybody_can_read(Path::new("/etc/passwd")));
        assert!(!everybody_can_read(Path::new("/etc/shadow")));
        assert!(!everybody_can_read(Path::new("/no/such/file")));
    }
}
