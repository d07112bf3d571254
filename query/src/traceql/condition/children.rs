//! Conditions on what a span has several of: its events and links.

use spanloom_traceql::{CompareOp, Literal};

use super::{Condition, id_compared, number, symbol, text_compared};
use crate::sql::Sql;

/// The opposite of a negative comparison of texts, which no element may meet.
pub(super) fn text_is_other(op: CompareOp, text: &str) -> Condition {
    match op {
        CompareOp::Ne => text_compared("c", CompareOp::Eq, text),
        CompareOp::NotMatch => text_compared("c", CompareOp::Match, text),
        _ => Condition::UNKNOWN,
    }
}

/// The id that a link leads to.
pub(super) fn linked(column: &'static str, digits: usize, op: CompareOp, text: &str) -> Condition {
    let compared = |op| id_compared("c", "lower(hex(c))", digits, op, text);
    let opposite = match op {
        CompareOp::Ne => compared(CompareOp::Eq),
        CompareOp::NotMatch => compared(CompareOp::Match),
        _ => Condition::UNKNOWN,
    };
    children_compared(column, op, compared(op), opposite)
}

/// The time of an event since the span's start.
pub(super) fn happened(op: CompareOp, literal: &Literal) -> Condition {
    let compared = |op| {
        let (Some(symbol), Some(number)) = (symbol(op), number(literal)) else {
            return Condition::UNKNOWN;
        };
        let mut sql = Sql::new("toUnixTimestamp64Nano(c) - toUnixTimestamp64Nano(time)");
        sql.push(symbol);
        number.push_to(&mut sql);
        Condition::exactly(sql)
    };
    let opposite = match op {
        CompareOp::Ne => compared(CompareOp::Eq),
        _ => Condition::UNKNOWN,
    };
    children_compared("events.time", op, compared(op), opposite)
}

/// Any child meets a comparison; where that is negative, there are some, and each does.
pub(super) fn children_compared(
    column: &'static str,
    op: CompareOp,
    one: Condition,
    opposite: Condition,
) -> Condition {
    let mut sql = Sql::default();
    let element = if op.is_negative() { opposite } else { one };
    let (Some(condition), exact) = (element.sql, element.exact) else {
        sql.push("notEmpty(").push(column).push(")");
        return Condition::at_least(sql);
    };
    if op.is_negative() {
        if !exact {
            sql.push("notEmpty(").push(column).push(")");
            return Condition::at_least(sql);
        }
        sql.push("notEmpty(").push(column).push(") AND NOT ");
    }
    sql.push("arrayExists(c -> ")
        .append(&condition)
        .push(", ")
        .push(column)
        .push(")");
    Condition {
        sql: Some(sql),
        exact,
        ..Condition::UNKNOWN
    }
}
