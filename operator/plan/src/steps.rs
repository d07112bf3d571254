//! What is to be written: which objects are applied, in which order, and which go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::difference::{content_hash, is_applied};
use crate::hash::hash_of;
use crate::observe::{JobState, Workload};
use crate::owned::{Key, Owned, is_owned_by};
use crate::pipeline::Pipeline;
use crate::render::{APPLIED_HASH, Desired, Stage, size_bytes, wanted_size};
use crate::retry::Refusals;

/// How long a Job that failed stays before it is made anew.
const FAILED_JOB_RESTS: SignedDuration = SignedDuration::from_mins(5);

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Makes an object as desired.
    Apply {
        /// The object.
        desired: Desired,
        /// It was not seen. If it is there all the same, without our label, it is ours only if it says
        /// so itself.
        is_new: bool,
    },
    /// Deletes an object, and what it owns.
    Delete {
        /// Its kind and name.
        key: Key,
        /// The uid that was seen: another object of that name stays.
        uid: Option<String>,
    },
    /// Makes the store's volume claim larger.
    Grow {
        /// The claim.
        name: String,
        /// Its new size.
        size: String,
    },
}

impl Step {
    /// The object that it is about.
    pub fn key(&self) -> Key {
        match self {
            Self::Apply { desired, .. } => key(desired),
            Self::Delete { key, .. } => key.clone(),
            Self::Grow { name, .. } => ("PersistentVolumeClaim".to_owned(), name.clone()),
        }
    }

    /// Names what is wanted of the object.
    pub fn wanted(&self) -> String {
        match self {
            Self::Apply { desired, .. } => hash_of(&desired.object),
            Self::Delete { uid, .. } => format!("gone {}", uid.as_deref().unwrap_or_default()),
            Self::Grow { size, .. } => size.clone(),
        }
    }
}

/// Objects that the server keeps in another form than ours: what we asked for, and what came of it. As
/// long as both are the same there is nothing to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled(BTreeMap<Key, (String, String)>);

impl Settled {
    /// The server answered an apply of `desired` with `applied`.
    pub fn applied(&mut self, desired: &Desired, applied: &Value) {
        let key = key(desired);
        if is_applied(applied, &desired.object) {
            self.0.remove(&key);
        } else {
            let both = (hash_of(&desired.object), content_hash(applied));
            self.0.insert(key, both);
        }
    }

    fn is_settled(&self, desired: &Desired, live: &Value) -> bool {
        self.0.get(&key(desired)).is_some_and(|(asked, found)| {
            *asked == hash_of(&desired.object) && *found == content_hash(live)
        })
    }
}

/// What the steps depend on besides the objects.
pub struct Surroundings<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// What there is.
    pub owned: &'a Owned,
    /// How the schema stands.
    pub schema: JobState,
    /// The store's volume claim, where it was looked for and found.
    pub claim: Option<&'a Value>,
    /// The collectors' DaemonSet is left as it is.
    pub holds_agents: bool,
    /// What the server keeps in a form of its own.
    pub settled: &'a Settled,
    /// What was refused not long ago.
    pub refusals: &'a Refusals,
    /// The time on the clock that pauses are measured with.
    pub now: Instant,
    /// The time of day.
    pub time: Timestamp,
}

/// The writes that make what there is as desired, in order; and the causes of those that are held back
/// because they failed not long ago.
pub fn steps(desired: &[Desired], around: &Surroundings<'_>) -> (Vec<Step>, Vec<String>) {
    let mut all = Vec::new();
    all.extend(grow(around));
    for object in desired.iter().filter(|d| may_apply(d, desired, around)) {
        let live = around.owned.get(&key(object));
        if around.holds_agents && object.kind() == "DaemonSet" {
            continue;
        }
        if object.stage == Stage::Schema && around.schema == JobState::Failed {
            // It is made anew once it is gone, and stays a while to be looked at.
            let spent = live.filter(|live| has_rested(live, around.time));
            all.extend(spent.map(|live| delete(key(object), live)));
            continue;
        }
        let is_done = live.is_some_and(|live| {
            is_applied(live, &object.object) || around.settled.is_settled(object, live)
        });
        if !is_done {
            all.push(Step::Apply {
                desired: object.clone(),
                is_new: live.is_none(),
            });
        }
    }
    all.extend(prune(desired, around));
    let mut held = Vec::new();
    all.retain(|step| {
        let why = around
            .refusals
            .holds(&step.key(), &step.wanted(), around.now);
        held.extend(why.map(str::to_owned));
        why.is_none()
    });
    (all, held)
}

/// Whether a Job failed long enough ago to be made anew.
fn has_rested(job: &Value, now: Timestamp) -> bool {
    let conditions = job["status"]["conditions"].as_array();
    let failed = conditions
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Failed");
    let since = failed.and_then(|c| c["lastTransitionTime"].as_str()?.parse::<Timestamp>().ok());
    since.is_none_or(|since| now.duration_since(since) >= FAILED_JOB_RESTS)
}

fn delete(key: Key, live: &Value) -> Step {
    let uid = live["metadata"]["uid"].as_str().map(str::to_owned);
    Step::Delete { key, uid }
}

fn prune(desired: &[Desired], around: &Surroundings<'_>) -> Vec<Step> {
    let wanted: BTreeSet<Key> = desired.iter().map(key).collect();
    around
        .owned
        .iter()
        .filter(|(key, live)| {
            !wanted.contains(*key)
                && is_owned_by(live, &around.pipeline.uid)
                && live["metadata"]["deletionTimestamp"].is_null()
        })
        .map(|(key, live)| delete(key.clone(), live))
        .collect()
}

/// The claim is made larger when the spec asks for more, and never smaller.
fn grow(around: &Surroundings<'_>) -> Option<Step> {
    let claim = around.claim.filter(|_| around.pipeline.runs_store())?;
    let size = wanted_size(around.pipeline)?;
    let has = claim["spec"]["resources"]["requests"]["storage"]
        .as_str()
        .and_then(size_bytes);
    let name = claim["metadata"]["name"].as_str()?.to_owned();
    (has < size_bytes(&size)).then_some(Step::Grow { name, size })
}

/// A stage waits until the one before it is ready.
fn may_apply(desired: &Desired, all: &[Desired], around: &Surroundings<'_>) -> bool {
    match desired.stage {
        Stage::Base | Stage::Store => true,
        Stage::Schema => around.schema != JobState::Missing || store_is_ready(all, around.owned),
        Stage::Agents | Stage::Query => around.schema == JobState::Complete,
    }
}

/// Whether the store of the latest form answers.
fn store_is_ready(desired: &[Desired], owned: &Owned) -> bool {
    let Some(set) = desired.iter().find(|object| object.stage == Stage::Store) else {
        return true;
    };
    let wanted = set.object["metadata"]["annotations"][APPLIED_HASH].as_str();
    let found = Workload::of_replicas(owned.get(&key(set)));
    found.is_rolled_out() && found.hash.as_deref() == wanted
}

/// The key of an object that should be there.
pub fn key(desired: &Desired) -> Key {
    (desired.kind().to_owned(), desired.name().to_owned())
}

#[cfg(test)]
#[path = "steps/tests.rs"]
mod tests;
