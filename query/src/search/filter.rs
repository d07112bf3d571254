//! What a search asks of a span, and the SQL of it.

use crate::params::Params;
use crate::problem::Problem;
use crate::search::cursor::Question;
use crate::search::tag::{Parts, Tag};
use crate::sql::Sql;

/// More tags than this in one search are refused: each may read a map.
const TAGS_MAX: usize = 16;

/// Conditions on the status by OTLP's number.
pub(super) const STATUS_EQUALS: [&str; 3] =
    ["status = 'UNSET'", "status = 'OK'", "status = 'ERROR'"];

/// Conditions on the kind by OTLP's number.
const KIND_EQUALS: [&str; 6] = [
    "kind = 'UNSPECIFIED'",
    "kind = 'INTERNAL'",
    "kind = 'SERVER'",
    "kind = 'CLIENT'",
    "kind = 'PRODUCER'",
    "kind = 'CONSUMER'",
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
    tags: Vec<Tag>,
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
        for tag in &self.tags {
            question.part(tag.text().as_bytes());
        }
        question.mark()
    }

    /// The conditions on a span whose start is in `from_ns..=to_ns`, without WHERE.
    pub fn conditions(&self, from_ns: i64, to_ns: i64, places: Places) -> Sql {
        let mut sql = self.columns(from_ns, to_ns);
        for (place, tag) in self.tags.iter().enumerate() {
            sql.push(" AND (")
                .append(&tag.condition(places.parts(place)))
                .push(")");
        }
        sql
    }

    /// The query that says where spans of `from_ns..=to_ns` may have the filter's tags, for [`Places`]: one
    /// number. `None` without tags.
    ///
    /// The resource is one narrow column, and the indexes of the other keys leave hardly anything to read, so
    /// asking costs little; mostly no place is left but the one that is searched anyway.
    pub fn places_sql(&self, from_ns: i64, to_ns: i64) -> Option<Sql> {
        if self.tags.is_empty() {
            return None;
        }
        // An expression twice in a query is twice as long to read for ClickHouse: one row says that a place may
        // hold a tag.
        let window = self.columns(from_ns, to_ns);
        let mut sql = Sql::new("SELECT toUInt64(groupBitOr(bit)) FROM (");
        for (place, tag) in self.tags.iter().enumerate() {
            for (bit, condition) in [
                (place, tag.may_be_shared()),
                (TAGS_MAX + place, tag.may_be_beside()),
            ] {
                sql.push(if bit == 0 {
                    "SELECT "
                } else {
                    " UNION ALL SELECT "
                })
                .uint(1 << bit)
                .push(" AS bit FROM spans WHERE ")
                .append(&window)
                .push(" AND (")
                .append(&condition)
                .push(") LIMIT 1");
            }
        }
        sql.push(")");
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
        let status = numbered(&STATUS_EQUALS, self.status);
        let kind = numbered(&KIND_EQUALS, self.kind);
        for condition in [status, kind].into_iter().flatten() {
            sql.push(" AND ").push(condition);
        }
        if let Some(ns) = self.duration_min_ns {
            sql.push(" AND duration_ns >= ").uint(ns);
        }
        if let Some(ns) = self.duration_max_ns {
            sql.push(" AND duration_ns <= ").uint(ns);
        }
        sql
    }
}

/// Where the spans of a window may have a filter's tags, a bit for each tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// In the resource or the scope.
    shared: u64,
    /// Elsewhere than where it mostly is.
    beside: u64,
}

impl Places {
    /// Anywhere.
    pub const UNKNOWN: Self = Self {
        shared: u64::MAX,
        beside: u64::MAX,
    };

    /// In its column; without one, in the attributes that are texts or numbers.
    pub const USUAL: Self = Self {
        shared: 0,
        beside: 0,
    };

    /// What [`Filter::places_sql`] answered.
    pub fn found(answer: u64) -> Self {
        Self {
            shared: answer & ((1 << TAGS_MAX) - 1),
            beside: answer >> TAGS_MAX,
        }
    }

    fn parts(self, place: usize) -> Parts {
        let bit = |bits: u64| bits >> place & 1 == 1;
        Parts {
            shared: bit(self.shared),
            beside: bit(self.beside),
        }
    }
}

