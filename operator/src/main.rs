//! The operator's program: `run` works on pipelines, `webhook` injects pods, `crd` prints the CustomResourceDefinition.

#![allow(clippy::print_stdout)] // `crd` prints for people

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use spanloom_operator::cluster::Cluster;
use spanloom_operator::controller::{self, Work};
use spanloom_operator::kinds::CUSTOM_RESOURCE;
use spanloom_operator::leadership::Leadership;
use spanloom_operator::lease::{Claim, Lost};
use spanloom_operator::metrics::Metrics;
use spanloom_operator::settings::Settings;
use spanloom_operator::webhook;
use spanloom_program::{Admin, Asked, Health, Pages, Signals, causes, logs, termination_message};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Spanloom's operator: makes what a TracingPipeline asks for.
#[derive(Debug, Parser)]
#[command(name = "spanloom-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work on pipelines until told to stop.
    Run(Box<Settings>),
    /// Answer the API server when pods are created: the webhook that injects them.
    Webhook(Box<webhook::Settings>),
    /// Print the CustomResourceDefinition as YAML.
    Crd,
}

/// How long the API server may be silent in a call.
const CALL_SILENCE: Duration = Duration::from_secs(30);
/// How long it may be silent in a watch: it sends a bookmark about every minute, and ends a watch after
/// five.
const WATCH_SILENCE: Duration = Duration::from_secs(330);
/// How long passes that are under way have to end.
const DRAIN: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Crd => crd(),
        Command::Run(settings) => block_on(run(*settings)),
        Command::Webhook(settings) => block_on(answer_pods(*settings)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = causes(error.as_ref());
            tracing::error!(error, "the operator failed");
            termination_message(&error);
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    logs::init("info");
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}

fn crd() -> anyhow::Result<()> {
    print!("{}", spanloom_crds::crd::crd_yaml()?);
    Ok(())
}

async fn run(mut settings: Settings) -> anyhow::Result<()> {
    let mut signals = Signals::watch().context("cannot watch for SIGTERM and SIGINT")?;
    if settings.pod_name.is_empty() {
        settings.pod_name = format!("operator-{:08x}", rand::random::<u32>());
    }
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let is_up = Arc::new(AtomicBool::new(false));
    let pages = Pages::new(Arc::new(registry), health(is_up.clone()));
    let admin = Admin::start(settings.of.admin, pages)
        .await
        .with_context(|| format!("cannot serve metrics on {} (--admin)", settings.of.admin))?;
    let config = kubernetes().await?;
    let client = client_of(&config, CALL_SILENCE)?;
    let watching = client_of(&config, WATCH_SILENCE)?;
    is_up.store(true, Ordering::Relaxed);
    let leadership = Leadership::default();
    let mut claim = Claim::new(
        client.clone(),
        &settings.of.namespace,
        &format!("{}-operator", settings.of.release),
        &settings.pod_name,
        Duration::from_secs(u64::from(settings.lease_seconds)),
        leadership.clone(),
    );
    let work = Work {
        client,
        watching,
        release: settings.release(),
        pod_name: settings.pod_name.clone(),
        concurrency: settings.concurrency,
        metrics,
        leadership,
    };
    tracing::info!(admin = %admin.address(), holder = settings.pod_name, "waiting for the Lease");
    let ended = loop {
        tokio::select! {
            () = claim.acquire() => {}
            _ = signals.next() => break Ok(()),
        }
        tracing::info!(namespaces = settings.of.namespaces().join(","), "working");
        match lead(&mut claim, &work, settings.apply_crds, &mut signals).await {
            Ended::Stopped => break Ok(()),
            Ended::Broken(error) => break Err(error),
            // A new process would know nothing more, and Kubernetes would make it wait.
            Ended::Lost(lost) => tracing::warn!(error = %lost, "lost the Lease; waiting for it \
                again"),
        }
    };
    admin.shutdown().await;
    ended
}

/// How long requests that are under way have to end; the API server gives up after three seconds.
const ANSWERS: Duration = Duration::from_secs(4);

