//! The condition that a span or its resource has a tag: in its column, or in the attributes' maps and the
//! resource's JSON.

use spanloom_store::schema::promoted::{Kind, PROMOTED_RESOURCE, PROMOTED_SPAN, Promoted, SERVICE};

use crate::sql::Sql;

/// Whether a tag may be the span's or its resource's, so that its condition is an OR of both.
pub(super) fn may_be_of_either(key: &str, value: &str) -> bool {
    let column_alone = resource_column(key).is_some() && !value.is_empty();
    !column_alone && span_column(key).is_none_or(|promoted| promoted.kind != Kind::Code)
}

/// The column of a resource's attribute.
fn resource_column(key: &str) -> Option<&'static Promoted> {
    let mut columns = PROMOTED_RESOURCE.iter().chain([&SERVICE]);
    columns.find(|promoted| promoted.key == key)
}

/// The column of a span's attribute.
fn span_column(key: &str) -> Option<&'static Promoted> {
    PROMOTED_SPAN.iter().find(|promoted| promoted.key == key)
}

/// The condition that a span, or its resource unless that is known to have no such tag, has `key` with
/// `value`.
pub(super) fn tag(key: &str, value: &str, in_resource: bool) -> Sql {
    if let Some(promoted) = resource_column(key).filter(|_| !value.is_empty()) {
        return resource_in_column(promoted, value);
    }
    let resource = in_resource.then(|| resource_tag(key, value));
    let condition = match span_column(key) {
        Some(promoted) if promoted.kind == Kind::Code => span_in_column(promoted, value),
        Some(promoted) => either(span_in_column(promoted, value), resource),
        None => either(Some(span_tag(key, value)), resource),
    };
    condition.unwrap_or_else(|| Sql::new("false"))
}

/// The condition that the resource has a value in its column, or where that is younger than spans may be,
/// beside it.
fn resource_in_column(promoted: &Promoted, value: &str) -> Sql {
    let mut sql = Sql::new(promoted.column);
    sql.push(" = ").string(value);
    if !promoted.is_complete() {
        sql.push(" OR ").append(&resource_tag(promoted.key, value));
    }
    sql
}

/// The condition that the span has a value in its column, or where that is younger than spans may be, beside
/// it. `None` where it cannot have it.
fn span_in_column(promoted: &Promoted, value: &str) -> Option<Sql> {
    let mut column = Sql::new(promoted.column);
    column.push(" = ");
    // A column holds no empty value, and no 0: they mean that there is no such attribute.
    let has_place = match promoted.kind {
        Kind::Name | Kind::Text => {
            column.string(value);
            !value.is_empty()
        }
        Kind::Code => {
            let code: u16 = value.parse().unwrap_or(0);
            column.uint(code.into());
            code != 0
        }
    };
    let beside = (!promoted.is_complete()).then(|| span_tag(promoted.key, value));
    either(has_place.then_some(column), beside)
}

/// The condition that one of the two holds that are there.
fn either(one: Option<Sql>, other: Option<Sql>) -> Option<Sql> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.push(" OR ").append(&other);
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

/// The condition on the attribute maps; only those maps are read that can hold such a value.
fn span_tag(key: &str, value: &str) -> Sql {
    let mut sql = Sql::default();
    if value.is_empty() {
        sql.push("(mapContains(attr_str, ")
            .string(key)
            .push(") AND attr_str[")
            .string(key);
        sql.push("] = '')");
        return sql;
    }
    sql.push("attr_str[").string(key).push("] = ").string(value);
    match number(value) {
        Some(Number::Int(int)) => {
            // A missing key reads as 0.
            if int == 0 {
                sql.push(" OR mapContains(attr_int, ")
                    .string(key)
                    .push(") AND attr_int[");
                sql.string(key).push("] = 0");
            } else {
                sql.push(" OR attr_int[").string(key).push("] = ").int(int);
            }
            // The nearest double is what a person means who types a whole number.
            #[expect(clippy::cast_precision_loss)]
            push_double(&mut sql, key, int as f64);
        }
        Some(Number::Double(double)) => push_double(&mut sql, key, double),
        None => {}
    }
    if matches!(value, "true" | "false") {
        sql.push(" OR attr_other[")
            .string(key)
            .push("] = ")
            .string(value);
    }
    sql
}

fn push_double(sql: &mut Sql, key: &str, double: f64) {
    if double == 0.0 {
        sql.push(" OR mapContains(attr_double, ")
            .string(key)
            .push(") AND attr_double[");
        sql.string(key).push("] = 0");
    } else {
        sql.push(" OR attr_double[")
            .string(key)
            .push("] = ")
            .double(double);
    }
}

