//! Several traces and when they were: the condition that a row is a span of one of them.

use crate::search::cursor::Place;
use crate::sql::Sql;

/// A window of more steps than these is given by its bounds alone.
const STEPS_MAX: usize = 1_000;

const STEP_NS: i64 = 300_000_000_000;

/// How long before and after its match a trace is read before the index is known.
pub const NEAR_NS: i64 = 60_000_000_000;

/// When a trace most likely was.
pub fn near(place: &Place) -> (i64, i64) {
    (
        place.time_ns.saturating_sub(NEAR_NS).max(0),
        place.time_ns.saturating_add(NEAR_NS),
    )
}

/// Traces, and when they were.
pub struct Traces {
    /// Which.
    pub ids: Vec<[u8; 16]>,
    from_ns: i64,
    to_ns: i64,
    /// Seconds at which the key's steps begin; none where they are too many.
    steps: Option<Vec<i64>>,
}

impl Traces {
    /// These, and when each was.
    pub fn of(found: impl Iterator<Item = ([u8; 16], (i64, i64))>) -> Self {
        let mut traces = Self {
            ids: Vec::new(),
            from_ns: i64::MAX,
            to_ns: 0,
            steps: Some(Vec::new()),
        };
        for (id, (from_ns, to_ns)) in found {
            traces.ids.push(id);
            traces.from_ns = traces.from_ns.min(from_ns);
            traces.to_ns = traces.to_ns.max(to_ns);
            traces.add_steps(from_ns.div_euclid(STEP_NS), to_ns.div_euclid(STEP_NS));
        }
        traces
    }

    fn add_steps(&mut self, first: i64, last: i64) {
        let Some(steps) = &mut self.steps else { return };
        let count = usize::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or(0);
        if steps.len().saturating_add(count) > STEPS_MAX {
            self.steps = None;
            return;
        }
        steps.extend((first..=last).map(|step| step.saturating_mul(STEP_NS / 1_000_000_000)));
    }

    /// The condition that a row is a span of these traces.
    pub fn condition(&self) -> Sql {
        let mut sql = Sql::new("tenant = '' AND ");
        sql.started_within(self.from_ns, self.to_ns);
        if let Some(steps) = &self.steps {
            sql.push(" AND toStartOfFiveMinutes(time) IN (SELECT toDateTime(arrayJoin(")
                .ints(steps)
                .push(")))");
        }
        sql.push(" AND ").trace_id_in(self.ids.iter().copied());
        sql
    }
}
