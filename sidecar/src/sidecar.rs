//! A sidecar that runs.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use spanloom_pipeline::config::{
    AccountsConfig, Acknowledge, BatchLimits, Connections, Listener, Mode, RepeatLimits,
};
use spanloom_pipeline::server::{Control, ShutdownIncomplete};
use spanloom_pipeline::{Config, Server, StartError};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::batch::{ForwardBatch, Origin};
use crate::config::Environment;
use crate::configure::Follower;
use crate::export::{BUFFER_BYTES, Forward};
use crate::link::Link;
use crate::live::{InForce, Live};
use crate::metrics::Metrics;
use crate::pod::PodIdentity;
use crate::state::{CA, CONFIG, State};

/// A request, what it unpacks to, and its records twice must have room together: a body that a codec has not
/// shown to need less.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// What requests may use until they are compressed, and then the buffer.
const MEMORY_BYTES: usize = 3 * MAX_REQUEST_BYTES + BUFFER_BYTES;
/// What is kept for the bodies of the next requests.
const KEPT_BYTES: usize = 256 << 10;
/// An app's repeats come within seconds.
const REPEATS_BYTES: usize = 64 << 10;
/// Batches that wait; the buffer is full before there are as many.
const BATCHES: usize = 4096;
/// An app has a handful of connections.
const CONNECTIONS: usize = 256;

/// When a batch is forwarded. With a request of the largest size at its end it is within what a collector takes.
fn batch_limits() -> BatchLimits {
    BatchLimits {
        max_rows: 8_192,
        max_bytes: 1 << 20,
        max_age: Duration::from_millis(250),
        early_rows: usize::MAX,
        linger: Duration::from_millis(5),
        quiet: None,
    }
}

/// A sidecar that runs.
#[derive(Debug)]
pub struct Sidecar {
    server: Runs,
    live: Arc<Live>,
    follower: JoinHandle<()>,
}

struct Runs(Server);

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.0.addresses()).finish()
    }
}

impl Sidecar {
    /// Starts receiving.
    ///
    /// # Errors
    /// When a thread cannot be started. A port that is taken is no error.
    pub fn start(environment: &Environment, registry: &mut Registry) -> Result<Self, StartError> {
        let metrics = Metrics::default();
        metrics.register(registry);
        let state = State::new(environment.state_dir.clone());
        let link = Link::new(
            environment.collector.clone(),
            environment.fallback.clone(),
            environment.token_file.clone(),
            metrics.clone(),
        );
        // A kept bundle may be newer than the environment, which stays what it was when the pod was created.
        let mut bundle = state.read(CA).unwrap_or_default();
        bundle.push(b'\n');
        bundle.extend_from_slice(environment.ca.as_deref().unwrap_or_default().as_bytes());
        if let Err(error) = link.trust(&bundle) {
            tracing::error!(%error, "there are no CA certificates to trust; spans are kept until the buffer is full");
        }
        let in_force = Arc::<InForce>::default();
        let pod = PodIdentity::new(environment.place.clone(), environment.pod.clone());
        let origin = Origin::new(environment.place.uid.clone(), Arc::clone(&in_force));
        let config = pipeline(environment, &pod);
        let export = Forward::new(Arc::clone(&link), metrics);
        let make_batch = {
            let origin = Arc::clone(&origin);
            move || ForwardBatch::new(Arc::clone(&origin))
        };
        let server = Server::start(config, make_batch, export, registry)?;
        let live = Arc::new(Live::new(server.control(), in_force, pod));
        begin(&live, &state, environment);
        let follower = Follower {
            link,
            live: Arc::clone(&live),
            origin,
            state,
        };
        Ok(Self {
            server: Runs(server),
            live,
            follower: tokio::spawn(follower.follow()),
        })
    }

    /// Why it takes no spans yet.
    pub fn not_ready(&self) -> impl Fn() -> Option<String> + Send + Sync + use<> {
        let live = Arc::clone(&self.live);
        let control: Control = self.server.0.control();
        move || {
            if let Some(part) = control.broken() {
                return Some(format!("{part} exited unexpectedly; this is a bug"));
            }
            live.status()
                .applied
                .is_empty()
                .then(|| "waiting for the configuration".to_owned())
        }
    }

    /// Takes what the app still sends, and forwards what there is. In a pod whose sidecar is a plain container, the
    /// app is told to stop at the same time, and sends its last spans after that.
    ///
    /// # Errors
    /// When something was given up after `deadline`.
    pub async fn drain(self, deadline: Duration) -> Result<(), ShutdownIncomplete> {
        let end = Instant::now() + deadline;
        let server = self.server.0;
        server.leave();
        quiet(&server.control(), deadline / 2).await;
        let left = end.saturating_duration_since(Instant::now());
        let drained = server.shutdown(left).await;
        self.follower.abort();
        // It was aborted.
        let _ = self.follower.await;
        drained
    }
}

/// Waits until no more spans come.
async fn quiet(control: &Control, at_most: Duration) {
    const STEP: Duration = Duration::from_millis(100);
    /// SDKs send what is left at once when they are told to stop.
    const STEPS: u32 = 5;
    let begun = Instant::now();
    let mut known = control.spans_received();
    let mut still = 0;
    while still < STEPS && begun.elapsed() < at_most {
        tokio::time::sleep(STEP).await;
        let now = control.spans_received();
        still = if now == known { still + 1 } else { 0 };
        known = now;
    }
}

/// Puts the last good configuration in force, or the one of the environment.
fn begin(live: &Live, state: &State, environment: &Environment) {
    let kept = state.read(CONFIG);
    let inlined = environment.config.as_deref().map(str::as_bytes);
    for text in [kept.as_deref(), inlined].into_iter().flatten() {
        match live.begin(text) {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "rejected a configuration"),
        }
    }
    tracing::warn!(
        "there is no configuration yet; senders are asked to retry until the collector sends one"
    );
}

fn pipeline(environment: &Environment, pod: &Arc<PodIdentity>) -> Config {
    let place = &environment.place;
    let listener = |address| Listener {
        is_patient: true,
        identify: Some(Arc::clone(pod) as _),
        ..Listener::mixed(address)
    };
    Config {
        listeners: environment.listen.iter().copied().map(listener).collect(),
        acknowledge: Acknowledge::InMemory,
        accounts: AccountsConfig {
            node: place.node.clone(),
            agent: place.pod.clone(),
            ..AccountsConfig::default()
        },
        memory_limit_bytes: MEMORY_BYTES,
        kept_buffer_bytes: KEPT_BYTES,
        max_request_bytes: MAX_REQUEST_BYTES,
        workers: 1,
        batch: batch_limits(),
        exports_in_flight: BATCHES,
        repeats: RepeatLimits::within(REPEATS_BYTES),
        connections: Connections {
            max: CONNECTIONS,
            // The app's only way is this one.
            max_age: None,
            ..Connections::default()
        },
        mode: Mode::MeasureSampledOut,
        hold: true,
        ..Config::default()
    }
}
