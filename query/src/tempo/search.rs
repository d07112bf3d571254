//! `GET /api/search`: traces by TraceQL, or by the parameters of the older form.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Uri};
use serde_json::{Map, Value as Json_, json};
use spanloom_traceql::{CompiledQuery, Field, Literal, Node, OwnedValue, Scope};

use crate::app::App;
use crate::ids::hex;
use crate::params::Params;
use crate::problem::Problem;
use crate::tempo::error::Plain;
use crate::tempo::query;
use crate::tempo::window::Range;
use crate::traceql::search::{Answer, Asked, FoundSpan, FoundSpanset, FoundTrace, search};
use crate::traceql::watch::{Request, watched};

/// Tempo's own default.
const LIMIT_DEFAULT: usize = 20;
/// Grafana asks for 400 at most.
const LIMIT_MAX: usize = 10_000;
/// Tempo's own default.
const SPANS_DEFAULT: usize = 3;
/// Without a range, the last hour is searched.
const RANGE_DEFAULT_NS: i64 = 3_600_000_000_000;

/// Why an answer has not looked at everything: a header, and a trailer over gRPC.
pub const CUT: HeaderName = HeaderName::from_static("x-spanloom-partial");

/// A search as it was asked.
#[derive(Debug)]
pub struct Wanted {
    /// The query; no metrics.
    pub query: CompiledQuery,
    text: String,
    range: Range,
    limit: usize,
    spans_per_spanset: usize,
}

impl Wanted {
    /// Reads the parameters.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn read(params: &Params) -> Result<Self, Problem> {
        let text = match params.one("q") {
            Some(text) => text.to_owned(),
            None => older(params)?,
        };
        let query = query::compile(&text)?;
        if query.is_metrics() {
            let detail = "this is a metrics query; ask /api/metrics/query_range";
            return Err(Problem::parameter("q", detail));
        }
        Ok(Self {
            query,
            text,
            range: Range::read(params)?.unwrap_or_else(last_hour),
            limit: match number(params, "limit", LIMIT_DEFAULT)? {
                0 => return Err(Problem::parameter("limit", "must be 1 or more")),
                limit => limit.min(LIMIT_MAX),
            },
            spans_per_spanset: number(params, "spss", SPANS_DEFAULT)?,
        })
    }

    /// What is to be searched.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            query: &self.query,
            start_ns: self.range.start_ns,
            end_ns: self.range.end_ns,
            after: None,
            limit: self.limit,
            spans_per_spanset: self.spans_per_spanset,
            is_named: false,
            maps: None,
        }
    }

    /// The query, as it came on this route.
    pub fn request(&self, route: &'static str) -> Request<'_> {
        Request {
            route,
            text: &self.text,
            query: &self.query,
            before: Default::default(),
        }
    }
}

/// Searches.
pub async fn get(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Plain> {
    let wanted = Wanted::read(&Params::of_others(&uri)?)?;
    let asked = wanted.asked();
    let work = search(&app, &asked, app.db.deadline());
    let request = wanted.request("/api/search");
    let (answer, _) = watched(&app, request, Answer::inspected, work).await?;
    let cut = answer.cut.clone();
    let mut response = Json(document(&wanted.query, answer)).into_response();
    if let Some(cut) = cut.and_then(|cut| HeaderValue::try_from(cut).ok()) {
        response.headers_mut().insert(CUT, cut);
    }
    Ok(response)
}

/// The range where none is given.
pub fn last_hour() -> Range {
    last(RANGE_DEFAULT_NS)
}

/// The range of so many nanoseconds until now.
pub fn last(ns: i64) -> Range {
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    Range {
        start_ns: now.saturating_sub(ns).max(0),
        end_ns: now,
    }
}

fn number(params: &Params, name: &str, default: usize) -> Result<usize, Problem> {
    match params.one(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| Problem::parameter(name, "is not a whole number")),
    }
}

/// The TraceQL of `tags`, `minDuration` and `maxDuration`.
fn older(params: &Params) -> Result<String, Problem> {
    let mut conditions = Vec::new();
    for (key, value) in logfmt(params.one("tags").unwrap_or_default())? {
        let text = string(&value);
        conditions.push(match key.as_str() {
            "name" => format!("name = {text}"),
            "root.name" => format!("rootName = {text}"),
            "root.service.name" => format!("rootServiceName = {text}"),
            "error" if value == "true" => "status = error".to_owned(),
            "status.code" if matches!(value.as_str(), "ok" | "error" | "unset") => {
                format!("status = {value}")
            }
            _ => {
                let field = Node::Field(Field::Attribute {
                    parent: false,
                    scope: Scope::Unscoped,
                    name: key,
                });
                // A tag says nothing of its type.
                let mut any = format!("({field} = {text}");
                let is_number = value.parse::<f64>().is_ok_and(f64::is_finite)
                    && value
                        .bytes()
                        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'))
                    && !value.ends_with('.')
                    && !value.starts_with('.');
                if is_number || matches!(value.as_str(), "true" | "false") {
                    let _ = write!(any, " || {field} = {value}");
                }
                any.push(')');
                any
            }
        });
    }
    for (name, op) in [("minDuration", ">="), ("maxDuration", "<=")] {
        if let Some(ns) = params.duration(name)? {
            conditions.push(format!("traceDuration {op} {ns}ns"));
        }
    }
    Ok(format!("{{ {} }}", conditions.join(" && ")))
}

