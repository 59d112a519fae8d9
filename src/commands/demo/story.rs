//! The story, step by step.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::commands::demo::stage::Stage;
use crate::commands::demo::{Kept, Report, Scene, Tell};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::connection::{Connection, ConnectionOptions};
use crate::postgres::server::{self, Server};

/// They name sockets in the demo's own directory; nothing listens on TCP.
const LIVE_PORT: u16 = 5432;
const RECOVERED_PORT: u16 = 5433;

const ORDERS_BEFORE: usize = 1000;
const ORDERS_AFTER: usize = 234;

const CREATE: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text, ordered timestamptz)";
/// All rows as one value, to compare before and after.
const FINGERPRINT: &str = "SELECT md5(string_agg(orders::text, ',' ORDER BY id)) FROM orders";

pub fn play(stage: Stage, keep: bool, tell: &mut Tell<'_>) -> Result<Report> {
    let mut play = Play { stage, steps: Vec::new(), tell };
    let played = play.all();
    // Kept also where it failed: that is when one wants to look.
    play.stage.keep = keep;
    let (recovered, kept) = played?;
    let Play { steps, stage, .. } = play;
    let kept = keep.then_some(kept);
    match kept {
        Some(_) => {
            recovered.leave_running();
        }
        None => drop(recovered),
    }
    drop(stage);
    Ok(Report { steps, rows: ORDERS_BEFORE + ORDERS_AFTER, kept })
}

struct Play<'a, 'b> {
    stage: Stage,
    steps: Vec<(&'static str, Duration)>,
    tell: &'a mut Tell<'b>,
}

/// What was true the moment before the accident.
struct Before {
    time: String,
    fingerprint: String,
}

impl Play<'_, '_> {
    fn all(&mut self) -> Result<(Server, Kept)> {
        let live = self.step("a cluster that archives through walden", Self::make_cluster)?;
        self.step("a base backup", Self::back_up)?;
        let before = self.step("life goes on", Self::live_on)?;
        self.step("the accident", Self::drop_the_table)?;
        let restored = self.step("restore", |play| play.restore(&before))?;
        let recovered = self.step("recovery", |play| play.recover(&restored))?;
        self.step("the rows again", |play| play.compare(&before))?;
        drop(live);
        let kept = self.how_to_look(&restored);
        Ok((recovered, kept))
    }

    fn step<T>(
        &mut self,
        name: &'static str,
        act: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.stage.go_on()?;
        (self.tell)(Scene::Step(name));
        let started = Instant::now();
        let outcome = act(self).map_err(|error| error.context(name))?;
        self.steps.push((name, started.elapsed()));
        Ok(outcome)
    }

    fn make_cluster(&mut self) -> Result<Server> {
        let pgdata = self.stage.path("live");
        let installation = self.stage.installation.clone();
        self.line(&format!("PostgreSQL {} in {}", installation.version, pgdata.display()));
        server::initialize(&installation, &pgdata, &[], self.stage.user.as_ref())?;
        let directory = self.stage.directory.display();
        let configuration = format!(
            "cluster = \"demo\"\nstate_dir = \"{directory}/state\"\n\n\
             [repository]\nurl = \"file://{directory}/repository\"\n"
        );
        self.stage.make("repository")?;
        self.stage.write("walden.toml", &configuration)?;
        let command = format!("{} push \"%p\"", self.walden().replace('%', "%%"));
        let settings = [
            ("archive_mode", "on".to_owned()),
            ("archive_command", command),
            ("shared_buffers", "32MB".to_owned()),
            ("max_connections", "20".to_owned()),
        ];
        let mut lines = String::new();
        for (name, value) in settings {
            let line = format!("{name} = '{}'", value.replace('\'', "''"));
            if name.starts_with("archive") {
                self.line(&line);
            }
            lines.push_str(&format!("{line}\n"));
        }
        append(&pgdata.join("postgresql.conf"), &lines)?;
        let server = self.stage.start(&pgdata, LIVE_PORT)?;
        self.sql(LIVE_PORT, CREATE)?;
        self.order(1, ORDERS_BEFORE)?;
        self.line(&format!("{ORDERS_BEFORE} orders are in it"));
        self.archive()?;
        Ok(server)
    }

