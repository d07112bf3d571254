//! The signals that end a program.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Who asks a program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM: the platform, which takes the pod out of its Services at the same time.
    Terminate,
    /// SIGINT: a person at a terminal.
    Interrupt,
}

/// SIGTERM and SIGINT, from when it was made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Watches for both. To be called first: until then they kill.
    ///
    /// # Errors
    /// When the system lets nobody watch.
    pub fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next of them.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.interrupt.recv() => Asked::Interrupt,
        }
    }
}
