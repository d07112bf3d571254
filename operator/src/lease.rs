//! Who acts, when there are two: the holder of a Lease. It is written with the version that was read,
//! so two cannot take it; other clocks do not matter, since its age is measured from when it was seen to change.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::render::MANAGER;

/// A claim to a lease.
pub struct Claim {
    api: Api<Lease>,
    name: String,
    holder: String,
    duration: Duration,
    seen: Option<(Option<String>, Instant)>,
}

/// Why the lease is no longer held.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else has it.
    #[error("the lease {name} is held by {holder}")]
    Taken {
        /// The lease.
        name: String,
        /// Who has it.
        holder: String,
    },
    /// It could not be renewed in time.
    #[error("the lease {name} could not be renewed for {seconds} s: {source}")]
    NotRenewed {
        /// The lease.
        name: String,
        /// For how long.
        seconds: u64,
        /// The last try's error.
        source: Box<kube::Error>,
    },
}

impl Claim {
    /// A claim of `holder` to the lease `name`, which holds for `duration` after each renewal.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        holder: &str,
        duration: Duration,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            holder: holder.to_owned(),
            duration,
            seen: None,
        }
    }

    /// Waits until the lease is held. Errors of the API are logged and tried again.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_acquire().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(lease = %self.name, %error, "cannot take the lease yet");
                }
            }
            tokio::time::sleep(self.duration / 5).await;
        }
    }

    /// Renews the lease until it is lost.
    pub async fn hold(&mut self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.duration / 3).await;
            match self.try_acquire().await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => {
                    let holder = self.seen.take().and_then(|(seen, _)| seen);
                    return Lost::Taken {
                        name: self.name.clone(),
                        holder: holder.unwrap_or_default(),
                    };
                }
                // Before others may take it, this pod has to have stopped.
                Err(source) if renewed.elapsed() >= self.duration * 2 / 3 => {
                    return Lost::NotRenewed {
                        name: self.name.clone(),
                        seconds: renewed.elapsed().as_secs(),
                        source: Box::new(source),
                    };
                }
                Err(error) => {
                    tracing::warn!(lease = %self.name, %error, "cannot renew the lease yet");
                }
            }
        }
    }

    /// Gives the lease up, so that another need not wait.
    pub async fn vacate(&self) {
        let given_up = async {
            let mut lease = self.api.get(&self.name).await?;
            let holder = lease
                .spec
                .as_ref()
                .and_then(|s| s.holder_identity.as_deref());
            if holder == Some(&self.holder) {
                let spec = lease.spec.get_or_insert_default();
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.name, &params(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(Duration::from_secs(3), given_up).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot give the lease up; it will run out"),
            Err(_) => tracing::warn!("cannot give the lease up in time; it will run out"),
        }
    }

    async fn try_acquire(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return self.create().await;
        };
        let version = lease.metadata.resource_version.clone();
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|h| !h.is_empty());
        let is_ours = holder.as_deref() == Some(self.holder.as_str());
        if !is_ours && holder.is_some() && !self.has_run_out(version, &spec) {
            self.seen_holder(holder);
            return Ok(false);
        }
        let now = MicroTime(Timestamp::now());
        let changes = spec.lease_transitions.unwrap_or(0) + i32::from(!is_ours);
        lease.spec = Some(LeaseSpec {
            acquire_time: if is_ours {
                spec.acquire_time
            } else {
                Some(now.clone())
            },
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            lease_transitions: Some(changes),
            renew_time: Some(now),
            ..LeaseSpec::default()
        });
        match self.api.replace(&self.name, &params(), &lease).await {
            Ok(_) => Ok(true),
            // Somebody was faster; the next look tells who.
            Err(kube::Error::Api(status)) if status.code == 409 && !is_ours => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create(&self) -> Result<bool, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                acquire_time: Some(now.clone()),
                holder_identity: Some(self.holder.clone()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
                lease_transitions: Some(0),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        match self.api.create(&params(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the lease has not changed for as long as it says that it holds.
    fn has_run_out(&mut self, version: Option<String>, spec: &LeaseSpec) -> bool {
        let seconds = spec.lease_duration_seconds.unwrap_or(15);
        let holds = Duration::from_secs(u64::try_from(seconds).unwrap_or(15));
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= holds,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn seen_holder(&self, holder: Option<String>) {
        tracing::debug!(lease = %self.name, holder, "another one acts");
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    }
}
