//! Running a compiled filter on a span.
//!
//! A condition is true, false or unknown (`None`: a value that should be a boolean but is missing or
//! something else). Unknown stays unknown under `!`, so that neither `.vip` nor `!.vip` matches a
//! span without it; `&&`, `||` and the filter as a whole take it for false.

use std::cmp::Ordering;

use regex::Regex;

use crate::ast::{ArithOp, CompareOp};
use crate::compile::{Children, MAX_CHILDREN, Own, Pred, Value};
use crate::span::{Array, AttributeScope, Scalar, Span, ValueRef};

/// The values that the fields of events and links have at the moment.
type Bound<'a> = [Scalar<'a>; MAX_CHILDREN];

const UNBOUND: Bound<'static> = [Scalar::Other; MAX_CHILDREN];

/// What a [`Value`] is on a span: missing, one, or an array.
type Operand<'a, A> = Option<ValueRef<'a, A>>;

pub(crate) fn holds<S: Span>(pred: &Pred, span: &S) -> bool {
    truth(pred, span) == Some(true)
}

fn truth<S: Span>(pred: &Pred, span: &S) -> Option<bool> {
    match pred {
        Pred::Const(b) => Some(*b),
        Pred::And(list) => Some(list.iter().all(|p| holds(p, span))),
        Pred::Or(list) => Some(list.iter().any(|p| holds(p, span))),
        Pred::Not(inner) => truth(inner, span).map(|b| !b),
        Pred::Truth(value, children) => bare(value, children, span),
        Pred::Exists {
            value,
            negated,
            children,
        } => {
            let exists = ranging(children, span, &mut |bound| {
                read(value, span, bound).is_some()
            });
            Some(exists != *negated)
        }
        Pred::Compare {
            op,
            left,
            right,
            children,
        } => {
            let test = |l: Scalar<'_>, r: Scalar<'_>| compare(*op, l, r);
            Some(pairs(
                op.is_negative(),
                left,
                Some(right),
                children,
                span,
                test,
            ))
        }
        Pred::Match {
            value,
            regex,
            negated,
            children,
        } => {
            let test = |l: Scalar<'_>, _: Scalar<'_>| matches(regex, l).map(|m| m != *negated);
            Some(pairs(*negated, value, None, children, span, test))
        }
    }
}

/// A value that stands where a condition should: true if any of its values is.
fn bare<S: Span>(value: &Value, children: &Children, span: &S) -> Option<bool> {
    let mut known = false;
    let found = ranging(children, span, &mut |bound| {
        read(value, span, bound).is_some_and(|operand| {
            any(operand, &mut |scalar| {
                known |= matches!(scalar, Scalar::Bool(_));
                scalar == Scalar::Bool(true)
            })
        })
    });
    known.then_some(found)
}

