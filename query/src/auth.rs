//! Who may ask: bearer tokens from a directory, as Kubernetes mounts a Secret.
//!
//! Each file of the directory holds tokens, one a line. The directory is read when a request comes
//! in, at most once a second, so a token that was taken out is refused a second later; there is no
//! task to own. A directory or file that is gone holds no token: without any, every request is refused.
//! Where reading fails for another reason (too many open files, a disk that does not answer) the tokens
//! that were read last stay valid until it succeeds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::metrics::Metrics;
use crate::tempo::grpc;

/// How often the directory is read, at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// A Secret holds at most 1 MiB, so nothing that Kubernetes mounts is larger.
const BYTES_MAX: u64 = 1 << 20;

/// More tokens than people and programs need; each request is compared with all of them.
const TOKENS_MAX: usize = 1_000;

/// Paths that Kubernetes asks without a token; they tell nothing of the traces.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// The digest of a token. Tokens themselves are not kept.
type TokenDigest = [u8; 32];

/// The tokens that are valid now.
#[derive(Debug)]
pub struct Tokens {
    directory: PathBuf,
    metrics: Metrics,
    state: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    digests: BTreeSet<TokenDigest>,
    /// What was said of the directory last, so that it is said once.
    said: Vec<String>,
    read: Instant,
}

impl Tokens {
    /// The tokens of `directory`. One that is empty or cannot be read is no error: it is logged, and
    /// everything is refused until it holds a token.
    pub fn open(directory: PathBuf, metrics: Metrics) -> Self {
        let mut known = Known {
            digests: BTreeSet::new(),
            said: Vec::new(),
            read: Instant::now(),
        };
        known.take(&directory, read(&directory), &metrics);
        Self {
            directory,
            metrics,
            state: Mutex::new(known),
        }
    }

    /// Whether the request carries one of the tokens.
    fn allow(&self, headers: &HeaderMap) -> bool {
        let mut known = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if known.read.elapsed() >= INTERVAL {
            known.renew(&self.directory, read(&self.directory), &self.metrics);
        }
        bearer(headers).is_some_and(|token| known.has(token))
    }
}

impl Known {
    /// Compares digests, all of them and every byte: how long it takes says nothing of a token.
    fn has(&self, token: &[u8]) -> bool {
        let given: TokenDigest = Sha256::digest(token).into();
        let found = self.digests.iter().fold(0_u8, |found, digest| {
            let differ = digest
                .iter()
                .zip(&given)
                .fold(0, |differ, (one, other)| differ | (one ^ other));
            found | u8::from(std::hint::black_box(differ) == 0)
        });
        found == 1
    }

    /// Takes over what was read now, unless it is only a part of what is there.
    fn renew(&mut self, directory: &Path, found: Found, metrics: &Metrics) {
        match found.failed {
            true => self.complain(directory, found.complaints),
            false => self.take(directory, found, metrics),
        }
    }

    /// Takes over what was read now and says what has changed.
    fn take(&mut self, directory: &Path, found: Found, metrics: &Metrics) {
        self.read = Instant::now();
        let directory = directory.display();
        if found.complaints != self.said {
            for complaint in &found.complaints {
                tracing::error!(%directory, "tokens: {complaint}");
            }
            self.said = found.complaints;
            if found.digests.is_empty() {
                tracing::error!(
                    %directory,
                    "there is no valid token, so all requests are rejected with 401; add a token \
                     to the Secret that is mounted there"
                );
            }
        }
        if found.digests != self.digests {
            tracing::info!(%directory, tokens = found.digests.len(), "tokens loaded");
        }
        metrics.tokens(found.digests.len());
        self.digests = found.digests;
    }

    /// Says what is wrong when nothing could be read, once.
    fn complain(&mut self, directory: &Path, complaints: Vec<String>) {
        self.read = Instant::now();
        if complaints != self.said {
            for complaint in &complaints {
                tracing::error!(
                    directory = %directory.display(),
                    "tokens: {complaint}; the tokens loaded before stay valid"
                );
            }
            self.said = complaints;
        }
    }
}

