//! Query strings: what may be given, how often, and how each value is read.
//!
//! Every function that reads a value names its parameter in the error, so that a client sees which
//! of its inputs is at fault.

use http::Uri;

use crate::problem::Problem;

/// Nanoseconds in a second.
const SECOND_NS: i64 = 1_000_000_000;

/// What a route takes in its query string.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Names that may be given once.
    pub once: &'static [&'static str],
    /// Names that may be given several times.
    pub repeated: &'static [&'static str],
}

impl Allowed {
    /// No parameters.
    pub const NONE: Self = Self {
        once: &[],
        repeated: &[],
    };

    /// Each name, in the order of declaration.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.once.iter().chain(self.repeated).copied()
    }
}

/// The parameters of one request, checked against what its route takes.
#[derive(Debug)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Reads the query string of `uri`.
    ///
    /// # Errors
    /// When a name is not in `allowed`, or one that may be given once is given twice.
    pub fn read(uri: &Uri, allowed: Allowed) -> Result<Self, Problem> {
        let pairs: Vec<(String, String)> = axum::extract::Query::try_from_uri(uri)
            .map(|axum::extract::Query(pairs)| pairs)
            .map_err(|error| {
                Problem::parameter("", format!("cannot parse the query string: {error}"))
            })?;
        for (place, (name, _)) in pairs.iter().enumerate() {
            if allowed.repeated.contains(&name.as_str()) {
                continue;
            }
            if !allowed.once.contains(&name.as_str()) {
                let known: Vec<_> = allowed.names().collect();
                let known = match known.is_empty() {
                    true => "this endpoint has no parameters".to_owned(),
                    false => format!("known parameters: {}", known.join(", ")),
                };
                return Err(Problem::parameter(
                    name,
                    format!("unknown parameter; {known}"),
                ));
            }
            if pairs.iter().take(place).any(|(earlier, _)| earlier == name) {
                return Err(Problem::parameter(name, "must not be given more than once"));
            }
        }
        Ok(Self { pairs })
    }

    /// Reads the query string of `uri` for a route of another product, whose clients may send what we do not
    /// know: names are not checked, and the first of several values counts.
    ///
    /// # Errors
    /// When the query string is malformed.
    pub fn of_others(uri: &Uri) -> Result<Self, Problem> {
        let pairs = axum::extract::Query::try_from_uri(uri)
            .map(|axum::extract::Query(pairs)| pairs)
            .map_err(|error| {
                Problem::parameter("", format!("cannot parse the query string: {error}"))
            })?;
        Ok(Self { pairs })
    }

    /// Parameters that came in another way, for a route of another product.
    pub fn given(pairs: Vec<(String, String)>) -> Self {
        Self { pairs }
    }

    /// The value of a parameter; one that is given without a value counts as not given.
    pub fn one(&self, name: &str) -> Option<&str> {
        let mut given = self
            .pairs
            .iter()
            .filter(|(given, value)| given == name && !value.is_empty());
        given.next().map(|(_, value)| value.as_str())
    }

    /// All values of a parameter that may be repeated.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// A time, in nanoseconds since 1970, if given.
    pub fn time(&self, name: &str) -> Result<Option<i64>, Problem> {
        self.one(name)
            .map(|text| {
                parse_time(text).ok_or_else(|| {
                    Problem::parameter(
                        name,
                        format!(
                            "'{}' is not a valid time; use RFC 3339 (2026-01-31T12:00:00Z) or Unix \
                             seconds, from 1970 to 2261",
                            shorten(text)
                        ),
                    )
                })
            })
            .transpose()
    }

    /// The window `start`..=`end`, both required, in nanoseconds since 1970.
    pub fn window(&self) -> Result<(i64, i64), Problem> {
        let required = |name: &str| {
            self.time(name)?.ok_or_else(|| {
                Problem::parameter(
                    name,
                    format!("{name} is required; use RFC 3339 or Unix seconds"),
                )
            })
        };
        in_order(required("start")?, required("end")?)
    }

    /// The window where neither bound is required: nothing means all that is stored.
    pub fn open_window(&self) -> Result<(i64, i64), Problem> {
        in_order(
            self.time("start")?.unwrap_or(0),
            self.time("end")?.unwrap_or(TIME_MAX_NS),
        )
    }

    /// A duration in nanoseconds, if given.
    pub fn duration(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.one(name)
            .map(|text| {
                parse_duration(text).ok_or_else(|| {
                    Problem::parameter(
                        name,
                        format!(
                            "'{}' is not a valid duration; use a number and a unit, such as 10ms, \
                             1.5s or 2m",
                            shorten(text)
                        ),
                    )
                })
            })
            .transpose()
    }

    /// `true` or `false`; false where it is not given.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::parameter(name, "must be true or false")),
        }
    }

    /// A number in `1..=max`, or `default`.
    pub fn limit(&self, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.one("limit") else {
            return Ok(default);
        };
        text.parse()
            .ok()
            .filter(|limit| (1..=max).contains(limit))
            .ok_or_else(|| {
                Problem::parameter(
                    "limit",
                    format!("'{}' is not a whole number from 1 to {max}", shorten(text)),
                )
            })
    }

    /// A span kind by its number in the store, if given.
    pub fn kind(&self) -> Result<Option<i8>, Problem> {
        self.choice("kind", &SPAN_KINDS)
    }

    /// A span status by its number in the store, if given.
    pub fn status(&self) -> Result<Option<i8>, Problem> {
        self.choice("status", &SPAN_STATUSES)
    }

    fn choice(&self, name: &str, choices: &[&str]) -> Result<Option<i8>, Problem> {
        let Some(text) = self.one(name) else {
            return Ok(None);
        };
        let place = choices
            .iter()
            .position(|choice| choice.eq_ignore_ascii_case(text));
        match place.and_then(|place| i8::try_from(place).ok()) {
            Some(number) => Ok(Some(number)),
            None => {
                let text = shorten(text);
                let detail = format!("'{text}' is not one of {}", choices.join(", "));
                Err(Problem::parameter(name, detail))
            }
        }
    }
}

