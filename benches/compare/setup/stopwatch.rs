//! One call, and what it took: wall and CPU time, and in rounds of their own its peak memory.
//!
//! bash starts it and times it, since it reads the CPU time of its children to the millisecond and
//! starts them by a fork that is small. Its own start is not counted.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use walden::host::privileges::{self, User};

use super::scratch;

/// One or more programs, each started when the one before it has succeeded.
#[derive(Debug, Clone, Default)]
pub struct Call {
    programs: Vec<Vec<OsString>>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy)]
pub struct Took {
    pub wall: Duration,
    /// User and system time of the programs and their children, but those that detach themselves.
    pub cpu: Duration,
}

/// What `measure` tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    pub wall: Duration,
    pub cpu: Duration,
    /// The most that one of its processes held.
    pub peak_kib: u64,
}

/// A call that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);
const GNU_TIME: &str = "/usr/bin/time";

impl Call {
    /// In this directory.
    pub fn within(directory: &Path) -> Call {
        Call { directory: directory.to_owned(), ..Call::default() }
    }

    pub fn program<A: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = A>) -> Call {
        self.programs.push(words.into_iter().map(|word| word.as_ref().to_owned()).collect());
        self
    }

    /// One more word for the last program.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Call {
        self.programs.last_mut().expect("it has a program").push(word.as_ref().to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Call {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Runs it to its end; its words where it fails.
    pub fn time(&self) -> Result<Took, String> {
        // Each program's words are counted before them.
        let script = r#"
            call() {
                while [ $# -gt 0 ]; do
                    n=$1
                    shift
                    "${@:1:n}" >&3 2>&4 3>&- 4>&- || return
                    shift $n
                done
            }
            TIMEFORMAT='%3U %3S'
            exec 3>/dev/null 4>&2 2>&1
            a=$EPOCHREALTIME
            time call "$@"
            status=$?
            echo "$a $EPOCHREALTIME"
            exit $status"#;
        let words = self.programs.iter().flat_map(|words| {
            std::iter::once(OsString::from(words.len().to_string())).chain(words.iter().cloned())
        });
        let said = self.run(Command::new("bash").args(["-c", script, "bash"]).args(words))?;
        let numbers: Vec<f64> =
            said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [user, system, start, end] = numbers[..] else {
            return Err(format!("bash says {said:?}"));
        };
        let wall = Duration::from_secs_f64((end - start).max(0.0));
        Ok(Took { wall, cpu: Duration::from_secs_f64(user + system) })
    }

    /// Runs it to its end; the most memory one of its processes held, in KiB, where GNU time is
    /// there to tell.
    pub fn peak_kib(&self) -> Result<Option<u64>, String> {
        if !Path::new(GNU_TIME).exists() {
            return self.time().map(|_| None);
        }
        let file = tempfile::NamedTempFile::new().expect("make a temporary file");
        let mut peak = 0;
        for words in &self.programs {
            let mut command = Command::new(GNU_TIME);
            command.args(["-q", "-f", "%M", "-o"]).arg(file.path()).args(words);
            self.run(&mut command)?;
            let said = std::fs::read_to_string(file.path()).unwrap_or_default();
            peak = peak.max(said.trim().parse().unwrap_or(0));
        }
        Ok(Some(peak))
    }

    /// Runs it to its end, as the user of the servers and with an hour's patience: what it took
    /// and held, to the hundredth of a second. For calls that are too long to be run twice.
    pub fn measure(&self) -> Result<Measured, String> {
        let mut sum = Measured::default();
        for words in &self.programs {
            let mut command = Command::new(GNU_TIME);
            command.args(["-f", "measured %e %U %S %M"]).args(words);
            let (_, said) = self.run_as(&mut command, HOUR, scratch::user().as_ref())?;
            let line = said.lines().rev().find_map(|line| line.strip_prefix("measured "));
            let line = line.unwrap_or_default().split(' ');
            let numbers: Vec<f64> = line.filter_map(|number| number.parse().ok()).collect();
            let [wall, user, system, kib] = numbers[..] else {
                return Err(format!("time says {said:?}"));
            };
            sum.wall += Duration::from_secs_f64(wall);
            sum.cpu += Duration::from_secs_f64(user + system);
            sum.peak_kib = sum.peak_kib.max(kib as u64);
        }
        Ok(sum)
    }

    /// As PostgreSQL's settings have it: one line for a shell, which `%f` and `%p` are put into.
    pub fn shell_line(&self) -> String {
        let quoted = |word: &OsString| format!("'{}'", word.to_string_lossy());
        let settings = self
            .environment
            .iter()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), quoted(value)));
        let programs = self.programs.iter().map(|words| words.iter().map(quoted));
        let programs: Vec<String> =
            programs.map(|words| words.collect::<Vec<_>>().join(" ")).collect();
        let settings: Vec<String> = settings.collect();
        format!("env {} {}", settings.join(" "), programs.join(" && "))
    }

    fn run(&self, command: &mut Command) -> Result<String, String> {
        self.run_as(command, PATIENCE, None).map(|(stdout, _)| stdout)
    }

    /// What it says on stdout and on stderr.
    fn run_as(
        &self,
        command: &mut Command,
        patience: Duration,
        user: Option<&User>,
    ) -> Result<(String, String), String> {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Numbers with points, and words that can be read.
        command.env("LC_ALL", "C");
        privileges::run_as(command, user).current_dir(&self.directory).stdin(Stdio::null());
        // Files, since who detaches itself may keep a pipe open.
        let mut files =
            [tempfile::tempfile(), tempfile::tempfile()].map(|file| file.expect("a file"));
        let [stdout, stderr] = files.each_ref().map(|file| file.try_clone().expect("share a file"));
        command.stdout(stdout).stderr(stderr);
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let started = Instant::now();
        let status = loop {
            match child.try_wait().expect("ask for its end") {
                Some(status) => break status,
                None if started.elapsed() > patience => {
                    child.kill().ok();
                    child.wait().ok();
                    return Err(format!("hangs: {:?}", self.programs));
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let [stdout, stderr] = files.each_mut().map(text);
        if status.success() {
            Ok((stdout, stderr))
        } else {
            Err(format!("{status}: {} {}", stdout.trim(), stderr.trim()))
        }
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("read what it says");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether PATH has it.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

pub fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}
