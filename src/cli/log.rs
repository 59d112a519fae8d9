//! What walden says about its work while it works: warnings, and with --verbose more.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::errand::Errand;
use crate::config::Output;

/// Everything goes to stderr: stdout is for answers.
pub fn start(output: Output, errand: Errand) {
    let levels = Targets::new()
        .with_target("walden", level(output, errand))
        .with_target("walden::progress", LevelFilter::INFO);
    // The libraries under us speak to their programmers; a person asks thrice.
    let libraries = if output.verbose > 2 { LevelFilter::DEBUG } else { LevelFilter::OFF };
    let lines = tracing_subscriber::fmt::layer().event_format(Line).with_writer(std::io::stderr);
    let subscriber = tracing_subscriber::registry().with(levels.with_default(libraries));
    // A second start, as in tests, leaves the first in charge.
    let _ = subscriber.with(lines).try_init();
}

fn level(output: Output, errand: Errand) -> LevelFilter {
    match (output.quiet, output.verbose) {
        // A failed push or fetch is one line in PostgreSQL's log, its last words; these would be
        // more.
        (true, _) => LevelFilter::ERROR,
        (false, 0) if errand == Errand::Fetch => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    }
}

/// `walden: warning: message name=value`, on one line whatever the values hold.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.field_format().format_fields(Writer::new(&mut text), event)?;
        let level = word(*event.metadata().level());
        writeln!(writer, "walden: {level}: {}", text.replace(['\n', '\r'], " "))
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}
