//! Sessions: connections that outlive a request, with their temporary tables and settings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::error::{ChError, code};
use super::request::SessionAsk;
use super::run::{Job, Runner, execute, quoted, set, use_database};
use crate::ffi::{Connection, Finished};

const MAX_SESSIONS: usize = 64;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// All sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    all: Mutex<HashMap<String, Slot>>,
}

/// A session between or during requests.
struct Slot {
    /// Taken out while a request runs in it.
    connection: Option<Connection>,
    timeout: Duration,
    used: Instant,
}

/// A session taken for one request; given back by [`Sessions::give`], else lost with its request.
pub(crate) struct Taken {
    ask: SessionAsk,
    connection: Option<Connection>,
    sessions: Arc<Sessions>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.all.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes the session that a request asks for, made if need be.
    pub(crate) fn take(
        self: &Arc<Sessions>,
        ask: SessionAsk,
        runner: &Runner,
    ) -> Result<Taken, ChError> {
        self.sweep();
        let timeout = ask.timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        if timeout > MAX_TIMEOUT {
            return Err(ChError::new(
                code::BAD_ARGUMENTS,
                format!(
                    "Session timeout is larger than {} seconds",
                    MAX_TIMEOUT.as_secs()
                ),
            ));
        }
        let mut all = self.lock();
        let full = all.len() >= MAX_SESSIONS;
        let connection = match all.get_mut(&ask.id) {
            Some(slot) => {
                slot.timeout = timeout;
                slot.connection.take().ok_or_else(|| {
                    ChError::new(
                        code::SESSION_IS_LOCKED,
                        format!("Session {} is locked by a concurrent client", ask.id),
                    )
                })?
            }
            None if ask.check => {
                return Err(ChError::new(
                    code::SESSION_NOT_FOUND,
                    format!("Session {} not found", ask.id),
                ));
            }
            None if full => {
                return Err(ChError::new(
                    code::TOO_MANY_SIMULTANEOUS_QUERIES,
                    format!("{MAX_SESSIONS} sessions are open; close one"),
                ));
            }
            None => {
                let connection = runner.connect()?;
                let slot = Slot {
                    connection: None,
                    timeout,
                    used: Instant::now(),
                };
                all.insert(ask.id.clone(), slot);
                connection
            }
        };
        Ok(Taken {
            ask,
            connection: Some(connection),
            sessions: self.clone(),
        })
    }

    /// Closes the sessions that nobody has used for their time.
    pub(crate) fn sweep(&self) {
        let mut closed = Vec::new();
        self.lock().retain(|_, slot| {
            let keep = slot.connection.is_none() || slot.used.elapsed() < slot.timeout;
            if !keep {
                closed.extend(slot.connection.take());
            }
            keep
        });
        // Outside the lock: closing takes a moment.
        drop(closed);
    }

    /// Closes all of them.
    pub(crate) fn close(&self) {
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }
}

impl Taken {
    /// Runs a statement. The request's settings hold for it alone; what the statement itself sets
    /// stays.
    pub(crate) fn run(&mut self, runner: &Runner, job: &Job) -> Result<Finished, ChError> {
        let Some(connection) = &mut self.connection else {
            return Err(ChError::new(
                code::LOGICAL_ERROR,
                "the session has no connection",
            ));
        };
        let settings = runner.settings(job);
        let before = changed(connection, &settings)?;
        let outcome = set(connection, &settings)
            .and_then(|()| match &job.database {
                Some(database) => use_database(connection, database),
                None => Ok(()),
            })
            .and_then(|()| execute(connection, job));
        if outcome.is_err() {
            // What a failed query left in the connection comes out with the next statement.
            let _ = connection.query(b"SELECT 1 FORMAT Null", "Null", &[]);
            let _ = connection.query(b"SELECT 1 FORMAT Null", "Null", &[]);
        }
        restore(connection, &settings, &before)?;
        outcome
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut all = self.sessions.lock();
        if self.ask.close {
            all.remove(&self.ask.id);
        } else if let Some(slot) = all.get_mut(&self.ask.id) {
            slot.connection = self.connection.take();
            slot.used = Instant::now();
        }
        drop(all);
    }
}

/// Which of these settings the session has changed, and to what.
fn changed(
    connection: &mut Connection,
    settings: &[(String, String)],
) -> Result<HashMap<String, String>, ChError> {
    let names: Vec<String> = settings.iter().map(|(name, _)| quoted(name)).collect();
    let sql = format!(
        "SELECT name, hex(value) FROM system.settings WHERE changed AND name IN ({})",
        names.join(", ")
    );
    let found = connection
        .query(sql.as_bytes(), "TabSeparated", &[])
        .map_err(ChError::from_engine)?
        .output;
    let text = String::from_utf8_lossy(&found);
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, hex)| (name.to_owned(), unhex(hex)))
        .collect())
}

fn unhex(hex: &str) -> String {
    let bytes: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Puts the settings back.
fn restore(
    connection: &mut Connection,
    settings: &[(String, String)],
    before: &HashMap<String, String>,
) -> Result<(), ChError> {
    for (name, _) in settings {
        let value = before
            .get(name)
            .map_or("DEFAULT".to_owned(), |value| quoted(value));
        let sql = format!("SET {name} = {value}");
        connection
            .query(sql.as_bytes(), "Null", &[])
            .map_err(ChError::from_engine)?;
    }
    Ok(())
}
