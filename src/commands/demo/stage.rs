//! What the demo plays on: a directory, a user, this binary, and an ear for Ctrl-C.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Deadline;
use crate::host::privileges::{self, User};
use crate::postgres::installation::Installation;
use crate::postgres::server::{Launch, Server};

/// The longest any step may take before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Stage {
    pub installation: Installation,
    pub directory: PathBuf,
    /// Whom servers and commands run as; `None`: as we do.
    pub user: Option<User>,
    /// This binary, where `user` can execute it.
    pub walden: PathBuf,
    /// Left as it is when the curtain falls.
    pub keep: bool,
    interrupted: Arc<AtomicBool>,
}

impl Stage {
    pub fn set(installation: Installation) -> Result<Stage> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, interrupted.clone())
                .map_err(|error| refused("listen for Ctrl-C", error))?;
        }
        let user = privileges::server_user()?;
        let directory = make_directory(user.as_ref())?;
        let walden = directory.join("walden");
        let mut stage = Stage { installation, directory, user, walden, keep: false, interrupted };
        stage.bring_binary()?;
        Ok(stage)
    }

    /// A user whom root has become may not be able to reach what root can.
    fn bring_binary(&mut self) -> Result<()> {
        let this = std::env::current_exe().map_err(|error| refused("find this binary", error))?;
        if self.user.is_none() || privileges::everybody_can_read(&this) {
            self.walden = this;
            return Ok(());
        }
        let copied = fs::copy(&this, &self.walden)
            .and_then(|_| fs::set_permissions(&self.walden, fs::Permissions::from_mode(0o755)));
        copied.map_err(|error| refused("copy this binary", error))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A file of the stage, readable for those who play on it.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content)
            .map_err(|error| refused(&format!("write {}", path.display()), error))?;
        privileges::give(&path, self.user.as_ref())?;
        Ok(path)
    }

    /// A directory of the stage, for those who play on it.
    pub fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| refused(&format!("make {}", path.display()), error))?;
        privileges::give(&path, self.user.as_ref())?;
        Ok(path)
    }

    /// How `pgdata` is served: its socket in our directory, its log beside it.
    pub fn start(&self, pgdata: &Path, port: u16) -> Result<Server> {
        let ours = std::env::vars_os().filter(|(name, _)| !is_foreign(&name.to_string_lossy()));
        let launch = Launch {
            installation: self.installation.clone(),
            pgdata: pgdata.to_owned(),
            socket_directory: self.directory.clone(),
            port,
            log: pgdata.with_extension("log"),
            settings: Vec::new(),
            environment: Vec::new(),
            user: self.user.clone(),
        };
        let mut server = Server::start_inheriting(launch, ours)?;
        server.wait_until_up(Deadline::after(PATIENCE))?;
        Ok(server)
    }

    /// This binary with `arguments`, as the server's user; what it said on stdout.
    pub fn run_walden(&self, arguments: &[&str], socket_port: u16) -> Result<String> {
        let mut command = Command::new(&self.walden);
        for (name, _) in std::env::vars_os() {
            if is_foreign(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        privileges::run_as(&mut command, self.user.as_ref())
            .args(arguments)
            .env("PGHOST", &self.directory)
            .env("PGPORT", socket_port.to_string())
            .env("PGUSER", "postgres")
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| refused("start walden", error))?;
        self.wait_for(child, &arguments.join(" "))
    }

    fn wait_for(&self, mut child: Child, what: &str) -> Result<String> {
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let deadline = Deadline::after(PATIENCE);
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|error| refused("wait", error))? {
                break status;
            }
            let go_on = self.go_on().and_then(|()| match deadline.has_passed() {
                true => Err(stuck(&format!("walden {what}"))),
                false => Ok(()),
            });
            if let Err(error) = go_on {
                // It is to end, and whether it is gone already does not matter.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
            thread::sleep(POLL);
        };
        let said = |pipe: thread::JoinHandle<String>| pipe.join().unwrap_or_default();
        let (stdout, stderr) = (said(stdout), said(stderr));
        if status.success() {
            return Ok(stdout);
        }
        self.go_on()?;
        let (message, hint) = stderr.trim().split_once("\nhint: ").unwrap_or((stderr.trim(), ""));
        let message = format!("{} ({status})", message.trim_start_matches("walden: "));
        let error = Error::new(ErrorKind::FoundWrong, message);
        Err(match hint {
            "" => error.hint("Run the demo again with --keep and look at the logs."),
            hint => error.hint(hint.to_owned()),
        })
    }

    /// Waits until `is_so`; an error when it takes too long or somebody wants us to stop.
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        while !is_so()? {
            self.go_on()?;
            if deadline.has_passed() {
                return Err(stuck(what));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// An error once Ctrl-C was pressed.
    pub fn go_on(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "stopped before its end")
                .hint("Run it again any time."));
        }
        Ok(())
    }
}

/// The servers are gone before: they are made after the stage.
impl Drop for Stage {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed cannot be told either, here.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// What the reader's own shell says about other clusters has no part in the play.
fn is_foreign(variable: &str) -> bool {
    ["WALDEN_", "PG"].iter().any(|prefix| variable.starts_with(prefix))
}

/// Short, because a socket lies in it, and reachable for the server's user.
fn make_directory(user: Option<&User>) -> Result<PathBuf> {
    let preferred = std::env::temp_dir();
    let is_short = preferred.as_os_str().len() <= 60;
    let is_open = user.is_none() || privileges::everybody_can_read(&preferred);
    let parent = if is_short && is_open { preferred } else { PathBuf::from("/tmp") };
    let directory = parent.join(format!("walden-demo-{:08x}", fastrand::u32(..)));
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(|error| refused(&format!("make {}", directory.display()), error))?;
    privileges::give(&directory, user)?;
    Ok(directory)
}

/// Read in a thread, so that a full pipe never stops the program.
fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A killed program's words end where they end.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn refused(doing: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Host, doing.to_owned())
        .hint("Set TMPDIR to a directory with some space, where you may write.")
        .source(error)
}

fn stuck(what: &str) -> Error {
    let message = format!("{what} took more than {} s", PATIENCE.as_secs());
    Error::new(ErrorKind::CouldNotCheck, message).hint("Is this machine very busy?")
}
