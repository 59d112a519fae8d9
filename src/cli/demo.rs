//! `walden demo`: flags to a request, the story and its report to text.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::commands::App;
use crate::commands::demo::{self, Report, Request, Scene};
use crate::error::Result;

/// Tells the whole story on this machine in a temporary directory.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Keep the directory and the recovered server, and say how to connect.
    #[arg(long)]
    keep: bool,
    /// The directory of PostgreSQL's programs [default: the newest this machine has].
    #[arg(long, value_name = "DIR")]
    pg_bin: Option<PathBuf>,
}

impl Demo {
    /// The configuration plays no part: the demo has one of its own.
    pub fn run(self, _app: &App) -> Result<()> {
        let request = Request { keep: self.keep, pg_bin: self.pg_bin };
        let mut number = 0;
        let report = demo::run(&request, &mut |scene| match scene {
            Scene::Step(name) => {
                number += 1;
                say(&format!("\n{number}. {name}"));
            }
            Scene::Command(line) => say(&format!("   $ {line}")),
            Scene::Line(line) => say(&format!("   {line}")),
        })?;
        say(&summary(&report));
        Ok(())
    }
}

/// A reader who has gone is no reason to stop half-way: what was begun is cleaned up all the same.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn summary(report: &Report) -> String {
    let mut text = format!("\nAll {} rows are back. How long it took:\n\n", report.rows);
    let seconds = |time: &Duration| format!("{:>8.2} s", time.as_secs_f64());
    for (name, time) in &report.steps {
        text.push_str(&format!("   {name:<42}{}\n", seconds(time)));
    }
    let total: Duration = report.steps.iter().map(|(_, time)| *time).sum();
    text.push_str(&format!("   {:<42}{}\n", "together", seconds(&total)));
    match &report.kept {
        None => text.push_str("\nEverything is cleaned up; --keep would leave it for you."),
        Some(kept) => {
            let (directory, connect, stop) = (kept.directory.display(), &kept.connect, &kept.stop);
            text.push_str(&format!(
                "\nIt is all in {directory}.\nLook:     {connect}\nClean up: {stop}"
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::summary;
    use crate::commands::demo::{Kept, Report};

    #[test]
    fn the_summary_says_how_long_each_step_took_and_what_is_left() {
        let steps =
            vec![("restore", Duration::from_millis(1250)), ("recovery", Duration::from_secs(2))];
        let mut report = Report { steps, rows: 7, kept: None };
        let text = summary(&report);
        assert!(text.contains("All 7 rows are back"), "{text}");
        assert!(text.contains("1.25 s") && text.contains("3.25 s"), "{text}");
        assert!(text.contains("cleaned up"), "{text}");
        report.kept = Some(Kept {
            directory: "/tmp/d".into(),
            connect: "psql -h /tmp/d".to_owned(),
            stop: "pg_ctl stop".to_owned(),
        });
        let text = summary(&report);
        assert!(text.contains("Look:     psql -h /tmp/d"), "{text}");
        assert!(!text.contains("Everything is cleaned up"), "{text}");
    }
}
