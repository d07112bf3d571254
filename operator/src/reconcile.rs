//! One pass over one pipeline: observe, plan, act, and say what is true.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DynamicObject;
use kube::runtime::controller::Action;
use serde_json::Value;
use spanloom_crds::status::{InjectionCount, Status};
use spanloom_plan::conditions::{self, Seen, shown_injection};
use spanloom_plan::nodes::Nodes;
use spanloom_plan::observe::{Agent, Pod, Pods};
use spanloom_plan::pipeline::status_of;
use spanloom_plan::probe::Wanted;
use spanloom_plan::rate::{is_news, rate};
use spanloom_plan::release::PipelineId;
use spanloom_plan::render::Known;
use spanloom_plan::retry::ErrorClass;
use spanloom_plan::rollout::{FAILED, PROGRESSING};
use spanloom_plan::told::{Told, latest, silent};
use spanloom_plan::{Observed, Owned, Pipeline, plan};
use spanloom_program::causes;
use tokio::time::Instant;

use crate::act::act;
use crate::cluster::ClusterError;
use crate::context::{Context, Surroundings};
use crate::keep::{self, KeepError};
use crate::probing::Route;
use crate::tell::tell;
use crate::watches::NotWatched;

/// How soon a pipeline that is not ready yet is looked at again, when nothing happens: what collectors
/// say of themselves no watch tells.
const SOON: Duration = Duration::from_secs(8);
/// How soon one that is ready is.
const LATER: Duration = Duration::from_secs(30);
/// How often the events of an object are looked at.
const EVENTS_EVERY: Duration = Duration::from_secs(60);
/// How often those of a pod that has none yet: it may have been made a moment ago.
const FIRST_EVENTS_EVERY: Duration = Duration::from_secs(10);
/// The least time between two changes of the pods that are injected: they come and go.
const INJECTION_EVERY: Duration = Duration::from_secs(30);
/// The least time between two changes of `spansPerSecond`.
const RATE_EVERY: Duration = Duration::from_secs(60);

/// Why a pass could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API refused.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// What is kept could not be had.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// It is not known yet what there is.
    #[error(transparent)]
    NotWatched(#[from] NotWatched),
}

impl ReconcileError {
    /// The class of the error.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Keep(error) => error.class(),
            Self::NotWatched(_) => ErrorClass::Api,
        }
    }

    /// Whether a person has to act, and is told by an event.
    fn needs_a_person(&self) -> bool {
        match self {
            Self::NotWatched(error) => error.is_refused(),
            error => !matches!(error.class(), ErrorClass::Api | ErrorClass::Conflict),
        }
    }
}

/// One pass over one pipeline.
///
/// # Errors
/// When the API refuses something without which there is no going on.
pub async fn reconcile(
    object: Arc<DynamicObject>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let id = (object.namespace().unwrap_or_default(), object.name_any());
    if object.metadata.deletion_timestamp.is_some() {
        context.forget(&id);
        return Ok(Action::await_change());
    }
    let started = Instant::now();
    let done = pass(&object, &id, &context).await;
    let seconds = started.elapsed().as_secs_f64();
    context.metrics.passed(&id.0, &id.1, seconds);
    if done.is_ok() {
        context.memory(&id, |memory| memory.failures = 0);
    }
    done
}

async fn pass(
    object: &DynamicObject,
    id: &PipelineId,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let now = Timestamp::now();
    let value = serde_json::to_value(object).map_err(|source| ClusterError::Shape {
        what: format!("the TracingPipeline {}", id.1),
        source,
    })?;
    let previous = previous(context, id, object, &value);
    let read = context.release.serves(&id.0);
    let pipeline = match read.and_then(|()| Pipeline::read(&value)) {
        Ok(pipeline) => pipeline,
        Err(why) => {
            let generation = object.metadata.generation.unwrap_or_default();
            let status = conditions::refused(generation, &why, &previous, now);
            write_status(context, object, id, &previous, status).await?;
            return Ok(Action::await_change());
        }
    };
    let work = Work {
        context,
        id,
        pipeline: &pipeline,
        previous: &previous,
        now,
    };
    let seen = match work.run().await {
        Ok(seen) => seen,
        Err(error) => {
            if error.needs_a_person() {
                let (generation, why) = (pipeline.generation, causes(&error));
                let status = conditions::stuck(generation, "ReconcileFailed", &why, &previous, now);
                write_status(context, object, id, &previous, status).await?;
            }
            return Err(error);
        }
    };
    let status = conditions::status(&pipeline, &seen, &previous, now);
    let is_ready = is_ready(&status);
    write_status(context, object, id, &previous, status).await?;
    context.metrics.ready(&id.0, &id.1, is_ready);
    let refused = context.memory(id, |memory| memory.refusals.next(Instant::now().into_std()));
    let wait = if is_ready { LATER } else { SOON };
    Ok(Action::requeue(
        refused.unwrap_or(wait).clamp(SOON, wait.max(SOON)),
    ))
}

