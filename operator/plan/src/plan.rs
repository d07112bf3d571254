//! One look at a pipeline: from everything that was observed to the steps to take.

use std::time::Instant;

use jiff::Timestamp;
use serde_json::Value;
use spanloom_crds::status::Status;

use crate::conditions::Seen;
use crate::observe::{Agent, JobState, Pod, Pods, Workload, rollout_facts, trouble};
use crate::owned::Owned;
use crate::pipeline::Pipeline;
use crate::release::Release;
use crate::render::{
    APPLIED_HASH, Desired, Known, LastGood, Stage, agents_hash, render, roll_back,
};
use crate::retry::Refusals;
use crate::rollout::{self, Decision};
use crate::steps::{Settled, Step, Surroundings, key, steps};

/// Everything that was observed.
pub struct Observed<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The release.
    pub release: &'a Release,
    /// What was said of it last.
    pub previous: &'a Status,
    /// The time of day.
    pub now: Timestamp,
    /// The same moment on the clock that pauses are measured with.
    pub instant: Instant,
    /// The objects that there are.
    pub owned: &'a Owned,
    /// What rendering needs and the spec does not have.
    pub known: Known,
    /// The pipeline's pods.
    pub pods: &'a Pods,
    /// Its collectors and what they say.
    pub agents: &'a [Agent],
    /// The store's volume claim, where it was looked for and found.
    pub claim: Option<&'a Value>,
    /// What the server keeps in a form of its own.
    pub settled: &'a Settled,
    /// What was refused not long ago.
    pub refusals: &'a Refusals,
}

/// What is to be done and said.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The writes, in order.
    pub steps: Vec<Step>,
    /// What was seen, for the status. What comes of the steps and of the probe is added later.
    pub seen: Seen,
    /// The objects that should be there.
    pub desired: Vec<Desired>,
}

/// What follows from what was observed.
pub fn plan(observed: Observed<'_>) -> Plan {
    let (pipeline, release, owned) = (observed.pipeline, observed.release, observed.owned);
    let mut known = observed.known.clone();
    let mut desired = render(pipeline, release, &known);
    let schema = desired
        .iter()
        .find(|object| object.stage == Stage::Schema)
        .map_or(JobState::Missing, |job| JobState::of(owned.get(&key(job))));
    let decision = judge(&observed, &desired, schema);
    if let Some(decision) = &decision {
        let recorded = known.last_good.as_ref().map(|good| &good.hash);
        if decision.record_good && recorded != Some(&decision.rollout.hash) {
            known.last_good = good(pipeline, &desired, &decision.rollout.hash);
            desired = render(pipeline, release, &known);
        }
        if let (true, Some(last_good)) = (decision.use_last_good, &known.last_good) {
            roll_back(pipeline, &mut desired, last_good);
        }
    }
    let mut seen = see(&observed, &desired, schema);
    seen.rollout = match decision {
        Some(decision) => Some(decision.rollout),
        None => observed.previous.rollout.clone(),
    };
    let mut todo = Vec::new();
    if pipeline.managed() {
        let (steps, held) = steps(
            &desired,
            &Surroundings {
                pipeline,
                owned,
                schema,
                claim: observed.claim,
                settled: observed.settled,
                refusals: observed.refusals,
                now: observed.instant,
            },
        );
        todo = steps;
        seen.failed = held.into_iter().next();
    }
    seen.failed = seen.failed.or(known.missing);
    Plan {
        steps: todo,
        seen,
        desired,
    }
}

/// Whether the collectors' rollout goes well; none before there can be one, or when it is not ours.
fn judge(observed: &Observed<'_>, desired: &[Desired], schema: JobState) -> Option<Decision> {
    let pipeline = observed.pipeline;
    if !pipeline.managed() {
        return None;
    }
    let daemon_set = desired.iter().find(|object| object.kind() == "DaemonSet")?;
    let found = observed.owned.get(&key(daemon_set));
    if schema != JobState::Complete && found.is_none() {
        return None;
    }
    let config = pipeline.agent_config();
    let wanted = &daemon_set.object["metadata"]["annotations"][APPLIED_HASH];
    let mut facts = rollout_facts(
        &Workload::of_daemon_set(found),
        wanted.as_str().unwrap_or_default(),
        observed.agents,
        &config.hash,
    );
    if schema != JobState::Complete {
        // The agents have not even begun: what keeps the schema is what keeps them.
        let why =
            trouble(observed.pods.of("migrate")).unwrap_or_else(|| "its Job is at work".to_owned());
        facts.trouble = format!("the schema comes first: {why}");
    }
    Some(rollout::decide(
        observed.previous.rollout.as_ref(),
        &agents_hash(desired, &config),
        pipeline.generation,
        &facts,
        observed.known.last_good.is_some(),
        observed.now,
        observed.release.rollout_deadline,
    ))
}

fn good(pipeline: &Pipeline, desired: &[Desired], hash: &str) -> Option<LastGood> {
    let daemon_set = desired.iter().find(|object| object.kind() == "DaemonSet")?;
    Some(LastGood {
        hash: hash.to_owned(),
        config: pipeline.agent_config(),
        daemon_set: daemon_set.object.clone(),
    })
}

fn see(observed: &Observed<'_>, desired: &[Desired], schema: JobState) -> Seen {
    let (pipeline, pods) = (observed.pipeline, observed.pods);
    let find = |kind: &str, suffix: &str| {
        observed
            .owned
            .get(&(kind.to_owned(), pipeline.object(suffix)))
    };
    let is_managed = desired.iter().any(|object| object.stage == Stage::Store);
    let agents: Vec<Pod> = observed.agents.iter().map(|a| a.pod.clone()).collect();
    Seen {
        store: is_managed.then(|| Workload::of_replicas(find("StatefulSet", "clickhouse"))),
        store_trouble: trouble(pods.of("clickhouse")),
        schema: Some(schema),
        schema_trouble: trouble(pods.of("migrate")),
        agents: Workload::of_daemon_set(find("DaemonSet", "collector")),
        agents_trouble: trouble(&agents),
        query: Workload::of_replicas(find("Deployment", "query")),
        query_trouble: trouble(pods.of("query")),
        ..Seen::default()
    }
}
