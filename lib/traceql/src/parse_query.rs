//! From tokens to the tree of a whole query. Parentheses hold pipelines, scalars or metrics alike, so each
//! operand is parsed as [`Any`] of them, and each operator says which it takes.

use crate::ast::{ArithOp, CompareOp, Literal};
use crate::error::Error;
use crate::lexer::Tok;
use crate::parser::{MAX_DEPTH, Parser};
use crate::print_query::{ADD, COMPARE, LOGIC, MUL, POW};
use crate::query::{
    Aggregate, AggregateOp, Body, Hint, MetricsExpr, MetricsPipeline, Pipeline, Place, Query,
    ScalarExpr, ScalarFilter, SpansetExpr, SpansetOp, Stage,
};

/// Parses a whole query. [`Query::check`] says whether it can be meant.
pub fn parse_query(text: &str) -> Result<Query, Error> {
    Parser::new(text)?.query()
}

/// The deepest nesting of parentheses and right operands around pipelines. Each level needs more stack than
/// one of an expression.
const MAX_NESTING: u32 = 64;

/// Something that parentheses can hold.
#[derive(Debug)]
enum Any {
    /// Spansets. `plain`: an expression of filters only, to which stages can be added; `wrapped`: each
    /// operand stands in parentheses, as expressions of pipelines need.
    Spansets {
        expr: SpansetExpr,
        plain: bool,
        wrapped: bool,
    },
    /// A number made of aggregates or constants.
    Scalar(ScalarExpr),
    /// `count() > 2`
    Filter(ScalarFilter),
    /// Stages.
    Pipeline(Pipeline),
    /// `pipeline | count()`
    ScalarPipeline(Pipeline, Aggregate),
    /// `pipeline | rate()`, without parentheses.
    MetricsPipeline(MetricsExpr),
    /// Parenthesised metrics, and arithmetic of them.
    Metrics(MetricsExpr),
}

/// An operand and the depth of its tree.
type Deep = (Any, u32);

