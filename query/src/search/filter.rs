//! What a search asks of a span, and the SQL of it.

use spanloom_store::schema::promoted::{Kind, PROMOTED_RESOURCE, PROMOTED_SPAN, Promoted, SERVICE};

use crate::params::Params;
use crate::problem::Problem;
use crate::search::cursor::Question;
use crate::sql::Sql;

/// More tags than this in one search are refused: each may read a map.
const TAGS_MAX: usize = 16;

/// `status` conditions by OTLP's number.
const STATUS_CONDITIONS: [&str; 3] = [
    " AND status = 'UNSET'",
    " AND status = 'OK'",
    " AND status = 'ERROR'",
];

/// `kind` conditions by OTLP's number.
const KIND_CONDITIONS: [&str; 6] = [
    " AND kind = 'UNSPECIFIED'",
    " AND kind = 'INTERNAL'",
    " AND kind = 'SERVER'",
    " AND kind = 'CLIENT'",
    " AND kind = 'PRODUCER'",
    " AND kind = 'CONSUMER'",
];

/// What a span must be to match.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The window's first nanosecond.
    pub start_ns: i64,
    /// The window's last nanosecond.
    pub end_ns: i64,
    service: Option<String>,
    operation: Option<String>,
    status: Option<i8>,
    kind: Option<i8>,
    duration_min_ns: Option<u64>,
    duration_max_ns: Option<u64>,
    tags: Vec<(String, String)>,
}

impl Filter {
    /// Reads the filter of a request.
    ///
    /// # Errors
    /// When a parameter is missing or malformed.
    pub fn read(params: &Params) -> Result<Self, Problem> {
        let (start_ns, end_ns) = params.window()?;
        let filter = Self {
            start_ns,
            end_ns,
            service: params.one("service").map(str::to_owned),
            operation: params.one("operation").map(str::to_owned),
            status: params.status()?,
            kind: params.kind()?,
            duration_min_ns: params.duration("minDuration")?,
            duration_max_ns: params.duration("maxDuration")?,
            tags: read_tags(params)?,
        };
        if let (Some(min), Some(max)) = (filter.duration_min_ns, filter.duration_max_ns)
            && min > max
        {
            return Err(Problem::parameter(
                "maxDuration",
                "maxDuration is below minDuration",
            ));
        }
        Ok(filter)
    }

    /// Marks this question, so that a cursor of another one can be refused.
    pub fn question(&self) -> u64 {
        let mut question = Question::new();
        question
            .part(&self.start_ns.to_be_bytes())
            .part(&self.end_ns.to_be_bytes());
        for text in [&self.service, &self.operation] {
            question.part(&[u8::from(text.is_some())]);
            question.part(text.as_deref().unwrap_or_default().as_bytes());
        }
        for number in [self.status, self.kind] {
            question.part(&number.map(i8::to_be_bytes).unwrap_or([0xff]));
        }
        for bound in [self.duration_min_ns, self.duration_max_ns] {
            question.part(&[u8::from(bound.is_some())]);
            question.part(&bound.unwrap_or(0).to_be_bytes());
        }
        for (key, value) in &self.tags {
            question.part(key.as_bytes()).part(value.as_bytes());
        }
        question.mark()
    }

    /// The conditions on a span whose start is in `from_ns..=to_ns`, without WHERE.
    pub fn conditions(&self, from_ns: i64, to_ns: i64, resources: Resources) -> Sql {
        let mut sql = self.columns(from_ns, to_ns);
        for (place, (key, value)) in self.tags.iter().enumerate() {
            sql.push(" AND (")
                .append(&tag(key, value, resources.may_have(place)))
                .push(")");
        }
        sql
    }

    /// The query that says which of the tags are those of a resource in `from_ns..=to_ns`, for
    /// [`Resources::found`]. `None` where no tag can be one.
    ///
    /// A tag may be the span's or its resource's, and ClickHouse cannot skip what only one side of
    /// an OR rules out. The resource is one narrow column, so asking it first costs little; mostly
    /// it has no such tag, and then the attributes' own index does the rest.
    pub fn resources_sql(&self, from_ns: i64, to_ns: i64) -> Option<Sql> {
        let mut bits = Sql::default();
        for (place, (key, value)) in self.tags.iter().enumerate() {
            if !may_be_of_either(key, value) {
                continue;
            }
            if !bits.is_empty() {
                bits.push(" + ");
            }
            bits.push("if(").append(&resource_tag(key, value));
            bits.push(", ").uint(1 << place).push(", 0)");
        }
        if bits.is_empty() {
            return None;
        }
        let mut sql = Sql::new("SELECT toUInt64(groupBitOr(");
        // Each resource is looked at once: as a condition it would be once for each block of rows.
        sql.append(&bits)
            .push(")) FROM (SELECT DISTINCT resource FROM spans WHERE ")
            .append(&self.columns(from_ns, to_ns))
            .push(")");
        Some(sql)
    }

