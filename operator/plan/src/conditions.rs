//! What is said of a pipeline: conditions from what was seen. Pure; nothing in it changes by itself,
//! so that the status is written only when something did.

mod injection;

use jiff::Timestamp;
use spanloom_crds::status::{
    CONDITIONS, CollectorCount, Condition, Endpoints, InjectionCount, Rollout, Status,
};

pub use injection::{Webhook, shown as shown_injection};

use crate::nodes::Collectors;
use crate::observe::{JobState, Workload};
use crate::pipeline::{Pipeline, Unusable};
use crate::render::query_endpoint;
use crate::rollout::{COMPLETE, FAILED, ROLLED_BACK, seconds};

/// Everything that was seen in one pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The managed store; none where it is the user's own.
    pub store: Option<Workload>,
    /// How full its volume is, in percent, as a collector said.
    pub store_used: Option<u8>,
    /// What ails the store's pod.
    pub store_trouble: Option<String>,
    /// What keeps collectors from storing spans: the reason, and what they say.
    pub impairment: Option<(&'static str, String)>,
    /// A change of the collectors' pods waits for this.
    pub held: Option<String>,
    /// The Job that makes the schema.
    pub schema: Option<JobState>,
    /// What ails the Job's pod.
    pub schema_trouble: Option<String>,
    /// The collectors' DaemonSet.
    pub agents: Workload,
    /// Where they are, and how many nodes should have one.
    pub collectors: Collectors,
    /// Ready nodes whose collector is not as it should be.
    pub waiting: i64,
    /// How their rollout stands.
    pub rollout: Option<Rollout>,
    /// What ails a collector.
    pub agents_trouble: Option<String>,
    /// The query service.
    pub query: Workload,
    /// What ails a query pod.
    pub query_trouble: Option<String>,
    /// The webhook.
    pub webhook: Webhook,
    /// The pods that are injected, when they are to be shown anew.
    pub injection: Option<InjectionCount>,
    /// How the probe went.
    pub probe: Probed,
    /// What could not be written.
    pub failed: Option<String>,
    /// Spans a second, when they are to be shown anew.
    pub spans_per_second: Option<i64>,
}

/// How the probe went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Probed {
    /// It was not sent yet: something else is not ready.
    #[default]
    NotYet,
    /// A span went through every collector and came back.
    All(usize),
    /// It did not come back, or was not taken.
    Lost(String),
}

/// The status `True`.
const TRUE: &str = "True";
/// The status `False`.
const FALSE: &str = "False";
/// The status `Unknown`.
const UNKNOWN: &str = "Unknown";

type Said = (&'static str, String, String);

fn said(status: &'static str, reason: &str, message: impl Into<String>) -> Said {
    (status, reason.to_owned(), message.into())
}

/// The status after a pass.
pub fn status(pipeline: &Pipeline, seen: &Seen, previous: &Status, now: Timestamp) -> Status {
    let enabled = pipeline.enabled();
    let used = match &seen.store {
        Some(_) => step(seen.store_used, previous.store_used_percent),
        None => None,
    };
    let parts = [
        accepted(pipeline, seen),
        store(seen, used),
        schema(seen),
        agents(seen),
        query(seen),
        data_flowing(enabled, seen),
    ];
    let ready = match &seen.failed {
        None => ready(&parts),
        Some(failed) => said(FALSE, "ApplyFailed", failed),
    };
    // Spans are received, stored and returned whether pods are injected or not.
    let injection = injection::said_of(pipeline, &seen.webhook);
    let [accepted, store, schema, agents, query, data] = parts;
    let all = [
        accepted, store, schema, agents, query, injection, data, ready,
    ];
    let conditions = CONDITIONS
        .iter()
        .zip(all)
        .map(|(type_, said)| condition(type_, said, pipeline.generation, previous, now))
        .collect();
    let (desired, ready) = (seen.agents.desired, seen.agents.ready);
    Status {
        observed_generation: Some(pipeline.generation),
        conditions,
        endpoints: Some(endpoints(pipeline)),
        collectors: Some(CollectorCount {
            desired,
            ready,
            summary: format!("{ready}/{desired}"),
        }),
        spans_per_second: seen.spans_per_second.or(previous.spans_per_second),
        injection: injection::count_of(pipeline, seen, previous),
        store_used_percent: used,
        rollout: seen.rollout.clone(),
    }
}

/// A level in steps of 5 percent. It stays where it is until it is clearly another one, so that the status
/// is not written at each look.
fn step(used: Option<u8>, before: Option<u8>) -> Option<u8> {
    let used = used.or(before)?;
    match before {
        Some(before) if (before.saturating_sub(2)..before + 5).contains(&used) => Some(before),
        _ => Some(used / 5 * 5),
    }
}

/// The status of a pipeline that cannot be used: what runs goes on and its conditions stay.
pub fn refused(generation: i64, why: &Unusable, previous: &Status, now: Timestamp) -> Status {
    let mut status = previous.clone();
    status.observed_generation = Some(generation);
    let accepted = said(FALSE, why.reason, &why.message);
    let ready = said(FALSE, why.reason, &why.message);
    for (type_, said) in [("Accepted", accepted), ("Ready", ready)] {
        let condition = condition(type_, said, generation, previous, now);
        match status.conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(place) => *place = condition,
            None => status.conditions.push(condition),
        }
    }
    status
}