impl Parser<'_> {
    fn query(mut self) -> Result<Query, Error> {
        self.is_query = true;
        let start = self.place();
        let body = match self.pipeline(0)?.0 {
            Any::Spansets { expr, .. } => Body::Search(Pipeline {
                stages: vec![Stage::Spansets(expr)],
            }),
            Any::Filter(filter) => Body::Search(Pipeline {
                stages: vec![Stage::Scalar(filter)],
            }),
            Any::Pipeline(pipeline) => Body::Search(pipeline),
            Any::MetricsPipeline(expr) => Body::Metrics {
                expr,
                second: Vec::new(),
            },
            Any::Metrics(expr) => Body::Metrics {
                expr,
                second: self.second_stages()?,
            },
            Any::Scalar(_) | Any::ScalarPipeline(..) => {
                let e = self.unexpected("expected a comparison of this number");
                return Err(e.hint(format!("the number starts at {}", start.0)));
            }
        };
        let mut hints = Vec::new();
        while self.is_word("with") {
            hints = self.hints()?;
        }
        if self.tok() == &Tok::End {
            Ok(Query { body, hints })
        } else {
            Err(self.unexpected("expected an operator, `|`, `with` or the end"))
        }
    }

    /// `with (name = value, …)`
    fn hints(&mut self) -> Result<Vec<Hint>, Error> {
        self.take()?;
        self.expect("(")?;
        let mut hints = Vec::new();
        loop {
            let Some(name) = self.word().map(str::to_owned) else {
                return Err(self.unexpected("expected the name of a hint"));
            };
            self.take()?;
            self.expect("=")?;
            hints.push(Hint {
                name,
                value: self.literal()?,
            });
            if !self.accept(",")? {
                self.expect(")")?;
                return Ok(hints);
            }
        }
    }

    /// A constant.
    fn literal(&mut self) -> Result<Literal, Error> {
        if self.is("-")
            && let (Any::Scalar(ScalarExpr::Number(literal)), _) = self.single(0)?
        {
            return Ok(literal);
        }
        let literal = match self.tok() {
            Tok::Int(n) => match i64::try_from(*n) {
                Ok(n) => Literal::Int(n),
                Err(_) => return Err(self.unexpected("expected a number that fits 64 bits")),
            },
            Tok::Literal(Literal::Nil) => return Err(self.unexpected("expected a value")),
            Tok::Literal(literal) => literal.clone(),
            _ => return Err(self.unexpected("expected a value")),
        };
        self.take()?;
        Ok(literal)
    }

    /// Stages with `|` between them; or a single operand of another kind, as it is.
    fn pipeline(&mut self, depth: u32) -> Result<Deep, Error> {
        if depth > MAX_NESTING {
            return Err(self.too_deep());
        }
        if self.is_word("coalesce") {
            return Err(self.unexpected("expected spansets: a pipeline cannot start like this"));
        }
        let (first, mut deep) = match self.operation()? {
            Some(stage) => (
                Any::Pipeline(Pipeline {
                    stages: vec![stage],
                }),
                1,
            ),
            None => self.operand(LOGIC, depth)?,
        };
        let mut pipeline = match first {
            Any::Spansets {
                expr, plain: true, ..
            } if self.is("|") => Pipeline {
                stages: vec![Stage::Spansets(expr)],
            },
            Any::Filter(filter) if self.is("|") => Pipeline {
                stages: vec![Stage::Scalar(filter)],
            },
            Any::Pipeline(pipeline) => pipeline,
            other => return Ok((other, deep)),
        };
        while self.accept("|")? {
            let at = self.place();
            if let Some(function) = self.metrics_function()? {
                let metrics = MetricsPipeline {
                    spans: pipeline,
                    function,
                    at,
                    second: self.second_stages()?,
                };
                let expr = MetricsExpr::Pipeline(Box::new(metrics));
                return Ok((Any::MetricsPipeline(expr), deep + 1));
            }
            if let Some(stage) = self.operation()? {
                pipeline.stages.push(stage);
                continue;
            }
            let (any, own) = self.operand(LOGIC, depth)?;
            deep = deep.max(own);
            pipeline.stages.push(match any {
                Any::Spansets {
                    expr, plain: true, ..
                } => Stage::Spansets(expr),
                Any::Filter(filter) => Stage::Scalar(filter),
                Any::Scalar(ScalarExpr::Aggregate(aggregate)) if self.is(")") => {
                    return Ok((Any::ScalarPipeline(pipeline, aggregate), deep + 1));
                }
                Any::Scalar(_) => {
                    return Err(self.unexpected("expected a comparison of this number"));
                }
                _ => return Err(self.unexpected("expected a stage before this")),
            });
        }
        Ok((Any::Pipeline(pipeline), deep + 1))
    }

    /// `by(…)`, `select(…)` or `coalesce()`.
    fn operation(&mut self) -> Result<Option<Stage>, Error> {
        Ok(Some(match self.word() {
            Some("by") => {
                self.take()?;
                self.expect("(")?;
                let expr = self.inner_expression()?;
                self.expect(")")?;
                Stage::By(expr)
            }
            Some("coalesce") => {
                self.take()?;
                self.expect("(")?;
                self.expect(")")?;
                Stage::Coalesce
            }
            Some("select") => {
                self.take()?;
                Stage::Select(self.field_list()?)
            }
            _ => return Ok(None),
        }))
    }

    /// An operand with operators that bind at least as tightly as `tight`.
    fn operand(&mut self, tight: u8, depth: u32) -> Result<Deep, Error> {
        if depth > MAX_NESTING {
            return Err(self.too_deep());
        }
        let mut left = self.single(depth)?;
        loop {
            let Tok::Symbol(symbol) = *self.tok() else {
                return Ok(left);
            };
            let Some(binds) = binds(symbol).filter(|b| *b >= tight) else {
                return Ok(left);
            };
            // `metrics > 5` is a stage of the whole, not an operand.
            if binds == COMPARE && matches!(left.0, Any::Metrics(_)) {
                return Ok(left);
            }
            let at = self.place();
            let operator_error = self.unexpected("expected another operator or the end");
            self.take()?;
            let right_error = self.unexpected("expected an operand that fits the operator");
            // `^` groups from the right, everything else from the left.
            let right = self.operand(if binds == POW { POW } else { binds + 1 }, depth + 1)?;
            let deep = left.1.max(right.1) + 1;
            if deep > MAX_DEPTH {
                return Err(self.too_deep());
            }
            let any = join(symbol, at, left.0, right.0, operator_error, right_error)?;
            left = (any, deep);
        }
    }

    /// A filter, an aggregate, a number, or anything in parentheses.
    fn single(&mut self, depth: u32) -> Result<Deep, Error> {
        match self.tok() {
            Tok::Symbol("{") => {
                let expr = self.braced()?;
                let expr = SpansetExpr::Filter(expr);
                let (plain, wrapped) = (true, false);
                Ok((
                    Any::Spansets {
                        expr,
                        plain,
                        wrapped,
                    },
                    1,
                ))
            }
            Tok::Symbol("(") => {
                self.take()?;
                let (inner, deep) = self.pipeline(depth + 1)?;
                if !self.is(")") {
                    return Err(self.unexpected("expected an operator, `|` or `)`"));
                }
                self.take()?;
                let any = parenthesised(inner);
                if deep > MAX_DEPTH {
                    return Err(self.too_deep());
                }
                Ok((any, deep))
            }
            Tok::Symbol("-") => {
                self.take()?;
                if self.tok() == &Tok::Int(i64::MIN.unsigned_abs()) {
                    self.take()?;
                    let smallest = Literal::Int(i64::MIN);
                    return Ok((Any::Scalar(ScalarExpr::Number(smallest)), 1));
                }
                let expected = self.unexpected("expected a number");
                match self.operand(POW + 1, depth + 1)? {
                    (Any::Scalar(scalar), _) => match constant(&scalar).and_then(negated) {
                        Some(literal) => Ok((Any::Scalar(ScalarExpr::Number(literal)), 1)),
                        None => Err(expected),
                    },
                    _ => Err(expected),
                }
            }
            Tok::Int(_)
            | Tok::Literal(Literal::Float(_) | Literal::Duration(_) | Literal::Int(_)) => {
                Ok((Any::Scalar(ScalarExpr::Number(self.literal()?)), 1))
            }
            _ => match self.aggregate()? {
                Some(aggregate) => Ok((Any::Scalar(ScalarExpr::Aggregate(aggregate)), 1)),
                None => Err(self.no_stage()),
            },
        }
    }

    fn no_stage(&self) -> Error {
        let error = self.unexpected("expected `{`, `(` or a stage of a pipeline");
        match self.word() {
            Some("topk" | "bottomk") => {
                error.hint("it selects series; a metrics function makes them: | rate() | topk(3)")
            }
            _ => error.or_hint("a query starts like { span.http.route = \"/healthz\" }"),
        }
    }

    /// `count()`, `avg(…)` and their like.
    fn aggregate(&mut self) -> Result<Option<Aggregate>, Error> {
        let Some(op) = self.word().and_then(AggregateOp::named) else {
            return Ok(None);
        };
        let at = self.place();
        self.take()?;
        self.expect("(")?;
        let value = match op {
            AggregateOp::Count => None,
            _ => Some(self.inner_expression()?),
        };
        self.expect(")")?;
        Ok(Some(Aggregate { op, value, at }))
    }

    /// The number after the comparison of a second stage, arithmetic of constants included.
    pub(crate) fn constant_number(&mut self) -> Result<f64, Error> {
        let error = self.unexpected("expected a number");
        match self.operand(ADD, 0)?.0 {
            Any::Scalar(scalar) => match constant(&scalar) {
                #[allow(clippy::cast_precision_loss)] // series are floats
                Some(Literal::Duration(ns)) => Ok(ns as f64 / 1e9),
                Some(literal) => Ok(number(&literal)),
                None => Err(error),
            },
            _ => Err(error),
        }
    }
}

