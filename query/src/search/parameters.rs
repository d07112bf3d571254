//! The parameters of a search that are conditions on a span, as a TraceQL query.

use spanloom_traceql::{CompiledQuery, Literal};

use crate::db::{Db, DbError, Deadline};
use crate::params::{Params, SPAN_KINDS, SPAN_STATUSES};
use crate::problem::Problem;
use crate::search::cursor::Question;
use crate::search::tag::{Place, Places, Tag};
use crate::sql::Sql;
use crate::traceql::condition::Condition;
use crate::traceql::rows::Maps;
use crate::traceql::search::candidates;

/// More tags than this in one search are refused: each may read a map.
pub(super) const TAGS_MAX: usize = 10;

/// The parameters that are conditions on a span. One span must meet all of them.
const CONDITIONS: [&str; 7] = [
    "service",
    "operation",
    "status",
    "kind",
    "tag",
    "minDuration",
    "maxDuration",
];

/// Those of the conditions that a request has.
pub(super) fn given(params: &Params) -> Vec<&'static str> {
    let has = |name: &&str| params.all(name).any(|value| !value.is_empty());
    CONDITIONS.into_iter().filter(has).collect()
}

/// Parameters as a search.
#[derive(Debug)]
pub struct Understood {
    /// The query.
    pub text: String,
    /// Where spans may have a tag in a map, how it is found there.
    pub maps: Option<Maps>,
}

/// What a span must be to match.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// The conditions that are no tags, as TraceQL.
    fixed: Vec<String>,
    tags: Vec<Tag>,
}

impl Parameters {
    /// Reads those of a request.
    ///
    /// # Errors
    /// When a parameter is malformed.
    pub fn read(params: &Params) -> Result<Self, Problem> {
        let mut fixed = Vec::new();
        if let Some(service) = params.one("service") {
            let service = Literal::Str(service.to_owned());
            fixed.push(format!("resource.service.name = {service}"));
        }
        if let Some(operation) = params.one("operation") {
            fixed.push(format!("name = {}", Literal::Str(operation.to_owned())));
        }
        for (field, names, number) in [
            ("status", &SPAN_STATUSES[..], params.status()?),
            ("kind", &SPAN_KINDS[..], params.kind()?),
        ] {
            let place = number.and_then(|number| usize::try_from(number).ok());
            if let Some(name) = place.and_then(|place| names.get(place)) {
                fixed.push(format!("{field} = {}", name.to_ascii_lowercase()));
            }
        }
        let min = params.duration("minDuration")?;
        let max = params.duration("maxDuration")?;
        if min.zip(max).is_some_and(|(min, max)| min > max) {
            return Err(Problem::parameter(
                "maxDuration",
                "maxDuration is below minDuration",
            ));
        }
        for (op, ns) in [(">=", min), ("<=", max)] {
            if let Some(ns) = ns {
                // The longest duration of TraceQL is 292 years.
                let ns = i64::try_from(ns).unwrap_or(i64::MAX);
                fixed.push(format!("duration {op} {ns}ns"));
            }
        }
        Ok(Self {
            fixed,
            tags: read_tags(params)?,
        })
    }

    /// Marks this question of a window, so that a cursor of another one can be refused.
    pub fn question(&self, (start_ns, end_ns): (i64, i64)) -> u64 {
        let mut question = Question::new();
        question
            .part(b"parameters")
            .part(&start_ns.to_be_bytes())
            .part(&end_ns.to_be_bytes());
        for condition in &self.fixed {
            question.part(condition.as_bytes());
        }
        for tag in &self.tags {
            question.part(b"tag").part(tag.text().as_bytes());
        }
        question.mark()
    }

    /// The search that they are, of the spans that start in a window. Where a key may be is asked first: a condition for
    /// each place that an attribute can have is long, and usually only one of them can match.
    ///
    /// # Errors
    /// When ClickHouse has no answer, or the query is too long.
    pub async fn query(
        &self,
        db: &Db,
        (start_ns, end_ns): (i64, i64),
        deadline: Deadline,
    ) -> Result<Understood, Problem> {
        let places = match self.tags.is_empty() {
            true => Vec::new(),
            false => self.places(db, (start_ns, end_ns), deadline).await?,
        };
        Ok(Understood {
            text: self.text(&places),
            maps: self.maps(&places),
        })
    }

