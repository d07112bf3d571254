//! What SQL can say of a spanset filter's expression, for one row of `spans`.
//!
//! A condition holds on each span that the expression matches. Where it holds on no other, it is exact, and
//! ClickHouse may count; elsewhere the evaluator decides on what it lets through.

mod attribute;
mod children;

use spanloom_traceql::{CompareOp, Expr, Field, Intrinsic, Kind, Literal, Node, Scope, Status};

use self::attribute::{attribute_compared, has_key};
use self::children::{children_compared, happened, linked, text_is_other};
use crate::sql::Sql;

/// A condition in more parts than this is left whole: each part is a query.
const APART_MAX: usize = 6;

/// A condition on a row.
#[derive(Debug, Clone)]
pub struct Condition {
    /// None: it holds on each row.
    sql: Option<Sql>,
    /// What the trace index must say of the span's trace, as a HAVING; never exact.
    traces: Option<Sql>,
    /// Conditions of which one must hold, that together say what [`Self::sql`] does; none where there is just that
    /// one. Each has indexes of its own: ClickHouse finds the rows of each in less time than those of all in one
    /// condition, for which it reads the columns of all.
    apart: Vec<Sql>,
    /// Whether it holds on just the spans that the expression matches.
    exact: bool,
}

impl Condition {
    /// No restriction: SQL cannot say what the expression means.
    pub const UNKNOWN: Self = Self {
        sql: None,
        traces: None,
        apart: Vec::new(),
        exact: false,
    };

    /// What SQL can say of `expr`.
    pub fn of(expr: &Expr) -> Self {
        match &expr.node {
            Node::Literal(Literal::Bool(true)) => Self::each_row(),
            Node::Literal(Literal::Bool(false)) => Self::exactly(Sql::new("false")),
            Node::And(parts) => Self::all(parts.iter().map(Self::of)),
            Node::Or(parts) => Self::any(parts.iter().map(Self::of)),
            Node::Not(inner) => Self::of(inner).negated(is_always_known(inner)),
            Node::Compare { op, left, right } => compare(*op, left, right),
            Node::Exists { value, negated } => match &value.node {
                Node::Field(field) => exists(field, *negated),
                _ => Self::UNKNOWN,
            },
            Node::Field(Field::Attribute { .. }) => {
                // A boolean that stands alone.
                let is_true = Literal::Bool(true);
                match &expr.node {
                    Node::Field(field) => field_compared(field, CompareOp::Eq, &is_true),
                    _ => Self::UNKNOWN,
                }
            }
            _ => Self::UNKNOWN,
        }
    }

    /// The condition of each of several expressions at once.
    pub fn any(mut parts: impl Iterator<Item = Self>) -> Self {
        let Some(first) = parts.next() else {
            return Self::exactly(Sql::new("false"));
        };
        let Some(second) = parts.next() else {
            return first;
        };
        let mut sql = Sql::default();
        let mut exact = true;
        let (mut apart, mut has_parts) = (Vec::new(), false);
        // Of traces nothing is known unless each part says something, which is rare.
        for part in [first, second].into_iter().chain(parts) {
            exact &= part.exact;
            let Some(condition) = part.sql else {
                // Where one of them is anything, so is their union.
                return Self {
                    exact,
                    ..Self::UNKNOWN
                };
            };
            sql.push(if sql.is_empty() { "(" } else { " OR (" })
                .append(&condition)
                .push(")");
            has_parts |= !part.apart.is_empty();
            match part.apart.is_empty() {
                true => apart.push(condition),
                false => apart.extend(part.apart),
            }
        }
        Self {
            sql: Some(sql),
            traces: None,
            apart: Some(apart)
                .filter(|apart| has_parts && apart.len() <= APART_MAX)
                .unwrap_or_default(),
            exact,
        }
    }

    /// It holds on each row.
    fn each_row() -> Self {
        Self {
            exact: true,
            ..Self::UNKNOWN
        }
    }