/// What was said last: what was written, until the watch has told of it.
fn previous(context: &Context, id: &PipelineId, object: &DynamicObject, value: &Value) -> Status {
    let version = version(object.metadata.resource_version.as_deref());
    let said = context.memory(id, |memory| {
        memory.said.take_if(|(_, written)| version >= *written);
        memory.said.as_ref().map(|(status, _)| status.clone())
    });
    said.unwrap_or_else(|| status_of(value))
}

fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn is_ready(status: &Status) -> bool {
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
    ready.is_some_and(|ready| ready.status == "True")
}

async fn write_status(
    context: &Context,
    object: &DynamicObject,
    id: &PipelineId,
    previous: &Status,
    status: Status,
) -> Result<(), ReconcileError> {
    if !conditions::differs(previous, &status) {
        return Ok(());
    }
    let value = serde_json::to_value(&status).map_err(|source| ClusterError::Shape {
        what: format!("the status of {}", id.1),
        source,
    })?;
    let written = context.cluster.status(&id.0, &id.1, &value).await?;
    tell(context, object, previous, &status).await;
    let written = version(written.as_deref());
    context.memory(id, |memory| memory.said = Some((status, written)));
    Ok(())
}

/// A pass's surroundings.
struct Work<'a> {
    context: &'a Context,
    id: &'a PipelineId,
    pipeline: &'a Pipeline,
    previous: &'a Status,
    now: Timestamp,
}

