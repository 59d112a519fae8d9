//! What a failure looks like: one line for PostgreSQL's log, message and hint for people.

use std::any::Any;
use std::fmt;
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::errand::Errand;
use crate::error::{Error, ErrorKind};

pub fn tell(error: &Error, errand: Errand) {
    match error.hint_text() {
        Some(hint) if !errand.is_postgresql() => say(format_args!("walden: {error}\nhint: {hint}")),
        _ => say(format_args!("walden: {}", error.one_line())),
    }
}

/// What clap answers when it runs nothing: help that was asked for, or what is wrong with the
/// words.
///
/// Help for PostgreSQL is no success: after 0 it would recycle a segment that nobody archived, or
/// end recovery for want of the file.
pub fn tell_of_words(
    answer: &clap::Error,
    errand: Errand,
    names_wal: bool,
) -> Result<(), ErrorKind> {
    if !answer.use_stderr() && names_wal {
        let message = "a flag asks for help or the version, and nothing was done";
        let hint = "Take the flag out of archive_command or restore_command.";
        tell(&Error::new(ErrorKind::Usage, message).hint(hint), errand);
        return Err(ErrorKind::Usage);
    }
    if !answer.use_stderr() {
        // Nobody may be reading any more, and that is fine.
        let _ = answer.print();
        return Ok(());
    }
    if errand.is_postgresql() {
        tell(&in_one_line(answer, errand), errand);
    } else {
        let _ = answer.print();
    }
    Err(ErrorKind::Usage)
}

/// clap's first paragraph is what is wrong; the rest is for a person at a terminal.
fn in_one_line(answer: &clap::Error, errand: Errand) -> Error {
    let text = answer.render().to_string();
    let paragraph = text.lines().take_while(|line| !line.trim().is_empty());
    let words: Vec<&str> = paragraph.flat_map(str::split_whitespace).collect();
    let message = words.join(" ");
    let hint = match errand {
        Errand::Push => "Write archive_command = 'walden push \"%p\"'.",
        Errand::Fetch | Errand::Other => "Write restore_command = 'walden fetch \"%f\" \"%p\"'.",
    };
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    Error::new(ErrorKind::Usage, message).hint(hint)
}

/// A panic is a bug of ours, and PostgreSQL's log gets one line for it, whichever threads it takes
/// along.
pub fn tell_of_panics_in_one_line() {
    static TOLD: AtomicBool = AtomicBool::new(false);
    std::panic::set_hook(Box::new(|info| {
        if !is_broken_pipe(info.payload()) && !TOLD.swap(true, Ordering::Relaxed) {
            say(format_args!("{}", bug(info)));
        }
    }));
}

/// So that tests can see what a bug looks like; there is no such way in a release.
pub fn panic_where_a_test_asks() {
    let asked = cfg!(debug_assertions) && std::env::var_os("WALDEN_TEST_PANIC").is_some();
    assert!(!asked, "as the test asked");
}

fn bug(info: &PanicHookInfo<'_>) -> String {
    let what = info.payload_as_str().unwrap_or("panic").replace(['\n', '\r'], " ");
    let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
    let place = place.unwrap_or_default();
    format!("walden: bug: {what}{place} (hint: Please report this line and the command you gave)")
}

/// The reader of our output went away in the middle; whether the work was done nobody can tell, so
/// it is no success.
pub fn kind_of_panic(panic: &(dyn Any + Send)) -> ErrorKind {
    if is_broken_pipe(panic) { ErrorKind::Interrupted } else { ErrorKind::Bug }
}

/// `println!` panics where nobody reads; that is no bug of ours.
fn is_broken_pipe(panic: &(dyn Any + Send)) -> bool {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    text.starts_with("failed printing to std") && text.contains("Broken pipe")
}

/// Unlike `eprintln!` it never panics: without a reader the exit code still counts. One write, so
/// that lines of processes that share a log do not mix.
fn say(words: fmt::Arguments<'_>) {
    let _ = std::io::stderr().write_all(format!("{words}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Invocation;
    use crate::cli::errand::Errand;
    use crate::cli::failure::{in_one_line, kind_of_panic};
    use crate::error::ErrorKind;

    fn complaint(words: &[&str], errand: Errand) -> String {
        let answer = Invocation::try_parse_from(words).map(|_| ()).unwrap_err();
        in_one_line(&answer, errand).one_line()
    }

    #[test]
    fn wrong_words_to_postgresql_are_one_line() {
        assert_eq!(
            complaint(&["walden", "fetch", "x"], Errand::Fetch),
            "the following required arguments were not provided: <DESTINATION> \
             (hint: Write restore_command = 'walden fetch \"%f\" \"%p\"')"
        );
        assert_eq!(
            complaint(&["walden", "push", "--fast", "x"], Errand::Push),
            "unexpected argument '--fast' found \
             (hint: Write archive_command = 'walden push \"%p\"')"
        );
    }

    #[test]
    fn a_reader_that_went_away_is_no_bug() {
        let pipe = "failed printing to stdout: Broken pipe (os error 32)".to_owned();
        assert_eq!(kind_of_panic(&pipe), ErrorKind::Interrupted);
        assert_eq!(kind_of_panic(&"index out of bounds"), ErrorKind::Bug);
        assert_eq!(kind_of_panic(&7), ErrorKind::Bug);
    }
}