    /// The condition that each of several holds.
    pub fn all(parts: impl Iterator<Item = Self>) -> Self {
        let (mut sql, mut traces) = (Sql::default(), Sql::default());
        let mut exact = true;
        // One of those in parts is taken apart; the others are in each of its parts.
        let (mut apart, mut others) = (Vec::new(), Sql::default());
        for part in parts {
            exact &= part.exact;
            match (apart.is_empty() && !part.apart.is_empty(), &part.sql) {
                (true, _) => apart = part.apart,
                (false, Some(condition)) => {
                    others.push(" AND (").append(condition).push(")");
                }
                (false, None) => {}
            }
            for (all, condition) in [(&mut sql, part.sql), (&mut traces, part.traces)] {
                if let Some(condition) = condition {
                    all.push(if all.is_empty() { "(" } else { " AND (" })
                        .append(&condition)
                        .push(")");
                }
            }
        }
        Self {
            sql: Some(sql).filter(|sql| !sql.is_empty()),
            traces: Some(traces).filter(|traces| !traces.is_empty()),
            apart: apart
                .into_iter()
                .map(|part| {
                    let mut sql = Sql::new("(");
                    sql.append(&part).push(")").append(&others);
                    sql
                })
                .collect(),
            exact,
        }
    }

    fn exactly(sql: Sql) -> Self {
        Self {
            sql: Some(sql),
            exact: true,
            ..Self::UNKNOWN
        }
    }

    /// It holds on more rows than are meant.
    pub fn at_least(sql: Sql) -> Self {
        Self {
            sql: Some(sql),
            ..Self::UNKNOWN
        }
    }

    /// Of the spans of traces of which the index says this.
    fn of_traces(having: Sql) -> Self {
        Self {
            traces: Some(having),
            ..Self::UNKNOWN
        }
    }

    fn negated(self, is_known: bool) -> Self {
        if !self.exact {
            return Self::UNKNOWN;
        }
        let mut sql = Sql::default();
        match &self.sql {
            None => sql.push("false"),
            Some(condition) => sql.push("NOT (").append(condition).push(")"),
        };
        Self {
            sql: Some(sql),
            exact: is_known,
            ..Self::UNKNOWN
        }
    }

    /// The condition of a span that starts in `from_ns..=to_ns` and meets it, without WHERE.
    pub fn within(&self, from_ns: i64, to_ns: i64) -> Sql {
        let mut sql = Sql::new("tenant = '' AND ");
        sql.started_within(from_ns, to_ns);
        self.and_to(&mut sql);
        if let Some(having) = self.traces.as_ref().filter(|_| !self.is_long()) {
            let mut others = Sql::new("NOT (");
            others.append(having).push(")");
            sql.but_traces(&others);
        }
        sql
    }

    /// Whether its text is not to be repeated: a statement may only be so long.
    pub fn is_long(&self) -> bool {
        const MAX: usize = 16_384;
        let sql = self.sql.as_ref();
        sql.is_some_and(|sql| sql.text().len() > MAX)
    }

    /// [`Self::within`], apart where that is quicker: a span meets one of them at least.
    pub fn apart_within(&self, from_ns: i64, to_ns: i64) -> Vec<Sql> {
        if self.apart.is_empty() || self.traces.is_some() || self.is_long() {
            return vec![self.within(from_ns, to_ns)];
        }
        let within = |part: &Sql| {
            let mut sql = Sql::new("tenant = '' AND ");
            sql.started_within(from_ns, to_ns);
            sql.push(" AND (").append(part).push(")");
            sql
        };
        self.apart.iter().map(within).collect()
    }

    /// Adds it to a WHERE that has conditions.
    pub fn and_to(&self, sql: &mut Sql) {
        if let Some(condition) = &self.sql {
            sql.push(" AND (").append(condition).push(")");
        }
    }

    /// Its text, for people; none where it holds on each row.
    pub fn shown(&self) -> Option<String> {
        let parts = [&self.sql, &self.traces].into_iter().flatten();
        let parts: Vec<String> = parts.map(Sql::shown).collect();
        Some(parts.join(" AND ")).filter(|text| !text.is_empty())
    }

