//! Traces and conditions as they come: with missing parents, circles, ids that stand twice, several roots,
//! arrays, events, links, and attributes that are missing, of another type, or not a number.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use spanloom_traceql::{Kind, Status};

use super::owned::{Attributes, Event, Link, OwnedSpan, V};

fn text(values: &'static [&'static str]) -> impl Strategy<Value = V> {
    select(values).prop_map(|s| V::Str(s.to_owned()))
}

fn number() -> impl Strategy<Value = V> {
    prop_oneof![
        6 => (-2i64..4).prop_map(V::Int),
        4 => select(vec![-1.5, 0.0, 0.5, 1.0, 2.5]).prop_map(V::Float),
        1 => Just(V::Float(f64::NAN)),
    ]
}

fn list(strategy: BoxedStrategy<V>) -> impl Strategy<Value = V> {
    vec(strategy, 0..3).prop_map(V::Array)
}

/// One attribute, which may be missing.
fn maybe(key: &'static str, value: BoxedStrategy<V>) -> BoxedStrategy<Attributes> {
    prop_oneof![
        1 => Just(Attributes::new()),
        4 => value.prop_map(move |value| vec![(key.to_owned(), value)]),
    ]
    .boxed()
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let odd = prop_oneof![8 => number(), 1 => text(&["x"]), 1 => Just(V::Other), 1 => list(number().boxed())];
    let parts = [
        maybe("n", odd.boxed()),
        maybe("m", number().boxed()),
        maybe("s", text(&["x", "y", "z", ""]).boxed()),
        maybe("b", any::<bool>().prop_map(V::Bool).boxed()),
        maybe("tags", list(text(&["p", "q", "r"]).boxed()).boxed()),
        maybe("zone", text(&["s1", "s2"]).boxed()),
    ];
    parts.to_vec().prop_map(|parts| parts.concat())
}

fn spans() -> impl Strategy<Value = OwnedSpan> {
    let id = |n: u8| vec![n; 8];
    let tree = (
        1u8..8,
        prop_oneof![3 => Just(0u8), 6 => 1u8..8, 1 => 8u8..10],
        0u64..4,
        0u64..4,
    );
    let event = (
        select(vec!["e", "f"]),
        0i64..4,
        maybe("n", number().boxed()),
    );
    let link = (1u8..4, maybe("n", number().boxed()));
    let enums = (
        select(vec![Status::Ok, Status::Error, Status::Unset]),
        select(vec![Kind::Server, Kind::Client, Kind::Internal]),
        select(vec!["a", "b", "c"]),
        select(vec!["", "broken"]),
    );
    let resource = (
        maybe("service.name", text(&["shop", "mail"]).boxed()),
        maybe("zone", text(&["r1"]).boxed()),
    );
    let rest = (attributes(), resource, vec(event, 0..3), vec(link, 0..2));
    (tree, enums, rest).prop_map(move |((own, parent, start, duration), enums, rest)| {
        let (status, kind, name, message) = enums;
        let (attributes, (service, zone), events, links) = rest;
        OwnedSpan {
            name: name.to_owned(),
            status,
            message: message.to_owned(),
            kind,
            start: 1_000_000_000 * (start + 1),
            duration: 1_000_000_000 * duration,
            trace_id: vec![7; 16],
            span_id: id(own),
            parent: if parent == 0 { vec![] } else { id(parent) },
            scope: (name.to_owned(), "1".to_owned()),
            attributes,
            resource: [service, zone].concat(),
            instrumentation: vec![("lib".to_owned(), V::Str("x".to_owned()))],
            events: events
                .into_iter()
                .map(|(name, seconds, attributes)| Event {
                    name: name.to_owned(),
                    since_start: 1_000_000_000 * seconds,
                    attributes,
                })
                .collect(),
            links: links
                .into_iter()
                .map(|(n, attributes)| Link {
                    trace_id: vec![n; 16],
                    span_id: id(n),
                    attributes,
                })
                .collect(),
            weight: None,
        }
    })
}

