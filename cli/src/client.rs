//! Asking the query service, for the commands that read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::StatusCode;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::render::{self, Style};

/// Longer than the service's own limit for a query, whose error says more than ours.
const TIMEOUT: Duration = Duration::from_secs(120);

/// An answer that is larger is not one of the service's.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// Where the query service is.
#[derive(Debug, clap::Args)]
pub struct ServiceArgs {
    /// The URL of the query service, as printed by `spanloom up`.
    #[arg(
        long,
        env = "SPANLOOM_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:3200"
    )]
    url: String,
    /// The bearer token for the query service, if it requires one; prefer the environment variable,
    /// which other users of the machine cannot see
    #[arg(long, env = "SPANLOOM_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A PEM file with the CA certificate to verify the query service with [default: the CA
    /// certificates of this machine]
    #[arg(long, env = "SPANLOOM_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// What the service says when it has no answer.
#[derive(Debug, Deserialize)]
struct Problem {
    detail: String,
    parameter: Option<String>,
}

impl ServiceArgs {
    /// The answer's body for `/api/v1/<path>`.
    ///
    /// # Errors
    /// When the service cannot be reached, or says what is wrong with the question.
    pub fn get(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Vec<u8>> {
        let base = self.url.trim_end_matches('/');
        let mut request = self.agent(base)?.get(format!("{base}/api/v1/{path}"));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        // An empty variable is none.
        let token = self.token.as_deref().map(str::trim);
        let token = token.filter(|token| !token.is_empty());
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().with_context(|| {
            format!(
                "cannot reach the query service at {base}; check that it is running, and set its \
                 address with --url or SPANLOOM_URL"
            )
        })?;
        let status = response.status();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .with_context(|| {
                format!(
                    "the connection to {base} was closed before the response was \
                                      complete"
                )
            })?;
        if status == StatusCode::UNAUTHORIZED {
            match token {
                None => bail!("{base} requires a token: set SPANLOOM_TOKEN or use --token"),
                Some(_) => bail!("{base} rejected the token; it may have been replaced"),
            }
        }
        if !status.is_success() {
            match serde_json::from_slice::<Problem>(&body) {
                Ok(Problem {
                    detail,
                    parameter: Some(name),
                }) => bail!("{name}: {detail}"),
                Ok(Problem {
                    detail,
                    parameter: None,
                }) => bail!("{detail}"),
                Err(_) => bail!(
                    "{base} responded with {status}; check that it is a Spanloom query \
                                 service"
                ),
            }
        }
        Ok(body)
    }

    /// Gets an answer and prints it: the JSON as it is, or the text that is made of it.
    ///
    /// # Errors
    /// Those of [`Self::get`], and when the answer cannot be read or printed.
    pub fn show<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
        as_json: bool,
        text: impl FnOnce(&T, Style) -> String,
    ) -> anyhow::Result<()> {
        let body = self.get(path, parameters)?;
        if as_json {
            return Ok(render::print(&[body.as_slice(), b"\n"].concat())?);
        }
        let answer = serde_json::from_slice(&body)
            .context("cannot parse the response; the query service may have a different version")?;
        render::print(text(&answer, Style::detect()).as_bytes())?;
        Ok(())
    }

    fn agent(&self, base: &str) -> anyhow::Result<ureq::Agent> {
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false);
        // A proxy cannot reach this machine's own addresses.
        if is_local(base) {
            config = config.proxy(None);
        }
        let secure = base
            .get(..8)
            .is_some_and(|s| s.eq_ignore_ascii_case("https://"));
        if secure {
            let roots = match &self.ca_file {
                Some(file) => authorities(file)?,
                None => authorities(&spanloom_tls::system_bundle()?)?,
            };
            let provider = rustls::crypto::ring::default_provider();
            let tls = TlsConfig::builder()
                .root_certs(roots)
                .unversioned_rustls_crypto_provider(Arc::new(provider));
            config = config.tls_config(tls.build());
        }
        Ok(config.build().new_agent())
    }
}

/// The certificates of a PEM file.
fn authorities(file: &Path) -> anyhow::Result<RootCerts> {
    let name = file.display();
    let pem = std::fs::read(file).with_context(|| format!("cannot read {name}"))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) =
            item.with_context(|| format!("{name} is not a PEM file"))?
        {
            certificates.push(certificate);
        }
    }
    ensure!(!certificates.is_empty(), "{name} contains no certificate");
    Ok(RootCerts::from(certificates))
}

fn is_local(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    ["localhost", "127.", "[::1]"]
        .iter()
        .any(|local| host.starts_with(local))
}

#[cfg(test)]
mod tests;
