//! What outlives a process: disk, store, calendar, and the address at which senders find the running process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spanloom_log::disk::simulated::SimulatedDisk;
use spanloom_pipeline::simulation::Direct;

use crate::calendar::Calendar;
use crate::life::Life;
use crate::plan::{Control, Plan};
use crate::store::Store;
use crate::trace::Trace;

/// The way to a process, and whether it lives.
pub(crate) type Listener = (Direct, Arc<Life>);

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) plan: Arc<Plan>,
    pub(crate) control: Control,
    pub(crate) trace: Arc<Trace>,
    pub(crate) calendar: Arc<Calendar>,
    pub(crate) disk: SimulatedDisk,
    pub(crate) store: Arc<Store>,
    at: Arc<Mutex<Option<Listener>>>,
    counts: Arc<Mutex<Counts>>,
}

/// What the processes have counted, in the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) processes: u64,
    /// Keys that the log let go before their time, since the disk was full: their requests may be stored twice.
    pub(crate) evicted: u64,
    /// Batches that were given up though they may be stored: the same.
    pub(crate) uncertain: u64,
    /// Spans that are stored.
    pub(crate) accepted: u64,
    /// Paths that were taken, and how often.
    pub(crate) paths: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(plan: Plan, control: Control) -> Self {
        let trace = Arc::new(Trace::new());
        let store = Store::new(Arc::clone(&trace), control == Control::ForgetfulStore);
        Self {
            plan: Arc::new(plan),
            control,
            trace,
            calendar: Arc::new(Calendar::begin()),
            disk: SimulatedDisk::default(),
            store,
            at: Arc::default(),
            counts: Arc::default(),
        }
    }

    fn at(&self) -> MutexGuard<'_, Option<Listener>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been counted.
    pub(crate) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who listens, if somebody does.
    pub(crate) fn listener(&self) -> Option<Listener> {
        self.at().clone()
    }

    pub(crate) fn listens(&self, listener: Option<Listener>) {
        *self.at() = listener;
    }
}
