//! Any filter or query is parsed without a panic, errors point into the text, what is printed parses to the
//! same again, and what is accepted runs: on a span, and over a small trace with an orphan and a circle.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanloom_traceql::{
    Array, AttributeScope, ChildField, CompiledQuery, Error, Filter, Kind, Limits, MAX_LENGTH,
    Metrics, Mode, Scalar, Span, Status, Trace, TraceSpan, ValueRef, Window, check, parse,
    parse_lenient, parse_query,
};

/// A span on which keys that start alike have values of one type.
struct Fixed {
    id: &'static [u8],
    parent: &'static [u8],
}

/// A root with two children, one of which has the same id as a span below it; an orphan; and a circle.
const TRACE: &[Fixed] = &[
    Fixed {
        id: &[1],
        parent: &[],
    },
    Fixed {
        id: &[2],
        parent: &[1],
    },
    Fixed {
        id: &[3],
        parent: &[1],
    },
    Fixed {
        id: &[3],
        parent: &[3],
    },
    Fixed {
        id: &[4],
        parent: &[9],
    },
    Fixed {
        id: &[5],
        parent: &[6],
    },
    Fixed {
        id: &[6],
        parent: &[5],
    },
];

const TEXTS: &[Scalar<'static>] = &[Scalar::Str("a"), Scalar::Int(3), Scalar::Other];

struct Elements;

impl Array for Elements {
    fn any(&self, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        TEXTS.iter().any(|scalar| test(*scalar))
    }
}

fn scalar(key: &str) -> Option<Scalar<'static>> {
    Some(match key.bytes().next()? % 8 {
        0 => Scalar::Str("text"),
        1 => Scalar::Int(i64::MIN),
        2 => Scalar::Int(-1),
        3 => Scalar::Float(2.5),
        4 => Scalar::Float(f64::NAN),
        5 => Scalar::Bool(true),
        6 => Scalar::Other,
        _ => return None,
    })
}

impl Span for Fixed {
    type Array<'a> = Elements;

    fn name(&self) -> &str {
        "GET /"
    }

    fn status(&self) -> Status {
        Status::Error
    }

    fn status_message(&self) -> &str {
        ""
    }

    fn kind(&self) -> Kind {
        Kind::Server
    }

    fn duration_ns(&self) -> u64 {
        u64::MAX
    }

    fn trace_id(&self) -> &[u8] {
        &[0xab; 16]
    }

    fn span_id(&self) -> &[u8] {
        self.id
    }

    fn parent_span_id(&self) -> &[u8] {
        self.parent
    }

    fn scope_name(&self) -> &str {
        "scope"
    }

    fn scope_version(&self) -> &str {
        "1"
    }

    fn attribute(&self, scope: AttributeScope, key: &str) -> Option<ValueRef<'_, Elements>> {
        match scope {
            AttributeScope::Span => scalar(key).map(ValueRef::One),
            AttributeScope::Resource => Some(ValueRef::Array(Elements)),
            AttributeScope::Instrumentation => None,
        }
    }

    fn any_child(&self, field: ChildField<'_>, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        match field {
            ChildField::LinkTraceId | ChildField::LinkSpanId => test(Scalar::Id(&[7; 16])),
            _ => TEXTS.iter().any(|scalar| test(*scalar)),
        }
    }
}

impl TraceSpan for Fixed {
    fn start_ns(&self) -> u64 {
        self.id.iter().map(|b| u64::from(*b)).sum()
    }

    fn service_name(&self) -> &str {
        "shop"
    }

    fn for_each_attribute<'a>(
        &'a self,
        _: AttributeScope,
        each: &mut dyn FnMut(&'a str, ValueRef<'a, Elements>),
    ) {
        each("a", ValueRef::One(Scalar::Float(f64::NAN)));
        each("b c", ValueRef::Array(Elements));
    }
}

/// A query is printed, parsed again and run.
fn query(text: &str) {
    let query = match parse_query(text) {
        Ok(query) => query,
        Err(error) => return sound(text, &error),
    };
    let printed = query.to_string();
    match parse_query(&printed) {
        Ok(again) => assert_eq!(again, query, "{printed}"),
        Err(error) => assert!(printed.len() > MAX_LENGTH, "{printed}: {error}"),
    }
    let compiled = match CompiledQuery::of(query) {
        Ok(compiled) => compiled,
        Err(error) => return sound(text, &error),
    };
    let trace = Trace::new(TRACE);
    for spanset in compiled.search(&trace) {
        assert!(!spanset.spans.is_empty(), "{printed}");
    }
    for window in [Window::range(2, 7, 2), Window::instant(0, 9)] {
        let window = window.expect("a window");
        let mut metrics = Metrics::new(&compiled, window, Limits::default());
        metrics.observe(&trace);
        metrics.finish();
    }
}

/// An error is one line and lies in the text.
fn sound(text: &str, error: &Error) {
    let offset = error.at.offset as usize;
    assert!(text.is_char_boundary(offset), "{error}");
    let before = &text[..offset];
    assert_eq!(
        before.matches('\n').count() + 1,
        error.at.line as usize,
        "{error}"
    );
    assert!(!error.to_string().contains('\n'), "{error}");
}

fuzz_target!(|text: &str| {
    query(text);
    if let Some(filter) = parse_lenient(text) {
        check(&filter, Mode::Trace).expect("only filters that can be meant");
    }
    let expr = match parse(text) {
        Ok(expr) => expr,
        Err(error) => return sound(text, &error),
    };
    let printed = expr.to_string();
    match parse(&printed) {
        Ok(again) => assert_eq!(again, expr, "{printed}"),
        // Escapes and parentheses may make the text longer than the limit.
        Err(error) => assert!(printed.len() > MAX_LENGTH, "{printed}: {error}"),
    }
    if let Err(error) = check(&expr, Mode::Trace) {
        sound(text, &error);
        assert!(
            Filter::parse(text).is_err(),
            "a single span knows no more than its trace"
        );
    }
    match Filter::parse(text) {
        Ok(filter) => {
            filter.matches(&TRACE[1]);
        }
        Err(error) => sound(text, &error),
    }
});
