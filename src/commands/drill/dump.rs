//! pg_dump on the recovered server.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::commands::drill::Recovered;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::host::privileges::{self, User};
use crate::postgres::client_program::ClientProgram;
use crate::postgres::installation::Installation;

const PIECE_BYTES: usize = 128 << 10;

/// The program that fits the server.
#[derive(Debug)]
pub struct Dump<'s> {
    server: &'s Recovered,
    program: ClientProgram,
}

impl<'s> Dump<'s> {
    /// In `bin` where the user named it, else beside the server, and where packages put it.
    pub fn find(server: &'s Recovered, bin: Option<&Path>) -> Result<Dump<'s>> {
        let program = program(server.installation(), bin, server.launch().user.as_ref())?;
        Ok(Dump { server, program })
    }

    /// Hands over what it writes to standard output.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        database: &str,
        arguments: impl IntoIterator<Item = A>,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut command = self.command(database);
        command.args(arguments);
        self.carry_out(command, take).context(|| format!("dump from the database {database}"))
    }

    fn command(&self, database: &str) -> Command {
        let launch = self.server.launch();
        let mut command = Command::new(&self.program.path);
        for (name, _) in std::env::vars_os() {
            // What leads to the live server must not lead the dump there.
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.args(["--no-password", "--encoding=UTF8", "--username", self.server.superuser()]);
        command.arg("--host").arg(&launch.socket_directory);
        command.args(["--port", &launch.port.to_string()]);
        command.arg(format!("--dbname={}", conninfo(database)));
        privileges::run_as(&mut command, launch.user.as_ref()).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn carry_out(
        &self,
        mut command: Command,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut child = command.spawn().map_err(|error| {
            Error::new(ErrorKind::Host, format!("start {}", self.program.path.display()))
                .source(error)
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (done, is_done) = channel::<()>();
        let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let left = self.server.deadline().remaining();
        let (taken, complaint) = thread::scope(|scope| {
            let complaint = scope.spawn(move || {
                let mut text = String::new();
                // What cannot be read of it is not worth failing over.
                let _ = stderr.map(|mut stderr| stderr.read_to_string(&mut text));
                text
            });
            scope.spawn(move || {
                if let (Err(RecvTimeoutError::Timeout), Some(process)) =
                    (is_done.recv_timeout(left), process)
                {
                    let _ = kill_process(process, Signal::KILL);
                }
            });
            let taken = hand_over(stdout, take);
            if taken.is_err() {
                // Else it would write on for a reader that has gone.
                let _ = child.kill();
            }
            let complaint = complaint.join().unwrap_or_default();
            drop(done);
            (taken, complaint)
        });
        let status = ended(&mut child)?;
        taken?;
        if status {
            return Ok(());
        }
        let complaint = complaint.trim().replace('\n', "; ");
        let complaint = if complaint.is_empty() { "it was ended".to_owned() } else { complaint };
        Err(Error::new(ErrorKind::Server, format!("pg_dump failed: {complaint}")))
    }
}

/// The one that a server of this installation will be dumped by.
pub fn program(
    installation: &Installation,
    bin: Option<&Path>,
    user: Option<&User>,
) -> Result<ClientProgram> {
    let bins = [bin, Some(installation.bin.as_path())];
    ClientProgram::find("pg_dump", installation.major, &bins, user)
}

fn ended(child: &mut Child) -> Result<bool> {
    let status = child
        .wait()
        .map_err(|error| Error::new(ErrorKind::Host, "wait for pg_dump").source(error))?;
    Ok(status.success())
}

fn hand_over(stdout: Option<ChildStdout>, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let length = stdout.read(&mut buffer).map_err(|error| {
            Error::new(ErrorKind::Host, "read what pg_dump writes").source(error)
        })?;
        if length == 0 {
            return Ok(());
        }
        take(&buffer[..length])?;
    }
}

/// A name with an equals sign would be taken for a connection string.
fn conninfo(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::conninfo;

    #[test]
    fn names_of_databases_stay_names() {
        assert_eq!(conninfo("shop"), "dbname='shop'");
        assert_eq!(conninfo("a=b c'd\\"), "dbname='a=b c\\'d\\\\'");
    }
}
