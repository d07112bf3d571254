//! How two values stand to each other.

use spanloom_traceql::{ArithOp, CompareOp, Expr, Field, Intrinsic, Literal, Node};

use super::Val;

/// `left op right` of two values; none where they do not meet.
pub fn holds(op: CompareOp, left: &Val, right: &Val) -> Option<bool> {
    // By value: the whole part first, then what is behind the point.
    let exactly = |n: i64, x: f64| -> Option<std::cmp::Ordering> {
        let whole = x.floor() as i128;
        (!x.is_nan()).then(|| {
            i128::from(n)
                .cmp(&whole)
                .then(0.0f64.total_cmp(&(x - x.floor())))
        })
    };
    let ordering = match (left, right) {
        (Val::Str(l), Val::Str(r)) => {
            if op == CompareOp::Match || op == CompareOp::NotMatch {
                let regex =
                    regex::Regex::new(&format!("^(?s:{r})$")).expect("a regular expression");
                return Some(regex.is_match(l) == (op == CompareOp::Match));
            }
            Some(l.cmp(r))
        }
        (Val::Bool(_), Val::Bool(_))
        | (Val::Status(_), Val::Status(_))
        | (Val::Kind(_), Val::Kind(_)) => {
            return match op {
                CompareOp::Eq => Some(left == right),
                CompareOp::Ne => Some(left != right),
                _ => None,
            };
        }
        (Val::Int(l), Val::Int(r)) => Some(l.cmp(r)),
        (Val::Float(l), Val::Float(r)) => l.partial_cmp(r),
        (Val::Int(l), Val::Float(r)) => exactly(*l, *r),
        (Val::Float(l), Val::Int(r)) => exactly(*r, *l).map(|o| o.reverse()),
        _ => return None,
    };
    Some(match op {
        CompareOp::Eq => ordering.is_some_and(|o| o.is_eq()),
        CompareOp::Ne => ordering.is_none_or(|o| o.is_ne()),
        CompareOp::Lt => ordering.is_some_and(|o| o.is_lt()),
        CompareOp::Le => ordering.is_some_and(|o| o.is_le()),
        CompareOp::Gt => ordering.is_some_and(|o| o.is_gt()),
        CompareOp::Ge => ordering.is_some_and(|o| o.is_ge()),
        CompareOp::Match | CompareOp::NotMatch => return None,
    })
}

pub fn calculated(op: ArithOp, left: &Val, right: &Val) -> Option<Val> {
    let floats = |l: f64, r: f64| {
        Val::Float(match op {
            ArithOp::Add => l + r,
            ArithOp::Sub => l - r,
            ArithOp::Mul => l * r,
            ArithOp::Div => l / r,
            ArithOp::Mod => l % r,
            ArithOp::Pow => l.powf(r),
        })
    };
    Some(match (left, right) {
        (Val::Int(l), Val::Int(r)) => {
            let whole = match op {
                ArithOp::Add => l.checked_add(*r),
                ArithOp::Sub => l.checked_sub(*r),
                ArithOp::Mul => l.checked_mul(*r),
                ArithOp::Div | ArithOp::Mod if *r == 0 => return None,
                ArithOp::Div => l.checked_div(*r),
                ArithOp::Mod => l.checked_rem(*r),
                ArithOp::Pow => u32::try_from(*r).ok().and_then(|r| l.checked_pow(r)),
            };
            whole.map_or_else(|| floats(*l as f64, *r as f64), Val::Int)
        }
        (Val::Int(l), Val::Float(r)) => floats(*l as f64, *r),
        (Val::Float(l), Val::Int(r)) => floats(*l, *r as f64),
        (Val::Float(l), Val::Float(r)) => floats(*l, *r),
        _ => return None,
    })
}

/// Hex digits opposite an id stand for the id that ends with them.
pub fn padded(expr: &Expr, other: &Expr) -> Expr {
    let digits = match &other.node {
        Node::Field(Field::Intrinsic(Intrinsic::TraceId | Intrinsic::LinkTraceId)) => 32,
        Node::Field(Field::Intrinsic(
            Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId,
        )) => 16,
        _ => return expr.clone(),
    };
    match &expr.node {
        Node::Literal(Literal::Str(id))
            if !id.is_empty()
                && id.len() <= digits
                && id.chars().all(|c| c.is_ascii_hexdigit()) =>
        {
            let id = format!("{id:0>digits$}").to_lowercase();
            Expr {
                node: Node::Literal(Literal::Str(id)),
                at: expr.at,
            }
        }
        _ => expr.clone(),
    }
}