fn join(
    symbol: &'static str,
    at: Place,
    left: Any,
    right: Any,
    no_operator: Error,
    no_operand: Error,
) -> Result<Any, Error> {
    match (left, right) {
        (
            Any::Spansets {
                expr: left,
                plain: plain_left,
                wrapped: wrapped_left,
            },
            Any::Spansets {
                expr: right,
                plain: plain_right,
                wrapped: wrapped_right,
            },
        ) => {
            let op = SpansetOp::written(symbol).ok_or(no_operator)?;
            let plain = plain_left && plain_right;
            let wrapped = wrapped_left && wrapped_right;
            if !plain && !wrapped {
                return Err(no_operand.hint(
                    "beside a pipeline in parentheses, the other side needs parentheses too",
                ));
            }
            let (left, right) = (Box::new(left), Box::new(right));
            let expr = SpansetExpr::Op { op, left, right };
            Ok(Any::Spansets {
                expr,
                plain,
                wrapped,
            })
        }
        (Any::Scalar(left), Any::Scalar(right)) => {
            if let Some(op) = compare_op(symbol) {
                return Ok(Any::Filter(ScalarFilter {
                    op,
                    left,
                    right,
                    at,
                }));
            }
            let op = arith_op(symbol).ok_or(no_operator)?;
            let (left, right) = (Box::new(left), Box::new(right));
            Ok(Any::Scalar(ScalarExpr::Arith { op, left, right }))
        }
        (Any::Metrics(left), right) => {
            let right = metrics_operand(right, no_operand)?;
            metrics_arith(symbol, left, right, no_operator)
        }
        (left @ Any::Scalar(_), Any::Metrics(right)) => {
            let left = metrics_operand(left, no_operator.clone())?;
            metrics_arith(symbol, left, right, no_operator)
        }
        (Any::Spansets { .. } | Any::Scalar(_), _) => Err(no_operand),
        _ => Err(no_operator),
    }
}