/// OTLP's span kinds in the order of their numbers, which the store's enum shares.
pub const SPAN_KINDS: [&str; 6] = [
    "unspecified",
    "internal",
    "server",
    "client",
    "producer",
    "consumer",
];

/// OTLP's span statuses in the order of their numbers, which the store's enum shares.
pub const SPAN_STATUSES: [&str; 3] = ["unset", "ok", "error"];

/// The last moment that ClickHouse's nanosecond times reach, rounded down to a year's end.
pub const TIME_MAX_NS: i64 = 9_214_646_399 * SECOND_NS;

fn in_order(start_ns: i64, end_ns: i64) -> Result<(i64, i64), Problem> {
    if start_ns > end_ns {
        return Err(Problem::parameter("end", "end is before start"));
    }
    Ok((start_ns, end_ns))
}

/// Cuts a value for an error message, so that a client's megabyte does not come back to it.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// RFC 3339, or Unix seconds with up to nine digits after the point.
fn parse_time(text: &str) -> Option<i64> {
    let ns = if text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        i64::try_from(decimal(text, SECOND_NS.unsigned_abs().into())?).ok()?
    } else {
        let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
            // An offset's '+' that was not escaped arrives as a space.
            let (before, after) = text.rsplit_once(' ')?;
            format!("{before}+{after}").parse().ok()
        })?;
        i64::try_from(timestamp.as_nanosecond()).ok()?
    };
    (0..=TIME_MAX_NS).contains(&ns).then_some(ns)
}

/// One or more numbers with units, as in `1m30s`.
fn parse_duration(text: &str) -> Option<u64> {
    // Longer units first: 'm' must not take the 'm' of "ms".
    const UNITS: [(&str, u128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("d", 86_400_000_000_000),
    ];
    let mut total: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let (unit, scale) = UNITS.into_iter().find(|(unit, _)| tail.starts_with(unit))?;
        total = total.checked_add(decimal(number, scale)?)?;
        rest = tail.get(unit.len()..)?;
    }
    (!text.is_empty())
        .then(|| u64::try_from(total).ok())
        .flatten()
}

