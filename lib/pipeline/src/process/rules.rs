//! What is done to spans: as it is configured, and made ready to be applied.

use std::time::Duration;

use spanloom_otlp::sampling::Threshold;
use spanloom_rules::{Limits, Redactor, RuleErrors, RuleSet};
use spanloom_traceql::Filter;
use thiserror::Error;

/// What is done to spans.
#[derive(Debug, Clone)]
pub struct Processing {
    /// Whether spans are kept at all: if not, they are counted and discarded.
    pub enabled: bool,
    /// What a probe's spans have in the resource attribute `spanloom.probe`; none: there are no
    /// probes. They are stored whatever the rules say, and not measured.
    pub probe: Option<String>,
    /// Attributes that each resource gets; they replace what was sent under the same key.
    pub resource: Vec<(String, String)>,
    /// What is discarded, hidden and cut.
    pub rules: RuleSet,
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
            rules: RuleSet::default(),
            head_ratio: 1.0,
            retention: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// Why [`Processing`] cannot be applied.
#[derive(Debug, Error)]
pub enum ProcessingError {
    /// A rule cannot be used.
    #[error(transparent)]
    Rules(#[from] RuleErrors),
    /// The ratio is out of range.
    #[error("sampling: the ratio must be from 0 to 1, but is {0}")]
    Ratio(f64),
}

/// [`Processing`], ready to be applied.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) enabled: bool,
    pub(crate) probe: Option<Box<str>>,
    pub(crate) resource: Vec<(Box<str>, Box<str>)>,
    pub(crate) drop: Vec<Filter>,
    pub(crate) redactor: Option<Redactor>,
    pub(crate) limits: Limits,
    /// What head sampling keeps; none: nothing, all is only measured.
    pub(crate) threshold: Option<Threshold>,
    pub(crate) retention_ns: u64,
}

impl Rules {
    pub(crate) fn compile(processing: &Processing) -> Result<Self, ProcessingError> {
        let ratio = processing.head_ratio;
        let spanloom_rules::Rules {
            drop,
            redactor,
            limits,
        } = processing.rules.compile()?;
        Ok(Self {
            enabled: processing.enabled,
            probe: processing.probe.as_deref().map(Into::into),
            resource: processing
                .resource
                .iter()
                .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
                .collect(),
            drop,
            redactor,
            limits,
            threshold: match Threshold::from_ratio(ratio) {
                None if ratio != 0.0 => return Err(ProcessingError::Ratio(ratio)),
                threshold => threshold,
            },
            retention_ns: u64::try_from(processing.retention.as_nanos()).unwrap_or(u64::MAX),
        })
    }
}