/// The status when a pass could not be finished for a reason that waits for somebody: all else is as
/// it was seen last.
pub fn stuck(
    generation: i64,
    reason: &str,
    why: &str,
    previous: &Status,
    now: Timestamp,
) -> Status {
    let mut status = previous.clone();
    let condition = condition("Ready", said(FALSE, reason, why), generation, previous, now);
    match status.conditions.iter_mut().find(|c| c.type_ == "Ready") {
        Some(place) => *place = condition,
        None => status.conditions.push(condition),
    }
    status
}

fn condition(
    type_: &str,
    (status, reason, message): Said,
    generation: i64,
    previous: &Status,
    now: Timestamp,
) -> Condition {
    let before = previous.conditions.iter().find(|c| c.type_ == type_);
    let since = before.filter(|c| c.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason,
        message,
        last_transition_time: since
            .map_or_else(|| seconds(now), |c| c.last_transition_time.clone()),
        observed_generation: Some(generation),
    }
}

fn endpoints(pipeline: &Pipeline) -> Endpoints {
    let collector = format!(
        "{}.{}.svc",
        pipeline.object("collector"),
        pipeline.namespace
    );
    Endpoints {
        otlp_grpc: format!("http://{collector}:4317"),
        otlp_http: format!("http://{collector}:4318"),
        query: query_endpoint(pipeline),
    }
}

fn accepted(pipeline: &Pipeline, seen: &Seen) -> Said {
    if let Some(failed) = &seen.failed {
        return said(
            TRUE,
            "ApplyFailed",
            format!("the spec is valid, but {failed}"),
        );
    }
    if pipeline.managed() {
        said(TRUE, "Accepted", "the spec is valid")
    } else {
        said(
            TRUE,
            "Unmanaged",
            "managementState is Unmanaged: the operator updates only the status",
        )
    }
}

fn store(seen: &Seen, used: Option<u8>) -> Said {
    let impaired = || {
        let (reason, message) = seen.impairment.as_ref()?;
        Some(said(FALSE, reason, message))
    };
    let Some(store) = &seen.store else {
        // Our own way to it is the schema's Job, and then what the collectors say.
        return match seen.schema {
            Some(JobState::Complete) => impaired().unwrap_or_else(|| {
                said(
                    TRUE,
                    "Reached",
                    "ClickHouse is reachable, and the \
                schema was migrated",
                )
            }),
            // What the Job's pod says is the store's own answer, or why the pod cannot ask it.
            Some(JobState::Running | JobState::Failed) if seen.schema_trouble.is_some() => said(
                FALSE,
                "NotReached",
                format!(
                    "the migration Job cannot use ClickHouse: {}",
                    seen.schema_trouble.as_deref().unwrap_or_default()
                ),
            ),
            _ => said(
                UNKNOWN,
                "NotReachedYet",
                "the migration Job has not connected to ClickHouse yet",
            ),
        };
    };
    if store.exists && store.ready >= 1 {
        if let Some(impaired) = impaired() {
            return impaired;
        }
        let Some(used) = used else {
            return said(TRUE, "Ready", "ClickHouse is ready");
        };
        let reason = match used {
            90.. => VOLUME_OVER_90,
            80.. => VOLUME_OVER_80,
            _ => "Ready",
        };
        let advice = match used {
            80.. => "; increase storage.managed.size, or shorten the retention",
            _ => "",
        };
        let message = format!("ClickHouse is ready; its volume is {used}% full{advice}");
        return said(TRUE, reason, message);
    }
    let trouble = seen.store_trouble.as_deref().unwrap_or("no pod exists yet");
    said(
        FALSE,
        "NotReady",
        format!("ClickHouse is not ready: {trouble}"),
    )
}

