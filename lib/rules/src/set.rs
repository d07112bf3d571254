//! A rule set, as it is written and sent, and compiled.

use serde::{Deserialize, Serialize};
use spanloom_traceql::Filter;

use crate::error::{Collect, RuleErrors};
use crate::filters;
use crate::limits::Limits;
use crate::pattern::{KeyPattern, ValuePattern};
use crate::redact::Redactor;

/// Rules as they are written and sent. They are applied in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSet {
    /// TraceQL filters on single spans, as text; a span that matches one is discarded.
    pub drop: Vec<String>,
    /// Attributes of all scopes whose values are hidden, also keys inside nested values, where the
    /// key is the path with dots.
    pub redact_keys: Vec<KeyPattern>,
    /// Text that is hidden in values (nested ones too), names and status messages.
    pub redact_values: Vec<ValuePattern>,
    /// What is cut.
    pub limits: Limits,
}

/// A [`RuleSet`], ready to be applied.
#[derive(Debug)]
pub struct Rules {
    /// Spans that one of these matches are discarded.
    pub drop: Vec<Filter>,
    /// What is hidden; none where there is nothing to hide.
    pub redactor: Option<Redactor>,
    /// What is cut.
    pub limits: Limits,
}

impl RuleSet {
    /// Makes the rules ready to be applied, all of them or none.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn compile(&self) -> Result<Rules, RuleErrors> {
        let mut errors = Collect::default();
        let drop = filters::compile(&self.drop, &mut errors);
        let redactor = Redactor::compile(&self.redact_keys, &self.redact_values, &mut errors);
        self.limits.check(&mut errors);
        if errors.0.is_empty() {
            Ok(Rules {
                drop,
                redactor,
                limits: self.limits,
            })
        } else {
            Err(RuleErrors(errors.0))
        }
    }
}