    /// How long the first part of a window is that is worth reading by itself. An operation's spans lie
    /// together, so that minutes of them cost no more than one.
    pub fn first_chunk_ns(&self) -> i64 {
        const MINUTE_NS: i64 = 60_000_000_000;
        match (&self.service, &self.operation) {
            (Some(_), Some(_)) => 8 * MINUTE_NS,
            _ => MINUTE_NS,
        }
    }

    /// The conditions on columns, all but the tags.
    fn columns(&self, from_ns: i64, to_ns: i64) -> Sql {
        let mut sql = Sql::new("tenant = '' AND ");
        sql.started_within(from_ns, to_ns);
        if let Some(service) = &self.service {
            sql.push(" AND service = ").string(service);
        }
        if let Some(operation) = &self.operation {
            sql.push(" AND name = ").string(operation);
        }
        let numbered = |texts: &'static [&'static str], number: Option<i8>| {
            number.and_then(|number| texts.get(usize::try_from(number).ok()?).copied())
        };
        sql.push(numbered(&STATUS_CONDITIONS, self.status).unwrap_or_default());
        sql.push(numbered(&KIND_CONDITIONS, self.kind).unwrap_or_default());
        if let Some(ns) = self.duration_min_ns {
            sql.push(" AND duration_ns >= ").uint(ns);
        }
        if let Some(ns) = self.duration_max_ns {
            sql.push(" AND duration_ns <= ").uint(ns);
        }
        sql
    }
}

/// Which of a filter's tags the resources of a window may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources(u64);

impl Resources {
    /// Any of them.
    pub const UNKNOWN: Self = Self(u64::MAX);

    /// What the query of [`Filter::resources_sql`] found.
    pub fn found(bits: u64) -> Self {
        Self(bits)
    }

    fn may_have(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }
}

/// Whether a tag may be the span's or its resource's, so that its condition is an OR of both.
fn may_be_of_either(key: &str, value: &str) -> bool {
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

/// The tags in an order of their own, so that the order of giving does not matter to a cursor.
fn read_tags(params: &Params) -> Result<Vec<(String, String)>, Problem> {
    let mut tags = Vec::new();
    for text in params.all("tag") {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => tags.push((key.to_owned(), value.to_owned())),
            _ => {
                return Err(Problem::parameter(
                    "tag",
                    "a tag is key=value, like http.route=/cart",
                ));
            }
        }
    }
    if tags.len() > TAGS_MAX {
        let detail = format!("{} tags; at most {TAGS_MAX} may be given", tags.len());
        return Err(Problem::parameter("tag", detail));
    }
    tags.sort();
    tags.dedup();
    Ok(tags)
}