    /// Whether it reads only columns that are quickly read: no attributes, events or links.
    pub fn is_quick(&self) -> bool {
        let text = self.sql.as_ref().map(Sql::text).unwrap_or_default();
        let slow = [
            "attr_", "resource", "scope_", "events.", "links.", "message",
        ];
        !slow.iter().any(|column| text.contains(column))
    }

    /// Whether it holds on just the spans that the expression matches.
    pub fn is_exact(&self) -> bool {
        self.exact
    }
}

/// Whether an expression is true or false on each span: a value that stands alone may be missing, and its
/// negation is then no more true than it is.
fn is_always_known(expr: &Expr) -> bool {
    match &expr.node {
        Node::Literal(_) | Node::Compare { .. } | Node::Exists { .. } => true,
        Node::And(_) | Node::Or(_) => true,
        Node::Not(inner) => is_always_known(inner),
        _ => false,
    }
}

fn compare(op: CompareOp, left: &Expr, right: &Expr) -> Condition {
    match (&left.node, &right.node) {
        (Node::Field(field), _) if let Some(literal) = literal(right) => {
            field_compared(field, op, &literal)
        }
        (_, Node::Field(field)) if let Some(literal) = literal(left) => {
            field_compared(field, flipped(op), &literal)
        }
        _ => all_exist(left, right),
    }
}

/// A comparison of what is missing is false, so each attribute in it must be there.
fn all_exist(left: &Expr, right: &Expr) -> Condition {
    let mut fields = Vec::new();
    collect(left, &mut fields);
    collect(right, &mut fields);
    let conditions = fields.into_iter().map(|field| exists(field, false));
    let mut all = Condition::all(conditions);
    all.exact = false;
    all
}

/// The fields of an arithmetic expression.
fn collect<'a>(expr: &'a Expr, fields: &mut Vec<&'a Field>) {
    match &expr.node {
        Node::Field(field) => fields.push(field),
        Node::Neg(inner) => collect(inner, fields),
        Node::Arith { left, right, .. } => {
            collect(left, fields);
            collect(right, fields);
        }
        _ => {}
    }
}

fn literal(expr: &Expr) -> Option<Literal> {
    match &expr.node {
        Node::Literal(literal) => Some(literal.clone()),
        Node::Neg(inner) => match &inner.node {
            Node::Literal(Literal::Int(n)) => Some(Literal::Int(n.checked_neg()?)),
            Node::Literal(Literal::Duration(n)) => Some(Literal::Duration(n.checked_neg()?)),
            Node::Literal(Literal::Float(x)) => Some(Literal::Float(-x)),
            _ => None,
        },
        _ => None,
    }
}

fn flipped(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Lt => CompareOp::Gt,
        CompareOp::Le => CompareOp::Ge,
        CompareOp::Gt => CompareOp::Lt,
        CompareOp::Ge => CompareOp::Le,
        op => op,
    }
}

/// The operator as ClickHouse writes it; none for regular expressions.
fn symbol(op: CompareOp) -> Option<&'static str> {
    Some(match op {
        CompareOp::Eq => " = ",
        CompareOp::Ne => " != ",
        CompareOp::Lt => " < ",
        CompareOp::Le => " <= ",
        CompareOp::Gt => " > ",
        CompareOp::Ge => " >= ",
        CompareOp::Match | CompareOp::NotMatch => return None,
    })
}

fn field_compared(field: &Field, op: CompareOp, literal: &Literal) -> Condition {
    match field {
        Field::Attribute { parent: true, .. } => Condition::UNKNOWN,
        Field::Attribute { scope, name, .. } => attribute_compared(*scope, name, op, literal),
        Field::Intrinsic(intrinsic) => intrinsic_compared(*intrinsic, op, literal),
    }
}