/// Calls `test` once, or with every combination of the children's values, until it answers true.
fn ranging<S: Span>(
    children: &Children,
    span: &S,
    test: &mut dyn FnMut(&Bound<'_>) -> bool,
) -> bool {
    if children.is_empty() {
        test(&UNBOUND)
    } else {
        bind(children, 0, &UNBOUND, span, test)
    }
}

fn bind<S: Span>(
    children: &Children,
    n: usize,
    bound: &Bound<'_>,
    span: &S,
    test: &mut dyn FnMut(&Bound<'_>) -> bool,
) -> bool {
    let Some(child) = children.get(n) else {
        return test(bound);
    };
    span.any_child(child.field(), &mut |scalar| {
        let mut bound = *bound;
        if let Some(slot) = bound.get_mut(n) {
            *slot = scalar;
        }
        bind(children, n + 1, &bound, span, test)
    })
}

/// Holds a comparison on all values of its sides: any pair that passes is enough, but where the
/// operator is negative every pair must pass (of a value that is there at all).
fn pairs<S: Span>(
    negative: bool,
    left: &Value,
    right: Option<&Value>,
    children: &Children,
    span: &S,
    test: impl Fn(Scalar<'_>, Scalar<'_>) -> Option<bool>,
) -> bool {
    // Nearly always each side has one value, and there is nothing to range over.
    if children.is_empty()
        && let Some(ValueRef::One(l)) = read(left, span, &UNBOUND)
    {
        match right.map_or(Some(ValueRef::One(Scalar::Other)), |r| {
            read(r, span, &UNBOUND)
        }) {
            Some(ValueRef::One(r)) => return test(l, r) == Some(true),
            Some(ValueRef::Array(_)) => {}
            None => return false,
        }
    }
    let mut present = false;
    // A negative comparison looks for a pair that fails.
    let decides = |l: Scalar<'_>, r: Scalar<'_>| (test(l, r) == Some(true)) != negative;
    let decided = ranging(children, span, &mut |bound| {
        let Some(l) = read(left, span, bound) else {
            return false;
        };
        let r = match right {
            Some(right) => match read(right, span, bound) {
                Some(r) => r,
                None => return false,
            },
            None => ValueRef::One(Scalar::Other),
        };
        present = true;
        match (l, r) {
            (ValueRef::One(l), ValueRef::One(r)) => decides(l, r),
            (ValueRef::Array(l), ValueRef::One(r)) => l.any(&mut |l| decides(l, r)),
            (ValueRef::One(l), ValueRef::Array(r)) => r.any(&mut |r| decides(l, r)),
            // Two arrays have no meaning in TraceQL; for both kinds of operator this is false.
            (ValueRef::Array(_), ValueRef::Array(_)) => negative,
        }
    });
    if negative {
        present && !decided
    } else {
        decided
    }
}

/// Calls `each` with every value of an expression: the elements of an array, and one for each event or link
/// that it ranges over. Says whether there is any value, and whether it is an array.
pub(crate) fn each_value<S: Span>(
    value: &Value,
    children: &Children,
    span: &S,
    each: &mut dyn FnMut(Scalar<'_>),
) -> (bool, bool) {
    let (mut present, mut is_array) = (false, false);
    ranging(children, span, &mut |bound| {
        let Some(operand) = read(value, span, bound) else {
            return false;
        };
        present = true;
        is_array |= matches!(operand, ValueRef::Array(_));
        any(operand, &mut |scalar| {
            each(scalar);
            false
        })
    });
    (present, is_array)
}

fn any<A: Array>(operand: ValueRef<'_, A>, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
    match operand {
        ValueRef::One(scalar) => test(scalar),
        ValueRef::Array(array) => array.any(test),
    }
}

fn read<'a, S: Span>(
    value: &'a Value,
    span: &'a S,
    bound: &Bound<'a>,
) -> Operand<'a, S::Array<'a>> {
    match value {
        Value::Const(constant) => constant.scalar().map(ValueRef::One),
        Value::Attribute(scope, key) => span.attribute(*scope, key),
        Value::Unscoped(key) => span
            .attribute(AttributeScope::Span, key)
            .or_else(|| span.attribute(AttributeScope::Resource, key)),
        Value::Intrinsic(own) => Some(ValueRef::One(intrinsic(*own, span))),
        Value::Fact(fact) => span.trace_fact(*fact).map(ValueRef::One),
        Value::Child(n) => bound.get(*n).copied().map(ValueRef::One),
        Value::Neg(inner) => match read(inner, span, bound)? {
            ValueRef::One(scalar) => negative(scalar).map(ValueRef::One),
            ValueRef::Array(_) => None,
        },
        Value::Arith(op, left, right) => {
            match (read(left, span, bound)?, read(right, span, bound)?) {
                (ValueRef::One(l), ValueRef::One(r)) => arith(*op, l, r).map(ValueRef::One),
                _ => None,
            }
        }
        Value::Pred(pred) => truth(pred, span).map(|b| ValueRef::One(Scalar::Bool(b))),
    }
}

fn intrinsic<S: Span>(own: Own, span: &S) -> Scalar<'_> {
    match own {
        Own::Name => Scalar::Str(span.name()),
        Own::Status => Scalar::Status(span.status()),
        Own::StatusMessage => Scalar::Str(span.status_message()),
        Own::Kind => Scalar::Kind(span.kind()),
        Own::Duration => Scalar::Int(i64::try_from(span.duration_ns()).unwrap_or(i64::MAX)),
        Own::TraceId => Scalar::Id(span.trace_id()),
        Own::SpanId => Scalar::Id(span.span_id()),
        Own::ParentId => match span.parent_span_id() {
            root if root.iter().all(|b| *b == 0) => Scalar::Str(""),
            parent => Scalar::Id(parent),
        },
        Own::ScopeName => Scalar::Str(span.scope_name()),
        Own::ScopeVersion => Scalar::Str(span.scope_version()),
    }
}

/// An id in hex, without allocating.
pub(crate) struct Hex {
    digits: [u8; 32],
    length: usize,
}

impl Hex {
    pub(crate) fn new(id: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = Self {
            digits: [0; 32],
            length: 0,
        };
        for (pair, byte) in hex.digits.chunks_exact_mut(2).zip(id) {
            if let [high, low] = pair {
                *high = DIGITS[usize::from(byte >> 4)];
                *low = DIGITS[usize::from(byte & 15)];
            }
            hex.length += 2;
        }
        hex
    }

    pub(crate) fn text(&self) -> &str {
        let digits = self.digits.get(..self.length).unwrap_or(&[]);
        std::str::from_utf8(digits).unwrap_or("")
    }
}

/// Whether `left op right`; `None` where the types do not meet.
pub(crate) fn compare(op: CompareOp, left: Scalar<'_>, right: Scalar<'_>) -> Option<bool> {
    let equality = match (left, right) {
        // Texts of different lengths differ without a look at them.
        (Scalar::Str(l), Scalar::Str(r)) if matches!(op, CompareOp::Eq | CompareOp::Ne) => l == r,
        (Scalar::Str(l), Scalar::Str(r)) => return ordered(op, l.cmp(r)),
        (Scalar::Int(l), Scalar::Int(r)) => return ordered(op, l.cmp(&r)),
        (Scalar::Float(l), Scalar::Float(r)) => return numbers(op, l.partial_cmp(&r)),
        (Scalar::Int(l), Scalar::Float(r)) => return numbers(op, int_and_float(l, r)),
        (Scalar::Float(l), Scalar::Int(r)) => {
            return numbers(op, int_and_float(r, l).map(Ordering::reverse));
        }
        (Scalar::Id(l), Scalar::Str(r)) => return ordered(op, Hex::new(l).text().cmp(r)),
        (Scalar::Str(l), Scalar::Id(r)) => return ordered(op, l.cmp(Hex::new(r).text())),
        (Scalar::Id(l), Scalar::Id(r)) => return ordered(op, l.cmp(r)),
        (Scalar::Bool(l), Scalar::Bool(r)) => l == r,
        (Scalar::Status(l), Scalar::Status(r)) => l == r,
        (Scalar::Kind(l), Scalar::Kind(r)) => l == r,
        _ => return None,
    };
    match op {
        CompareOp::Eq => Some(equality),
        CompareOp::Ne => Some(!equality),
        _ => None,
    }
}

fn ordered(op: CompareOp, ordering: Ordering) -> Option<bool> {
    Some(match op {
        CompareOp::Eq => ordering.is_eq(),
        CompareOp::Ne => ordering.is_ne(),
        CompareOp::Lt => ordering.is_lt(),
        CompareOp::Le => ordering.is_le(),
        CompareOp::Gt => ordering.is_gt(),
        CompareOp::Ge => ordering.is_ge(),
        CompareOp::Match | CompareOp::NotMatch => return None,
    })
}

/// As [`ordered`], for numbers of which one may be NaN: it differs from every number.
fn numbers(op: CompareOp, ordering: Option<Ordering>) -> Option<bool> {
    match ordering {
        Some(ordering) => ordered(op, ordering),
        None => Some(op == CompareOp::Ne),
    }
}

/// Compares by value, exactly: an `i64` beyond 2^53 is not rounded first.
#[allow(clippy::cast_possible_truncation)] // within i64's range by then
fn int_and_float(int: i64, float: f64) -> Option<Ordering> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0; // 2^63
    if float.is_nan() {
        None
    } else if float >= LIMIT {
        Some(Ordering::Less)
    } else if float < -LIMIT {
        Some(Ordering::Greater)
    } else {
        let whole = float.trunc();
        let by_fraction = || 0.0.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal);
        Some(int.cmp(&(whole as i64)).then_with(by_fraction))
    }
}

