//! Any filter is parsed without a panic, errors point into the text, what is printed parses to the
//! same again, and what is accepted runs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanloom_traceql::{
    Array, AttributeScope, ChildField, Error, Filter, Kind, MAX_LENGTH, Mode, Scalar, Span, Status,
    ValueRef, check, parse,
};

/// A span on which keys that start alike have values of one type.
struct Fixed;

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
        &[1; 8]
    }

    fn parent_span_id(&self) -> &[u8] {
        &[]
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
            filter.matches(&Fixed);
        }
        Err(error) => sound(text, &error),
    }
});
