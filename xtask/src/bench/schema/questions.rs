//! The query shapes of PIPELINE.md, section 2, as each layout spells them.

use serde::Deserialize;

use super::super::load::rng::Rng;
use super::super::sql::Sql;
use super::layout::Words;
use super::source::Source;

/// Names of the questions, in the order of [`statements`].
pub const NAMES: [&str; 10] = [
    "(a) trace, window known",
    "(a) trace, id only",
    "(b) service + operation, 1 h",
    "(b) service + operation, all",
    "(c) duration, 1 h",
    "(d) promoted attribute, 1 h",
    "(d) text attribute, 1 h",
    "(d) integer attribute, 1 h",
    "(d) resource attribute, 1 h",
    "(e) percentiles from spans, all",
];

/// Values that occur, drawn from the source.
#[derive(Debug, Clone, Deserialize)]
pub struct Parameters {
    trace: String,
    time: String,
    service: String,
    operation: String,
    route: String,
    user: String,
    port: String,
    pod: String,
    hour: String,
}

/// Draws `count` sets of parameters.
pub fn parameters(sql: &Sql, source: &Source, count: usize) -> anyhow::Result<Vec<Parameters>> {
    let mut rng = Rng::new(5);
    let half = source.spans / 2;
    let seconds = ((source.hours - 1.0) * 3600.0).max(1.0) as u64;
    let start = &source.start;
    (0..count)
        .map(|_| {
            let answer = sql.run(&format!(
                "SELECT lower(hex(trace_id)) AS trace, toString(time, 'UTC') AS time, service, \
                 name AS operation, attributes['http.route'] AS route, \
                 attributes['user.id'] AS user, \
                 toString(integers['network.peer.port']) AS port, \
                 JSONExtractString(resource, 'k8s.pod.name') AS pod, \
                 toString(toDateTime('{start}', 'UTC') + {}) AS hour FROM source \
                 WHERE attributes['http.route'] != '' LIMIT 1 OFFSET {} FORMAT JSONEachRow",
                rng.below(seconds),
                rng.below(half),
            ))?;
            Ok(serde_json::from_str(&answer.text)?)
        })
        .collect()
}

/// The statements for one set of parameters.
pub fn statements(words: &Words, parameters: &Parameters) -> [String; 10] {
    let Words {
        time,
        service,
        name,
        duration,
        ..
    } = words;
    // Without what ClickHouse remembers of the first time that a condition is asked: people ask another.
    let end = "SETTINGS use_query_condition_cache = 0 FORMAT Null";
    let list = format!("SELECT {time} AS t, {service}, {name}, {duration} FROM layout");
    let newest = format!("ORDER BY t DESC LIMIT 20 {end}");
    let hour = format!(
        "{time} >= toDateTime64('{{hour}}', 9, 'UTC') \
         AND {time} < toDateTime64('{{hour}}', 9, 'UTC') + INTERVAL 1 HOUR"
    );
    let operation = format!("{service} = '{{service}}' AND {name} = '{{operation}}'");
    let in_hour = |condition: &str| format!("{list} WHERE {condition} AND {hour} {newest}");
    [
        format!(
            "SELECT * FROM layout WHERE {} AND {time} BETWEEN toDateTime64('{{time}}', 9, 'UTC') - 1 \
             AND toDateTime64('{{time}}', 9, 'UTC') + 10 {end}",
            words.in_trace
        ),
        format!("SELECT * FROM layout WHERE {} {end}", words.in_trace),
        in_hour(&operation),
        format!("{list} WHERE {operation} {newest}"),
        in_hour(&format!("{duration} > 900000000")),
        in_hour(words.route),
        in_hour(words.user),
        in_hour(words.port),
        in_hour(words.pod),
        format!(
            "SELECT {service}, {name}, quantiles(0.5, 0.95, 0.99)({duration}) FROM layout \
             GROUP BY 1, 2 {end}"
        ),
    ]
    .map(|statement| parameters.put_into(&statement))
}

impl Parameters {
    fn put_into(&self, statement: &str) -> String {
        let values = [
            ("{trace}", &self.trace),
            ("{time}", &self.time),
            ("{service}", &self.service),
            ("{operation}", &self.operation),
            ("{route}", &self.route),
            ("{user}", &self.user),
            ("{port}", &self.port),
            ("{pod}", &self.pod),
            ("{hour}", &self.hour),
        ];
        // `{id}` is part of routes, not a parameter, and stays.
        values
            .into_iter()
            .fold(statement.to_owned(), |text, (name, value)| {
                text.replace(name, value)
            })
    }
}
