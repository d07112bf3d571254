//! One request from its head to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::encoding::{Coding, decode};
use super::error::{ChError, code};
use super::patience::Flushes;
use super::reply::{self, ReplyBody, Running, Shape};
use super::request::Ask;
use super::run::{Job, MARK};
use super::session::Sessions;
use super::spool::{Spool, broken};
use super::statement::Statement;
use super::{Budget, Runner, Users};

/// The longest statement.
const MAX_SQL: u64 = 4 << 20;
/// How long a body may pause.
const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// The most that is collected for `wait_end_of_query`.
const MAX_COLLECTED: usize = 256 << 20;

/// All that requests share.
pub(crate) struct Front {
    /// Runs statements.
    pub(crate) runner: Arc<Runner>,
    /// Who may ask.
    pub(crate) users: Users,
    /// What bodies may take.
    pub(crate) budget: Arc<Budget>,
    /// Connections that outlive a request.
    pub(crate) sessions: Arc<Sessions>,
    /// SQL may reach files and the network.
    pub(crate) allow_files: bool,
}

impl Front {
    /// Answers; every error becomes an answer too.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        flushes: Flushes,
    ) -> Response<ReplyBody> {
        let mut headers = HeaderMap::new();
        headers.insert(
            HeaderName::from_static("x-clickhouse-timezone"),
            HeaderValue::from_static("UTC"),
        );
        headers.insert(
            HeaderName::from_static("x-clickhouse-server-display-name"),
            HeaderValue::from_static("spanloom"),
        );
        let path = request.uri().path();
        let has_query = request.uri().query().is_some();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let quick = match path {
            "/ping" | "/replicas_status" => Some((StatusCode::OK, "Ok.\n")),
            "/" if reads && !has_query => Some((StatusCode::OK, "Ok.\n")),
            "/" => None,
            _ => Some((
                StatusCode::NOT_FOUND,
                "There is no handle for this path: /, /ping and /replicas_status are there.\n",
            )),
        };
        if let Some((status, text)) = quick {
            return reply::whole(status, headers, Bytes::from_static(text.as_bytes()));
        }
        match self.query(request, flushes, &mut headers).await {
            Ok(response) => response,
            Err(error) => reply::failure(&error, headers),
        }
    }

    /// Closes the sessions that are not used any more.
    pub(crate) fn sweep(&self) {
        self.sessions.sweep();
    }

    /// Ends what runs.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.runner.stop(patience).await;
        self.sessions.close();
    }

    async fn query(
        &self,
        request: Request<Incoming>,
        flushes: Flushes,
        headers: &mut HeaderMap,
    ) -> Result<Response<ReplyBody>, ChError> {
        let since = Instant::now();
        let (parts, body) = request.into_parts();
        let mut ask = Ask::read(parts.uri.query(), &parts.headers)?;
        let user = self.users.check(&parts.headers, &ask)?;
        echo_query_id(&ask, headers);
        let readonly = match parts.method {
            Method::POST | Method::PUT => false,
            Method::GET | Method::HEAD => true,
            other => {
                return Err(
                    ChError::new(code::NOT_IMPLEMENTED, format!("method {other}"))
                        .with_status(StatusCode::METHOD_NOT_ALLOWED),
                );
            }
        };
        let spool = Spool::receive(body, &self.budget, BODY_PATIENCE).await?;
        let coding = content_coding(&parts.headers)?;
        let spool = if coding.is_none() && !ask.decompress {
            spool
        } else {
            let into = Spool::new(&self.budget).map_err(|e| broken(&e))?;
            let blocks = ask.decompress;
            blocking(move || decode(spool, coding, blocks, into).map_err(|e| broken(&e))).await?
        };
        let spool = form(&parts.headers, &mut ask, spool, &self.budget)?;
        let allow = self.allow_files;
        let query = std::mem::take(&mut ask.query);
        let (statement, data) = blocking(move || split(query, spool, allow)).await?;
        if (readonly || user.readonly) && !statement.only_reads() {
            return Err(ChError::new(
                code::READONLY,
                "Cannot execute query in readonly mode: over HTTP, GET only reads",
            ));
        }
        if let Some(grants) = &user.grants {
            let database = ask.database.as_deref().unwrap_or("default");
            grants.check(&user.name, statement.text(), database)?;
        }
        let (running, shape) = self
            .run(ask, statement, data, readonly, headers, since)
            .await?;
        reply::answer(running, shape, headers.clone(), flushes).await
    }

    async fn run(
        &self,
        ask: Ask,
        statement: Statement,
        data: Option<Spool>,
        readonly: bool,
        headers: &mut HeaderMap,
        since: Instant,
    ) -> Result<(Running, Shape), ChError> {
        let rows = matches!(statement, Statement::Output { .. });
        let format = match &statement {
            Statement::Output {
                format: Some(format),
                ..
            } => format.clone(),
            _ => ask
                .default_format
                .clone()
                .unwrap_or_else(|| "TabSeparated".to_owned()),
        };
        if !format
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            return Err(ChError::new(73, format!("Unknown format {format}")));
        }
        describe(&format, rows, headers);
        let shape = Shape {
            reframe: Some(ask.protocol)
                .filter(|protocol| *protocol > 0 && rows && format.eq_ignore_ascii_case("Native")),
            compress: ask.compress,
            coding: ask.accept.filter(|_| rows && !ask.compress),
            collect: ask.wait_end.then_some(MAX_COLLECTED),
        };
        let permit = self.runner.slot(statement.only_reads()).await?;
        let mut session = match ask.session {
            Some(session) => {
                let (sessions, runner) = (self.sessions.clone(), self.runner.clone());
                Some(blocking(move || sessions.take(session, &runner)).await?)
            }
            None => None,
        };
        let lost = |e: std::io::Error| ChError::new(code::LOGICAL_ERROR, format!("no pipe: {e}"));
        let (read, write) = std::io::pipe().map_err(lost)?;
        let rows = tokio::net::unix::pipe::Receiver::from_owned_fd(read.into()).map_err(lost)?;
        let id = format!("{MARK}{:032x}", rand::random::<u128>());
        let job = Job {
            statement,
            settings: ask.settings,
            parameters: ask.parameters,
            database: ask.database,
            format,
            id: id.clone(),
            readonly,
            data,
            output: write,
        };
        let (tell, outcome) = oneshot::channel();
        let ended = CancellationToken::new();
        let running = Running {
            rows,
            outcome,
            id,
            ended: ended.clone(),
            runner: self.runner.clone(),
            since,
        };
        let runner = self.runner.clone();
        tokio::task::spawn_blocking(move || {
            let finished = match &mut session {
                Some(session) => session.run(&runner, &job),
                None => runner.run(&job),
            };
            // Free before the client knows the end, so that its next request finds it so.
            drop(session);
            ended.cancel();
            // The outcome first: who reads the end of the rows asks for it next.
            let _ = tell.send(finished);
            drop(job);
            drop(permit);
        });
        Ok((running, shape))
    }
}

