//! One look at a pipeline: from everything that was observed to the steps to take.

use std::time::Instant;

use jiff::Timestamp;
use serde_json::Value;
use spanloom_crds::status::{Rollout, Status};

use crate::conditions::{INSERTS_FAIL, STORE_FULL, Seen};
use crate::nodes::{self, Collectors, Nodes, max_surge};
use crate::observe::{Agent, JobState, Pods, Workload, job_failure, job_trouble, trouble};
use crate::owned::Owned;
use crate::pipeline::Pipeline;
use crate::release::Release;
use crate::render::{
    CREDENTIALS_VOLUME, Desired, Known, LOG_VOLUME, LastGood, REVISION, Stage, agents_hash, render,
    roll_back, wanted_surge,
};
use crate::retry::Refusals;
use crate::rollout::{self, Case, Decision, Facts, is_on_one_node};
use crate::steps::{Settled, Step, Surroundings, key, steps};
use crate::told::Told;

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
    /// What events say of workloads whose pods say nothing.
    pub told: &'a Told,
    /// Which nodes are Ready.
    pub nodes: &'a Nodes,
    /// Something that may have been the cause of a failed rollout is different now.
    pub has_changed: bool,
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
    let job = desired
        .iter()
        .find(|object| object.stage == Stage::Schema)
        .and_then(|job| owned.get(&key(job)));
    let (collectors, facts) = look(&observed, &desired);
    let schema = Schema {
        state: JobState::of(job),
        trouble: trouble(observed.pods.of("migrate")).or_else(|| told(&observed, "Job")),
        said: job_trouble(observed.pods.of("migrate"))
            .or_else(|| told(&observed, "Job"))
            .or_else(|| job.and_then(job_failure)),
    };
    let held = held(&observed, &desired);
    let decision = match held {
        // What has not begun cannot fail.
        Some(_) => None,
        None => judge(&observed, &desired, &facts, &schema),
    };
    let rollout = decision.as_ref().map(|decision| &decision.rollout);
    let on_one_node = is_on_one_node(rollout);
    let daemon_set = observed
        .owned
        .get(&("DaemonSet".to_owned(), pipeline.object("collector")));
    let placed = Workload::of_daemon_set(daemon_set).desired;
    known.collectors = u32::try_from(placed).unwrap_or(0);
    let surge = wanted_surge(pipeline);
    known.max_surge = Some(max_surge(&surge, placed, &collectors, on_one_node));
    desired = render(pipeline, release, &known);
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
    let state = schema.state;
    let mut seen = see(&observed, &desired, schema);
    seen.collectors = collectors;
    seen.waiting = facts.waiting;
    seen.agents_trouble = (facts.waiting > 0).then_some(facts.trouble);
    seen.rollout = match decision {
        Some(decision) => Some(decision.rollout),
        None => observed.previous.rollout.clone(),
    };
    let mut todo = Vec::new();
    let holds_agents = held.is_some();
    seen.held = held;
    if pipeline.managed() {
        let (steps, held) = steps(
            &desired,
            &Surroundings {
                pipeline,
                owned,
                schema: state,
                claim: observed.claim,
                holds_agents,
                settled: observed.settled,
                refusals: observed.refusals,
                now: observed.instant,
                time: observed.now,
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

/// Logs that hold older requests than this cannot be drained, in seconds.
const DRAINS_WITHIN: u64 = 60;

/// Why the collectors' pods are not replaced now: a pod that is replaced takes its log along, which has what is
/// not stored yet. The annotation `spanloom.dev/retry` has them replaced all the same. Another address or password
/// of the store needs no new pods; another Secret does, and they wait for their logs like all others.
fn held(observed: &Observed<'_>, desired: &[Desired]) -> Option<String> {
    let daemon_set = desired.iter().find(|object| object.kind() == "DaemonSet")?;
    let live = observed.owned.get(&key(daemon_set))?;
    let revision = |object: &Value| {
        let annotations = &object["spec"]["template"]["metadata"]["annotations"];
        annotations[REVISION].as_str().map(str::to_owned)
    };
    if revision(live) == revision(&daemon_set.object) {
        return None;
    }
    // The next pod on the node delivers it.
    let kept = log_directory(live);
    if kept.is_some() && kept == log_directory(&daemon_set.object) {
        return None;
    }
    // A rollout that was taken back has its own times.
    let goes_on = |previous: &Rollout| {
        previous.retry != observed.pipeline.retry || previous.state == rollout::ROLLED_BACK
    };
    if observed.previous.rollout.as_ref().is_some_and(goes_on) {
        return None;
    }
    let left = |agent: &&Agent| {
        let undelivered = agent.status.as_ref().and_then(|status| status.undelivered);
        undelivered.is_some_and(|left| left.oldest_seconds >= DRAINS_WITHIN)
    };
    let stuck: Vec<_> = observed.agents.iter().filter(left).collect();
    let first = stuck.first()?;
    let cause = first
        .status
        .as_ref()
        .and_then(|status| status.impairment.as_ref());
    let cause = cause.map_or("", |impairment| &impairment.message);
    let before = if cause.is_empty() { "" } else { ": " };
    let other_secret = match (credentials(live), credentials(&daemon_set.object)) {
        (Some(old), new) if new != Some(old) => {
            format!("; they log in with the Secret {old} until then, so keep its password valid")
        }
        _ => String::new(),
    };
    Some(format!(
        "the collectors' pods are replaced once their logs are stored; {} of them, such as {}, hold spans that \
         cannot be stored yet{before}{cause}{other_secret}; to replace them now, and lose these, change the \
         annotation spanloom.dev/retry",
        stuck.len(),
        first.pod.name
    ))
}

/// A volume of a workload's pods.
fn volume<'o>(object: &'o Value, name: &str) -> Option<&'o Value> {
    let volumes = object["spec"]["template"]["spec"]["volumes"].as_array()?;
    volumes.iter().find(|volume| volume["name"] == name)
}

/// The directory of the node that holds the log; none where it goes with the pod.
fn log_directory(object: &Value) -> Option<&str> {
    volume(object, LOG_VOLUME)?["hostPath"]["path"].as_str()
}

/// The Secret with which a workload's pods log in to the store.
fn credentials(object: &Value) -> Option<&str> {
    volume(object, CREDENTIALS_VOLUME)?["secret"]["secretName"].as_str()
}

/// What keeps collectors from storing spans: a full disk before anything else.
fn impairment(agents: &[Agent]) -> Option<(&'static str, String)> {
    let said = agents.iter().filter_map(|agent| {
        let impairment = agent.status.as_ref()?.impairment.as_ref()?;
        Some((agent, impairment))
    });
    let all: Vec<_> = said.collect();
    let (agent, impairment) = all
        .iter()
        .find(|(_, impairment)| impairment.store_full)
        .or(all.first())?;
    let (reason, advice) = match impairment.store_full {
        true => (
            STORE_FULL,
            "; increase storage.managed.size, or shorten the retention",
        ),
        false => (INSERTS_FAIL, ""),
    };
    let message = format!(
        "{} of {} collectors cannot store spans, such as {}: {}{advice}",
        all.len(),
        agents.len(),
        agent.pod.name,
        impairment.message
    );
    Some((reason, message))
}

/// The collectors on their nodes, beside what they should be.
fn look(observed: &Observed<'_>, desired: &[Desired]) -> (Collectors, Facts) {
    let Some(daemon_set) = desired.iter().find(|object| object.kind() == "DaemonSet") else {
        return <(Collectors, Facts)>::default();
    };
    let annotations = &daemon_set.object["spec"]["template"]["metadata"]["annotations"];
    let config = observed.pipeline.agent_config();
    let started = observed.previous.rollout.as_ref().map(|r| &r.started_at);
    let wanted = nodes::Wanted {
        revision: annotations[REVISION].as_str().unwrap_or_default(),
        config: &config.hash,
        since: started.and_then(|started| started.parse().ok()),
    };
    let found = Workload::of_daemon_set(observed.owned.get(&key(daemon_set)));
    let (collectors, mut facts) = nodes::look(&found, observed.agents, observed.nodes, wanted);
    if let Some(text) = observed.told.get(&key(daemon_set)) {
        facts.trouble = format!("{}: {text}", facts.trouble);
    }
    (collectors, facts)
}

/// How the schema stands, and why it is not made.
struct Schema {
    state: JobState,
    /// Why its pod is not at work.
    trouble: Option<String>,
    /// The same, or how an earlier try ended.
    said: Option<String>,
}

/// Whether the collectors' rollout goes well; none before there can be one, or when it is not ours.
fn judge(
    observed: &Observed<'_>,
    desired: &[Desired],
    facts: &Facts,
    schema: &Schema,
) -> Option<Decision> {
    let pipeline = observed.pipeline;
    if !pipeline.managed() {
        return None;
    }
    let config = pipeline.agent_config();
    let hash = agents_hash(desired, &config);
    let previous = observed.previous.rollout.as_ref();
    let is_known = previous.is_some_and(|previous| previous.hash == hash);
    let has_last_good = observed.known.last_good.is_some();
    // The schema comes first: what has not begun cannot fail. A migration that is at work takes its time,
    // but one whose pod cannot start, as with an image that does not exist, holds up the rollout.
    let held_up = match (schema.state, &schema.trouble) {
        (JobState::Running, Some(trouble)) if has_last_good => Some(Facts {
            is_placed: true,
            waiting: facts.waiting.max(1),
            trouble: format!("the schema migration has not started: {trouble}"),
            ..Facts::default()
        }),
        _ => None,
    };
    if schema.state != JobState::Complete && !is_known && held_up.is_none() {
        return None;
    }
    let case = Case {
        previous,
        hash: &hash,
        generation: pipeline.generation,
        asked: pipeline.retry.as_deref(),
        has_last_good,
        has_changed: observed.has_changed,
        now: observed.now,
        deadline: observed.release.rollout_deadline,
    };
    Some(rollout::decide(case, held_up.as_ref().unwrap_or(facts)))
}

fn good(pipeline: &Pipeline, desired: &[Desired], hash: &str) -> Option<LastGood> {
    let daemon_set = desired.iter().find(|object| object.kind() == "DaemonSet")?;
    Some(LastGood {
        hash: hash.to_owned(),
        config: pipeline.agent_config(),
        daemon_set: daemon_set.object.clone(),
    })
}

/// What events say of a workload of this kind.
fn told(observed: &Observed<'_>, kind: &str) -> Option<String> {
    let found = observed.told.iter().find(|((of, _), _)| of == kind);
    found.map(|(_, text)| text.clone())
}

fn see(observed: &Observed<'_>, desired: &[Desired], schema: Schema) -> Seen {
    let (pipeline, pods) = (observed.pipeline, observed.pods);
    let find = |kind: &str, suffix: &str| {
        observed
            .owned
            .get(&(kind.to_owned(), pipeline.object(suffix)))
    };
    let query = Workload::of_replicas(find("Deployment", "query"));
    let said = observed.agents.iter().filter_map(|a| a.status.as_ref());
    let used = said.filter_map(|status| status.store_used_percent);
    let is_managed = desired.iter().any(|object| object.stage == Stage::Store);
    Seen {
        store: is_managed.then(|| Workload::of_replicas(find("StatefulSet", "clickhouse"))),
        store_used: used.max(),
        store_trouble: trouble(pods.of("clickhouse")).or_else(|| told(observed, "StatefulSet")),
        impairment: impairment(observed.agents),
        schema: Some(schema.state),
        schema_trouble: schema.said,
        agents: Workload::of_daemon_set(find("DaemonSet", "collector")),
        query_trouble: trouble(pods.of("query")).or_else(|| query.failure.clone()),
        query,
        ..Seen::default()
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
