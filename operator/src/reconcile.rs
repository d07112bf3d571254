//! One pass over one pipeline.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DynamicObject;
use kube::runtime::controller::Action;
use serde_json::Value;
use spanloom_crds::status::Status;
use spanloom_program::causes;

use crate::cluster::{
    Cluster, ClusterError, ErrorClass, GRAFANA_DATASOURCE, Owned, POD, SECRET, failed, is_owned_by,
};
use crate::conditions::{self, Probed, Seen};
use crate::controller::Context;
use crate::keep::{self, KeepError};
use crate::observe::{Agent, JobState, Pod, Workload, rollout_facts, trouble};
use crate::pipeline::{Pipeline, Unusable, status_of};
use crate::rate::{is_news, rate};
use crate::render::{
    APPLIED_HASH, Desired, LABEL_PIPELINE, LastGood, Stage, agents_hash, render, roll_back,
};
use crate::rollout::{self, Decision};

/// How soon a pipeline that is not ready yet is looked at again, when nothing happens.
const SOON: Duration = Duration::from_secs(8);
/// How soon one that is ready is: what agents count, and what a watch cannot see.
const LATER: Duration = Duration::from_secs(30);
/// How long a probe that came back counts, as long as the same pods stand.
const PROBE_HOLDS: Duration = Duration::from_secs(300);
/// The least time between two changes of `spansPerSecond`.
const RATE_EVERY: Duration = Duration::from_secs(60);
/// How often the API is asked whether it serves the Grafana operator's kind.
const DISCOVER_EVERY: Duration = Duration::from_secs(120);

/// Why a pass could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API refused.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// What is kept could not be had.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

impl ReconcileError {
    /// The class of the error.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Cluster(error) | Self::Keep(KeepError::Cluster(error)) => error.class(),
            Self::Keep(KeepError::UserSecret { .. } | KeepError::Authority(_)) => ErrorClass::User,
            Self::Keep(KeepError::Certificate(_)) => ErrorClass::Bug,
        }
    }
}

/// What is remembered of a pipeline between passes. Nothing in it is needed after a restart.
#[derive(Debug, Default)]
pub struct Memory {
    /// For what the last probe stood, when it was sent, and how it went.
    probe: Option<(String, Instant, Probed)>,
    /// What each agent had counted, by its pod's uid, and when.
    counts: Option<(Instant, HashMap<String, u64>)>,
    /// When `spansPerSecond` was last changed.
    rate_shown: Option<Instant>,
    /// Passes in a row that failed.
    pub(crate) failures: u32,
}

/// The memories of all pipelines, by namespace and name.
pub type Memories = Mutex<HashMap<(String, String), Memory>>;

/// Whether the Grafana operator's kind is served, and when that was asked.
pub type Discovered = tokio::sync::Mutex<Option<(Instant, bool)>>;

/// One pass over one pipeline.
///
/// # Errors
/// When the API refuses something without which there is no going on.
pub async fn reconcile(
    object: Arc<DynamicObject>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    if object.metadata.deletion_timestamp.is_some() {
        context.forget(&namespace, &name);
        return Ok(Action::await_change());
    }
    context.begins();
    let started = Instant::now();
    let done = pass(&object, &context).await;
    context
        .metrics
        .passed(&namespace, &name, started.elapsed().as_secs_f64());
    if done.is_ok() {
        context.remember(&namespace, &name, |memory| memory.failures = 0);
    }
    done
}

async fn pass(object: &DynamicObject, context: &Context) -> Result<Action, ReconcileError> {
    // The watch leaves out what only a status change brings: the status is read anew.
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let found = context
        .cluster
        .api(crate::cluster::PIPELINE, Some(&namespace))
        .get_opt(&name)
        .await
        .map_err(|error| failed("read", "TracingPipeline", &name, error))?;
    let Some(object) = found.filter(|found| found.metadata.deletion_timestamp.is_none()) else {
        context.forget(&namespace, &name);
        return Ok(Action::await_change());
    };
    let previous = status_of(&object);
    let now = Timestamp::now();
    let pipeline = match readable(&object, context) {
        Ok(pipeline) => pipeline,
        Err(why) => {
            let generation = object.metadata.generation.unwrap_or_default();
            let status = conditions::refused(generation, &why, &previous, now);
            write_status(context, &object, &previous, &status).await?;
            return Ok(Action::await_change());
        }
    };
    let work = Work {
        context,
        pipeline: &pipeline,
        previous: &previous,
        now,
    };
    let seen = match work.run().await {
        Ok(seen) => seen,
        Err(error) => {
            if matches!(
                error.class(),
                ErrorClass::Forbidden | ErrorClass::User | ErrorClass::Bug
            ) {
                let (generation, why) = (pipeline.generation, causes(&error));
                let status = conditions::stuck(generation, "ReconcileFailed", &why, &previous, now);
                write_status(context, &object, &previous, &status).await?;
            }
            return Err(error);
        }
    };
    let status = conditions::status(&pipeline, &seen, &previous, now);
    write_status(context, &object, &previous, &status).await?;
    let is_ready = is_ready(&status);
    context.metrics.ready(&namespace, &name, is_ready);
    Ok(Action::requeue(if is_ready { LATER } else { SOON }))
}