fn intrinsic_compared(intrinsic: Intrinsic, op: CompareOp, literal: &Literal) -> Condition {
    match (intrinsic, literal) {
        (Intrinsic::Name, Literal::Str(text)) => text_compared("name", op, text),
        (Intrinsic::StatusMessage, Literal::Str(text)) => text_compared("status_message", op, text),
        (Intrinsic::InstrumentationName, Literal::Str(text)) => {
            text_compared("scope_name", op, text)
        }
        (Intrinsic::InstrumentationVersion, Literal::Str(text)) => {
            text_compared("scope_version", op, text)
        }
        (Intrinsic::TraceId, Literal::Str(text)) => {
            id_compared("trace_id", "lower(hex(trace_id))", 32, op, text)
        }
        (Intrinsic::SpanId, Literal::Str(text)) => {
            id_compared("span_id", "lower(hex(span_id))", 16, op, text)
        }
        (Intrinsic::ParentId, Literal::Str(text)) => id_compared(
            "parent_span_id",
            "if(parent_span_id = toFixedString('', 8), '', lower(hex(parent_span_id)))",
            16,
            op,
            text,
        ),
        (Intrinsic::Status, Literal::Status(status)) => {
            enum_compared("status", op, status_name(*status))
        }
        (Intrinsic::Kind, Literal::Kind(kind)) => enum_compared("kind", op, kind_name(*kind)),
        (Intrinsic::Duration, literal) => match (symbol(op), number(literal)) {
            (Some(symbol), Some(number)) => {
                let mut sql = Sql::new("duration_ns");
                sql.push(symbol);
                number.push_to(&mut sql);
                Condition::exactly(sql)
            }
            _ => Condition::UNKNOWN,
        },
        (Intrinsic::NestedSetParent, Literal::Int(n)) => root_compared(op, *n),
        (Intrinsic::EventName, Literal::Str(text)) => children_compared(
            "events.name",
            op,
            text_compared("c", op, text),
            text_is_other(op, text),
        ),
        (Intrinsic::LinkTraceId, Literal::Str(text)) => linked("links.trace_id", 32, op, text),
        (Intrinsic::LinkSpanId, Literal::Str(text)) => linked("links.span_id", 16, op, text),
        (Intrinsic::EventTimeSinceStart, literal) => happened(op, literal),
        (Intrinsic::TraceDuration, literal) => match (symbol(op), number(literal)) {
            (Some(symbol), Some(number)) => {
                let mut having =
                    Sql::new("toUnixTimestamp64Nano(max(end)) - toUnixTimestamp64Nano(min(start))");
                having.push(symbol);
                number.push_to(&mut having);
                Condition::of_traces(having)
            }
            _ => Condition::UNKNOWN,
        },
        _ => Condition::UNKNOWN,
    }
}

/// `nestedSetParent`: -1 on a root, more on every other span.
fn root_compared(op: CompareOp, n: i64) -> Condition {
    let holds = |value: i64| match op {
        CompareOp::Eq => value == n,
        CompareOp::Ne => value != n,
        CompareOp::Lt => value < n,
        CompareOp::Le => value <= n,
        CompareOp::Gt => value > n,
        CompareOp::Ge => value >= n,
        CompareOp::Match | CompareOp::NotMatch => false,
    };
    const ROOT: &str = "parent_span_id = toFixedString('', 8)";
    const OTHER: &str = "parent_span_id != toFixedString('', 8)";
    // Others have numbers from 0.
    let of_all_others = match op {
        CompareOp::Eq if n < 0 => Some(false),
        CompareOp::Ne if n < 0 => Some(true),
        CompareOp::Lt if n <= 0 => Some(false),
        CompareOp::Le if n < 0 => Some(false),
        CompareOp::Gt if n < 0 => Some(true),
        CompareOp::Ge if n <= 0 => Some(true),
        _ => None,
    };
    match (holds(-1), of_all_others) {
        (true, Some(true)) => Condition::each_row(),
        (true, Some(false)) => Condition::exactly(Sql::new(ROOT)),
        (false, Some(true)) => Condition::exactly(Sql::new(OTHER)),
        (false, Some(false)) => Condition::exactly(Sql::new("false")),
        (true, None) => Condition::UNKNOWN,
        (false, None) => Condition::at_least(Sql::new(OTHER)),
    }
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Unset => "'UNSET'",
        Status::Ok => "'OK'",
        Status::Error => "'ERROR'",
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "'UNSPECIFIED'",
        Kind::Internal => "'INTERNAL'",
        Kind::Server => "'SERVER'",
        Kind::Client => "'CLIENT'",
        Kind::Producer => "'PRODUCER'",
        Kind::Consumer => "'CONSUMER'",
    }
}

