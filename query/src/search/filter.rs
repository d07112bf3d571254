//! What a search asks of a span, and the SQL of it.

use crate::params::Params;
use crate::problem::Problem;
use crate::search::cursor::Question;
use crate::search::tag::{may_be_of_either, resource_tag, tag};
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
