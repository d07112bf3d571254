//! Probes run beside the passes: a pass asks what the last one showed, and is asked for again when the
//! next one ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use spanloom_plan::conditions::Probed;
use spanloom_plan::observe::Pod;
use spanloom_plan::probe::{self, Wanted};
use spanloom_plan::release::PipelineId;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::kinds::PIPELINE;
use crate::probe::Pods;
use crate::watches::Asked;

/// How many probes are under way at the same time; the others wait for their turn.
const AT_ONCE: usize = 4;
/// A probe ends after this time, come what may.
const LONGEST: Duration = Duration::from_secs(60);

/// The probes of all pipelines.
pub struct Probes {
    /// The way to pods.
    pub pods: Pods,
    states: Arc<Mutex<HashMap<PipelineId, probe::Probes>>>,
    slots: Arc<Semaphore>,
    /// They end with this.
    tasks: Mutex<JoinSet<()>>,
    asked: Asked,
}

/// What a probe goes through.
pub struct Route {
    /// The collectors.
    pub collectors: Vec<Pod>,
    /// A query service.
    pub query: Pod,
    /// What it is to show.
    pub wanted: Wanted,
}

impl Probes {
    /// No probe yet; `asked` takes a pass when one ends.
    pub fn new(asked: Asked) -> Self {
        Self {
            pods: Pods::default(),
            states: Arc::default(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            tasks: Mutex::default(),
            asked,
        }
    }

    /// What the last probe showed. Sends the next one when it is time, and does not wait for it.
    pub fn look(&self, id: &PipelineId, uid: &str, route: Option<Route>) -> Probed {
        let wanted = route.as_ref().map(|route| &route.wanted);
        let (known, is_due) = lock(&self.states)
            .entry(id.clone())
            .or_default()
            .look(wanted, Instant::now().into_std());
        if let (true, Some(route)) = (is_due, route) {
            self.send(id.clone(), uid.to_owned(), route);
        }
        known
    }

    /// A pipeline is gone.
    pub fn forget(&self, id: &PipelineId) {
        lock(&self.states).remove(id);
    }

    fn send(&self, id: PipelineId, uid: String, route: Route) {
        let (pods, slots) = (self.pods.clone(), Arc::clone(&self.slots));
        let (states, asked) = (Arc::clone(&self.states), self.asked.clone());
        let mut tasks = lock(&self.tasks);
        // Those that ended are let go.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _slot = slots.acquire().await;
            let probe = pods.probe(&uid, &route.collectors, &route.query);
            let went = tokio::time::timeout(LONGEST, probe).await;
            let went = went.unwrap_or_else(|_| {
                Probed::Lost(format!("the probe took more than {} s", LONGEST.as_secs()))
            });
            if let Some(state) = lock(&states).get_mut(&id) {
                state.ended(went, Instant::now().into_std());
            }
            let pass = ObjectRef::new_with(&id.1, PIPELINE.resource()).within(&id.0);
            // With nobody left to ask, the operator ends.
            let _ = asked.send(pass).await;
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is set under it is set in whole values.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