    /// What finds tags in maps, which TraceQL does not look into; none where there are none.
    fn maps(&self, places: &[Places]) -> Option<Maps> {
        let tags = || self.tags.iter().zip(places);
        if !tags().any(|(_, places)| places.has(Place::Maps)) {
            return None;
        }
        let of = |text: &String| {
            let query = CompiledQuery::new(&format!("{{ {text} }}"));
            query.map_or(Condition::UNKNOWN, |query| candidates(&query))
        };
        let mut all: Vec<_> = self.fixed.iter().map(of).collect();
        for (tag, places) in tags() {
            let mut any: Vec<_> = tag.terms(*places).iter().map(of).collect();
            if places.has(Place::Maps) {
                let probes = tag.probes().into_iter();
                let maps = probes.filter(|(place, _)| *place == Place::Maps);
                any.extend(maps.map(|(_, sql)| Condition::at_least(sql)));
            }
            all.push(Condition::any(any.into_iter()));
        }
        let keys = tags().flat_map(|(tag, _)| tag.bases());
        Some(Maps {
            keys: keys.map(str::to_owned).collect(),
            condition: Condition::all(all.into_iter()),
        })
    }

    async fn places(
        &self,
        db: &Db,
        (start_ns, end_ns): (i64, i64),
        deadline: Deadline,
    ) -> Result<Vec<Places>, DbError> {
        // What the other parameters say narrows the spans down; it is short, and a query of its own.
        let fixed = CompiledQuery::new(&self.text(&[]));
        let sql = match &fixed {
            Ok(query) => self.places_sql(&candidates(query).within(start_ns, end_ns)),
            Err(_) => return Ok(vec![Places::ALL; self.tags.len()]),
        };
        let deadline = deadline.part(10);
        let rows: Result<Vec<u64>, _> = db.rows("search_places", &sql, deadline).await;
        let bits = match rows {
            Ok(rows) => rows.first().copied().unwrap_or(u64::MAX),
            // Then it is looked for in all places, the newest spans first.
            Err(DbError::Timeout(_) | DbError::Memory(_)) => u64::MAX,
            Err(error) => return Err(error),
        };
        let places = (0..self.tags.len()).map(|number| Places::of_bits(bits, number));
        Ok(places.collect())
    }

    /// The query that says where spans may have the tags: one number.
    fn places_sql(&self, window: &Sql) -> Sql {
        let mut sql = Sql::new("SELECT toUInt64(groupBitOr(bit)) FROM (");
        let mut is_first = true;
        for (number, tag) in self.tags.iter().enumerate() {
            for (place, condition) in tag.probes() {
                // An expression twice in a query is twice as long to read for ClickHouse: one row says that a place
                // may hold a tag.
                sql.push(if is_first {
                    "SELECT "
                } else {
                    " UNION ALL SELECT "
                })
                .uint(place.bit(number))
                .push(" AS bit FROM spans WHERE ")
                .append(window)
                .push(" AND (")
                .append(&condition)
                .push(") LIMIT 1");
                is_first = false;
            }
        }
        sql.push(")");
        sql
    }

