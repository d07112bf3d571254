//! Statements to a ClickHouse over HTTP, one at a time, with what they cost.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// A ClickHouse and one database in it.
#[derive(Debug, Clone)]
pub struct Sql {
    agent: ureq::Agent,
    /// Its HTTP address.
    pub url: String,
    /// Its user.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// The database that statements run in.
    pub database: String,
}

/// What a statement gave and cost.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The body.
    pub text: String,
    /// From the first byte sent to the last received.
    pub took: Duration,
    /// Rows read from tables, where the server says so.
    pub read_rows: u64,
    /// Bytes of columns read from tables, where the server says so.
    pub read_bytes: u64,
}

/// `X-ClickHouse-Summary`: numbers as text.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Summary {
    read_rows: String,
    read_bytes: String,
}

impl Sql {
    /// A client for `url`; its database is `default` until [`Sql::within`] names another.
    pub fn new(url: String, user: String, password: String) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(3600)))
            .build();
        Self {
            agent: config.into(),
            url,
            user,
            password,
            database: "default".to_owned(),
        }
    }

    /// The same server, another database.
    pub fn within(&self, database: &str) -> Self {
        Self {
            database: database.to_owned(),
            ..self.clone()
        }
    }

    /// Runs one statement; `FORMAT` decides the form of the text.
    pub fn run(&self, statement: &str) -> anyhow::Result<Answer> {
        let started = Instant::now();
        let mut response = self
            .agent
            .post(&self.url)
            .query("database", &self.database)
            .query("async_insert", "0")
            .header("x-clickhouse-user", &self.user)
            .header("x-clickhouse-key", &self.password)
            .send(statement)
            .with_context(|| format!("send a statement to {}", self.url))?;
        let status = response.status();
        let summary: Summary = response
            .headers()
            .get("x-clickhouse-summary")
            .and_then(|value| serde_json::from_slice(value.as_bytes()).ok())
            .unwrap_or_default();
        let text = response
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .lossy_utf8(true)
            .read_to_string();
        let text = text.with_context(|| format!("read the answer to: {}", shorten(statement)))?;
        if !status.is_success() {
            bail!(
                "ClickHouse refused ({status}): {}\n{}",
                text.trim(),
                shorten(statement)
            );
        }
        Ok(Answer {
            text,
            took: started.elapsed(),
            read_rows: summary.read_rows.parse().unwrap_or(0),
            read_bytes: summary.read_bytes.parse().unwrap_or(0),
        })
    }

    /// The single number that a statement gives.
    pub fn number(&self, statement: &str) -> anyhow::Result<u64> {
        let text = self.run(statement)?.text;
        let text = text.trim();
        text.parse()
            .with_context(|| format!("{text:?} is no number: {}", shorten(statement)))
    }
}

fn shorten(statement: &str) -> String {
    const MOST: usize = 400;
    match statement.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", statement.get(..end).unwrap_or_default()),
        None => statement.to_owned(),
    }
}
