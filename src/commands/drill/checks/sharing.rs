//! Work on many relations, shared among as many connections as there are cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::commands::drill::Recovered;
use crate::error::Result;
use crate::host;
use crate::postgres::connection::Connection;

/// Nobody else works there; what holds a lock was prepared, and will never end by itself.
pub const LOCK_TIMEOUT: &str = "10s";

/// What is asked of one relation of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub database: String,
    pub oid: u32,
    /// Schema and name, quoted as in SQL.
    pub name: String,
    /// `pg_class.relkind`.
    pub kind: String,
}

/// What `ask` makes of each, in the same order. Each thread has a session of its own, in one
/// database after another, prepared by `prepare`.
pub fn ask_of_each<R: Send>(
    server: &Recovered,
    all: &[&Relation],
    prepare: &str,
    ask: impl Fn(&mut Connection, &Relation) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::with_capacity(all.len()));
    let work = || {
        let mut session: Option<(String, Connection)> = None;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = all.get(at) else { break };
            let answer = session_in(server, &mut session, &one.database, prepare)
                .and_then(|connection| ask(connection, one));
            // Whatever failed may have broken it, or left it in the middle of something.
            if answer.is_err() {
                session = None;
            }
            answers.lock().unwrap_or_else(PoisonError::into_inner).push((at, answer));
        }
    };
    thread::scope(|scope| {
        for _ in 1..all.len().min(host::processors()) {
            scope.spawn(work);
        }
        work();
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn session_in<'s>(
    server: &Recovered,
    session: &'s mut Option<(String, Connection)>,
    database: &str,
    prepare: &str,
) -> Result<&'s mut Connection> {
    if session.as_ref().is_none_or(|(name, _)| name != database) {
        let mut connection = server.connect(database)?;
        // The drill's own end, at the server too: nobody waits for the answer then.
        let left_ms = server.deadline().remaining().as_millis().clamp(1, i32::MAX as u128);
        connection.query(&format!(
            "SET statement_timeout = {left_ms}; SET lock_timeout = '{LOCK_TIMEOUT}'; {prepare}"
        ))?;
        *session = Some((database.to_owned(), connection));
    }
    match session {
        Some((_, connection)) => Ok(connection),
        None => unreachable!("it was just set"),
    }
}