/// The tags in an order of their own, so that the order of giving does not matter to a cursor.
fn read_tags(params: &Params) -> Result<Vec<Tag>, Problem> {
    let mut tags = Vec::new();
    for text in params.all("tag") {
        let Some(tag) = Tag::read(text) else {
            return Err(Problem::parameter(
                "tag",
                "a tag must be key=value, such as http.route=/cart",
            ));
        };
        tags.push(tag);
    }
    if tags.len() > TAGS_MAX {
        let detail = format!(
            "{} tags are given; at most {TAGS_MAX} are allowed",
            tags.len()
        );
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

    const NONE: Places = Places::USUAL;

    /// The columns of `spans` that a tag's condition names.
    #[track_caller]
    fn check_columns(tag: &str, places: Places, expect: &[&str]) {
        const COLUMNS: [&str; 9] = [
            "service ",
            "http_route",
            "http_response_status_code",
            "status ",
            "status_message",
            "resource,",
            "attr_str",
            "attr_int",
            "events",
        ];
        let filter = read(&format!("tag={tag}")).unwrap();
        let text = filter.conditions(0, 1, places).text();
        let named = COLUMNS
            .iter()
            .copied()
            .filter(|column| text.contains(column));
        assert_eq!(named.collect::<Vec<_>>(), expect, "{tag}: {text}");
    }

    #[test]
    fn a_tag_is_looked_for_in_its_column_alone_when_spans_have_it_nowhere_else() {
        check_columns("service.name%3Dcart", NONE, &["service "]);
        check_columns("http.route%3D/cart", NONE, &["http_route"]);
        check_columns("http.route%3D", NONE, &[]);
        let code = "http.response.status_code";
        check_columns(
            &format!("{code}%3D404"),
            NONE,
            &["http_response_status_code"],
        );
        check_columns("error%3Dtrue", NONE, &["status "]);
        check_columns("otel.status_code%3Derror", NONE, &["status "]);
        check_columns("otel.status_description%3Dx", NONE, &["status_message"]);
        // Without a column it is looked for in the attributes, which have indexes.
        check_columns("user.id%3Dabc", NONE, &["attr_str"]);
        check_columns("user.id%3D12", NONE, &["attr_str", "attr_int"]);
        check_columns("error%3Dfalse", NONE, &["attr_str"]);
    }

    #[test]
    fn a_tag_may_be_anywhere() {
        let all = Places::UNKNOWN;
        let more = ["resource,", "attr_str", "events"];
        check_columns("user.id%3Dabc", all, &more);
        check_columns(
            "http.route%3D/cart",
            all,
            &[&["http_route"], &more[..]].concat(),
        );
        check_columns(
            "service.name%3Dcart",
            all,
            &[&["service "], &more[..]].concat(),
        );
        check_columns("http.route%3D", all, &more);
        let shared = Places { beside: 0, ..all };
        check_columns("http.route%3D/cart", shared, &["http_route", "resource,"]);
    }

    #[test]
    fn each_tag_has_a_bit() {
        let filter = read("tag=z%3D&tag=http.route%3D/x&tag=a%3D1").unwrap();
        // In the order of the tags: a, http.route, z.
        let text = filter.places_sql(0, 1).unwrap().text();
        assert_eq!(text.matches("AS bit FROM").count(), 6, "{text}");
        let places = Places::found(0b100 << TAGS_MAX | 0b001);
        let parts: Vec<_> = (0..3).map(|place| places.parts(place)).collect();
        let parts = parts.iter().map(|parts| (parts.shared, parts.beside));
        let expect = [(true, false), (false, false), (false, true)];
        assert_eq!(parts.collect::<Vec<_>>(), expect);
        assert_eq!(Places::found(0), Places::USUAL);
        assert!(read("service=a").unwrap().places_sql(0, 1).is_none());
    }

    #[test]
    fn without_a_tag_no_attributes_are_read() {
        let query = "service=a&operation=b&status=error&kind=server&minDuration=1ms&maxDuration=2s";
        let filter = read(query).unwrap();
        assert!(filter.places_sql(0, 1).is_none());
        let text = filter.conditions(0, 1, Places::UNKNOWN).text();
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
