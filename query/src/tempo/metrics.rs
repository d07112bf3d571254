//! `GET /api/metrics/query_range` and `GET /api/metrics/query`: series by TraceQL.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::Uri;
use serde_json::{Map, Value as Json_, json};
use spanloom_traceql::{Exemplar, Limits, MAX_EXEMPLARS, OwnedValue, Series, Window};

use crate::app::App;
use crate::params::Params;
use crate::problem::Problem;
use crate::tempo::error::Plain;
use crate::tempo::json::double;
use crate::tempo::query;
use crate::tempo::search::{last, last_hour};
use crate::tempo::window::{Range, step};
use crate::traceql::metrics::{Answer, metrics};
use crate::traceql::watch::{Inspected, Request, watched};

/// Series with a sample for each step.
pub async fn query_range(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Json_>, Plain> {
    let params = Params::of_others(&uri)?;
    let answer = ask(&app, "/api/metrics/query_range", &params, false).await?;
    let series = answer.finished.series.iter().map(series_json);
    Ok(Json(document(series.collect(), &answer)))
}

/// Series with one sample.
pub async fn query(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Json_>, Plain> {
    let params = Params::of_others(&uri)?;
    let answer = ask(&app, "/api/metrics/query", &params, true).await?;
    let series = answer.finished.series.iter().map(|series| {
        let value = series.samples.first().map_or(f64::NAN, |(_, value)| *value);
        json!({"labels": labels(&series.labels), "value": double(value)})
    });
    Ok(Json(document(series.collect(), &answer)))
}

/// Runs the query of these parameters of a route, for a sample or for one at each step.
///
/// # Errors
/// When a parameter cannot be used, or ClickHouse has no answer.
pub async fn ask(
    app: &App,
    route: &'static str,
    params: &Params,
    is_instant: bool,
) -> Result<Answer, Plain> {
    let text = params
        .one("q")
        .or_else(|| params.one("query"))
        .ok_or_else(|| Problem::parameter("q", "is required: a TraceQL metrics query"))?;
    let query = query::compile(text)?;
    if !query.is_metrics() {
        let detail = "this is a search; ask /api/search, or add a function such as | rate()";
        return Err(Problem::parameter("q", detail).into());
    }
    let range = match (Range::read(params)?, params.duration("since")?) {
        (Some(range), _) => range,
        (None, None) => last_hour(),
        (None, Some(since)) => last(i64::try_from(since).unwrap_or(i64::MAX)),
    };
    if range.start_ns == range.end_ns {
        return Err(Problem::parameter("end", "must be after start").into());
    }
    let time = |ns: i64| u64::try_from(ns).unwrap_or(0);
    let (start, end) = (time(range.start_ns), time(range.end_ns));
    let window = match is_instant {
        true => Window::instant(start, end),
        false => {
            let given = step(params, "step")?.filter(|step| *step > 0);
            let step = given.unwrap_or_else(|| Window::default_step_ns(start, end));
            Window::range(start, end, step)
        }
    };
    let window = window.map_err(|error| Problem::parameter("", error.to_string()))?;
    let exemplars = match params.one("exemplars") {
        None => MAX_EXEMPLARS,
        Some(text) => match text.parse() {
            Ok(0) => MAX_EXEMPLARS,
            Ok(count) => count,
            Err(_) => {
                return Err(Problem::parameter("exemplars", "is not a whole number").into());
            }
        },
    };
    let limits = Limits {
        exemplars,
        ..Limits::default()
    };
    let request = Request {
        route,
        text,
        query: &query,
        before: Default::default(),
    };
    let inspected = |answer: &Answer| Inspected {
        traces: 0,
        spans: answer.inspected_spans,
    };
    let work = metrics(app, &query, window, limits, app.db.deadline());
    let (answer, _) = watched(app, request, inspected, work).await?;
    Ok(answer)
}

/// Why an answer does not have everything.
pub fn why_partial(answer: &Answer) -> Option<String> {
    match (&answer.cut, &answer.finished.truncated) {
        (Some(cut), _) => Some(cut.clone()),
        (None, truncated) => truncated.map(|why| why.to_string()),
    }
}

fn document(series: Vec<Json_>, answer: &Answer) -> Json_ {
    let mut document = Map::new();
    document.insert("series".to_owned(), json!(series));
    let mut counts = Map::new();
    if answer.inspected_spans > 0 {
        let spans = answer.inspected_spans.to_string();
        counts.insert("inspectedSpans".to_owned(), json!(spans));
    }
    if answer.cut.is_none() {
        counts.insert("completedJobs".to_owned(), json!(1));
    }
    counts.insert("totalJobs".to_owned(), json!(1));
    document.insert("metrics".to_owned(), json!(counts));
    if let Some(why) = why_partial(answer) {
        document.insert("status".to_owned(), json!("PARTIAL"));
        document.insert("message".to_owned(), json!(why));
    }
    Json_::Object(document)
}

fn series_json(series: &Series) -> Json_ {
    let samples = series.samples.iter().filter(|(_, value)| !value.is_nan());
    let samples: Vec<_> = samples
        .map(|(time_ms, value)| sample(*time_ms, *value))
        .collect();
    let mut object = Map::new();
    object.insert("labels".to_owned(), labels(&series.labels));
    object.insert("samples".to_owned(), json!(samples));
    if !series.exemplars.is_empty() {
        let exemplars: Vec<_> = series.exemplars.iter().map(exemplar).collect();
        object.insert("exemplars".to_owned(), json!(exemplars));
    }
    Json_::Object(object)
}

/// What has its default is left out, as everywhere in these answers.
fn sample(time_ms: i64, value: f64) -> Json_ {
    match value == 0.0 {
        true => json!({"timestampMs": time_ms.to_string()}),
        false => json!({"timestampMs": time_ms.to_string(), "value": double(value)}),
    }
}

fn exemplar(exemplar: &Exemplar) -> Json_ {
    json!({
        "labels": labels(&exemplar.labels),
        "value": double(exemplar.value),
        "timestampMs": exemplar.timestamp_ms.to_string(),
    })
}

fn labels(labels: &[(String, OwnedValue)]) -> Json_ {
    let labels = labels.iter();
    labels
        .map(|(key, value)| json!({"key": key, "value": query::value_json(value)}))
        .collect()
}