fn readable(object: &DynamicObject, context: &Context) -> Result<Pipeline, Unusable> {
    let namespace = object.namespace().unwrap_or_default();
    if !context.namespaces.contains(&namespace) {
        return Err(Unusable {
            reason: "NamespaceNotAllowed",
            message: format!(
                "pipelines are served in the namespaces {}; add {namespace} to the release's value \
                 operator.pipelineNamespaces",
                context.namespaces.join(", ")
            ),
        });
    }
    Pipeline::read(object)
}

fn is_ready(status: &Status) -> bool {
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
    ready.is_some_and(|ready| ready.status == "True")
}

async fn write_status(
    context: &Context,
    object: &DynamicObject,
    previous: &Status,
    status: &Status,
) -> Result<(), ReconcileError> {
    if !conditions::differs(previous, status) {
        return Ok(());
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let value = serde_json::to_value(status).map_err(|source| ClusterError::Shape {
        what: format!("the status of {name}"),
        source,
    })?;
    context.cluster.status(&namespace, &name, &value).await?;
    context.tell(object, previous, status).await;
    Ok(())
}

/// A pass's surroundings.
struct Work<'a> {
    context: &'a Context,
    pipeline: &'a Pipeline,
    previous: &'a Status,
    now: Timestamp,
}

impl Work<'_> {
    fn cluster(&self) -> &Cluster {
        &self.context.cluster
    }

    async fn run(&self) -> Result<Seen, ReconcileError> {
        let pipeline = self.pipeline;
        let grafana = self.context.serves_grafana().await;
        let secrets = keep::secrets(pipeline).map(|name| (SECRET, name));
        let owned = self
            .cluster()
            .owned(&pipeline.namespace, &pipeline.name, &secrets, grafana)
            .await?;
        let mut known = keep::known(
            self.cluster(),
            &self.context.authorities,
            &self.context.settings.namespace,
            pipeline,
            &owned,
            grafana,
            self.now.as_second(),
        )
        .await?;
        let pods = self.pods().await?;
        let agents = self.agents(pods.of("collector")).await;
        let settings = &self.context.settings;
        let mut objects = render(pipeline, settings, &known);
        let schema = objects
            .iter()
            .find(|object| object.stage == Stage::Schema)
            .map_or(JobState::Missing, |job| JobState::of(live(&owned, job)));

        let schema_pods = pods.of("migrate");
        let decision = self.judge(
            &objects,
            &owned,
            &agents,
            (schema, &schema_pods),
            known.last_good.as_ref(),
        );
        if let Some(decision) = &decision {
            if decision.record_good
                && known.last_good.as_ref().map(|good| &good.hash) != Some(&decision.rollout.hash)
            {
                known.last_good = good(pipeline, &objects, &decision.rollout.hash);
                objects = render(pipeline, settings, &known);
            }
            if let (true, Some(last_good)) = (decision.use_last_good, &known.last_good) {
                roll_back(pipeline, &mut objects, last_good);
            }
        }
        let mut failed = None;
        if pipeline.managed() {
            failed = self.write(&objects, &owned, schema).await;
        }
        let mut seen = self.seen(&objects, &owned, &pods, &agents, schema);
        seen.rollout = match decision {
            Some(decision) => Some(decision.rollout),
            None => self.previous.rollout.clone(),
        };
        seen.failed = failed.or(known.missing);
        seen.probe = self.probe(&seen, &agents, pods.of("query")).await;
        seen.spans_per_second = self.rate(&agents);
        Ok(seen)
    }

    /// Whether the agents' rollout goes well; none before there can be one, or when it is not ours.
    fn judge(
        &self,
        objects: &[Desired],
        owned: &Owned,
        agents: &[Agent],
        (schema, schema_pods): (JobState, &[Pod]),
        last_good: Option<&LastGood>,
    ) -> Option<Decision> {
        let pipeline = self.pipeline;
        if !pipeline.managed() {
            return None;
        }
        let daemon_set = objects.iter().find(|object| object.kind() == "DaemonSet")?;
        let found = live(owned, daemon_set);
        if schema != JobState::Complete && found.is_none() {
            return None;
        }
        let config = pipeline.agent_config();
        let wanted = &daemon_set.object["metadata"]["annotations"][APPLIED_HASH];
        let mut facts = rollout_facts(
            &Workload::of_daemon_set(found),
            wanted.as_str().unwrap_or_default(),
            agents,
            &config.hash,
        );
        if schema != JobState::Complete {
            // The agents have not even begun: what keeps the schema is what keeps them.
            let why = trouble(schema_pods).unwrap_or_else(|| "its Job is at work".to_owned());
            facts.trouble = format!("the schema comes first: {why}");
        }
        Some(rollout::decide(
            self.previous.rollout.as_ref(),
            &agents_hash(objects, &config),
            pipeline.generation,
            &facts,
            last_good.is_some(),
            self.now,
            self.context.settings.rollout_deadline(),
        ))
    }

    /// Applies what may be applied, in order, and prunes. Returns what went wrong: one object that
    /// cannot be written does not keep the others from it.
    async fn write(&self, objects: &[Desired], owned: &Owned, schema: JobState) -> Option<String> {
        let pipeline = self.pipeline;
        let mut problems = Vec::new();
        if pipeline.runs_store()
            && let Err(error) = keep::grow_volume(self.cluster(), pipeline).await
        {
            problems.push(error);
        }
        for desired in objects {
            if !self.may_apply(desired, objects, owned, schema) {
                continue;
            }
            let live = live(owned, desired);
            if desired.stage == Stage::Schema && schema == JobState::Failed {
                // Made anew in the next pass.
                if let Some(live) = live
                    && let Err(error) = self
                        .cluster()
                        .delete(&pipeline.namespace, &key(desired), live)
                        .await
                {
                    problems.push(error);
                }
                continue;
            }
            let applied = self
                .cluster()
                .apply(&pipeline.namespace, &pipeline.uid, live, desired)
                .await;
            if let Err(error) = applied {
                problems.push(error);
            }
        }
        for (key, object) in owned {
            let is_wanted = objects.iter().any(|desired| key_is(desired, key));
            if is_wanted || !is_owned_by(object, &pipeline.uid) {
                continue;
            }
            if let Err(error) = self
                .cluster()
                .delete(&pipeline.namespace, key, object)
                .await
            {
                problems.push(error);
            }
        }
        for problem in &problems {
            self.context.metrics.failed(problem.class().name());
            tracing::warn!(pipeline = %pipeline.name, namespace = %pipeline.namespace, "{}", causes(problem));
        }
        problems.first().map(|problem| causes(problem))
    }

    fn may_apply(
        &self,
        desired: &Desired,
        objects: &[Desired],
        owned: &Owned,
        schema: JobState,
    ) -> bool {
        match desired.stage {
            Stage::Base | Stage::Store => true,
            Stage::Schema => schema != JobState::Missing || self.store_is_ready(objects, owned),
            Stage::Agents | Stage::Query => schema == JobState::Complete,
        }
    }

    /// Whether the store of the latest form answers.
    fn store_is_ready(&self, objects: &[Desired], owned: &Owned) -> bool {
        let Some(set) = objects.iter().find(|object| object.stage == Stage::Store) else {
            return true;
        };
        let wanted = set.object["metadata"]["annotations"][APPLIED_HASH].as_str();
        let found = Workload::of_replicas(live(owned, set));
        found.is_rolled_out() && found.hash.as_deref() == wanted
    }

    async fn pods(&self) -> Result<Pods, ReconcileError> {
        let selector = format!("{LABEL_PIPELINE}={}", self.pipeline.name);
        let list = self
            .cluster()
            .list(POD, &self.pipeline.namespace, &selector)
            .await?;
        Ok(Pods(list))
    }

    async fn agents(&self, pods: Vec<Pod>) -> Vec<Agent> {
        let statuses = self.context.pods.statuses(&pods).await;
        pods.into_iter()
            .zip(statuses)
            .map(|(pod, status)| Agent { pod, status })
            .collect()
    }

    fn seen(
        &self,
        objects: &[Desired],
        owned: &Owned,
        pods: &Pods,
        agents: &[Agent],
        schema: JobState,
    ) -> Seen {
        let find =
            |kind: &str, suffix: &str| owned.get(&(kind.to_owned(), self.pipeline.object(suffix)));
        let is_managed = objects.iter().any(|object| object.stage == Stage::Store);
        let agent_pods: Vec<Pod> = agents.iter().map(|agent| agent.pod.clone()).collect();
        Seen {
            store: is_managed.then(|| Workload::of_replicas(find("StatefulSet", "clickhouse"))),
            store_trouble: trouble(&pods.of("clickhouse")),
            schema: Some(schema),
            schema_trouble: trouble(&pods.of("migrate")),
            agents: Workload::of_daemon_set(find("DaemonSet", "collector")),
            agents_trouble: trouble(&agent_pods),
            query: Workload::of_replicas(find("Deployment", "query")),
            query_trouble: trouble(&pods.of("query")),
            ..Seen::default()
        }
    }

    /// Sends a span through every agent, when all are ready and the last one is too long ago or went
    /// through others.
    async fn probe(&self, seen: &Seen, agents: &[Agent], query: Vec<Pod>) -> Probed {
        let pipeline = self.pipeline;
        let serving = |pod: &Pod| pod.ready && !pod.ending && pod.ip.is_some();
        let pods: Vec<Pod> = agents
            .iter()
            .map(|agent| agent.pod.clone())
            .filter(serving)
            .collect();
        let query = query.into_iter().find(serving);
        let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        let are_ready = seen.agents.is_rolled_out() && count >= seen.agents.desired.max(1);
        let (true, true, Some(query)) = (pipeline.enabled(), are_ready, query) else {
            return Probed::NotYet;
        };
        let mut uids: Vec<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        uids.sort_unstable();
        let stands_for = format!("{} {} {}", pipeline.generation, uids.join(","), query.uid);
        let kept = self.context.recall(pipeline, |memory| memory.probe.clone());
        if let Some((what, when, went @ Probed::All(_))) = kept.flatten()
            && what == stands_for
            && when.elapsed() < PROBE_HOLDS
        {
            return went;
        }
        let went = self.context.pods.probe(&pipeline.uid, &pods, &query).await;
        let kept = (stands_for, Instant::now(), went.clone());
        self.context
            .remember(&pipeline.namespace, &pipeline.name, |memory| {
                memory.probe = Some(kept);
            });
        went
    }

    /// Spans a second, when it is time to show another figure than now.
    fn rate(&self, agents: &[Agent]) -> Option<i64> {
        let pipeline = self.pipeline;
        let shown = self.previous.spans_per_second;
        let counts: HashMap<String, u64> = agents
            .iter()
            .filter_map(|agent| {
                let status = agent.status.as_ref()?;
                Some((agent.pod.uid.clone(), status.spans_received))
            })
            .collect();
        let mut next = None;
        self.context
            .remember(&pipeline.namespace, &pipeline.name, |memory| {
                let Some((when, before)) = &memory.counts else {
                    memory.counts = Some((Instant::now(), counts));
                    return;
                };
                let is_due = memory
                    .rate_shown
                    .is_none_or(|shown| shown.elapsed() >= RATE_EVERY);
                if when.elapsed() < LATER || !is_due {
                    return;
                }
                let rate = rate(before, &counts, when.elapsed());
                memory.counts = Some((Instant::now(), counts));
                if is_news(shown, rate) {
                    memory.rate_shown = Some(Instant::now());
                    next = Some(rate);
                }
            });
        next
    }
}