/// `number` times `scale`, exactly; digits that are too small to count are dropped.
fn decimal(number: &str, scale: u128) -> Option<u128> {
    const DIGITS_MAX: usize = 20;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty())
        || whole.len() > DIGITS_MAX
        || fraction.len() > DIGITS_MAX
        || fraction.contains('.')
    {
        return None;
    }
    let digits = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u128>().ok()
        }
    };
    let whole = digits(whole)?.checked_mul(scale)?;
    // At most 10^20 times 8.64e13: below 2^127.
    let part = digits(fraction)? * scale / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_time(text: &str, expect: Option<i64>) {
        assert_eq!(parse_time(text), expect, "{text}");
    }

    #[test]
    fn times() {
        check_time("0", Some(0));
        check_time("1700000000", Some(1_700_000_000_000_000_000));
        check_time("1700000000.5", Some(1_700_000_000_500_000_000));
        check_time("1700000000.123456789", Some(1_700_000_000_123_456_789));
        check_time("1700000000.1234567899", Some(1_700_000_000_123_456_789));
        check_time(".5", Some(500_000_000));
        check_time("2023-11-14T22:13:20Z", Some(1_700_000_000_000_000_000));
        check_time("2023-11-14T22:13:20.5Z", Some(1_700_000_000_500_000_000));
        check_time("2023-11-14T23:13:20+01:00", Some(1_700_000_000_000_000_000));
        check_time("2023-11-14T23:13:20 01:00", Some(1_700_000_000_000_000_000));
        check_time("2023-11-14T20:13:20-02:00", Some(1_700_000_000_000_000_000));
        check_time("", None);
        check_time(".", None);
        check_time("1.2.3", None);
        check_time("-1", None);
        check_time("1e9", None);
        check_time("yesterday", None);
        check_time("2023-11-14", None);
        check_time("2023-11-14T22:13:20", None);
        check_time("1700000000000000000000", None);
        check_time("9999999999", None);
        check_time("1960-01-01T00:00:00Z", None);
        check_time("NaN", None);
        check_time("١٢٣", None);
    }

    #[track_caller]
    fn check_duration(text: &str, expect: Option<u64>) {
        assert_eq!(parse_duration(text), expect, "{text}");
    }

    #[test]
    fn durations() {
        check_duration("10ms", Some(10_000_000));
        check_duration("1.5s", Some(1_500_000_000));
        check_duration("2m", Some(120_000_000_000));
        check_duration("1m30s", Some(90_000_000_000));
        check_duration("1h", Some(3_600_000_000_000));
        check_duration("1d", Some(86_400_000_000_000));
        check_duration("7us", Some(7_000));
        check_duration("7µs", Some(7_000));
        check_duration("0s", Some(0));
        check_duration("1.5ns", Some(1));
        check_duration(".5ms", Some(500_000));
        check_duration("", None);
        check_duration("10", None);
        check_duration("ms", None);
        check_duration("10 ms", None);
        check_duration("-10ms", None);
        check_duration("1e3ms", None);
        check_duration("10parsecs", None);
        check_duration("1..5s", None);
        check_duration("999999999999h", None);
        check_duration("99999999999999999999d99999999999999999999d", None);
    }

    const ALLOWED: Allowed = Allowed {
        once: &["start", "end", "limit", "kind"],
        repeated: &["tag"],
    };

    fn read(query: &str) -> Result<Params, Problem> {
        Params::read(&format!("/x?{query}").parse().unwrap(), ALLOWED)
    }

    #[track_caller]
    fn check_refused(query: &str, parameter: &str) {
        let problem = read(query).unwrap_err();
        assert_eq!(problem.at_parameter(), Some(parameter), "{query}");
    }

    #[test]
    fn names() {
        check_refused("color=red", "color");
        check_refused("Start=1", "Start");
        check_refused("start=1&start=2", "start");
        check_refused("start=1&start=1", "start");
        check_refused("tag=a&limit=1&tag=b&limit=1", "limit");
        let params = read("tag=a%3Db&tag=%F0%9F%92%A1&start=&limit=7").unwrap();
        assert_eq!(params.all("tag").collect::<Vec<_>>(), ["a=b", "💡"]);
        assert_eq!(params.one("start"), None);
        assert_eq!(params.limit(20, 100), Ok(7));
    }

    #[test]
    fn windows() {
        let window = |query: &str| {
            let window = read(query).unwrap().window();
            window.map_err(|problem| problem.at_parameter().unwrap().to_owned())
        };
        assert_eq!(window("start=1&end=2"), Ok((SECOND_NS, 2 * SECOND_NS)));
        assert_eq!(window("start=2&end=2"), Ok((2 * SECOND_NS, 2 * SECOND_NS)));
        assert_eq!(window("start=2&end=1"), Err("end".into()));
        assert_eq!(window("end=1"), Err("start".into()));
        assert_eq!(window("start=1"), Err("end".into()));
        assert_eq!(window("start=x&end=1"), Err("start".into()));
        assert_eq!(read("").unwrap().open_window(), Ok((0, TIME_MAX_NS)));
    }
}
