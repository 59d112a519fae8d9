//! How far something long is: a bar on a terminal, else a line now and then.

use std::io::IsTerminal as _;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::commands::progress::{Estimate, Estimator, Progress};
use crate::config::Output;

/// How often is looked.
const PERIOD: Duration = Duration::from_millis(200);
/// What is over sooner needs no line.
const LINE_PERIOD_MIN: Duration = Duration::from_secs(10);
const LINE_PERIOD_MAX: Duration = Duration::from_secs(60);

/// Runs `work` while another thread shows how far it is, on stderr; not at all with --quiet.
pub fn shown<T>(progress: &Progress, output: Output, work: impl FnOnce() -> T) -> T {
    if output.quiet {
        return work();
    }
    let has_bar = std::io::stderr().is_terminal() && output.verbose == 0;
    let (over, is_over) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut display = if has_bar { Display::Bar(bar()) } else { Display::lines() };
            let began = Instant::now();
            let mut estimator = Estimator::default();
            while is_over.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let look = Look::at(progress, &mut estimator, began.elapsed());
                display.show(&look, began.elapsed());
            }
            if let Display::Bar(bar) = display {
                bar.finish_and_clear();
            }
        });
        let outcome = work();
        drop(over);
        outcome
    })
}

/// What is shown at one moment.
#[derive(Debug, Clone, PartialEq)]
struct Look {
    phase: String,
    done: u64,
    /// 0: not known yet.
    total: u64,
    estimate: Option<Estimate>,
}

impl Look {
    fn at(progress: &Progress, estimator: &mut Estimator, at: Duration) -> Self {
        let (done, total) = (progress.done(), progress.total());
        if total > 0 {
            estimator.note(at, done);
        }
        Look { phase: progress.phase(), done, total, estimate: estimator.estimate(total) }
    }

    /// Of a hundred; rounded down, so that 100 is all.
    fn percent(&self) -> u64 {
        match self.total {
            0 => 0,
            total => (u128::from(self.done) * 100 / u128::from(total)).min(100) as u64,
        }
    }

    fn is_under_way(&self) -> bool {
        self.total > 0 && self.done < self.total
    }

    /// `copying: 1.2 GiB of 12.0 GiB (10 %), 210.0 MiB/s, 52 s left`
    fn line(&self) -> String {
        let (done, total) = (iec(self.done), iec(self.total));
        let pace = self.pace();
        let pace = if pace.is_empty() { pace } else { format!(", {pace}") };
        format!("{}: {done} of {total} ({} %){pace}", self.phase, self.percent())
    }

    fn pace(&self) -> String {
        let Some(Estimate { rate, left }) = self.estimate else { return String::new() };
        let left = left.map_or_else(String::new, |left| format!(", {} left", words(left)));
        format!("{}/s{left}", iec(rate as u64))
    }
}

enum Display {
    Bar(ProgressBar),
    Lines {
        /// When the last line was, and at which tenth.
        last: Duration,
        tenth: u64,
    },
}

impl Display {
    fn lines() -> Self {
        Display::Lines { last: Duration::ZERO, tenth: 0 }
    }

    fn show(&mut self, look: &Look, at: Duration) {
        match self {
            Display::Bar(bar) if look.is_under_way() => {
                bar.set_length(look.total);
                bar.set_position(look.done);
                let shape = "{msg} {bar:30} {binary_bytes} of {binary_total_bytes} {prefix}";
                restyle(bar, shape);
                bar.set_prefix(look.pace());
                bar.set_message(look.phase.clone());
            }
            Display::Bar(bar) => {
                restyle(bar, "{spinner} {msg}");
                bar.set_message(look.phase.clone());
                bar.tick();
            }
            Display::Lines { last, tenth } => {
                if is_due(look, at.saturating_sub(*last), *tenth) {
                    (*last, *tenth) = (at, look.percent() / 10);
                    // Neither a warning nor chatter: `cli::log` lets it through without --verbose.
                    tracing::info!(target: "walden::progress", "{}", look.line());
                }
            }
        }
    }
}

/// Whether it is time for a line: at every tenth and at least every minute, but not for what is
/// over in no time.
fn is_due(look: &Look, since_last: Duration, last_tenth: u64) -> bool {
    let is_next = look.percent() / 10 > last_tenth && since_last >= LINE_PERIOD_MIN;
    look.is_under_way() && look.done > 0 && (is_next || since_last >= LINE_PERIOD_MAX)
}

fn bar() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
}

fn restyle(bar: &ProgressBar, shape: &str) {
    if let Ok(style) = ProgressStyle::with_template(shape) {
        bar.set_style(style);
    }
}

fn iec(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// As exact as an estimate can be: `52 s`, `4 min`, `1 h 10 min`.
fn words(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=5399 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h {:02} min", (seconds + 30) / 3600, (seconds + 30) / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Look, is_due, words};
    use crate::commands::progress::{Estimate, Estimator, Progress};

    const GIB: u64 = 1 << 30;

    fn look(done: u64, total: u64) -> Look {
        let left = Some(Duration::from_secs(52));
        let estimate = Some(Estimate { rate: 210.0 * 1024.0 * 1024.0, left });
        Look { phase: "copying".to_owned(), done, total, estimate }
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let expected = "copying: 3.0 GiB of 12.0 GiB (25 %), 210.0 MiB/s, 52 s left";
        assert_eq!(look(3 * GIB, 12 * GIB).line(), expected);
        let unknown = Look { estimate: None, ..look(0, 12 * GIB) };
        assert_eq!(unknown.line(), "copying: 0 B of 12.0 GiB (0 %)");
    }

    #[test]
    fn more_than_all_is_never_shown() {
        let progress = Progress::default();
        assert_eq!((progress.total(), look(0, 0).percent()), (0, 0));
        progress.expect(100);
        progress.add(150);
        let look = Look::at(&progress, &mut Estimator::default(), Duration::ZERO);
        assert_eq!((look.total, look.percent(), look.is_under_way()), (150, 100, false));
    }

    #[test]
    fn lines_come_at_tenths_and_each_minute_and_never_close_together() {
        let seconds = Duration::from_secs;
        assert!(is_due(&look(10, 100), seconds(10), 0));
        assert!(!is_due(&look(10, 100), seconds(9), 0), "over in no time, perhaps");
        assert!(!is_due(&look(19, 100), seconds(30), 1));
        assert!(is_due(&look(19, 100), seconds(60), 1));
        assert!(!is_due(&look(0, 100), seconds(600), 0), "nothing has begun");
        assert!(!is_due(&look(100, 100), seconds(600), 9), "what is done needs no line");
        assert!(!is_due(&look(0, 0), seconds(600), 0));
    }

    #[test]
    fn times_are_as_exact_as_they_can_be() {
        for (seconds, expected) in [
            (0, "0 s"),
            (52, "52 s"),
            (119, "119 s"),
            (120, "2 min"),
            (3600, "60 min"),
            (5400, "1 h 30 min"),
            (36_010, "10 h 00 min"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), expected);
        }
    }
}