/// The condition that a span, or its resource unless that is known to have no such tag, has `key` with
/// `value`.
fn tag(key: &str, value: &str, in_resource: bool) -> Sql {
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
fn resource_tag(key: &str, value: &str) -> Sql {
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
    use crate::search::ALLOWED;

    fn read(query: &str) -> Result<Filter, Problem> {
        let uri = format!("/x?start=1&end=2&{query}").parse().unwrap();
        Filter::read(&Params::read(&uri, ALLOWED)?)
    }

    /// The columns of `spans` that a tag's condition names.
    #[track_caller]
    fn check_columns(tag: &str, expect: &[&str]) {
        const COLUMNS: [&str; 8] = [
            "service ",
            "http_route",
            "http_response_status_code",
            "resource,",
            "attr_str",
            "attr_int",
            "attr_double",
            "attr_other",
        ];
        let filter = read(&format!("tag={tag}")).unwrap();
        let text = filter.conditions(0, 1, Resources::UNKNOWN).text();
        let named = COLUMNS
            .iter()
            .copied()
            .filter(|column| text.contains(column));
        assert_eq!(named.collect::<Vec<_>>(), expect, "{tag}: {text}");
    }

    #[test]
    fn a_tag_reads_only_what_may_hold_it() {
        check_columns("service.name%3Dcart", &["service "]);
        check_columns("http.route%3D/cart", &["http_route", "resource,"]);
        check_columns("http.route%3D", &["resource,"]);
        check_columns(
            "http.response.status_code%3D404",
            &["http_response_status_code"],
        );
        check_columns("http.response.status_code%3Dx", &[]);
        check_columns("http.response.status_code%3D0", &[]);
        check_columns("user.id%3Dabc", &["resource,", "attr_str"]);
        check_columns("user.id%3D", &["resource,", "attr_str"]);
        check_columns(
            "user.id%3D12",
            &["resource,", "attr_str", "attr_int", "attr_double"],
        );
        check_columns(
            "user.id%3D0",
            &["resource,", "attr_str", "attr_int", "attr_double"],
        );
        check_columns("user.id%3D1.5", &["resource,", "attr_str", "attr_double"]);
        check_columns("user.id%3Dinf", &["resource,", "attr_str"]);
        check_columns("user.id%3Dtrue", &["resource,", "attr_str", "attr_other"]);
    }

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
    fn a_tag_that_no_resource_has_is_looked_for_in_spans_alone() {
        let query = "tag=a%3D1&tag=http.route%3D/x&tag=http.response.status_code%3D404\
                     &tag=service.name%3Dcart&tag=z%3D";
        let filter = read(query).unwrap();
        let asked = filter.resources_sql(0, 1).unwrap();
        assert_eq!(asked.text().matches("groupBitOr").count(), 1);
        // In the order of the keys: a, http.response.status_code, http.route, service.name, z.
        for (place, key) in [(0, "a"), (2, "http.route"), (4, "z")] {
            let text = filter.conditions(0, 1, Resources::found(1 << place)).text();
            assert!(text.contains("JSONExtract"), "{key}: {text}");
        }
        for other in [0b0_1010, !0b1_0101, 0] {
            let text = filter.conditions(0, 1, Resources::found(other)).text();
            assert!(!text.contains("resource"), "{text}");
        }
        let empty = read("tag=http.route%3D").unwrap();
        let text = empty.conditions(0, 1, Resources::found(0)).text();
        assert!(text.ends_with(" AND (false)"), "{text}");
    }

    #[test]
    fn parts_that_no_writer_escapes() {
        assert_eq!(never_escaped("host.name"), "host.name");
        assert_eq!(never_escaped("a/bcd\"e"), "bcd");
        assert_eq!(never_escaped("naïves"), "ves");
        assert_eq!(never_escaped("💡"), "");
        assert_eq!(never_escaped(""), "");
    }

    #[test]
    fn without_a_tag_no_attributes_are_read() {
        let query = "service=a&operation=b&status=error&kind=server&minDuration=1ms&maxDuration=2s";
        let filter = read(query).unwrap();
        assert!(filter.resources_sql(0, 1).is_none());
        let text = filter.conditions(0, 1, Resources::UNKNOWN).text();
        assert!(
            !text.contains("attr_") && !text.contains("resource"),
            "{text}"
        );
    }

    #[track_caller]
    fn check_refused(query: &str, parameter: &str) {
        let problem = read(query).unwrap_err();
        assert_eq!(problem.at_parameter(), Some(parameter), "{query}");
    }

    #[test]
    fn bad_filters() {
        check_refused("tag=x", "tag");
        check_refused("tag=%3Dx", "tag");
        check_refused("tag=", "tag");
        check_refused(&"tag=a%3D1&".repeat(17), "tag");
        check_refused("minDuration=2s&maxDuration=1s", "maxDuration");
        check_refused("minDuration=5", "minDuration");
        check_refused("maxDuration=x", "maxDuration");
        check_refused("kind=x", "kind");
        check_refused("status=x", "status");
    }

    #[test]
    fn only_the_question_marks_a_cursor() {
        let mark = |query: &str| read(query).unwrap().question();
        assert_eq!(mark("tag=a%3D1&tag=b%3D2"), mark("tag=b%3D2&tag=a%3D1"));
        assert_eq!(mark("limit=1"), mark("limit=2"));
        assert_ne!(mark("service=a"), mark("operation=a"));
        assert_ne!(mark("status=ok"), mark("kind=internal"));
        assert_ne!(mark("minDuration=1s"), mark("maxDuration=1s"));
        assert_ne!(mark(""), mark("status=unset"));
        assert_ne!(mark("tag=a%3D1"), mark("tag=a%3D2"));
    }
}