fn schema(seen: &Seen) -> Said {
    match seen.schema {
        Some(JobState::Complete) => said(TRUE, "Migrated", "the schema is up to date"),
        Some(JobState::Running) => {
            let trouble = seen.schema_trouble.as_deref().unwrap_or("in progress");
            said(
                FALSE,
                "Migrating",
                format!("the schema is being migrated: {trouble}"),
            )
        }
        Some(JobState::Failed) => {
            let trouble = seen
                .schema_trouble
                .as_deref()
                .unwrap_or("see the logs of the Job's pods");
            said(
                FALSE,
                "MigrationFailed",
                format!("the schema migration failed: {trouble}"),
            )
        }
        Some(JobState::Missing) | None => said(FALSE, "WaitingForStore", "waiting for the store"),
    }
}

fn agents(seen: &Seen) -> Said {
    let Some(rollout) = &seen.rollout else {
        return said(
            FALSE,
            "WaitingForSchema",
            "waiting for the schema migration",
        );
    };
    if let Some(held) = &seen.held {
        return said(FALSE, "WaitingForLogs", held);
    }
    let cause = rollout.cause.clone().unwrap_or_default();
    let trouble = seen.agents_trouble.as_deref();
    match rollout.state.as_str() {
        ROLLED_BACK => said(
            FALSE,
            "RolledBack",
            format!(
                "rolled back to the last good configuration: {cause}; the rollout is retried at \
                 {}, when a node becomes Ready, or when the spec or the annotation \
                 spanloom.dev/retry changes",
                rollout.retry_at.as_deref().unwrap_or("once")
            ),
        ),
        FAILED => said(FALSE, "RolloutFailed", cause),
        _ if seen.agents.exists && seen.agents.observed && seen.agents.desired == 0 => said(
            FALSE,
            "NoNodes",
            "no node matches; check collector.nodeSelector and collector.tolerations",
        ),
        COMPLETE if seen.agents.exists && seen.waiting == 0 => said(
            TRUE,
            "Ready",
            format!(
                "all Ready nodes have a collector with this configuration{}",
                dead(&seen.collectors)
            ),
        ),
        COMPLETE => {
            let trouble = trouble.unwrap_or("the DaemonSet does not exist");
            said(
                FALSE,
                "NotReady",
                format!(
                    "{} Ready nodes have no ready collector: {trouble}",
                    seen.waiting
                ),
            )
        }
        _ => {
            let again = match rollout.attempts {
                0 => String::new(),
                attempts => format!(" (retried after {attempts} failures, the last: {cause})"),
            };
            let trouble = trouble.unwrap_or("just started");
            said(
                FALSE,
                "RollingOut",
                format!("collectors are being rolled out{again}: {trouble}"),
            )
        }
    }
}

/// The nodes that are not Ready: some by name, the others as a number.
fn dead(collectors: &Collectors) -> String {
    let dead = &collectors.dead;
    if dead.is_empty() {
        return String::new();
    }
    let some: Vec<&str> = dead.iter().take(3).map(String::as_str).collect();
    let more = match dead.len() - some.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; not Ready: {}{more}", some.join(", "))
}

fn query(seen: &Seen) -> Said {
    let query = &seen.query;
    if !query.exists {
        return said(
            FALSE,
            "WaitingForSchema",
            "waiting for the schema migration",
        );
    }
    if query.is_rolled_out() && query.ready > 0 {
        return said(TRUE, "Ready", "the query service is ready");
    }
    if query.outdated > 0 && query.ready >= query.desired {
        let trouble = seen.query_trouble.as_deref().unwrap_or("just started");
        return said(
            FALSE,
            "RollingOut",
            format!(
                "the query service is being rolled out, and its earlier pods still answer: {trouble}"
            ),
        );
    }
    let trouble = seen.query_trouble.as_deref().unwrap_or("no pod exists yet");
    said(
        FALSE,
        "NotReady",
        format!("the query service is not ready: {trouble}"),
    )
}