pub(crate) fn matches(regex: &Regex, scalar: Scalar<'_>) -> Option<bool> {
    match scalar {
        Scalar::Str(text) => Some(regex.is_match(text)),
        Scalar::Id(id) => Some(regex.is_match(Hex::new(id).text())),
        _ => None,
    }
}

fn negative(scalar: Scalar<'_>) -> Option<Scalar<'_>> {
    match scalar {
        Scalar::Int(n) => Some(
            n.checked_neg()
                .map_or(Scalar::Float(-float(n)), Scalar::Int),
        ),
        Scalar::Float(x) => Some(Scalar::Float(-x)),
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss)] // floats have no more to give
fn float(n: i64) -> f64 {
    n as f64
}

/// Between integers the result is one, as in Tempo, unless it does not fit; a division of integers
/// by zero has none.
fn arith<'a>(op: ArithOp, left: Scalar<'_>, right: Scalar<'_>) -> Option<Scalar<'a>> {
    let (l, r) = match (left, right) {
        (Scalar::Int(l), Scalar::Int(r)) => {
            if r == 0 && matches!(op, ArithOp::Div | ArithOp::Mod) {
                return None;
            }
            let exact = match op {
                ArithOp::Add => l.checked_add(r),
                ArithOp::Sub => l.checked_sub(r),
                ArithOp::Mul => l.checked_mul(r),
                ArithOp::Div => l.checked_div(r),
                ArithOp::Mod => l.checked_rem(r),
                ArithOp::Pow => u32::try_from(r).ok().and_then(|r| l.checked_pow(r)),
            };
            if let Some(n) = exact {
                return Some(Scalar::Int(n));
            }
            (float(l), float(r))
        }
        (Scalar::Int(l), Scalar::Float(r)) => (float(l), r),
        (Scalar::Float(l), Scalar::Int(r)) => (l, float(r)),
        (Scalar::Float(l), Scalar::Float(r)) => (l, r),
        _ => return None,
    };
    Some(Scalar::Float(match op {
        ArithOp::Add => l + r,
        ArithOp::Sub => l - r,
        ArithOp::Mul => l * r,
        ArithOp::Div => l / r,
        ArithOp::Mod => l % r,
        ArithOp::Pow => l.powf(r),
    }))
}
