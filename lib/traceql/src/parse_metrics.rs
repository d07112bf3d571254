//! The parts of a query about metrics: functions, what series are made by, and second stages.

use crate::ast::{CompareOp, Literal};
use crate::error::Error;
use crate::lexer::Tok;
use crate::parser::Parser;
use crate::query::{FieldRef, MetricsFunction, OverOp, SecondStage};

impl Parser<'_> {
    /// `rate()` and its like, with what series are made by.
    pub(crate) fn metrics_function(&mut self) -> Result<Option<MetricsFunction>, Error> {
        let Some(word) = self.word() else {
            return Ok(None);
        };
        let over = OverOp::named(word);
        let name = match word {
            "rate" | "count_over_time" | "quantile_over_time" | "compare" => word.to_owned(),
            _ if over.is_some() => word.to_owned(),
            _ => return Ok(None),
        };
        self.take()?;
        self.expect("(")?;
        if name == "compare" {
            return self.compare().map(Some);
        }
        if let Some(op) = over {
            let field = self.field()?;
            self.expect(")")?;
            let by = self.by_fields()?;
            return Ok(Some(MetricsFunction::Over { op, field, by }));
        }
        if name == "quantile_over_time" {
            let field = self.field()?;
            let mut quantiles = Vec::new();
            while self.accept(",")? {
                quantiles.push(self.plain_number()?);
            }
            if quantiles.is_empty() {
                return Err(self.unexpected("expected `,` and a quantile such as 0.9"));
            }
            self.expect(")")?;
            let by = self.by_fields()?;
            return Ok(Some(MetricsFunction::Quantile {
                field,
                quantiles,
                by,
            }));
        }
        self.expect(")")?;
        let by = self.by_fields()?;
        Ok(Some(if name == "rate" {
            MetricsFunction::Rate { by }
        } else {
            MetricsFunction::Count { by }
        }))
    }

    /// What follows `compare(`.
    fn compare(&mut self) -> Result<MetricsFunction, Error> {
        if !self.is("{") {
            return Err(self.unexpected("expected `{`: compare takes one spanset filter"));
        }
        let selection = self.braced()?;
        let mut top = 10;
        let mut window = None;
        if self.accept(",")? {
            top = self.integer()?;
            if self.accept(",")? {
                let start = self.integer()?;
                self.expect(",")?;
                let end = self.integer()?;
                window = Some((start, end)).filter(|window| *window != (0, 0));
            }
        }
        self.expect(")")?;
        Ok(MetricsFunction::Compare {
            selection,
            top,
            window,
        })
    }

    /// `by (a, b)`, if it is there.
    fn by_fields(&mut self) -> Result<Vec<FieldRef>, Error> {
        if self.is_word("by") {
            self.take()?;
            self.field_list()
        } else {
            Ok(Vec::new())
        }
    }

    /// `(a, b)`
    pub(crate) fn field_list(&mut self) -> Result<Vec<FieldRef>, Error> {
        self.expect("(")?;
        let mut fields = vec![self.field()?];
        while self.accept(",")? {
            fields.push(self.field()?);
        }
        self.expect(")")?;
        Ok(fields)
    }

    fn field(&mut self) -> Result<FieldRef, Error> {
        let Tok::Field(field) = self.tok() else {
            return Err(self.unexpected("expected an attribute or an intrinsic"));
        };
        self.refuse_old_name()?;
        let field = field.clone();
        let at = self.place();
        self.take()?;
        Ok(FieldRef { field, at })
    }

    /// An integer without a sign.
    fn integer(&mut self) -> Result<i64, Error> {
        let Tok::Int(n) = self.tok() else {
            return Err(self.unexpected("expected an integer"));
        };
        let n = i64::try_from(*n);
        let n = n.map_err(|_| self.unexpected("expected a number that fits 64 bits"))?;
        self.take()?;
        Ok(n)
    }

    /// An integer or a float without a sign.
    #[allow(clippy::cast_precision_loss)] // quantiles are floats
    fn plain_number(&mut self) -> Result<f64, Error> {
        let number = match self.tok() {
            Tok::Int(n) => *n as f64,
            Tok::Literal(Literal::Float(x)) => *x,
            _ => return Err(self.unexpected("expected a number")),
        };
        self.take()?;
        Ok(number)
    }

    /// `| topk(3)`, `> 5` and so on, as many as there are.
    pub(crate) fn second_stages(&mut self) -> Result<Vec<SecondStage>, Error> {
        let mut stages = Vec::new();
        loop {
            if self.accept("|")? {
                let top = match self.word() {
                    Some("topk") => true,
                    Some("bottomk") => false,
                    _ => return Err(self.unexpected("expected `topk` or `bottomk`")),
                };
                let at = self.place();
                self.take()?;
                self.expect("(")?;
                let limit = self.integer()?;
                self.expect(")")?;
                stages.push(if top {
                    SecondStage::TopK(limit, at)
                } else {
                    SecondStage::BottomK(limit, at)
                });
                continue;
            }
            let Tok::Symbol(symbol) = *self.tok() else {
                return Ok(stages);
            };
            use CompareOp::{Eq, Ge, Gt, Le, Lt, Ne};
            let Some(op) = [Eq, Ne, Lt, Le, Gt, Ge]
                .into_iter()
                .find(|op| op.symbol() == symbol)
            else {
                return Ok(stages);
            };
            self.take()?;
            stages.push(SecondStage::Compare(op, self.constant_number()?));
        }
    }
}