fn data_flowing(enabled: bool, seen: &Seen) -> Said {
    if !enabled {
        return said(
            FALSE,
            "Disabled",
            "enabled is false: spans are discarded and counted",
        );
    }
    match &seen.probe {
        Probed::All(agents) => said(
            TRUE,
            "ProbeReturned",
            format!(
                "a probe span was sent to each of {agents} collectors and read back from the \
                     query service"
            ),
        ),
        Probed::NotYet => said(
            UNKNOWN,
            "NotProbedYet",
            "waiting for collectors and the query service to be ready",
        ),
        Probed::Lost(why) => said(FALSE, "ProbeLost", why),
    }
}

/// Everything together: the first part that is not true.
fn ready(parts: &[Said]) -> Said {
    match parts.iter().find(|(status, ..)| *status != TRUE) {
        None => said(
            TRUE,
            "Ready",
            "spans are received, stored and returned by queries",
        ),
        Some((_, reason, message)) => said(FALSE, reason, message),
    }
}

/// A condition that is another one than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turned<'a> {
    /// As it is now.
    pub condition: &'a Condition,
    /// It needs a person.
    pub is_bad: bool,
    /// It is worth an event.
    pub is_told: bool,
}

/// Reasons of conditions that are not true and need no action: they end by themselves, or were asked for.
const CALM: [&str; 11] = [
    "Disabled",
    "Migrating",
    "NoWebhook",
    "NotProbedYet",
    "NotReachedYet",
    "NotSeenYet",
    "RollingOut",
    "WaitingForConfiguration",
    "WaitingForSchema",
    "WaitingForStore",
    "Unmanaged",
];

/// The store's volume fills up.
const VOLUME_OVER_80: &str = "VolumeOver80Percent";
/// The store's volume is nearly full.
const VOLUME_OVER_90: &str = "VolumeOver90Percent";

/// The store's disk is full.
pub const STORE_FULL: &str = "StoreFull";
/// Collectors cannot insert into the store.
pub const INSERTS_FAIL: &str = "InsertsFail";

/// Reasons that need a person, whatever was before.
const BAD: [&str; 14] = [
    VOLUME_OVER_80,
    VOLUME_OVER_90,
    STORE_FULL,
    "WaitingForLogs",
    "NoNodes",
    "RolledBack",
    "RolloutFailed",
    "ApplyFailed",
    "ProbeLost",
    "MigrationFailed",
    "NamespaceNotAllowed",
    "InvalidFilter",
    "InvalidSpec",
    "Unreadable",
];

/// The conditions whose status or reason is different from before.
pub fn turned<'a>(before: &Status, now: &'a Status) -> Vec<Turned<'a>> {
    let of = |type_: &str| before.conditions.iter().find(|c| c.type_ == type_);
    now.conditions
        .iter()
        .filter_map(|condition| {
            let before = of(&condition.type_);
            let has_other_status = before.is_none_or(|b| b.status != condition.status);
            let has_other_reason = before.is_none_or(|b| b.reason != condition.reason);
            let is_told = match condition.type_.as_str() {
                // Why it is not ready is told by the condition that is the reason.
                "Ready" => has_other_status,
                // At first nothing is known of it, which is no news.
                _ => before.is_some() || condition.status != UNKNOWN,
            };
            let reason = condition.reason.as_str();
            let was_true = before.is_some_and(|before| before.status == TRUE);
            let is_lost = was_true && condition.status != TRUE && !CALM.contains(&reason);
            (has_other_status || has_other_reason).then(|| Turned {
                condition,
                is_bad: is_lost || BAD.contains(&reason),
                is_told,
            })
        })
        .collect()
}

/// Whether a status has to be written.
pub fn differs(previous: &Status, now: &Status) -> bool {
    previous != now
}

#[cfg(test)]
#[path = "conditions/tests.rs"]
mod tests;
