//! Requests as the parameters that HTTP has for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::messages::{
    QueryInstantRequest, QueryRangeRequest, SearchRequest, SearchTagValuesRequest,
    SearchTagsRequest,
};
use crate::params::Params;
use crate::problem::Problem;

/// As in Tempo.
const QUERY_BYTES_MAX: usize = 128 << 10;

const SECOND_NS: u64 = 1_000_000_000;

/// Parameters; what has protobuf's default was not given.
#[derive(Default)]
struct Given(Vec<(String, String)>);

impl Given {
    fn text(mut self, name: &str, text: String) -> Self {
        if !text.is_empty() {
            self.0.push((name.to_owned(), text));
        }
        self
    }

    fn number(self, name: &str, number: u32, unit: &str) -> Self {
        match number {
            0 => self,
            number => self.text(name, format!("{number}{unit}")),
        }
    }

    fn seconds(self, start: u32, end: u32) -> Self {
        self.number("start", start, "").number("end", end, "")
    }

    /// A time in nanoseconds; as seconds, since whole numbers are told apart by their digits.
    fn time(self, name: &str, ns: u64) -> Self {
        match ns {
            0 => self,
            ns => self.text(name, format!("{}.{:09}", ns / SECOND_NS, ns % SECOND_NS)),
        }
    }

    fn params(self) -> Result<Params, Problem> {
        let params = Params::given(self.0);
        if params.one("q").is_some_and(|q| q.len() > QUERY_BYTES_MAX) {
            let detail = format!("is longer than {} KiB", QUERY_BYTES_MAX >> 10);
            return Err(Problem::parameter("q", detail));
        }
        Ok(params)
    }
}

/// `key="value"`, as the older form of a search has it in one parameter.
fn logfmt(tags: BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in tags {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(text, "{key}=\"{value}\" ");
    }
    text.trim_end().to_owned()
}

/// The parameters of a search.
///
/// # Errors
/// When the query is too long.
pub fn search(asked: SearchRequest) -> Result<Params, Problem> {
    Given::default()
        .text("q", asked.query)
        .text("tags", logfmt(asked.tags))
        .number("minDuration", asked.min_duration_ms, "ms")
        .number("maxDuration", asked.max_duration_ms, "ms")
        .number("limit", asked.limit, "")
        .number("spss", asked.spans_per_span_set, "")
        .seconds(asked.start, asked.end)
        .params()
}

/// The parameters of a list of keys.
///
/// # Errors
/// When the query is too long.
pub fn tags(asked: SearchTagsRequest) -> Result<Params, Problem> {
    Given::default()
        .text("scope", asked.scope)
        .text("q", asked.query)
        .number("limit", asked.max_tags_per_scope, "")
        .seconds(asked.start, asked.end)
        .params()
}

/// The name of a key, and the parameters of a list of its values.
///
/// # Errors
/// If the name is missing, or the query is too long.
pub fn values(asked: SearchTagValuesRequest) -> Result<(String, Params), Problem> {
    if asked.tag_name.is_empty() {
        return Err(Problem::parameter("tagName", "is required"));
    }
    let params = Given::default()
        .text("q", asked.query)
        .number("limit", asked.max_tag_values, "")
        .seconds(asked.start, asked.end)
        .params()?;
    Ok((asked.tag_name, params))
}

/// The parameters of series with a sample for each step.
///
/// # Errors
/// When the query is too long.
pub fn range(asked: QueryRangeRequest) -> Result<Params, Problem> {
    let step = match asked.step {
        0 => String::new(),
        ns => format!("{ns}ns"),
    };
    Given::default()
        .text("q", asked.query)
        .text("step", step)
        .number("exemplars", asked.exemplars, "")
        .time("start", asked.start)
        .time("end", asked.end)
        .params()
}

/// The parameters of series with one sample.
///
/// # Errors
/// When the query is too long.
pub fn instant(asked: QueryInstantRequest) -> Result<Params, Problem> {
    Given::default()
        .text("q", asked.query)
        .time("start", asked.start)
        .time("end", asked.end)
        .params()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tempo::window::{Range, step};

    #[test]
    fn times_are_exact_however_few_their_digits() {
        #[track_caller]
        fn check(start: u64, end: u64) {
            let asked = QueryRangeRequest {
                start,
                end,
                step: 7,
                ..QueryRangeRequest::default()
            };
            let params = range(asked).unwrap();
            let range = Range::read(&params).unwrap().unwrap();
            let time = |ns: i64| u64::try_from(ns).unwrap();
            assert_eq!((time(range.start_ns), time(range.end_ns)), (start, end));
            assert_eq!(step(&params, "step").unwrap(), Some(7));
        }
        check(1, 2);
        check(999_999_999_999, 1_780_000_000_123_456_789);
    }

    #[test]
    fn what_is_not_given_is_left_out() {
        let params = search(SearchRequest::default()).unwrap();
        for name in ["q", "tags", "minDuration", "limit", "spss", "start", "end"] {
            assert_eq!(params.one(name), None, "{name}");
        }
        let tags = BTreeMap::from([("a".to_owned(), "b \"c\"\\".to_owned())]);
        assert_eq!(logfmt(tags), r#"a="b \"c\"\\""#);
    }
}