fn good(pipeline: &Pipeline, objects: &[Desired], hash: &str) -> Option<LastGood> {
    let daemon_set = objects.iter().find(|object| object.kind() == "DaemonSet")?;
    Some(LastGood {
        hash: hash.to_owned(),
        config: pipeline.agent_config(),
        daemon_set: daemon_set.object.clone(),
    })
}

struct Pods(Vec<Value>);

impl Pods {
    fn of(&self, component: &str) -> Vec<Pod> {
        self.0
            .iter()
            .filter(|pod| {
                pod["metadata"]["labels"]["app.kubernetes.io/component"].as_str() == Some(component)
            })
            .map(Pod::of)
            .collect()
    }
}

fn key(desired: &Desired) -> (String, String) {
    (desired.kind().to_owned(), desired.name().to_owned())
}

fn key_is(desired: &Desired, (kind, name): &(String, String)) -> bool {
    desired.kind() == kind && desired.name() == name
}

fn live<'o>(owned: &'o Owned, desired: &Desired) -> Option<&'o Value> {
    owned.get(&key(desired))
}

/// Whether the Grafana operator's kind is served, asked now and then. An API that does not answer
/// changes nothing.
pub async fn serves_grafana(cluster: &Cluster, discovered: &Discovered) -> bool {
    let mut discovered = discovered.lock().await;
    if let Some((when, is_served)) = *discovered
        && when.elapsed() < DISCOVER_EVERY
    {
        return is_served;
    }
    let before = discovered.is_some_and(|(_, is_served)| is_served);
    let is_served = match cluster.serves(GRAFANA_DATASOURCE).await {
        Ok(is_served) => is_served,
        Err(error) => {
            tracing::warn!("{}", causes(&error));
            before
        }
    };
    *discovered = Some((Instant::now(), is_served));
    is_served
}
