//! Asking the query service, for the commands that read.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

/// Longer than the service's own limit for a query, whose error says more than ours.
const TIMEOUT: Duration = Duration::from_secs(120);

/// An answer that is larger is not one of the service's.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// Where the query service is.
#[derive(Debug, clap::Args)]
pub struct ServiceArgs {
    /// The query service, as `spanloom up` prints it.
    #[arg(
        long,
        env = "SPANLOOM_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:3200"
    )]
    url: String,
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
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false);
        // A proxy cannot reach this machine's own addresses.
        let config = if is_local(base) {
            config.proxy(None)
        } else {
            config
        };
        let mut request = config
            .build()
            .new_agent()
            .get(format!("{base}/api/v1/{path}"));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        let mut response = request.call().with_context(|| {
            format!(
                "cannot ask the query service at {base}; is `spanloom up` running? (--url or \
                 SPANLOOM_URL say where it is)"
            )
        })?;
        let status = response.status();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .with_context(|| format!("the answer of {base} broke off"))?;
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
                Err(_) => bail!("{base} answered {status}; is it a Spanloom query service?"),
            }
        }
        Ok(body)
    }
}

fn is_local(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    ["localhost", "127.", "[::1]"]
        .iter()
        .any(|local| host.starts_with(local))
}