impl Work<'_> {
    async fn run(&self) -> Result<Seen, ReconcileError> {
        let (context, pipeline) = (self.context, self.pipeline);
        let (owned, known, claim) = self.objects().await?;
        let mut pods = context.watches.pods(&self.id.0, &self.id.1)?;
        let told = self.told(&owned, &mut pods).await;
        let nodes = context.watches.nodes();
        let agents = self.agents(pods.of("collector"), &nodes).await;
        let has_changed = self.has_changed(&nodes);
        let (settled, refusals) = context.memory(self.id, |memory| {
            (memory.settled.clone(), memory.refusals.clone())
        });
        let planned = plan(Observed {
            pipeline,
            release: &context.release,
            previous: self.previous,
            now: self.now,
            instant: Instant::now().into_std(),
            owned: &owned,
            known,
            pods: &pods,
            agents: &agents,
            told: &told,
            nodes: &nodes,
            has_changed,
            claim: claim.as_ref(),
            settled: &settled,
            refusals: &refusals,
        });
        let mut seen = planned.seen;
        let failed = act(context, pipeline, planned.steps).await;
        seen.failed = failed.or(seen.failed);
        seen.webhook = context.webhook(pipeline).await;
        seen.injection = self.injection();
        seen.probe = {
            let route = self.route(&seen, &agents, &nodes, pods.of("query"));
            context.probes.look(self.id, &pipeline.uid, route)
        };
        seen.spans_per_second = self.rate(&agents);
        Ok(seen)
    }

    /// The objects that there are, and what else rendering needs.
    async fn objects(&self) -> Result<(Owned, Known, Option<Value>), ReconcileError> {
        let (context, pipeline) = (self.context, self.pipeline);
        let (cluster, now) = (&context.cluster, self.now.as_second());
        let mut owned = context.watches.owned(&self.id.0, &self.id.1)?;
        let grafana = context.serves_grafana().await;
        let mut kept = context.memory(self.id, |memory| memory.kept.clone());
        kept.refresh(cluster, pipeline, grafana).await?;
        owned.extend(kept.objects.clone());
        let authority = if pipeline.runs_store() {
            let namespace = &context.release.namespace;
            let kept = context.authorities.authority(cluster, namespace, now);
            Some(kept.await?)
        } else {
            None
        };
        let authority = authority.as_ref();
        let known = keep::known(authority, pipeline, &owned, &mut kept, grafana, now)?;
        let claim = kept.claim.clone();
        context.memory(self.id, |memory| memory.kept = kept);
        Ok((owned, known, claim))
    }

    /// The collectors, and what those on Ready nodes say of themselves: the others do not answer.
    async fn agents(&self, pods: &[Pod], nodes: &Nodes) -> Vec<Agent> {
        let (there, absent): (Vec<Pod>, Vec<Pod>) = pods
            .iter()
            .cloned()
            .partition(|pod| nodes.is_ready(pod.node.as_deref()));
        let statuses = self.context.probes.pods.statuses(&there).await;
        let there = there.into_iter().zip(statuses);
        there
            .chain(absent.into_iter().map(|pod| (pod, None)))
            .map(|(pod, status)| Agent { pod, status })
            .collect()
    }

    /// What events say of the workloads whose pods say nothing, and, added to `pods`, of those that cannot
    /// start. Where events may not be listed, or the API does not answer, nothing is said.
    async fn told(&self, owned: &Owned, pods: &mut Pods) -> Told {
        let workloads = silent(owned, pods);
        let of_pods: Vec<String> = pods.silent().map(str::to_owned).collect();
        let mut known = self
            .context
            .memory(self.id, |memory| std::mem::take(&mut memory.told));
        let mut looked = BTreeMap::new();
        let of_workloads = workloads.iter().map(|(_, uid)| (uid, EVENTS_EVERY));
        let of_new_pods = of_pods.iter().map(|uid| (uid, FIRST_EVENTS_EVERY));
        for (uid, first_every) in of_workloads.chain(of_new_pods) {
            let is_fresh = |(when, text): &(Instant, Option<String>)| {
                let every = if text.is_some() {
                    EVENTS_EVERY
                } else {
                    first_every
                };
                when.elapsed() < every
            };
            let said = match known.remove(uid).filter(is_fresh) {
                Some(said) => said,
                None => {
                    let events = self.context.cluster.warnings(&self.id.0, uid).await;
                    let text = events.ok().and_then(|events| latest(&events));
                    (Instant::now(), text)
                }
            };
            looked.insert(uid.clone(), said);
        }
        let text = |uid: &String| looked.get(uid).and_then(|(_, text)| text.clone());
        for uid in &of_pods {
            if let Some(text) = text(uid) {
                pods.explain(uid, &text);
            }
        }
        let told = workloads.into_iter();
        let told = told.filter_map(|(key, uid)| Some((key, text(&uid)?)));
        let told = told.collect();
        self.context.memory(self.id, |memory| memory.told = looked);
        told
    }

    /// Whether something that may have been the cause of a failed rollout has changed since the last
    /// pass.
    fn has_changed(&self, nodes: &Nodes) -> bool {
        self.context.memory(self.id, |memory| {
            let now = Surroundings {
                ready: nodes.ready().cloned().collect(),
                named: memory.kept.named(self.pipeline),
            };
            let has_changed = now.has_changed_since(&memory.surroundings);
            memory.surroundings = now;
            has_changed
        })
    }

    /// The way of a span through the collector of every Ready node, when each has one and none is
    /// being renewed.
    fn route(&self, seen: &Seen, agents: &[Agent], nodes: &Nodes, query: &[Pod]) -> Option<Route> {
        let serving = |pod: &&Pod| {
            let is_there = nodes.is_ready(pod.node.as_deref());
            pod.ready && !pod.ending && pod.ip.is_some() && is_there
        };
        let all = agents.iter().map(|agent| &agent.pod);
        let collectors: Vec<Pod> = all.filter(serving).cloned().collect();
        let query = query.iter().find(serving)?.clone();
        let state = seen.rollout.as_ref().map(|rollout| rollout.state.as_str());
        let is_moving = matches!(state, None | Some(PROGRESSING | FAILED));
        let are_there = seen.collectors.serving >= seen.collectors.wanted.max(1);
        if !self.pipeline.enabled() || is_moving || !are_there {
            return None;
        }
        let mut pods: Vec<String> = collectors.iter().map(|pod| pod.uid.clone()).collect();
        pods.sort_unstable();
        pods.push(query.uid.clone());
        let generation = self.pipeline.generation;
        let wanted = Wanted { generation, pods };
        Some(Route {
            collectors,
            query,
            wanted,
        })
    }

    /// The pods that are injected, when they are others than before and it is time to say so.
    fn injection(&self) -> Option<InjectionCount> {
        let counts = self.context.counts(self.id)?;
        let now = shown_injection(&counts);
        if self.previous.injection.as_ref() == Some(&now) {
            return None;
        }
        self.context.memory(self.id, |memory| {
            let shown = memory.injection_shown;
            let is_due = shown.is_none_or(|shown| shown.elapsed() >= INJECTION_EVERY);
            is_due.then(|| {
                memory.injection_shown = Some(Instant::now());
                now
            })
        })
    }

    /// Spans a second, when it is time to show another figure than now.
    fn rate(&self, agents: &[Agent]) -> Option<i64> {
        let shown = self.previous.spans_per_second;
        let counts: HashMap<String, u64> = agents
            .iter()
            .filter_map(|agent| {
                let status = agent.status.as_ref()?;
                Some((agent.pod.uid.clone(), status.spans_received))
            })
            .collect();
        self.context.memory(self.id, |memory| {
            let Some((when, before)) = &memory.counts else {
                memory.counts = Some((Instant::now(), counts));
                return None;
            };
            let is_due = memory
                .rate_shown
                .is_none_or(|shown| shown.elapsed() >= RATE_EVERY);
            if when.elapsed() < LATER || !is_due {
                return None;
            }
            let rate = rate(before, &counts, when.elapsed());
            memory.counts = Some((Instant::now(), counts));
            if !is_news(shown, rate) {
                return None;
            }
            memory.rate_shown = Some(Instant::now());
            Some(rate)
        })
    }
}
