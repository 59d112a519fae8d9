//! The walden binary under test: `Walden::new().repository(…).arg("backup").run().succeeds()`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use walden::host::privileges;

/// Builds one call. What the developer's own shell says about walden, PostgreSQL and AWS is kept
/// out.
#[derive(Clone)]
pub struct Walden {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
    as_server_user: bool,
    timeout: Duration,
}

impl Walden {
    pub fn new() -> Walden {
        Walden {
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: PathBuf::from("/"),
            as_server_user: false,
            timeout: Duration::from_secs(120),
        }
    }

    pub fn repository(self, url: impl AsRef<OsStr>) -> Walden {
        self.arg("--repository").arg(url)
    }

    pub fn cluster(self, name: impl AsRef<OsStr>) -> Walden {
        self.arg("--cluster").arg(name)
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Walden {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Walden {
        arguments.into_iter().fold(self, Walden::arg)
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Walden {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Walden {
        directory.as_ref().clone_into(&mut self.directory);
        self
    }

    /// As PostgreSQL would call it; no change where the tests do not run as root.
    pub fn as_server_user(mut self) -> Walden {
        self.as_server_user = true;
        self
    }

    /// For what must succeed: all the time it needs, on a busy machine too.
    pub fn patiently(self) -> Walden {
        let walden = self.env("WALDEN_PUSH_DEADLINE", "60s").env("WALDEN_FETCH_RETRY_FOR", "60s");
        walden.env("WALDEN_S3_REQUEST_TIMEOUT", "60s")
    }

    /// Two minutes if not said; a call that takes longer fails the test.
    pub fn timeout(mut self, timeout: Duration) -> Walden {
        self.timeout = timeout;
        self
    }

    #[track_caller]
    pub fn run(&self) -> Output {
        self.spawn().wait()
    }

    /// Starts it and lets it run, for tests that kill or race it.
    #[track_caller]
    pub fn spawn(&self) -> Running {
        let program = binary();
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["WALDEN_", "PG", "AWS_"].iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        let user = if self.as_server_user { server_user() } else { None };
        command.args(&self.arguments);
        privileges::run_as(&mut command, user.as_ref())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start walden: {error}"));
        let stdout = drain(child.stdout.take().expect("stdout is a pipe"));
        let stderr = drain(child.stderr.take().expect("stderr is a pipe"));
        let words = self.arguments.iter().map(|word| word.to_string_lossy().into_owned());
        let words = words.collect::<Vec<_>>().join(" ");
        Running { child, pipes: Some([stdout, stderr]), words, timeout: self.timeout }
    }
}

fn server_user() -> Option<privileges::User> {
    privileges::server_user().expect("find the server's user")
}

/// Read in a thread, so that a full pipe never stops the program.
fn drain(mut pipe: impl std::io::Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A killed program's pipe ends where it ends; what came is what is looked at.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The binary, where the server's user can execute it: from a private target directory of root it
/// is copied once.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_walden"));
        if !privileges::is_root() || privileges::everybody_can_read(&built) {
            return built;
        }
        readable_copy(&built).unwrap_or_else(|error| panic!("copy {}: {error}", built.display()))
    })
}

/// Test runs of one build share one copy, and it is never seen half made.
fn readable_copy(built: &Path) -> std::io::Result<PathBuf> {
    let metadata = fs::metadata(built)?;
    let name = format!("walden-under-test-{}-{}", metadata.len(), metadata.mtime_nsec());
    let copy = Path::new("/var/tmp").join(name);
    if !copy.exists() {
        let unfinished = tempfile::NamedTempFile::new_in("/var/tmp")?;
        fs::copy(built, unfinished.path())?;
        fs::set_permissions(unfinished.path(), fs::Permissions::from_mode(0o755))?;
        // A file still open for writing cannot be executed.
        unfinished.into_temp_path().persist(&copy)?;
    }
    Ok(copy)
}

/// A call under way; killed when dropped.
pub struct Running {
    child: Child,
    pipes: Option<[JoinHandle<String>; 2]>,
    words: String,
    timeout: Duration,
}

impl Running {
    /// Waits for its end, at most as long as the builder allowed.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("ask for the program's end") {
                break status;
            }
            if started.elapsed() > self.timeout {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let output = self.collect(None);
                panic!("walden {} took more than {:?}\n{output}", self.words, self.timeout);
            }
            thread::sleep(Duration::from_millis(5));
        };
        self.collect(Some(status))
    }

    /// As `wait`, and the most memory it held meanwhile, as often as it could be asked.
    #[track_caller]
    pub fn wait_and_weigh(mut self) -> (Output, u64) {
        let path = format!("/proc/{}/status", self.child.id());
        let (started, mut peak_bytes) = (Instant::now(), 0);
        while !self.has_ended() && started.elapsed() < self.timeout {
            let status = fs::read_to_string(&path).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            peak_bytes = peak_bytes.max(kib.unwrap_or_default() << 10);
            thread::sleep(Duration::from_millis(2));
        }
        (self.wait(), peak_bytes)
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// SIGKILL, as by the kernel when memory runs out.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// SIGTERM, as by PostgreSQL or an init system.
    pub fn terminate(&mut self) {
        if self.has_ended() {
            return;
        }
        let process = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Gone in this very moment is as good as told to go.
        let _ = kill_process(process.expect("a child has a process id"), Signal::TERM);
    }

    fn collect(&mut self, status: Option<ExitStatus>) -> Output {
        let [stdout, stderr] = self.pipes.take().expect("collected once");
        let text = |pipe: JoinHandle<String>| pipe.join().expect("read what the program says");
        Output { words: self.words.clone(), status, stdout: text(stdout), stderr: text(stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a call came to. Its assertions return it, so that they can be chained.
#[derive(Debug)]
pub struct Output {
    words: String,
    status: Option<ExitStatus>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// `None` where a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| status.signal())
    }

    #[track_caller]
    pub fn succeeds(self) -> Output {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert_eq!(self.code(), Some(code), "{self}");
        self
    }

    #[track_caller]
    pub fn stdout_has(self, text: &str) -> Output {
        assert!(self.stdout.contains(text), "stdout lacks {text:?}\n{self}");
        self
    }

    #[track_caller]
    pub fn stderr_has(self, text: &str) -> Output {
        assert!(self.stderr.contains(text), "stderr lacks {text:?}\n{self}");
        self
    }

    /// What PostgreSQL's log gets: one line, with a hint, and nothing on stdout.
    #[track_caller]
    pub fn complains_in_one_line(self) -> Output {
        assert_eq!(self.stdout, "", "{self}");
        assert_eq!(self.stderr.lines().count(), 1, "{self}");
        self.stderr_has("(hint: ")
    }

    #[track_caller]
    pub fn is_silent(self) -> Output {
        assert_eq!((self.stdout.as_str(), self.stderr.as_str()), ("", ""), "{self}");
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.map_or("killed by the test".to_owned(), |s| s.to_string());
        let Output { words, stdout, stderr, .. } = self;
        write!(f, "walden {words}: {status}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}
