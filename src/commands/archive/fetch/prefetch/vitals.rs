//! Whether there is still somebody to fetch for.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::commands::archive::fetch::spool::Spool;

/// What must stay as it was when the prefetcher began.
#[derive(Debug)]
pub struct Vitals {
    data_directory: PathBuf,
    /// `None` where there was none: somebody fetches by hand.
    server: Option<Pid>,
    spool: Option<(u64, u64)>,
}

impl Vitals {
    pub fn take(data_directory: &Path, spool: &Spool) -> Self {
        Vitals {
            data_directory: data_directory.to_owned(),
            server: server(data_directory),
            spool: spool.identity(),
        }
    }

    /// Why there is no use in going on, if there is none.
    pub fn end(&self, spool: &Spool) -> Option<&'static str> {
        let has = |name| self.data_directory.join(name).exists();
        if !is_recovering(&self.data_directory) {
            Some("recovery has ended")
        } else if has("promote") {
            Some("the standby is being promoted")
        } else if self.server.is_some_and(|first| !self.lives(first)) {
            Some("the server has ended")
        } else if self.spool.is_none() || spool.identity() != self.spool {
            Some("the spool is gone")
        } else {
            None
        }
    }

    fn lives(&self, first: Pid) -> bool {
        // EPERM comes from a process that is there.
        server(&self.data_directory) == Some(first) && test_kill_process(first) != Err(Errno::SRCH)
    }
}

/// Asked for by either of the files that PostgreSQL removes when recovery ends.
pub fn is_recovering(data_directory: &Path) -> bool {
    ["recovery.signal", "standby.signal"].iter().any(|name| data_directory.join(name).exists())
}

/// The process in the first line of `postmaster.pid`; a server without a postmaster writes its
/// number with a minus sign.
pub fn server(data_directory: &Path) -> Option<Pid> {
    let file = fs::read_to_string(data_directory.join("postmaster.pid")).ok()?;
    let number: i32 = file.lines().next()?.trim().parse().ok()?;
    Pid::from_raw(number.checked_abs()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::process::getpid;

    use super::Vitals;
    use crate::commands::archive::fetch::spool::Spool;

    #[test]
    fn whatever_ends_is_noticed() {
        let ours = getpid().as_raw_nonzero().to_string();
        // No process has this number: it is above what Linux gives.
        let gone = i32::MAX.to_string();
        type Change<'a> = (&'a str, Option<&'a str>, Option<&'static str>);
        let changes: [Change<'_>; 6] = [
            ("base", Some(""), None),
            ("recovery.signal", None, Some("recovery has ended")),
            ("promote", Some(""), Some("the standby is being promoted")),
            ("postmaster.pid", None, Some("the server has ended")),
            ("postmaster.pid", Some("1\n"), Some("the server has ended")),
            ("postmaster.pid", Some(&gone), Some("the server has ended")),
        ];
        for (file, content, end) in changes {
            let data = tempfile::tempdir().unwrap();
            let room = tempfile::tempdir().unwrap();
            let spool = Spool::in_folder(room.path().to_owned());
            fs::write(data.path().join("recovery.signal"), "").unwrap();
            fs::write(data.path().join("postmaster.pid"), format!("{ours}\n/data\n")).unwrap();
            let vitals = Vitals::take(data.path(), &spool);
            assert_eq!(vitals.end(&spool), None);
            match content {
                Some(content) => fs::write(data.path().join(file), content).unwrap(),
                None => fs::remove_file(data.path().join(file)).unwrap(),
            }
            assert_eq!(vitals.end(&spool), end, "{file}: {content:?}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "moved as a person would")]
    fn a_spool_made_anew_is_another() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("standby.signal"), "").unwrap();
        let room = tempfile::tempdir().unwrap();
        let folder = room.path().join("spool");
        fs::create_dir(&folder).unwrap();
        let spool = Spool::in_folder(folder.clone());
        let vitals = Vitals::take(data.path(), &spool);
        assert_eq!(vitals.end(&spool), None, "without a server nobody waits for its end");
        fs::rename(&folder, room.path().join("away")).unwrap();
        assert_eq!(vitals.end(&spool), Some("the spool is gone"));
        fs::create_dir(&folder).unwrap();
        assert_eq!(vitals.end(&spool), Some("the spool is gone"));
    }
}