/// Runs what may take a while off the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChError> + Send + 'static,
) -> Result<T, ChError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| ChError::new(code::LOGICAL_ERROR, format!("the work was lost: {e}")))?
}

/// Takes the fields of a form as parameters; what is left of such a body is nothing.
fn form(
    headers: &HeaderMap,
    ask: &mut Ask,
    mut body: Spool,
    budget: &Arc<Budget>,
) -> Result<Spool, ChError> {
    let kind = headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let Some(boundary) = kind.and_then(super::multipart::boundary) else {
        return Ok(body);
    };
    if body.length() > MAX_SQL {
        return Err(ChError::new(
            code::QUERY_IS_TOO_LARGE,
            format!("a form of more than {MAX_SQL} bytes"),
        ));
    }
    let bytes = body.head(MAX_SQL).map_err(|e| broken(&e))?;
    for (name, value) in super::multipart::fields(&bytes, &boundary)? {
        ask.take_form(name, value)?;
    }
    Spool::new(budget).map_err(|e| broken(&e))
}

/// Finds the statement in the parameter and the body, and the data after it.
fn split(
    query: String,
    mut body: Spool,
    allow_files: bool,
) -> Result<(Statement, Option<Spool>), ChError> {
    let mut text = query.into_bytes();
    if !text.is_empty() {
        let statement = Statement::parse(&text, allow_files)?;
        if let Statement::Insert { data, .. } = statement {
            let inline = text.get(data..).unwrap_or_default();
            let body = match inline {
                [] => body,
                inline => body.tail(inline, 0).map_err(|e| broken(&e))?,
            };
            return Ok((statement, Some(body)));
        }
        if body.length() == 0 {
            return Ok((statement, None));
        }
        text.push(b'\n');
    }
    let before = text.len() as u64;
    text.extend(body.head(MAX_SQL).map_err(|e| broken(&e))?);
    let whole = body.length() <= MAX_SQL;
    let statement = Statement::parse(&text, allow_files);
    match statement {
        Ok(Statement::Insert { data, .. }) => {
            let start = (data as u64).saturating_sub(before);
            let early = text.get(data..before as usize).unwrap_or_default();
            let body = body.tail(early, start).map_err(|e| broken(&e))?;
            Ok((statement?, Some(body)))
        }
        _ if !whole => Err(ChError::new(
            code::QUERY_IS_TOO_LARGE,
            format!("a statement of more than {MAX_SQL} bytes"),
        )),
        statement => Ok((statement?, None)),
    }
}

fn content_coding(headers: &HeaderMap) -> Result<Option<Coding>, ChError> {
    let Some(value) = headers.get(http::header::CONTENT_ENCODING) else {
        return Ok(None);
    };
    let name = value.to_str().unwrap_or_default();
    if name.is_empty() || name.eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    Coding::named(name).map(Some).ok_or_else(|| {
        ChError::new(
            code::NOT_IMPLEMENTED,
            format!("Content-Encoding {name}: gzip, deflate, zstd and lz4 are known"),
        )
    })
}

fn echo_query_id(ask: &Ask, headers: &mut HeaderMap) {
    let fresh = || {
        let id = format!("{:032x}", rand::random::<u128>());
        let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default().to_owned();
        [
            part(0, 8),
            part(8, 12),
            part(12, 16),
            part(16, 20),
            part(20, 32),
        ]
        .join("-")
    };
    let id = ask.query_id.clone().unwrap_or_else(fresh);
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("x-clickhouse-query-id"), value);
    }
}

/// The headers that say what the rows are written in.
fn describe(format: &str, rows: bool, headers: &mut HeaderMap) {
    let kind = match format {
        "JSON" | "JSONCompact" | "JSONStrings" | "JSONColumns" | "JSONColumnsWithMetadata" => {
            "application/json; charset=UTF-8"
        }
        f if f.starts_with("JSON") => "application/x-ndjson; charset=UTF-8",
        f if f.starts_with("CSV") => "text/csv; charset=UTF-8; header=absent",
        f if f.starts_with("TabSeparated") || f.starts_with("TSV") => {
            "text/tab-separated-values; charset=UTF-8"
        }
        f if f.starts_with("Pretty") || f == "Vertical" || f == "Values" => {
            "text/plain; charset=UTF-8"
        }
        _ => "application/octet-stream",
    };
    if rows {
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Ok(value) = HeaderValue::from_str(format) {
            headers.insert(HeaderName::from_static("x-clickhouse-format"), value);
        }
    } else {
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=UTF-8"),
        );
    }
}