    fn back_up(&mut self) -> Result<()> {
        self.run_walden(&["backup"])
    }

    fn live_on(&mut self) -> Result<Before> {
        self.order(ORDERS_BEFORE + 1, ORDERS_BEFORE + ORDERS_AFTER)?;
        self.line(&format!("{ORDERS_AFTER} more orders, which are in no backup, only in the WAL"));
        self.show_orders(LIVE_PORT)?;
        let fingerprint = self.value(LIVE_PORT, FINGERPRINT)?;
        let time = self.value(
            LIVE_PORT,
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', \
             'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        )?;
        self.line(&format!("all is well at {time}"));
        Ok(Before { time, fingerprint })
    }

    fn drop_the_table(&mut self) -> Result<()> {
        (self.tell)(Scene::Command("psql -c 'DROP TABLE orders'"));
        self.sql(LIVE_PORT, "DROP TABLE orders")?;
        match self.sql(LIVE_PORT, "SELECT count(*) FROM orders") {
            Ok(_) => return Err(wrong("the table is still there")),
            Err(error) => self.line(&error.to_string()),
        }
        self.archive()
    }

    /// Ends the current segment and waits until walden has it.
    fn archive(&mut self) -> Result<()> {
        self.sql(LIVE_PORT, "SELECT pg_switch_wal()")?;
        let stage = &self.stage;
        stage.wait_until("archiving", || is_archived(stage))?;
        let counted = "SELECT 'WAL files archived so far: ' || archived_count \
                       || ', failures: ' || failed_count FROM pg_stat_archiver";
        let counted = self.value(LIVE_PORT, counted)?;
        self.line(&counted);
        Ok(())
    }

    fn restore(&mut self, before: &Before) -> Result<PathBuf> {
        let restored = self.stage.path("restored");
        let directory = restored.display().to_string();
        self.run_walden(&[
            "restore",
            &directory,
            "--target-time",
            &before.time,
            "--target-action",
            "promote",
        ])?;
        Ok(restored)
    }

    fn recover(&mut self, restored: &Path) -> Result<Server> {
        self.line("PostgreSQL starts there and fetches the WAL it needs, through walden");
        let server = self.stage.start(restored, RECOVERED_PORT)?;
        let stage = &self.stage;
        stage.wait_until("recovery", || {
            let in_recovery = "SELECT pg_is_in_recovery()::text";
            Ok(value_of(&mut connect(stage, RECOVERED_PORT)?, in_recovery)? == "false")
        })?;
        let log = server.log();
        for line in log.lines().filter(|line| line.contains("recovery stopping")) {
            self.line(line.split_once("LOG:  ").map_or(line, |(_, said)| said));
        }
        Ok(server)
    }

    fn compare(&mut self, before: &Before) -> Result<()> {
        self.show_orders(RECOVERED_PORT)?;
        if self.value(RECOVERED_PORT, FINGERPRINT)? != before.fingerprint {
            return Err(wrong("the recovered rows are not those that were lost"));
        }
        self.line("every one of them as it was the moment before");
        Ok(())
    }

    fn how_to_look(&self, restored: &Path) -> Kept {
        let directory = self.stage.directory.clone();
        let pg_ctl = self.stage.installation.program("pg_ctl");
        let become_user = match &self.stage.user {
            Some(user) => format!("su {} -s /bin/sh -c ", user.name),
            None => "sh -c ".to_owned(),
        };
        Kept {
            connect: format!(
                "psql -h {} -p {RECOVERED_PORT} -U postgres postgres",
                directory.display()
            ),
            stop: format!(
                "{become_user}'{} -D {} stop'; rm -r {}",
                pg_ctl.display(),
                restored.display(),
                directory.display()
            ),
            directory,
        }
    }

