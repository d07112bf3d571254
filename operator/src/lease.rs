//! Taking, renewing and giving up the Lease. It is written with the version that was read, so two
//! cannot take it. When it is taken, and until when its holder may act, is decided in
//! [`spanloom_plan::lease`].

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use spanloom_plan::lease::{Candidate, Seen, Step, Term};
use spanloom_plan::render::MANAGER;
use tokio::time::Instant;

use crate::leadership::Leadership;

/// A claim to a Lease.
pub struct Claim {
    api: Api<Lease>,
    name: String,
    holder: String,
    duration: Duration,
    candidate: Candidate,
    other: Option<String>,
    leadership: Leadership,
}

/// Why the Lease is no longer held.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else has it.
    #[error("the Lease {name} is held by {holder}")]
    Taken {
        /// The Lease.
        name: String,
        /// Who has it.
        holder: String,
    },
    /// It could not be renewed in time.
    #[error("the Lease {name} could not be renewed for {seconds} s: {why}")]
    NotRenewed {
        /// The Lease.
        name: String,
        /// For how long.
        seconds: u64,
        /// What the last try said.
        why: String,
    },
}

/// Why a try did not succeed.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error("{}", crate::cluster::api_text(.0))]
    Api(#[from] kube::Error),
    #[error("the API server did not respond within {0:?}")]
    Slow(Duration),
}

impl Claim {
    /// A claim of `holder` to the Lease `name`, which lasts for `duration` after each renewal.
    /// `leadership` is told.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        holder: &str,
        duration: Duration,
        leadership: Leadership,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            holder: holder.to_owned(),
            duration,
            candidate: Candidate::default(),
            other: None,
            leadership,
        }
    }

    /// Waits until the Lease is held. Errors of the API are logged and tried again.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(lease = %self.name, %error, "cannot acquire the Lease yet");
                }
            }
            tokio::time::sleep(self.duration / 5).await;
        }
    }

    /// Renews the Lease until it is lost.
    pub async fn hold(&mut self) -> Lost {
        let mut why = "not attempted".to_owned();
        let mut next = self.next_renewal(true);
        loop {
            tokio::select! {
                biased;
                () = self.leadership.ended() => return self.not_renewed(why),
                () = tokio::time::sleep_until(next) => {}
            }
            let leadership = self.leadership.clone();
            let tried = tokio::select! {
                biased;
                () = leadership.ended() => {
                    return self.not_renewed("the API server does not respond".to_owned());
                }
                tried = self.attempt() => tried,
            };
            let went_well = match tried {
                Ok(true) => true,
                Ok(false) => {
                    self.leadership.end();
                    return Lost::Taken {
                        name: self.name.clone(),
                        holder: self.other.take().unwrap_or_default(),
                    };
                }
                Err(error) => {
                    tracing::warn!(lease = %self.name, %error, "cannot renew the Lease yet");
                    why = error.to_string();
                    false
                }
            };
            next = self.next_renewal(went_well);
        }
    }

    fn next_renewal(&self, went_well: bool) -> Instant {
        let now = Instant::now();
        self.leadership.term().map_or(now, |term| {
            Instant::from_std(term.next_renewal(now.into_std(), went_well))
        })
    }

    fn not_renewed(&self, why: String) -> Lost {
        self.leadership.end();
        Lost::NotRenewed {
            name: self.name.clone(),
            seconds: (self.duration * 2 / 3).as_secs(),
            why,
        }
    }

    /// Gives the Lease up, so that another need not wait.
    pub async fn vacate(&self) {
        self.leadership.end();
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
            Ok(Err(error)) => tracing::warn!(%error, "cannot release the Lease; it will expire"),
            Err(_) => tracing::warn!("cannot release the Lease in time; it will expire"),
        }
    }

    /// One try, bounded in time. The time that it gives is counted from before it.
    async fn attempt(&mut self) -> Result<bool, TryError> {
        let renewed = Instant::now().into_std();
        let patience = Term::patience(self.duration);
        let is_held = tokio::time::timeout(patience, self.try_acquire())
            .await
            .map_err(|_| TryError::Slow(patience))??;
        if is_held {
            let duration = self.duration;
            self.leadership.renewed(Term { duration, renewed });
        }
        Ok(is_held)
    }

    async fn try_acquire(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return self.create().await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let seen = seen(&lease, &spec);
        let now = Instant::now().into_std();
        let step = self.candidate.step(&self.holder, &seen, now);
        if step == Step::Wait {
            tracing::debug!(lease = %self.name, holder = seen.holder, "another replica is the \
                leader");
            self.other = seen.holder;
            return Ok(false);
        }
        let is_ours = step == Step::Renew;
        let now = MicroTime(Timestamp::now());
        lease.spec = Some(LeaseSpec {
            acquire_time: if is_ours {
                spec.acquire_time
            } else {
                Some(now.clone())
            },
            lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(!is_ours)),
            ..self.spec(now)
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
                lease_transitions: Some(0),
                ..self.spec(now)
            }),
        };
        match self.api.create(&params(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, now: MicroTime) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

fn seen(lease: &Lease, spec: &LeaseSpec) -> Seen {
    let seconds = spec.lease_duration_seconds.unwrap_or(15);
    Seen {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.clone(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or(15)),
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    }
}
