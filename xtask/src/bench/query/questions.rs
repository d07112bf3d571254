//! What `bench query` asks.

use super::Sample;

/// A kind of question: its name, the paths for a sample and a window, which are asked for at once, and where
/// each answer has its items.
pub struct Question {
    /// Its name in the table.
    pub name: &'static str,
    /// The paths.
    pub paths: fn(&Sample, &Window<'_>) -> Vec<String>,
    /// Where the items are, in the answer's JSON.
    pub items: &'static str,
    /// Of so many requests one is sent: others take too long.
    one_of: usize,
}

impl Question {
    /// How many of these requests are sent.
    pub fn part(&self, requests: usize) -> usize {
        requests / self.one_of.max(1)
    }
}

/// What is asked about: an hour, the whole day (as Unix seconds), and the large trace's id.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// The hour.
    pub hour: (u64, u64),
    /// The day.
    pub day: (u64, u64),
    /// The trace's id.
    pub large_trace: &'a str,
}

const fn ours(
    name: &'static str,
    items: &'static str,
    paths: fn(&Sample, &Window<'_>) -> Vec<String>,
) -> Question {
    Question {
        name,
        paths,
        items,
        one_of: 1,
    }
}

const fn traceql(name: &'static str, paths: fn(&Sample, &Window<'_>) -> Vec<String>) -> Question {
    ours(name, "traces", paths)
}

const fn metrics(name: &'static str, paths: fn(&Sample, &Window<'_>) -> Vec<String>) -> Question {
    Question {
        name,
        paths,
        items: "series",
        one_of: 5,
    }
}

