//! The sidecar's program.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use prometheus_client::registry::Registry;
use spanloom_program::{Admin, Health, Pages, Signals, causes, logs, termination_message};
use spanloom_sidecar::config::Environment;
use spanloom_sidecar::sidecar::Sidecar;

fn main() -> ExitCode {
    logs::init("info");
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Batches are compressed one after the other.
        .max_blocking_threads(2)
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = causes(error.as_ref());
            tracing::error!(error, "the sidecar failed");
            termination_message(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let mut signals = Signals::watch().context("cannot watch for SIGTERM and SIGINT")?;
    let (environment, faults) = Environment::read(|name| std::env::var(name).ok());
    for fault in faults {
        tracing::error!(%fault, "a variable of the environment cannot be used");
    }
    let mut registry = Registry::default();
    let sidecar = Sidecar::start(&environment, &mut registry)?;
    let pages = Pages::new(Arc::new(registry), Health::new(sidecar.not_ready()));
    let admin = match environment.admin {
        None => None,
        Some(address) => match Admin::start(address, pages).await {
            Ok(admin) => Some(admin),
            Err(error) => {
                tracing::error!(%error, %address, "metrics are not served");
                None
            }
        },
    };
    tracing::info!(listen = ?environment.listen, "receiving");
    signals.next().await;
    tracing::info!(seconds = environment.drain.as_secs(), "draining");
    let drained = sidecar.drain(environment.drain).await;
    if let Some(admin) = admin {
        admin.shutdown().await;
    }
    if let Err(error) = drained {
        // Nothing that the app's pod should be blamed for.
        tracing::warn!(%error, "some spans were not forwarded before the drain timeout");
    }
    Ok(())
}