fn metrics_operand(any: Any, error: Error) -> Result<MetricsExpr, Error> {
    match any {
        Any::Metrics(expr) => Ok(expr),
        Any::Scalar(scalar) => match constant(&scalar) {
            Some(Literal::Duration(_)) => {
                Err(error.hint("a duration cannot be an operand of metrics; write seconds"))
            }
            Some(literal) => Ok(MetricsExpr::Number(number(&literal))),
            None => Err(error.hint("metrics meet metrics in parentheses, or numbers")),
        },
        _ => Err(error),
    }
}

/// What `( inner )` is.
fn parenthesised(inner: Any) -> Any {
    let pipeline = |pipeline| Any::Spansets {
        expr: SpansetExpr::Pipeline(Box::new(pipeline)),
        plain: false,
        wrapped: true,
    };
    match inner {
        Any::Spansets { expr, plain, .. } => Any::Spansets {
            expr,
            plain,
            wrapped: true,
        },
        Any::Pipeline(stages) => pipeline(stages),
        Any::Filter(filter) => pipeline(Pipeline {
            stages: vec![Stage::Scalar(filter)],
        }),
        Any::ScalarPipeline(pipeline, aggregate) => {
            Any::Scalar(ScalarExpr::Pipeline(Box::new(pipeline), aggregate))
        }
        Any::MetricsPipeline(expr) | Any::Metrics(expr) => Any::Metrics(expr),
        Any::Scalar(scalar) => Any::Scalar(scalar),
    }
}

fn binds(symbol: &str) -> Option<u8> {
    Some(match symbol {
        "&&" | "||" => LOGIC,
        "+" | "-" => ADD,
        "*" | "/" | "%" => MUL,
        "^" => POW,
        "=" | "!=" | "<=" | ">=" | "=~" => COMPARE,
        other => {
            SpansetOp::written(other)?;
            COMPARE
        }
    })
}

fn compare_op(symbol: &str) -> Option<CompareOp> {
    use CompareOp::{Eq, Ge, Gt, Le, Lt, Ne};
    [Eq, Ne, Lt, Le, Gt, Ge]
        .into_iter()
        .find(|op| op.symbol() == symbol)
}

fn arith_op(symbol: &str) -> Option<ArithOp> {
    use ArithOp::{Add, Div, Mod, Mul, Pow, Sub};
    [Add, Sub, Mul, Div, Mod, Pow]
        .into_iter()
        .find(|op| op.symbol() == symbol)
}

fn metrics_arith(
    symbol: &str,
    left: MetricsExpr,
    right: MetricsExpr,
    error: Error,
) -> Result<Any, Error> {
    let op = arith_op(symbol).filter(|op| !matches!(op, ArithOp::Mod | ArithOp::Pow));
    let op = op.ok_or_else(|| error.hint("metrics can be joined with +, -, * and /"))?;
    let (left, right) = (Box::new(left), Box::new(right));
    Ok(Any::Metrics(MetricsExpr::Arith { op, left, right }))
}

#[allow(clippy::cast_precision_loss)] // series are floats
fn number(literal: &Literal) -> f64 {
    match literal {
        Literal::Int(n) | Literal::Duration(n) => *n as f64,
        Literal::Float(x) => *x,
        _ => f64::NAN,
    }
}

fn negated(literal: Literal) -> Option<Literal> {
    Some(match literal {
        Literal::Int(n) => Literal::Int(n.checked_neg()?),
        Literal::Duration(n) => Literal::Duration(n.checked_neg()?),
        Literal::Float(x) => Literal::Float(-x),
        _ => return None,
    })
}

/// The value of an expression without aggregates; none where it is no finite number. Between integers the
/// result is one, as for fields.
fn constant(scalar: &ScalarExpr) -> Option<Literal> {
    match scalar {
        ScalarExpr::Number(literal) => Some(literal.clone()),
        ScalarExpr::Arith { op, left, right } => {
            let (left, right) = (constant(left)?, constant(right)?);
            if let (Literal::Int(l), Literal::Int(r)) = (&left, &right) {
                let whole = match op {
                    ArithOp::Add => l.checked_add(*r),
                    ArithOp::Sub => l.checked_sub(*r),
                    ArithOp::Mul => l.checked_mul(*r),
                    ArithOp::Div => l.checked_div(*r),
                    ArithOp::Mod | ArithOp::Pow => None,
                };
                return whole.map(Literal::Int);
            }
            let (l, r) = (number(&left), number(&right));
            let value = match op {
                ArithOp::Add => l + r,
                ArithOp::Sub => l - r,
                ArithOp::Mul => l * r,
                ArithOp::Div => l / r,
                ArithOp::Mod | ArithOp::Pow => return None,
            };
            value.is_finite().then_some(Literal::Float(value))
        }
        ScalarExpr::Aggregate(_) | ScalarExpr::Pipeline(..) => None,
    }
}