/// The condition on the resource. ClickHouse reads JSON row by row, but looks for a text in a
/// dictionary-encoded column once per entry: only rows whose resource holds parts of the key and of
/// the value have their JSON read.
pub(super) fn resource_tag(key: &str, value: &str) -> Sql {
    let number = number(value);
    // A number may be stored in another form than it is given in, unless it is a plain integer.
    let as_given = match number {
        Some(Number::Int(int)) => int.to_string() == value,
        Some(Number::Double(_)) => false,
        None => true,
    };
    let mut sql = Sql::default();
    for part in [Some(key), Some(value).filter(|_| as_given)]
        .into_iter()
        .flatten()
    {
        let run = never_escaped(part);
        if !run.is_empty() {
            sql.push("position(resource, ")
                .string(run)
                .push(") > 0 AND ");
        }
    }
    sql.push("(")
        .append(&resource_json(key, value, number))
        .push(")");
    sql
}

/// The longest part of a text that every JSON writer writes as it is.
fn never_escaped(text: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '.' | ':' | '_');
    text.split(|c| !plain(c))
        .max_by_key(|run| run.len())
        .unwrap_or_default()
}

fn resource_json(key: &str, value: &str, number: Option<Number>) -> Sql {
    let mut sql = Sql::default();
    if value.is_empty() {
        sql.push("JSONExtractRaw(resource, ")
            .string(key)
            .push(") = '\"\"'");
        return sql;
    }
    sql.push("JSONExtractString(resource, ")
        .string(key)
        .push(") = ")
        .string(value);
    match number {
        Some(Number::Int(int)) => {
            sql.push(" OR JSONExtractRaw(resource, ")
                .string(key)
                .push(") = ");
            sql.string(&int.to_string());
        }
        Some(Number::Double(double)) => {
            sql.push(" OR JSONType(resource, ")
                .string(key)
                .push(") = 'Double'");
            sql.push(" AND JSONExtractFloat(resource, ")
                .string(key)
                .push(") = ")
                .double(double);
        }
        None => {}
    }
    if matches!(value, "true" | "false") {
        sql.push(" OR JSONExtractRaw(resource, ")
            .string(key)
            .push(") = ")
            .string(value);
    }
    sql
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    Int(i64),
    Double(f64),
}

/// The number that a tag's value reads as.
fn number(value: &str) -> Option<Number> {
    if let Ok(int) = value.parse() {
        return Some(Number::Int(int));
    }
    // Rust also reads "inf" and "nan", which no one writes as a tag to find a double.
    let looks_like_one = value.bytes().any(|byte| byte.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|double: &f64| looks_like_one && double.is_finite())
        .map(Number::Double)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A column of a later version: spans from before have the value in a map, or only in the resource.
    #[test]
    fn a_column_that_is_younger_than_spans_is_not_asked_alone() {
        #[track_caller]
        fn check(sql: Option<Sql>, expect: &str) {
            let text = sql.map(|sql| sql.text());
            assert_eq!(text.as_deref().unwrap_or_default(), expect);
        }
        let later = |promoted: &Promoted| Promoted {
            since: 2,
            ..*promoted
        };
        let route = span_column("http.route").unwrap();
        check(span_in_column(route, "/x"), "http_route = {p0:String}");
        check(span_in_column(route, ""), "");
        check(
            span_in_column(&later(route), "/x"),
            "http_route = {p0:String} OR attr_str[{p1:String}] = {p2:String}",
        );
        check(
            span_in_column(&later(route), ""),
            "(mapContains(attr_str, {p0:String}) AND attr_str[{p1:String}] = '')",
        );
        let code = span_column("http.response.status_code").unwrap();
        check(span_in_column(code, "x"), "");
        let text = span_in_column(&later(code), "404").unwrap().text();
        assert!(
            text.contains("= {p0:UInt64} OR ") && text.contains("attr_int["),
            "{text}"
        );
        let pod = resource_column("k8s.pod.name").unwrap();
        let text = resource_in_column(pod, "a").text();
        assert_eq!(text, "k8s_pod_name = {p0:String}");
        let text = resource_in_column(&later(pod), "a").text();
        assert!(text.starts_with("k8s_pod_name = {p0:String} OR "), "{text}");
        assert!(text.contains("JSONExtractString(resource, "), "{text}");
    }

    #[test]
    fn parts_that_no_writer_escapes() {
        assert_eq!(never_escaped("host.name"), "host.name");
        assert_eq!(never_escaped("a/bcd\"e"), "bcd");
        assert_eq!(never_escaped("naïves"), "ves");
        assert_eq!(never_escaped("💡"), "");
        assert_eq!(never_escaped(""), "");
    }
}