pub fn traces() -> impl Strategy<Value = Vec<OwnedSpan>> {
    vec(spans(), 1..10)
}

/// Fields with numbers.
pub const NUMBERS: &[&str] = &[
    ".n",
    "span.m",
    "event.n",
    "link.n",
    "duration",
    "traceDuration",
    "span:childCount",
    "nestedSetLeft",
    "nestedSetRight",
    "nestedSetParent",
    "event:timeSinceStart",
    "-.m",
    "1",
    "2.5",
    "2s",
];

/// Fields with text.
pub const TEXTS: &[&str] = &[
    ".s",
    "name",
    "statusMessage",
    "span.zone",
    "resource.zone",
    ".zone",
    "event:name",
    ".tags",
    "span:id",
    "span:parentID",
    "trace:id",
    "link:spanID",
    "link:traceID",
    "rootName",
    "rootServiceName",
    "resource.service.name",
    "instrumentation:name",
    "instrumentation:version",
    "instrumentation.lib",
];

const LITERALS: &[&str] = &[
    "\"x\"",
    "\"a\"",
    "\"p\"",
    "\"s1\"",
    "\"\"",
    "\"e\"",
    "\"shop\"",
    "\"0303030303030303\"",
];

pub fn numbers() -> impl Strategy<Value = String> {
    let leaf = select(NUMBERS).prop_map(str::to_owned);
    leaf.prop_recursive(2, 4, 2, |inner| {
        (inner.clone(), select(vec!["+", "-", "*", "/", "%"]), inner)
            .prop_map(|(l, op, r)| format!("({l} {op} {r})"))
    })
}

/// A condition on a span.
pub fn conditions() -> BoxedStrategy<String> {
    let order = || select(vec!["=", "!=", "<", "<=", ">", ">="]);
    let leaf = prop_oneof![
        4 => (numbers(), order(), numbers()).prop_map(|(l, op, r)| format!("{l} {op} {r}")),
        3 => (select(TEXTS), order(), select(LITERALS)).prop_map(|(l, op, r)| format!("{l} {op} {r}")),
        1 => (select(LITERALS), order(), select(TEXTS)).prop_map(|(l, op, r)| format!("{l} {op} {r}")),
        1 => (select(TEXTS), order(), select(TEXTS)).prop_map(|(l, op, r)| format!("{l} {op} {r}")),
        2 => (select(TEXTS), select(vec!["=~", "!~"]), select(vec!["x|a", "p.*", "", "[a-e]"]))
            .prop_map(|(l, op, r)| format!("{l} {op} \"{r}\"")),
        1 => select(vec![".b", "!.b", ".b = true", ".b != .b", "true", "false", ".n", "!.s"]).prop_map(str::to_owned),
        2 => (select(vec![".n", ".s", "event.n", "link.n", ".none", "span.zone", ".n + .m", ".tags"]), select(vec!["=", "!="]))
            .prop_map(|(f, op)| format!("{f} {op} nil")),
        1 => select(vec![
            "status = error", "status != ok", "kind = server", "kind != client", "error = status", "(.b) = (.n > 1)",
        ]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), select(vec!["&&", "||"]), inner.clone())
                .prop_map(|(l, op, r)| format!("({l}) {op} ({r})")),
            inner.prop_map(|e| format!("!({e})")),
        ]
    })
    .boxed()
}

/// A filter that often matches.
pub fn filters() -> BoxedStrategy<String> {
    prop_oneof![
        2 => Just("{ }".to_owned()),
        3 => select(vec!["a", "b", "c"]).prop_map(|name| format!("{{ name = \"{name}\" }}")),
        2 => select(vec!["a", "b", "c"]).prop_map(|name| format!("{{ name != \"{name}\" }}")),
        2 => conditions().prop_map(|e| format!("{{ {e} }}")),
    ]
    .boxed()
}