/// The webhook, until told to stop.
async fn answer_pods(settings: webhook::Settings) -> anyhow::Result<()> {
    let mut signals = Signals::watch().context("cannot watch for SIGTERM and SIGINT")?;
    let mut registry = Registry::default();
    let metrics = webhook::Metrics::new(&mut registry);
    let known = Arc::new(webhook::Known::default());
    let mut tasks = JoinSet::new();
    let client = client_of(&kubernetes().await?, WATCH_SILENCE)?;
    known.watch(&client, &settings.release(), &metrics, &mut tasks);
    let with = webhook::Answerer {
        known: Arc::clone(&known),
        metrics,
    };
    let server = webhook::Server::start(settings.listen, &settings.tls_dir, with).await?;
    let (draining, tls) = (Arc::new(AtomicBool::new(false)), server.tls().clone());
    let health = {
        let (draining, settings) = (Arc::clone(&draining), settings.clone());
        Health::new(move || webhook::not_ready(&settings, &known, &tls)).unless(move || {
            let is_ending = draining.load(Ordering::Relaxed);
            is_ending.then(|| "shutting down".to_owned())
        })
    };
    let admin = Admin::start(settings.of.admin, Pages::new(Arc::new(registry), health))
        .await
        .with_context(|| format!("cannot serve metrics on {} (--admin)", settings.of.admin))?;
    tracing::info!(listen = %server.address(), admin = %admin.address(), "answering");
    let ended = tokio::select! {
        asked = signals.next() => Ok(asked),
        _ = tasks.join_next() => Err(anyhow::anyhow!("a watch ended; restart the webhook")),
    };
    draining.store(true, Ordering::Relaxed);
    if let Ok(Asked::Terminate) = ended {
        // Until every proxy has taken this replica out of its rules. A second signal ends the wait.
        tokio::select! {
            () = tokio::time::sleep(settings.drain_delay()) => {}
            _ = signals.next() => {}
        }
    }
    server.shutdown(ANSWERS).await;
    tasks.shutdown().await;
    admin.shutdown().await;
    ended.map(|_| ())
}

/// How the API server is reached.
async fn kubernetes() -> anyhow::Result<Config> {
    let mut config = Config::infer()
        .await
        .context("cannot connect to Kubernetes: no service account and no kubeconfig found")?;
    // Who writes is seen in the API server's audit.
    let agent = concat!("spanloom-operator/", env!("CARGO_PKG_VERSION"));
    let agent = http::HeaderValue::from_static(agent);
    config.headers.push((http::header::USER_AGENT, agent));
    Ok(config)
}

/// Why the work of a leader ended.
enum Ended {
    /// By a signal; what was under way was finished and the Lease given up.
    Stopped,
    /// The Lease was lost; nothing that needed it is left.
    Lost(Lost),
    /// By a fault of our own.
    Broken(anyhow::Error),
}

/// Works for as long as the Lease is held.
async fn lead(claim: &mut Claim, work: &Work, apply_crds: bool, signals: &mut Signals) -> Ended {
    work.metrics.leads(true);
    let stop = CancellationToken::new();
    let mut working = tokio::spawn(work_on(work.clone(), apply_crds, stop.clone()));
    let ended = tokio::select! {
        lost = claim.hold() => Ended::Lost(lost),
        done = &mut working => Ended::Broken(match done {
            Ok(()) => anyhow::anyhow!("the watches ended; restart the operator"),
            Err(error) => anyhow::Error::from(error),
        }),
        _ = signals.next() => Ended::Stopped,
    };
    work.metrics.leads(false);
    stop.cancel();
    match ended {
        // With the Lease, what is under way may end.
        Ended::Stopped => {
            if tokio::time::timeout(DRAIN, &mut working).await.is_err() {
                tracing::warn!("a reconciliation did not finish in time");
                working.abort();
            }
            claim.vacate().await;
        }
        // Without it, nothing may go on.
        Ended::Lost(_) => {
            working.abort();
            let _ = working.await;
        }
        Ended::Broken(_) => {}
    }
    ended
}

/// A client that gives up a connection on which the API server says nothing for so long.
fn client_of(config: &Config, silence: Duration) -> anyhow::Result<Client> {
    let mut config = config.clone();
    config.read_timeout = Some(silence);
    Client::try_from(config).context("cannot create a Kubernetes client")
}

async fn work_on(work: Work, apply_crds: bool, stop: CancellationToken) {
    if apply_crds {
        let (client, leadership) = (work.client.clone(), work.leadership.clone());
        apply_crd(&Cluster::new(client, work.metrics.clone(), leadership)).await;
    }
    controller::run(work, stop).await;
}

fn health(is_up: Arc<AtomicBool>) -> Health {
    Health::new(move || {
        let waiting = !is_up.load(Ordering::Relaxed);
        waiting.then(|| "the API server has not been reached yet".to_owned())
    })
}

/// Brings the CustomResourceDefinition to this version. A refusal is logged and no reason to stop: an
/// older definition still serves most fields.
async fn apply_crd(cluster: &Cluster) {
    let wanted = spanloom_crds::crd::crd();
    let name = spanloom_crds::crd::CRD_NAME;
    let found = cluster.get(CUSTOM_RESOURCE, None, name).await;
    let is_applied = matches!(&found, Ok(Some(found)) if found["spec"]["versions"] == wanted["spec"]["versions"]);
    if is_applied {
        return;
    }
    match cluster.apply_shared(CUSTOM_RESOURCE, None, &wanted).await {
        Ok(_) => tracing::info!(name, "applied the CustomResourceDefinition"),
        Err(error) => {
            let error = causes(&error);
            tracing::warn!(name, error, "cannot apply the CustomResourceDefinition");
        }
    }
}
