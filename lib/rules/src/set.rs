//! A rule set, as it is written and sent, and compiled.

use serde::{Deserialize, Serialize};
use spanloom_traceql::Filter;

use crate::class::CLASSES;
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
    /// The capabilities that a program must have to apply these rules, each by the name of its field
    /// in a pipeline's spec and, for a class, the class's name. Every field is named here, so that
    /// one that is added does not compile before its capability is.
    pub fn capabilities(&self) -> Vec<String> {
        let Self {
            drop,
            redact_keys,
            redact_values,
            limits,
        } = self;
        let mut capabilities = Vec::new();
        let mut add = |name: String, is_used: bool| {
            if is_used && !capabilities.contains(&name) {
                capabilities.push(name);
            }
        };
        add("drop".to_owned(), !drop.is_empty());
        add("redact.keys".to_owned(), !redact_keys.is_empty());
        add("redact.values".to_owned(), !redact_values.is_empty());
        for pattern in redact_values {
            if let ValuePattern::Class(name) = pattern {
                add(format!("redact.values.{name}"), true);
            }
        }
        add("limits".to_owned(), *limits != Limits::default());
        capabilities
    }

    /// Rules that use everything that this program can do, for their capabilities.
    pub fn everything() -> Self {
        let classes = CLASSES.iter().map(|class| ValuePattern::of(class.name));
        Self {
            drop: vec!["{ false }".to_owned()],
            redact_keys: vec![KeyPattern::of("a"), KeyPattern::of("*.a")],
            redact_values: classes.chain([ValuePattern::of("(a)")]).collect(),
            limits: Limits {
                attributes: 1,
                events: 1,
                links: 1,
                value_bytes: 1,
            },
        }
    }

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