    /// The query, with those tags whose places are known.
    fn text(&self, places: &[Places]) -> String {
        let mut conditions = self.fixed.clone();
        for (tag, places) in self.tags.iter().zip(places) {
            let any = tag.terms(*places);
            conditions.push(match any.as_slice() {
                [] => "false".to_owned(),
                [one] => one.clone(),
                several => format!("({})", several.join(" || ")),
            });
        }
        match conditions.is_empty() {
            true => "{ }".to_owned(),
            false => format!("{{ {} }}", conditions.join(" && ")),
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

    fn read(query: &str) -> Result<Parameters, Problem> {
        let uri = format!("/x?start=1&end=2&{query}").parse().unwrap();
        Parameters::read(&Params::read(&uri, ALLOWED)?)
    }

    #[track_caller]
    fn check(query: &str, places: Places, expect: &str) {
        let read = read(query).unwrap();
        let text = read.text(&vec![places; read.tags.len()]);
        assert_eq!(text, expect, "{query}");
        CompiledQuery::new(&text).unwrap();
    }

    #[test]
    fn parameters_are_a_query() {
        const TEXT: Places = Places::NONE;
        check("", TEXT, "{ }");
        check(
            "service=a%22b&operation=GET%20/x&status=ERROR&kind=server&minDuration=1.5s&maxDuration=2m",
            TEXT,
            "{ resource.service.name = \"a\\\"b\" && name = \"GET /x\" && status = error && kind = server && \
             duration >= 1500000000ns && duration <= 120000000000ns }",
        );
        check("tag=user.id%3Dabc", TEXT, "{ span.user.id = \"abc\" }");
        check("tag=user.id%3D12", TEXT, "{ span.user.id = \"12\" }");
        check(
            "tag=user.id%3D12&tag=vip%3Dtrue",
            Places::ALL,
            "{ (span.user.id = \"12\" || span.user.id = 12 || resource.user.id = \"12\" || resource.user.id = 12 || \
             instrumentation.user.id = \"12\" || instrumentation.user.id = 12 || event.user.id = \"12\" || \
             event.user.id = 12 || link.user.id = \"12\" || link.user.id = 12) && \
             (span.vip = \"true\" || span.vip = true || resource.vip = \"true\" || resource.vip = true || \
             instrumentation.vip = \"true\" || instrumentation.vip = true || event.vip = \"true\" || \
             event.vip = true || link.vip = \"true\" || link.vip = true) }",
        );
        check(
            "tag=a%3Db%3Dc",
            TEXT,
            "{ (span.a = \"b=c\" || span.\"a=b\" = \"c\") }",
        );
        check(
            "tag=error%3Dtrue",
            TEXT,
            "{ (status = error || span.error = \"true\") }",
        );
        check(
            "tag=otel.status_code%3DERROR",
            TEXT,
            "{ (status = error || span.otel.status_code = \"ERROR\") }",
        );
        check(
            "tag=status.message%3Dx",
            TEXT,
            "{ (statusMessage = \"x\" || span.status.message = \"x\") }",
        );
        check(
            "tag=service.name%3Dcart",
            TEXT,
            "{ (span.service.name = \"cart\" || resource.service.name = \"cart\") }",
        );
        check("tag=load%3D0.50", TEXT, "{ span.load = \"0.50\" }");
    }

    #[test]
    fn each_tag_has_bits_of_its_own() {
        let tags = (0..TAGS_MAX).map(|n| format!("tag=k{n}%3D1&"));
        let read = read(&tags.collect::<String>()).unwrap();
        let text = read.places_sql(&Sql::new("true")).shown();
        let bits = text.split("SELECT ").filter_map(|part| {
            let (bit, _) = part.split_once(" AS bit")?;
            bit.parse::<u64>().ok()
        });
        let bits: Vec<u64> = bits.collect();
        assert_eq!(bits.len(), TAGS_MAX * 6);
        let all = bits.iter().fold(0, |all, bit| all | bit);
        assert_eq!(all.count_ones() as usize, bits.len());
        for number in 0..TAGS_MAX {
            let mask = bits[number * 6..][..6].iter().fold(0, |all, bit| all | bit);
            assert_eq!(Places::of_bits(mask, number), Places::ALL);
            assert_eq!(Places::of_bits(!mask, number), Places::NONE);
        }
    }

    #[track_caller]
    fn check_refused(query: &str, parameter: &str) {
        let problem = read(query).unwrap_err();
        assert_eq!(problem.at_parameter(), Some(parameter), "{query}");
    }

    #[test]
    fn bad_parameters() {
        check_refused("tag=x", "tag");
        check_refused("tag=%3Dx", "tag");
        check_refused("tag=", "tag");
        check_refused(&"tag=a%3D1&".repeat(TAGS_MAX + 1), "tag");
        check_refused("minDuration=2s&maxDuration=1s", "maxDuration");
        check_refused("minDuration=5", "minDuration");
        check_refused("maxDuration=x", "maxDuration");
        check_refused("kind=x", "kind");
        check_refused("status=x", "status");
    }

    #[test]
    fn only_the_question_marks_a_cursor() {
        let mark = |query: &str| read(query).unwrap().question((1, 2));
        assert_eq!(mark("tag=a%3D1&tag=b%3D2"), mark("tag=b%3D2&tag=a%3D1"));
        assert_eq!(mark("limit=1"), mark("limit=2"));
        assert_ne!(mark("service=a"), mark("operation=a"));
        assert_ne!(mark("status=ok"), mark("kind=internal"));
        assert_ne!(mark("minDuration=1s"), mark("maxDuration=1s"));
        assert_ne!(mark(""), mark("status=unset"));
        assert_ne!(mark("tag=a%3D1"), mark("tag=a%3D2"));
        assert_ne!(
            read("").unwrap().question((1, 2)),
            read("").unwrap().question((1, 3))
        );
    }
}
