//! Each rule by which a comparison becomes SQL, alone and negated: among conditions that chance combines, one rule may
//! not come up with a value that tells it from another.

use super::{NEVER, Random, found, series, stored};
use crate::harness::{Service, Span};

/// Every field with every operator and some values that tell them apart, either side first, and what stands alone.
fn conditions() -> Vec<String> {
    let texts = [
        ("name", "a"),
        ("statusMessage", "a"),
        ("instrumentation:name", "b"),
        ("resource.service.name", "cart"),
        ("span.s", "a"),
        (".s", "b"),
        ("span.http.route", "a"),
        ("resource.r", "a"),
        ("resource.k8s.pod.name", "p1"),
        ("event:name", "e1"),
        ("event.e", "a"),
        ("link:spanID", "000000000000000a"),
        ("instrumentation.c", "a"),
    ];
    let numbers = [
        ("span.i", "1"),
        (".i", "1"),
        ("span.d", "1.5"),
        ("span.http.response.status_code", "200"),
        ("duration", "2ms"),
        ("event:timeSinceStart", "1ms"),
        ("event.e", "2"),
        ("resource.r", "1"),
    ];
    let mut all = Vec::new();
    for (field, value) in texts {
        for op in ["=", "!=", "<", ">="] {
            all.push(format!("{field} {op} \"{value}\""));
        }
        for op in ["=~", "!~"] {
            for pattern in ["[abc].*", "\\\\w", "\\\\W"] {
                all.push(format!("{field} {op} \"{pattern}\""));
            }
        }
        all.push(format!("\"{value}\" > {field}"));
        // What every span has is never nil.
        if field.contains('.') && field != "resource.service.name" {
            all.push(format!("{field} = nil"));
        }
    }
    for (field, value) in numbers {
        for op in ["=", "!=", "<", "<=", ">", ">="] {
            all.push(format!("{field} {op} {value}"));
        }
        for op in ["<", ">="] {
            all.push(format!("{value} {op} {field}"));
        }
    }
    let others = [
        "span.b",
        "span.b = true",
        "span.b != true",
        ".b",
        ".b = false",
        "span.s",
        "span.nothing",
        "span.http.route",
        "span.http.response.status_code",
        "resource.service.name",
        "resource.k8s.pod.name",
        "resource.r",
        "status = ok",
        "status != error",
        "error = status",
        "kind = server",
        "kind != client",
        "nestedSetParent < 0",
        "span:parentID = \"\"",
        "trace:duration > 4ms",
        "4ms < trace:duration",
        "trace:duration <= 3ms",
        // Facts of traces beside conditions on spans.
        "trace:duration > 4ms || name = \"a\"",
        "name = \"a\" || trace:duration <= 3ms",
        "trace:duration > 4ms && name = \"a\"",
        "trace:duration > 4ms || trace:duration < 3ms",
    ];
    all.extend(others.map(str::to_owned));
    all
}

/// A letter of another alphabet, which classes of regular expressions know or do not know.
fn with_letter(random: &mut Random, span: Span) -> Span {
    match random.below(6) {
        0 => span.name("é"),
        _ => span,
    }
}

#[tokio::test]
async fn each_rule_alone_is_what_the_evaluator_means() {
    let service = Service::start().await;
    let mut random = Random(11);
    let mut spans = Vec::new();
    for trace in 1..=30 {
        for id in 1..=2 {
            let parent = if id == 1 { 0 } else { trace as u64 * 10 + 1 };
            let span = stored(&mut random, trace, trace as u64 * 10 + id, parent);
            spans.push(with_letter(&mut random, span));
        }
    }
    service.insert(&spans).await;
    let conditions = conditions();
    let mut filled = 0;
    for condition in &conditions {
        let by_evaluator = |condition: &str| format!("({condition}) || {NEVER}");
        let search = async |filter: String| found(&service, &format!("{{ {filter} }}")).await;
        // A search looks at each candidate; what is counted in ClickHouse nobody looks at again.
        let count = async |filter: String| {
            series(&service, &format!("{{ {filter} }} | count_over_time()")).await
        };
        let negated = format!("!({condition})");
        let (planned, alone, counts, counts_alone, others, others_alone) = tokio::join!(
            search(condition.clone()),
            search(by_evaluator(condition)),
            count(condition.clone()),
            count(by_evaluator(condition)),
            count(negated.clone()),
            count(by_evaluator(&negated)),
        );
        assert_eq!(planned, alone, "{condition}");
        assert_eq!(counts, counts_alone, "{condition}");
        assert_eq!(others, others_alone, "{negated}");
        filled += usize::from(!planned.is_empty());
    }
    // What the evaluator is asked above is a union itself, so unions are also held against their parts.
    for (left, right) in [
        ("trace:duration > 4ms", "name = \"a\""),
        ("name = \"a\"", "trace:duration <= 3ms"),
        ("span.s = \"a\"", "status = error"),
    ] {
        let search = async |filter: String| found(&service, &format!("{{ {filter} }}")).await;
        let (either, both, one, other) = tokio::join!(
            search(format!("{left} || {right}")),
            search(format!("{left} && {right}")),
            search(left.to_owned()),
            search(right.to_owned()),
        );
        assert_eq!(either, &one | &other, "{left} || {right}");
        assert_eq!(both, &one & &other, "{left} && {right}");
    }
    let all = conditions.len();
    assert!(filled * 3 > all * 2, "{filled} of {all} found something");
}
