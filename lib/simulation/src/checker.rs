//! Compares what is in the store with what the senders were told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use spanloom_log::{Log, Options};

use crate::disk::{LogClock, ProcessDisk};
use crate::life::Life;
use crate::plan::Control;
use crate::process::FOLDER;
use crate::random::Random;
use crate::sender::Sent;
use crate::store::Contents;
use crate::world::World;

pub(crate) fn check(world: &World, sent: &[Sent]) {
    let contents = world.store.contents();
    let aside = dead_letters(world, &contents);
    let mut tell = Tell { world, told: 0 };
    let mut known = BTreeSet::new();
    let counts = world.counts().clone();
    let mut may_double = match counts.uncertain {
        0 => counts.evicted,
        _ => u64::MAX,
    };
    for request in sent {
        let mut refused = 0;
        let is_double = |span: &u64| contents.spans.get(span).is_some_and(|count| *count == 2);
        if may_double > 0 && request.spans.iter().all(is_double) {
            may_double -= 1;
            known.extend(&request.spans);
            continue;
        }
        for span in &request.spans {
            known.insert(*span);
            let stored = contents.spans.get(span).copied().unwrap_or(0);
            let kept = aside.get(span).copied().unwrap_or(0);
            refused += u64::from(contents.bad.contains(span) && stored == 0 && kept == 0);
            match (request.is_acknowledged, stored, kept) {
                (_, 1, 0) | (false, 0, 0 | 1) | (true, 0, 1) => {}
                // Its sender was told so.
                (true, 0, 0) if refused > 0 && refused <= request.rejected => {}
                (true, 0, 0) => tell.that(format!("the acknowledged span {span} is lost")),
                _ => tell.that(format!(
                    "span {span} is stored {stored} times and kept aside {kept} times"
                )),
            }
        }
    }
    for span in contents.spans.keys().chain(aside.keys()) {
        if !known.contains(span) {
            tell.that(format!("span {span} was never sent"));
        }
    }
    check_counts(world, &contents, aside.values().sum(), &mut tell);
}

/// The rates have what the spans have, and so has what the only process says of itself.
fn check_counts(world: &World, contents: &Contents, aside: u64, tell: &mut Tell<'_>) {
    let counts = world.counts().clone();
    if counts.uncertain > 0 {
        return;
    }
    let stored: u64 = contents.spans.values().sum();
    let refused = contents
        .bad
        .iter()
        .filter(|bad| !contents.spans.contains_key(bad));
    // What was refused is counted with the rest; without a log it is not kept.
    let known = stored + aside.max(refused.count() as u64);
    if contents.rates < stored + aside || contents.rates > known {
        tell.that(format!(
            "the rates count {} spans of {stored} stored and {aside} kept aside",
            contents.rates
        ));
    }
    if contents.traces != contents.rates {
        let Contents { traces, rates, .. } = contents;
        tell.that(format!(
            "the index has {traces} spans, the rates count {rates}"
        ));
    }
    if counts.processes == 1 && contents.bad.is_empty() {
        if counts.accepted != stored {
            tell.that(format!(
                "{} spans were counted of {stored}",
                counts.accepted
            ));
        }
        if contents.accounts != stored {
            tell.that(format!(
                "the accounts have {} spans of {stored}",
                contents.accounts
            ));
        }
    }
}

struct Tell<'w> {
    world: &'w World,
    told: u32,
}

impl Tell<'_> {
    /// The first few are enough.
    fn that(&mut self, what: String) {
        self.told += 1;
        if self.told <= 5 {
            self.world.trace.violation(what);
        }
    }
}

/// How often each span is among the dead letters; says as well whether the log is empty.
fn dead_letters(world: &World, contents: &Contents) -> BTreeMap<u64, u64> {
    let mut spans = BTreeMap::new();
    if !world.plan.is_logged {
        return spans;
    }
    let disk = ProcessDisk {
        disk: world.disk.clone(),
        life: Arc::new(Life::new()),
        trace: Arc::clone(&world.trace),
        lies: world.control == Control::LyingDisk,
    };
    let clock = LogClock::new(Arc::clone(&world.calendar), Random::new(1));
    let options = Options {
        max_bytes: world.plan.log_bytes,
        segment_bytes: world.plan.segment_bytes,
        committer: spanloom_log::Committer::Caller,
        ..Options::default()
    };
    let opened = Log::open_on(Arc::new(disk), Arc::new(clock), Path::new(FOLDER), options);
    let (log, recovered) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            world
                .trace
                .violation(format!("the log does not open in the end: {error}"));
            return spans;
        }
    };
    if !recovered.requests.is_empty() || !recovered.batches.is_empty() {
        let (requests, batches) = (recovered.requests.len(), recovered.batches.len());
        world.trace.violation(format!(
            "the log holds {requests} requests and {batches} batches in the end"
        ));
    }
    let read = log.read_dead_letters(|letter| {
        let all = contents.batches.get(&letter.batch.0);
        let all = all.map(|made| &*made.spans).unwrap_or_default();
        let rows = letter.rows.start as usize..letter.rows.end as usize;
        for span in all.get(rows).unwrap_or_default() {
            *spans.entry(*span).or_default() += 1;
        }
    });
    if let Err(error) = read {
        world
            .trace
            .violation(format!("dead letters cannot be read: {error}"));
    }
    spans
}
