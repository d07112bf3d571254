//! What is done to spans: as the document says it, and made ready to be applied.

use std::sync::Arc;
use std::time::Duration;

use spanloom_otlp::sampling::Threshold;
use spanloom_traceql::Filter;
use thiserror::Error;

use super::redact::Redactor;

/// What is done to spans, as the document says it.
#[derive(Debug, Clone)]
pub struct Processing {
    /// Whether spans are kept at all: if not, they are counted and discarded.
    pub enabled: bool,
    /// What a probe's spans have in the resource attribute `spanloom.probe`; none: there are no
    /// probes. They are stored whatever the rules say, and not measured.
    pub probe: Option<String>,
    /// Attributes that each resource gets; they replace what was sent under the same key.
    pub resource: Vec<(String, String)>,
    /// Spans that one of these matches are discarded.
    pub drop: Vec<Arc<Filter>>,
    /// What is hidden.
    pub redact: Vec<Redaction>,
    /// What is cut.
    pub limits: Limits,
    /// The part of traces that is kept, from 0 to 1.
    pub head_ratio: f64,
    /// How long spans are kept: one that began before that is refused.
    pub retention: Duration,
}

impl Default for Processing {
    fn default() -> Self {
        Self {
            enabled: true,
            probe: None,
            resource: Vec::new(),
            drop: Vec::new(),
            redact: Vec::new(),
            limits: Limits::default(),
            head_ratio: 1.0,
            retention: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// What is hidden in spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redaction {
    /// The values of attributes with these keys, exact or with `*` for any text; also of keys
    /// inside nested values, where the key is the path with dots.
    Keys(Vec<String>),
    /// Text like this, in values (nested ones too), names and status messages.
    Values(ValuePattern),
}

/// What text is hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePattern {
    /// A known kind of text.
    Class(ValueClass),
    /// A regular expression; what it matches is hidden, the rest of the text stays.
    Regex(String),
}

/// Kinds of text that are often hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueClass {
    /// E-mail addresses.
    Email,
    /// Numbers of payment cards, with a valid check digit.
    CreditCard,
    /// IPv4 addresses.
    Ipv4,
    /// JSON web tokens.
    Jwt,
    /// `Bearer` and `Basic` credentials.
    Credentials,
}

impl ValueClass {
    /// All classes with their names in the document.
    pub const ALL: [(&'static str, Self); 5] = [
        ("email", Self::Email),
        ("creditCard", Self::CreditCard),
        ("ipv4", Self::Ipv4),
        ("jwt", Self::Jwt),
        ("credentials", Self::Credentials),
    ];

    /// The class of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|&(_, class)| class)
    }
}

/// What is cut from spans. Each cut counts on the dropped counts of what it was cut from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Attributes of a span, event, link, scope or resource.
    pub attributes: usize,
    /// Events of a span.
    pub events: usize,
    /// Links of a span.
    pub links: usize,
    /// Bytes of a value. Names, keys and messages are cut at the same length, but not below 1 KiB.
    pub value_bytes: usize,
}

impl Limits {
    /// Bytes of a name, key or message.
    pub(crate) fn text_bytes(&self) -> usize {
        self.value_bytes.max(1 << 10)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attributes: 128,
            events: 128,
            links: 128,
            value_bytes: 8 << 10,
        }
    }
}

/// Why [`Processing`] cannot be applied.
#[derive(Debug, Error)]
pub enum ProcessingError {
    /// A regular expression does not compile.
    #[error("redact: the regular expression {pattern:?} is invalid: {error}")]
    Regex {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        error: Box<regex::Error>,
    },
    /// It would hide something between any two characters.
    #[error(
        "redact: the regular expression {0:?} matches the empty text; make it match at least one character"
    )]
    MatchesEmpty(String),
    /// The ratio is out of range.
    #[error("sampling: the ratio {0} is not between 0 and 1")]
    Ratio(f64),
}

/// [`Processing`], ready to be applied.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) enabled: bool,
    pub(crate) probe: Option<Box<str>>,
    pub(crate) resource: Vec<(Box<str>, Box<str>)>,
    pub(crate) drop: Vec<Arc<Filter>>,
    pub(crate) redactor: Option<Redactor>,
    pub(crate) limits: Limits,
    /// What head sampling keeps; none: nothing, all is only measured.
    pub(crate) threshold: Option<Threshold>,
    pub(crate) retention_ns: u64,
}

impl Rules {
    pub(crate) fn compile(processing: &Processing) -> Result<Self, ProcessingError> {
        let ratio = processing.head_ratio;
        Ok(Self {
            enabled: processing.enabled,
            probe: processing.probe.as_deref().map(Into::into),
            resource: processing
                .resource
                .iter()
                .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
                .collect(),
            drop: processing.drop.clone(),
            redactor: Redactor::compile(&processing.redact)?,
            limits: processing.limits.clone(),
            threshold: match Threshold::from_ratio(ratio) {
                None if ratio != 0.0 => return Err(ProcessingError::Ratio(ratio)),
                threshold => threshold,
            },
            retention_ns: u64::try_from(processing.retention.as_nanos()).unwrap_or(u64::MAX),
        })
    }
}
