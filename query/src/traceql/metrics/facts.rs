//! What only its trace says of a span, for `compare()`: the name and the service of the root, and how many children it
//! has. ClickHouse counts them of all traces but those that are odd: of some spans more than one has the same id, or
//! there are very many. These the evaluator looks at.

use std::collections::{BTreeMap, HashSet};

use clickhouse::Row;
use serde::Deserialize;
use spanloom_traceql::{CompiledQuery, OwnedValue, Trace};

use super::compare::{Comparison, LEAF};
use super::{Run, SHORTEST_CHUNK_NS, bounds, next_length};
use crate::app::App;
use crate::db::{Db, DbError, Deadline, Flow, Text};
use crate::search::cursor::Place;
use crate::sql::Sql;
use crate::traceql::load::{Within, each_trace};
use crate::traceql::rows::Columns;

/// About how many spans ClickHouse groups by their traces at a time.
const CHUNK_SPANS: u64 = 2_000_000;

/// Odd traces that are read at a time.
const BATCH: usize = 4_000;

/// The labels.
const ROOT_NAME: &str = "rootName";
const ROOT_SERVICE: &str = "rootServiceName";
const CHILD_COUNT: &str = "span:childCount";

/// Spans of which traces say the same.
#[derive(Debug, Row, Deserialize)]
struct FactsRow {
    step: u32,
    is_selected: u8,
    root_name: Text,
    root_service: Text,
    children: u32,
    /// The trace, if it is odd; else zeros.
    odd_id: [u8; 16],
    first_ns: i64,
    weight: f64,
}

impl Run<'_> {
    /// Compares what traces say of their spans.
    pub(super) async fn compare_facts(
        &mut self,
        app: &App,
        query: &CompiledQuery,
        comparison: &Comparison,
        deadline: Deadline,
    ) -> Result<(), DbError> {
        let columns = Columns::named(query);
        let (start_ns, end_ns) = bounds(&self.window);
        let mut seen = HashSet::new();
        let mut to_ns = end_ns;
        let mut length_ns = end_ns.saturating_sub(start_ns).saturating_add(1).max(1);
        while to_ns >= start_ns {
            let from_ns = to_ns.saturating_sub(length_ns - 1).max(start_ns);
            let chunk = (from_ns, to_ns);
            let within = Within::find(app, &comparison.condition, chunk, &[], deadline).await?;
            if within.spans > 2 * CHUNK_SPANS && length_ns > SHORTEST_CHUNK_NS {
                length_ns = next_length(length_ns, within.spans, CHUNK_SPANS);
                continue;
            }
            let odd = self.count_facts(&app.db, comparison, &within, chunk, deadline);
            let odd = odd.await?.into_iter();
            // Its spans may be in several chunks, and are all looked at.
            let places: Vec<Place> = odd
                .filter(|(trace_id, _)| seen.insert(*trace_id))
                .map(|(trace_id, time_ns)| Place { time_ns, trace_id })
                .collect();
            for places in places.chunks(BATCH) {
                let all = each_trace(app, &columns, places, deadline, |trace| {
                    self.metrics.observe_facts(&Trace::new(&trace.spans));
                });
                if !all.await? {
                    self.leaves_out_large();
                }
            }
            match from_ns.checked_sub(1) {
                Some(before) => to_ns = before,
                None => break,
            }
        }
        Ok(())
    }

    /// Counts the spans of a chunk; answers the odd traces, each with a time near which it is.
    async fn count_facts(
        &mut self,
        db: &Db,
        comparison: &Comparison,
        within: &Within,
        chunk: (i64, i64),
        deadline: Deadline,
    ) -> Result<BTreeMap<[u8; 16], i64>, DbError> {
        let sql = self.facts_sql(comparison, within, chunk);
        let mut odd = BTreeMap::new();
        let read = db.each("traceql_compare", &sql, deadline, |row: FactsRow| {
            if row.odd_id != [0; 16] {
                odd.insert(row.odd_id, row.first_ns);
                return Flow::More;
            }
            let step = usize::try_from(row.step).unwrap_or(usize::MAX);
            for (label, value) in [
                (ROOT_NAME, OwnedValue::Str(row.root_name.0)),
                (ROOT_SERVICE, OwnedValue::Str(row.root_service.0)),
                (CHILD_COUNT, OwnedValue::Int(row.children.into())),
            ] {
                let pair = (label.to_owned(), value);
                let is_selected = row.is_selected != 0;
                self.metrics
                    .observe_compared(LEAF, is_selected, pair, step, row.weight);
            }
            Flow::More
        });
        read.await?;
        Ok(odd)
    }

    fn facts_sql(
        &self,
        comparison: &Comparison,
        within: &Within,
        (from_ns, to_ns): (i64, i64),
    ) -> Sql {
        let mut sql = Sql::new(
            "SELECT base.1 AS step, base.2 AS is_selected, toString(root.1) AS root_name, \
             toString(root.2) AS root_service, \
             toUInt32(if(is_odd, 0, countEqual(parents, base.4))) AS children, \
             if(is_odd, trace_id, toFixedString('', 16)) AS odd_id, min(first_ns) AS first_ns, \
             toFloat64(sum(base.3)) AS weight FROM (\
             SELECT trace_id, groupArrayIf((step, is_selected, weight, span_id), is_base) AS bases, \
             groupArray(parent_span_id) AS parents, toUnixTimestamp64Nano(min(time)) AS first_ns, \
             count() > 1000 OR count() != uniqExact(span_id) AS is_odd, \
             if(countIf(is_root) > 0, argMaxIf((name, service), (time, span_id), is_root), \
             argMin((name, service), (time, span_id))) AS root FROM (\
             SELECT trace_id, span_id, parent_span_id, time, name, service, \
             parent_span_id = toFixedString('', 8) AS is_root, time >= ",
        );
        sql.time(from_ns).push(" AND time <= ").time(to_ns);
        comparison.condition.and_to(&mut sql);
        sql.push(" AS is_base, ");
        self.columns_of_span(comparison, &mut sql);
        sql.push(" FROM spans WHERE ")
            .append(&within.condition())
            .push(
                ") GROUP BY trace_id HAVING notEmpty(bases)) ARRAY JOIN bases AS base \
                 GROUP BY step, is_selected, root, children, odd_id",
            );
        sql
    }
}