fn string(text: &str) -> String {
    Node::Literal(Literal::Str(text.to_owned())).to_string()
}

/// `key=value key="a value"`.
fn logfmt(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let wrong = || Problem::parameter("tags", "is not a list of key=value");
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or_else(wrong)?;
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let end = loop {
                    match chars.next().ok_or_else(wrong)? {
                        (at, '"') => break at + 1,
                        (_, '\\') => value.push(chars.next().ok_or_else(wrong)?.1),
                        (_, c) => value.push(c),
                    }
                };
                (value, quoted.get(end..).unwrap_or_default())
            }
            None => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                let (value, after) = after.split_at(end);
                (value.to_owned(), after)
            }
        };
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// The whole answer.
pub fn document(query: &CompiledQuery, answer: Answer) -> Json_ {
    let completed = u32::from(answer.cut.is_none());
    let mut metrics = Map::new();
    for (name, count) in [
        ("inspectedTraces", answer.inspected_traces),
        ("inspectedSpans", answer.inspected_spans),
    ] {
        if count > 0 {
            // One is an unsigned integer of 32 bits on the wire, the other of 64.
            let value = match name {
                "inspectedSpans" => json!(count.to_string()),
                _ => json!(count),
            };
            metrics.insert(name.to_owned(), value);
        }
    }
    if completed > 0 {
        metrics.insert("completedJobs".to_owned(), json!(completed));
    }
    metrics.insert("totalJobs".to_owned(), json!(1));
    let with_names = query::reads_name(query);
    let traces: Vec<_> = answer
        .traces
        .into_iter()
        .map(|trace| trace_json(trace, with_names))
        .collect();
    json!({"traces": traces, "metrics": metrics})
}

fn trace_json(trace: FoundTrace, with_names: bool) -> Json_ {
    let mut object = Map::new();
    let mut set = |key: &str, value: Json_| object.insert(key.to_owned(), value);
    set("traceID", json!(hex(&trace.trace_id)));
    set("rootServiceName", json!(trace.root_service));
    set("rootTraceName", json!(trace.root_name));
    set("startTimeUnixNano", json!(trace.start_ns.to_string()));
    let ms = trace.end_ns.saturating_sub(trace.start_ns).max(0) / 1_000_000;
    if ms > 0 {
        set("durationMs", json!(ms.min(u32::MAX.into())));
    }
    let sets = trace.spansets.into_iter();
    let sets: Vec<_> = sets.map(|set| spanset_json(set, with_names)).collect();
    set("spanSets", json!(sets));
    let services: Map<String, Json_> = trace
        .services
        .into_iter()
        .map(|(service, (spans, errors))| {
            let stats = match errors {
                0 => json!({"spanCount": spans}),
                _ => json!({"spanCount": spans, "errorCount": errors}),
            };
            (service, stats)
        })
        .collect();
    set("serviceStats", json!(services));
    Json_::Object(object)
}

fn spanset_json(spanset: FoundSpanset, with_names: bool) -> Json_ {
    let spans = spanset.spans.into_iter();
    let spans: Vec<_> = spans.map(|span| span_json(span, with_names)).collect();
    let mut object = Map::new();
    object.insert("spans".to_owned(), json!(spans));
    object.insert("matched".to_owned(), json!(spanset.matched));
    if !spanset.attributes.is_empty() {
        object.insert("attributes".to_owned(), attributes(spanset.attributes));
    }
    Json_::Object(object)
}

fn span_json(span: FoundSpan, with_names: bool) -> Json_ {
    let mut object = Map::new();
    let mut set = |key: &str, value: Json_| object.insert(key.to_owned(), value);
    set("spanID", json!(hex(&span.span_id)));
    if with_names {
        set("name", json!(span.name));
    }
    set("startTimeUnixNano", json!(span.start_ns.to_string()));
    if span.duration_ns > 0 {
        set("durationNanos", json!(span.duration_ns.to_string()));
    }
    if !span.attributes.is_empty() {
        set("attributes", attributes(span.attributes));
    }
    Json_::Object(object)
}

fn attributes(pairs: Vec<(String, OwnedValue)>) -> Json_ {
    let pairs = pairs.into_iter();
    pairs
        .map(|(key, value)| json!({"key": key, "value": query::value_json(&value)}))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_is_traceql() {
        #[track_caller]
        fn check(query: &str, expect: &str) {
            let params = Params::of_others(&format!("/x?{query}").parse().unwrap()).unwrap();
            let text = older(&params).unwrap();
            assert_eq!(text, expect);
            spanloom_traceql::parse(&text).unwrap();
        }
        check("", "{  }");
        check(
            "tags=service.name%3Dcart%20http.status_code%3D200",
            "{ (.service.name = \"cart\") && (.http.status_code = \"200\" || .http.status_code = 200) }",
        );
        check(
            "tags=a%3D%22b%20%5C%22c%22%20error%3Dtrue&minDuration=1s",
            "{ (.a = \"b \\\"c\") && status = error && traceDuration >= 1000000000ns }",
        );
        check(
            "tags=name%3Dx&maxDuration=5ms",
            "{ name = \"x\" && traceDuration <= 5000000ns }",
        );
        for wrong in ["a", "a%3D%22b", "%3Db", "a%20b%3Dc"] {
            let uri = format!("/x?tags={wrong}").parse().unwrap();
            assert!(older(&Params::of_others(&uri).unwrap()).is_err(), "{wrong}");
        }
    }
}
