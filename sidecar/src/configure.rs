//! The stream by which the collector sends configurations.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use spanloom_crds::agent::capability;
use spanloom_proto::sidecar::v1::{ConfigureRequest, ConfigureResponse};
use spanloom_proto::sidecar::{CONFIGURE, VERSION};

use crate::batch::Origin;
use crate::client::CallError;
use crate::link::Link;
use crate::live::Live;
use crate::state::{CA, CONFIG, State};

/// The pause before the stream is opened again, at first and at most.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What following the stream needs.
#[derive(Debug)]
pub struct Follower {
    /// The way to the collector.
    pub link: Arc<Link>,
    /// What puts configurations in force.
    pub live: Arc<Live>,
    /// Who this is.
    pub origin: Arc<Origin>,
    /// What is kept for a restart.
    pub state: State,
}

impl Follower {
    /// Follows the stream, and opens it again when it ends.
    pub async fn follow(self) {
        let mut pause = PAUSE;
        loop {
            let mut is_heard = false;
            let error = match self.session(&mut is_heard).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::debug!(%error, "the configuration stream ended; opening it again");
            pause = match is_heard {
                true => PAUSE,
                false => (pause * 2).min(LONGEST_PAUSE),
            };
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..=1.25))).await;
        }
    }

    async fn session(&self, is_heard: &mut bool) -> Result<std::convert::Infallible, CallError> {
        let connected = self.link.connected().await?;
        let token = self.link.token();
        let hello = self.report();
        let opened = connected
            .client
            .open(CONFIGURE, token.as_ref(), &hello)
            .await;
        let end = match opened {
            Err(error) => error,
            Ok(mut exchange) => loop {
                match exchange.hear().await {
                    Ok(message) => {
                        *is_heard = true;
                        self.take(message).await;
                        let report = self.report();
                        if let Err(error) = exchange.say(&report).await {
                            break error;
                        }
                    }
                    Err(error) => break error,
                }
            },
        };
        if !matches!(end, CallError::Status { .. }) {
            // It leads to a collector that is gone or leaving.
            self.link.drop_connection(&connected).await;
        }
        Err(end)
    }

    async fn take(&self, message: Bytes) {
        let message = match ConfigureResponse::decode(message) {
            Ok(message) => message,
            Err(error) => {
                return tracing::error!(%error, "a message of the configuration stream cannot be read");
            }
        };
        if !message.ca.is_empty() {
            match self.link.trust(&message.ca) {
                Ok(()) => self.state.write(CA, &message.ca),
                Err(error) => {
                    tracing::error!(%error, "rejected CA certificates; the last ones stay in use")
                }
            }
        }
        if !message.configuration.is_empty()
            && self.live.take(&message.hash, &message.configuration).await
        {
            self.state.write(CONFIG, &message.configuration);
        }
    }

    fn report(&self) -> Vec<u8> {
        let status = self.live.status();
        let request = ConfigureRequest {
            version: VERSION,
            pod_uid: self.origin.pod_uid.clone(),
            instance: Bytes::copy_from_slice(&self.origin.instance),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            understands: capability::understood(),
            applied: status.applied,
            refused: status.refused,
            error: status.error,
        };
        request.encode_to_vec()
    }
}