    /// How the binary is called here, as a shell would read it.
    fn walden(&self) -> String {
        let configuration = self.stage.path("walden.toml");
        [&self.stage.walden, Path::new("--config"), &configuration]
            .map(|word| shell_word(&word.to_string_lossy()))
            .join(" ")
    }

    fn run_walden(&mut self, arguments: &[&str]) -> Result<()> {
        let words: Vec<String> = arguments.iter().map(|word| shell_word(word)).collect();
        let line = format!("{} {}", self.walden(), words.join(" "));
        (self.tell)(Scene::Command(&line));
        let configuration = self.stage.path("walden.toml");
        let configuration = configuration.to_string_lossy();
        let all: Vec<&str> =
            ["--config", &configuration].into_iter().chain(arguments.iter().copied()).collect();
        let said = self.stage.run_walden(&all, LIVE_PORT)?;
        for line in said.lines() {
            self.line(line);
        }
        Ok(())
    }

    fn order(&self, first: usize, last: usize) -> Result<()> {
        self.sql(
            LIVE_PORT,
            &format!(
                "INSERT INTO orders SELECT n, 'item ' || n, now() FROM generate_series({first}, \
                 {last}) n"
            ),
        )
    }

    fn show_orders(&mut self, port: u16) -> Result<()> {
        let count = self.value(port, "SELECT count(*)::text FROM orders")?;
        self.line(&format!("{count} orders, the last of them:"));
        let newest = "SELECT id, item, ordered FROM orders ORDER BY id DESC LIMIT 3";
        for row in connect(&self.stage, port)?.query(newest)? {
            let columns: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
            self.line(&format!("  {}", columns.join("  ")));
        }
        Ok(())
    }

    fn sql(&self, port: u16, sql: &str) -> Result<()> {
        connect(&self.stage, port)?.query(sql).map(drop)
    }

    fn value(&self, port: u16, sql: &str) -> Result<String> {
        value_of(&mut connect(&self.stage, port)?, sql)
    }

    fn line(&mut self, line: &str) {
        (self.tell)(Scene::Line(line));
    }
}

fn connect(stage: &Stage, port: u16) -> Result<Connection> {
    let options = ConnectionOptions::local(&stage.directory, port, "postgres").dbname("postgres");
    Connection::connect(&options)
}

fn value_of(connection: &mut Connection, sql: &str) -> Result<String> {
    connection.value(sql)?.ok_or_else(|| wrong("the server answered without a value"))
}

/// An error with walden's own words where PostgreSQL could not hand over a file.
fn is_archived(stage: &Stage) -> Result<bool> {
    let mut connection = connect(stage, LIVE_PORT)?;
    let waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
    if value_of(&mut connection, waiting)? == "0" {
        return Ok(true);
    }
    if value_of(&mut connection, "SELECT failed_count FROM pg_stat_archiver")? == "0" {
        return Ok(false);
    }
    let log = std::fs::read_to_string(stage.path("live.log")).unwrap_or_default();
    let complaint = log.lines().rev().find(|line| line.starts_with("walden:"));
    let complaint = complaint.unwrap_or("it did not say why").to_owned();
    Err(Error::new(ErrorKind::FoundWrong, format!("archive_command failed: {complaint}"))
        .hint("Run the demo again with --keep and look at live.log in its directory."))
}

fn append(path: &Path, lines: &str) -> Result<()> {
    use std::io::Write as _;
    let appended = std::fs::OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(lines.as_bytes()));
    appended.map_err(|error| {
        Error::new(ErrorKind::Host, format!("write {}", path.display()))
            .hint("Is the disk full?")
            .source(error)
    })
}

fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=+%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn wrong(what: &'static str) -> Error {
    Error::new(ErrorKind::FoundWrong, what)
        .hint("Run the demo again with --keep and look at the logs in its directory.")
}

#[cfg(test)]
mod tests {
    use super::shell_word;

    #[test]
    fn words_a_shell_would_take_apart_are_quoted() {
        assert_eq!(shell_word("/tmp/a-b.c"), "/tmp/a-b.c");
        assert_eq!(shell_word("/tmp/my walden"), "'/tmp/my walden'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