/// All of them.
pub const QUESTIONS: [Question; 33] = [
    ours("trace_by_id", "spans", |sample, _| {
        vec![format!("/api/v1/traces/{}", sample.trace)]
    }),
    ours("service_operation_1h", "traces", |sample, window| {
        let (service, operation) = (escape(&sample.service), escape(&sample.operation));
        search(window, &format!("service={service}&operation={operation}"))
    }),
    ours("duration_1h", "traces", |_, window| {
        search(window, "minDuration=900ms")
    }),
    ours("attribute_1h", "traces", |sample, window| {
        let tag = escape(&format!("user.id={}", sample.user));
        search(window, &format!("tag={tag}"))
    }),
    ours("promoted_attribute_1h", "traces", |sample, window| {
        let tag = format!("server.address={}.shop.svc", sample.service);
        search(window, &format!("tag={}", escape(&tag)))
    }),
    ours("percentiles_24h", "operations", |_, window| {
        let (start, end) = window.day;
        vec![format!("/api/v1/latency?start={start}&end={end}")]
    }),
    traceql("traceql_all_1h", |_, w| query(w, "{ }")),
    traceql("traceql_string_frequent_1h", |_, w| {
        query(w, r#"{ span.url.scheme = "http" }"#)
    }),
    traceql("traceql_string_promoted_1h", |_, w| {
        query(w, r#"{ span.http.request.method = "GET" }"#)
    }),
    traceql("traceql_string_rare_1h", |sample, w| {
        query(w, &format!("{{ span.user.id = \"{}\" }}", sample.user))
    }),
    traceql("traceql_string_absent_1h", |_, w| {
        query(w, r#"{ span.user.id = "nobody" }"#)
    }),
    traceql("traceql_int_frequent_1h", |_, w| {
        query(w, "{ span.thread.id = 7 }")
    }),
    traceql("traceql_int_rare_1h", |_, w| {
        query(w, "{ span.network.peer.port = 32801 }")
    }),
    traceql("traceql_int_absent_1h", |_, w| {
        query(w, "{ span.network.peer.port = 1 }")
    }),
    traceql("traceql_bool_frequent_1h", |_, w| {
        query(w, "{ span.error.retryable = false }")
    }),
    traceql("traceql_bool_1h", |_, w| {
        query(w, "{ span.error.retryable = true }")
    }),
    traceql("traceql_resource_promoted_1h", |sample, w| {
        let pods = format!("{}.*-3", sample.service);
        query(w, &format!("{{ resource.k8s.pod.name =~ \"{pods}\" }}"))
    }),
    traceql("traceql_resource_frequent_1h", |_, w| {
        query(w, r#"{ resource.telemetry.sdk.language = "java" }"#)
    }),
    traceql("traceql_resource_absent_1h", |_, w| {
        query(w, r#"{ resource.telemetry.sdk.language = "ruby" }"#)
    }),
    traceql("traceql_unscoped_frequent_1h", |_, w| {
        query(w, r#"{ .telemetry.sdk.language = "java" }"#)
    }),
    traceql("traceql_unscoped_rare_1h", |sample, w| {
        query(w, &format!("{{ .user.id = \"{}\" }}", sample.user))
    }),
    traceql("traceql_unscoped_absent_1h", |_, w| {
        query(w, r#"{ .user.id = "nobody" }"#)
    }),
    traceql("traceql_array_element_1h", |_, w| {
        query(w, r#"{ span.cart.items = "item-70" }"#)
    }),
    traceql("traceql_array_absent_1h", |_, w| {
        query(w, r#"{ span.cart.items = "nothing" }"#)
    }),
    traceql("traceql_event_1h", |_, w| {
        query(w, r#"{ event.exception.type = "TimeoutError" }"#)
    }),
    traceql("traceql_event_absent_1h", |_, w| {
        query(w, r#"{ event.exception.type = "KeyError" }"#)
    }),
    traceql("traceql_structural_1h", |_, w| {
        query(w, "{ kind = server } >> { status = error }")
    }),
    metrics("traceql_rate_by_service_24h", |_, w| {
        vec![range(w.day, "{ } | rate() by (resource.service.name)")]
    }),
    metrics("drilldown_red_1h", |_, w| {
        let queries = [
            "{ nestedSetParent<0 && true } | rate()",
            "{ nestedSetParent<0 && true && status = error } | rate()",
            "{ nestedSetParent<0 && true } | quantile_over_time(duration, 0.9)",
            "{ nestedSetParent<0 && true } | histogram_over_time(duration) with(sample=true)",
        ];
        queries.map(|query| range(w.hour, query)).to_vec()
    }),
    metrics("compare_1h", |_, w| {
        let (start, end) = w.hour;
        let text = "{ nestedSetParent<0 && true } | compare({ status = error }, 10)";
        vec![format!(
            "/api/metrics/query_range?q={}&start={start}&end={end}&step={}s",
            escape(text),
            end - start
        )]
    }),
    ours("tag_values", "tagValues", |_, w| {
        let (start, end) = w.day;
        vec![format!(
            "/api/v2/search/tag/resource.service.name/values?start={start}&end={end}"
        )]
    }),
    ours("tag_values_of_query_1h", "tagValues", |sample, w| {
        let (start, end) = w.hour;
        let text = format!("{{ resource.service.name = \"{}\" }}", sample.service);
        vec![format!(
            "/api/v2/search/tag/name/values?q={}&start={start}&end={end}",
            escape(&text)
        )]
    }),
    Question {
        name: "trace_of_100000_spans",
        paths: |_, w| vec![format!("/api/v2/traces/{}", w.large_trace)],
        items: "trace.resourceSpans",
        one_of: 10,
    },
];

fn search(window: &Window<'_>, what: &str) -> Vec<String> {
    let (start, end) = window.hour;
    vec![format!(
        "/api/v1/traces?{what}&start={start}&end={end}&limit=20"
    )]
}

fn query(window: &Window<'_>, query: &str) -> Vec<String> {
    let (start, end) = window.hour;
    vec![format!(
        "/api/search?q={}&start={start}&end={end}&limit=20",
        escape(query)
    )]
}

fn range((start, end): (u64, u64), query: &str) -> String {
    format!(
        "/api/metrics/query_range?q={}&start={start}&end={end}",
        escape(query)
    )
}

/// Percent-encodes all but what is plain in a query.
pub fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let parts = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    parts.collect()
}