/// What a directory holds.
#[derive(Debug, Default)]
struct Found {
    digests: BTreeSet<TokenDigest>,
    /// What cannot be used and why, without the tokens.
    complaints: Vec<String>,
    /// Whether something that is there could not be read this time.
    failed: bool,
}

/// Whether an error says nothing of what is there.
fn may_pass(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, NotADirectory, NotFound};
    !matches!(error.kind(), InvalidData | NotADirectory | NotFound)
}

fn read(directory: &Path) -> Found {
    let mut found = Found::default();
    let names = match std::fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>)
    {
        Ok(names) => names,
        Err(error) => {
            found.failed = may_pass(&error);
            found.complaints.push(format!("cannot be read: {error}"));
            return found;
        }
    };
    // Kubernetes keeps the files themselves in folders whose names begin with two dots.
    let mut names: Vec<_> = names.into_iter().map(|entry| entry.file_name()).collect();
    names.retain(|name| !name.to_string_lossy().starts_with(".."));
    names.sort();
    for name in names {
        let path = directory.join(&name);
        let name = name.to_string_lossy();
        match text(&path) {
            Ok(text) => add(&name, &text, &mut found),
            Err(reason) => {
                found.failed |= matches!(&reason, Unusable::Unread(error) if may_pass(error));
                found
                    .complaints
                    .push(format!("{name} is ignored: {reason}"));
            }
        }
    }
    if found.digests.is_empty() && found.complaints.is_empty() {
        found.complaints.push("it contains no token".to_owned());
    }
    found
}

/// Why a file holds no tokens.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{0}")]
    Unread(#[from] std::io::Error),
    #[error("it is not a file")]
    NotAFile,
    #[error("it is larger than {BYTES_MAX} bytes")]
    TooLarge,
}

fn text(path: &Path) -> Result<String, Unusable> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        return Err(Unusable::NotAFile);
    }
    if meta.len() > BYTES_MAX {
        return Err(Unusable::TooLarge);
    }
    Ok(std::fs::read_to_string(path)?)
}

fn add(name: &str, text: &str, found: &mut Found) {
    for (index, line) in text.lines().enumerate() {
        let token = line.trim();
        if token.is_empty() {
            continue;
        }
        let line = index + 1;
        if !is_token(token.as_bytes()) {
            let reason = "a token may only contain letters, digits and -._~+/=";
            let complaint = format!("{name}:{line} is ignored: {reason}");
            found.complaints.push(complaint);
        } else if found.digests.len() >= TOKENS_MAX {
            let complaint = format!(
                "{name}:{line} and the lines after it are ignored: at most {TOKENS_MAX} tokens are \
                 allowed"
            );
            found.complaints.push(complaint);
            return;
        } else {
            found.digests.insert(Sha256::digest(token).into());
        }
    }
}

/// The characters that RFC 6750 allows (`b64token`); others could not be sent.
fn is_token(token: &[u8]) -> bool {
    !token.is_empty()
        && token
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || b"-._~+/=".contains(c))
}

/// The token of `Authorization: Bearer …`; none when there is another scheme, or two headers.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_at_checked("Bearer".len())?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer") && is_token(token)).then_some(token)
}

/// Lets a request through that carries a token, or asks how the process is.
pub async fn check(State(tokens): State<Arc<Tokens>>, request: Request, next: Next) -> Response {
    if tokens.allow(request.headers()) {
        return next.run(request).await;
    }
    if OPEN_PATHS.contains(&request.uri().path()) {
        let response = next.run(request).await;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            // The reason may name hosts; it is on the admin port and in the log.
            return (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response();
        }
        return response;
    }
    tokens.metrics.unauthorized();
    if grpc::is_grpc(request.headers()) {
        return grpc::unauthenticated();
    }
    let asks = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
    (StatusCode::UNAUTHORIZED, asks).into_response()
}

#[cfg(test)]
mod tests;