fn enum_compared(column: &'static str, op: CompareOp, name: &'static str) -> Condition {
    let symbol = match op {
        CompareOp::Eq => " = ",
        CompareOp::Ne => " != ",
        // They have no order.
        _ => return Condition::exactly(Sql::new("false")),
    };
    let mut sql = Sql::new(column);
    sql.push(symbol).push(name);
    Condition::exactly(sql)
}

/// An id: the bytes are compared where that says the same, since they have an index.
fn id_compared(
    column: &'static str,
    text: &'static str,
    digits: usize,
    op: CompareOp,
    literal: &str,
) -> Condition {
    let is_id = (1..=digits).contains(&literal.len())
        && literal.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id {
        return text_compared(text, op, literal);
    }
    let full = format!("{literal:0>digits$}").to_ascii_lowercase();
    if matches!(op, CompareOp::Eq) && full.bytes().any(|byte| byte != b'0') {
        let mut sql = Sql::new(column);
        sql.push(" = toFixedString(unhex(")
            .string(&full)
            .push("), ");
        sql.push(if digits == 32 { "16)" } else { "8)" });
        return Condition::exactly(sql);
    }
    text_compared(text, op, if op.is_regex() { literal } else { &full })
}

/// A column of text that each span has.
fn text_compared(column: &'static str, op: CompareOp, text: &str) -> Condition {
    let mut sql = Sql::new(column);
    match symbol(op) {
        Some(symbol) => {
            sql.push(symbol).string(text);
        }
        None => {
            let Some(pattern) = re2(text) else {
                return Condition::UNKNOWN;
            };
            sql = Sql::new(match op {
                CompareOp::NotMatch => "NOT match(",
                _ => "match(",
            });
            sql.push(column).push(", ").string(&pattern).push(")");
        }
    }
    Condition::exactly(sql)
}

/// A regular expression that means the same to ClickHouse, anchored; none where that is not sure. Classes such
/// as `\d` are ASCII's for both.
fn re2(pattern: &str) -> Option<String> {
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c if c.is_ascii_punctuation() || "dDsSwW".contains(c) => {}
                _ => return None,
            },
            '(' if chars.peek() == Some(&'?') => return None,
            '[' => {
                if chars.peek() == Some(&'^') {
                    chars.next();
                }
                let mut length = 0;
                loop {
                    match chars.next()? {
                        ']' if length > 0 => break,
                        c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') => {
                            length += 1;
                        }
                        _ => return None,
                    }
                }
            }
            _ => {}
        }
    }
    Some(format!("^(?s:{pattern})$"))
}

/// A number to compare with.
#[derive(Debug, Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn push_to(self, sql: &mut Sql) {
        match self {
            Self::Int(n) => sql.int(n),
            Self::Float(x) => sql.double(x),
        };
    }
}

fn number(literal: &Literal) -> Option<Number> {
    match literal {
        Literal::Int(n) | Literal::Duration(n) => Some(Number::Int(*n)),
        Literal::Float(x) if x.is_finite() => Some(Number::Float(*x)),
        _ => None,
    }
}

fn exists(field: &Field, negated: bool) -> Condition {
    match field {
        // Intrinsics are always there.
        Field::Intrinsic(_) | Field::Attribute { parent: true, .. } => Condition::UNKNOWN,
        Field::Attribute { scope, name, .. } if *scope == Scope::Span => {
            let mut sql = Sql::default();
            if negated {
                sql.push("NOT (");
            }
            sql.append(&has_key(*scope, name));
            if negated {
                sql.push(")");
            }
            Condition::exactly(sql)
        }
        Field::Attribute { scope, name, .. } => match negated {
            true => Condition::UNKNOWN,
            false => Condition::at_least(has_key(*scope, name)),
        },
    }
}
