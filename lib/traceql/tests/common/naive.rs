//! A second evaluator, written from what the language says and not from how it is run: every operator by its
//! definition, span against span, without a thought of speed.

#![allow(clippy::expect_used)] // tests may

mod values;

use std::collections::BTreeSet;

use spanloom_traceql::{
    Aggregate, AggregateOp, AttributeScope, CompareOp, Expr, Field, Form, Intrinsic, Kind, Literal,
    Node, Pipeline, Relation, ScalarExpr, Scope, SpansetExpr, SpansetOp, Stage, Status,
};

use super::owned::{Attributes, OwnedSpan, V, find};

pub use values::holds;
use values::{calculated, padded};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Val {
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Status(Status),
    Kind(Kind),
    Other,
}

/// What an expression is on a span.
#[derive(Debug, Clone, PartialEq)]
pub enum Is {
    Missing,
    One(Val),
    Array(Vec<Val>),
}

/// The trace that is asked.
pub struct Naive<'t> {
    pub spans: &'t [OwnedSpan],
    /// The index of each one's parent.
    parents: Vec<Option<usize>>,
}

/// The fields of events and links, and which values they have at the moment.
type Env = Vec<(Field, Val)>;

fn hex(id: &[u8]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

fn of(v: &V) -> Is {
    let one = |v: &V| match v {
        V::Str(s) => Val::Str(s.clone()),
        V::Int(n) => Val::Int(*n),
        V::Float(x) => Val::Float(*x),
        V::Bool(b) => Val::Bool(*b),
        V::Array(_) | V::Other => Val::Other,
    };
    match v {
        V::Array(list) => Is::Array(list.iter().map(one).collect()),
        v => Is::One(one(v)),
    }
}

fn is_child_field(field: &Field) -> bool {
    match field {
        Field::Attribute { scope, .. } => matches!(scope, Scope::Event | Scope::Link),
        Field::Intrinsic(intrinsic) => matches!(
            intrinsic,
            Intrinsic::EventName
                | Intrinsic::EventTimeSinceStart
                | Intrinsic::LinkTraceId
                | Intrinsic::LinkSpanId
        ),
    }
}

impl<'t> Naive<'t> {
    pub fn new(spans: &'t [OwnedSpan]) -> Self {
        let mut naive = Self {
            spans,
            parents: Vec::new(),
        };
        let named: Vec<Option<usize>> = (0..spans.len()).map(|i| naive.named_parent(i)).collect();
        // The first span of a circle has no parent.
        naive.parents = (0..spans.len())
            .map(|i| {
                let circle: Vec<usize> = std::iter::successors(named[i], |p| named[*p])
                    .take(spans.len())
                    .take_while(|p| *p != i)
                    .collect();
                let comes_back = named[circle.last().copied().unwrap_or(i)] == Some(i);
                let is_first = circle.iter().all(|other| naive.before(i, *other));
                named[i].filter(|_| !(comes_back && is_first))
            })
            .collect();
        naive
    }

    /// Whether a span comes before another: by start, then by id.
    fn before(&self, l: usize, r: usize) -> bool {
        let key = |i: usize| (self.spans[i].start, &self.spans[i].span_id, i);
        key(l) < key(r)
    }

    pub fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.spans.len()).collect();
        order.sort_by(|l, r| {
            if self.before(*l, *r) {
                std::cmp::Ordering::Less
            } else {
                std::cmp::Ordering::Greater
            }
        });
        order
    }

    /// The first span that has the id which this one names.
    fn named_parent(&self, i: usize) -> Option<usize> {
        let id = &self.spans[i].parent;
        self.in_order()
            .into_iter()
            .find(|p| !id.is_empty() && self.spans[*p].span_id == *id)
    }

    fn is_below(&self, i: usize, above: usize) -> bool {
        std::iter::successors(self.parents[i], |p| self.parents[*p]).any(|p| p == above)
    }

    /// Whether `left relation right`.
    fn related(&self, relation: Relation, left: usize, right: usize) -> bool {
        match relation {
            Relation::Child => self.parents[right] == Some(left),
            Relation::Parent => self.parents[left] == Some(right),
            Relation::Descendant => self.is_below(right, left),
            Relation::Ancestor => self.is_below(left, right),
            Relation::Sibling => {
                let (l, r) = (&self.spans[left].parent, &self.spans[right].parent);
                left != right && l == r && !l.is_empty()
            }
        }
    }

    fn children(&self, i: usize) -> Vec<usize> {
        self.in_order()
            .into_iter()
            .filter(|c| self.parents[*c] == Some(i))
            .collect()
    }

    /// Left, right and the parent's left number of a span, by counting a walk from all roots.
    fn nested(&self, i: usize) -> (i64, i64, i64) {
        fn walk(
            naive: &Naive<'_>,
            at: usize,
            above: i64,
            next: &mut i64,
            wanted: usize,
            found: &mut (i64, i64, i64),
        ) {
            let left = *next;
            *next += 1;
            for child in naive.children(at) {
                walk(naive, child, left, next, wanted, found);
            }
            if at == wanted {
                *found = (left, *next, above);
            }
            *next += 1;
        }
        let (mut next, mut found) = (1, (0, 0, 0));
        for root in self
            .in_order()
            .into_iter()
            .filter(|r| self.spans[*r].parent.is_empty())
        {
            walk(self, root, -1, &mut next, i, &mut found);
        }
        found
    }

    fn root(&self) -> usize {
        let order = self.in_order();
        let last_root = order
            .iter()
            .rev()
            .find(|r| self.spans[**r].parent.is_empty());
        last_root.copied().unwrap_or(order[0])
    }

    fn service(&self, i: usize) -> String {
        match find(&self.spans[i].resource, "service.name") {
            Some(V::Str(name)) => name.clone(),
            _ => String::new(),
        }
    }

    /// Every value of a field of events or links.
    fn child_values(&self, field: &Field, i: usize) -> Vec<Val> {
        let span = &self.spans[i];
        let of_attributes = |lists: Vec<&Attributes>, name: &str| -> Vec<Val> {
            let values = lists.into_iter().filter_map(|list| find(list, name));
            values
                .flat_map(|value| match of(value) {
                    Is::Missing => vec![],
                    Is::One(value) => vec![value],
                    Is::Array(list) => list,
                })
                .collect()
        };
        let events = &span.events;
        let links = &span.links;
        match field {
            Field::Attribute {
                scope: Scope::Event,
                name,
                ..
            } => of_attributes(events.iter().map(|e| &e.attributes).collect(), name),
            Field::Attribute { name, .. } => {
                of_attributes(links.iter().map(|l| &l.attributes).collect(), name)
            }
            Field::Intrinsic(Intrinsic::EventName) => {
                events.iter().map(|e| Val::Str(e.name.clone())).collect()
            }
            Field::Intrinsic(Intrinsic::EventTimeSinceStart) => {
                events.iter().map(|e| Val::Int(e.since_start)).collect()
            }
            Field::Intrinsic(Intrinsic::LinkTraceId) => {
                links.iter().map(|l| Val::Str(hex(&l.trace_id))).collect()
            }
            Field::Intrinsic(_) => links.iter().map(|l| Val::Str(hex(&l.span_id))).collect(),
        }
    }

    fn field(&self, field: &Field, i: usize, env: &Env) -> Is {
        if is_child_field(field) {
            return env
                .iter()
                .find(|(f, _)| f == field)
                .map_or(Is::Missing, |(_, v)| Is::One(v.clone()));
        }
        let span = &self.spans[i];
        let intrinsic = match field {
            Field::Attribute { scope, name, .. } => {
                let lists: &[AttributeScope] = match scope {
                    Scope::Unscoped => &[AttributeScope::Span, AttributeScope::Resource],
                    Scope::Span => &[AttributeScope::Span],
                    Scope::Resource => &[AttributeScope::Resource],
                    _ => &[AttributeScope::Instrumentation],
                };
                let value = lists.iter().find_map(|scope| find(span.list(*scope), name));
                return value.map_or(Is::Missing, of);
            }
            Field::Intrinsic(intrinsic) => intrinsic,
        };
        let start = self.spans.iter().map(|s| s.start).min().unwrap_or(0);
        let end = self
            .spans
            .iter()
            .map(|s| s.start + s.duration)
            .max()
            .unwrap_or(0);
        Is::One(match intrinsic {
            Intrinsic::Name => Val::Str(span.name.clone()),
            Intrinsic::Status => Val::Status(span.status),
            Intrinsic::StatusMessage => Val::Str(span.message.clone()),
            Intrinsic::Kind => Val::Kind(span.kind),
            Intrinsic::Duration => Val::Int(span.duration.cast_signed()),
            Intrinsic::SpanId => Val::Str(hex(&span.span_id)),
            Intrinsic::ParentId => Val::Str(hex(&span.parent)),
            Intrinsic::TraceId => Val::Str(hex(&span.trace_id)),
            Intrinsic::InstrumentationName => Val::Str(span.scope.0.clone()),
            Intrinsic::InstrumentationVersion => Val::Str(span.scope.1.clone()),
            Intrinsic::ChildCount => {
                let children = (0..self.spans.len()).filter(|c| self.named_parent(*c) == Some(i));
                Val::Int(children.count() as i64)
            }
            Intrinsic::TraceDuration => Val::Int((end - start).cast_signed()),
            Intrinsic::RootName => Val::Str(self.spans[self.root()].name.clone()),
            Intrinsic::RootService => Val::Str(self.service(self.root())),
            Intrinsic::NestedSetLeft => Val::Int(self.nested(i).0),
            Intrinsic::NestedSetRight => Val::Int(self.nested(i).1),
            Intrinsic::NestedSetParent => Val::Int(self.nested(i).2),
            other => panic!("{other:?}"),
        })
    }

    fn value(&self, expr: &Expr, i: usize, env: &Env) -> Is {
        match &expr.node {
            Node::Literal(literal) => match literal {
                Literal::Str(s) => Is::One(Val::Str(s.clone())),
                Literal::Int(n) | Literal::Duration(n) => Is::One(Val::Int(*n)),
                Literal::Float(x) => Is::One(Val::Float(*x)),
                Literal::Bool(b) => Is::One(Val::Bool(*b)),
                Literal::Status(s) => Is::One(Val::Status(*s)),
                Literal::Kind(k) => Is::One(Val::Kind(*k)),
                Literal::Nil => Is::Missing,
            },
            Node::Field(field) => self.field(field, i, env),
            Node::Neg(inner) => match self.value(inner, i, env) {
                Is::One(Val::Int(n)) => Is::One(Val::Int(-n)),
                Is::One(Val::Float(x)) => Is::One(Val::Float(-x)),
                _ => Is::Missing,
            },
            Node::Arith { op, left, right } => {
                match (self.value(left, i, env), self.value(right, i, env)) {
                    (Is::One(l), Is::One(r)) => {
                        calculated(*op, &l, &r).map_or(Is::Missing, Is::One)
                    }
                    _ => Is::Missing,
                }
            }
            _ => self
                .truth(expr, i)
                .map_or(Is::Missing, |b| Is::One(Val::Bool(b))),
        }
    }

    /// The fields of events and links that one comparison is about; comparisons within it have their own.
    fn child_fields(expr: &Expr, fields: &mut Vec<Field>) {
        match &expr.node {
            Node::Field(field) if is_child_field(field) && !fields.contains(field) => {
                fields.push(field.clone())
            }
            Node::Neg(inner) => Self::child_fields(inner, fields),
            Node::Arith { left, right, .. } => {
                Self::child_fields(left, fields);
                Self::child_fields(right, fields);
            }
            _ => {}
        }
    }

    /// Every choice of values for the fields of events and links in the expressions.
    fn choices(&self, exprs: &[&Expr], i: usize) -> Vec<Env> {
        let mut fields = Vec::new();
        exprs
            .iter()
            .for_each(|expr| Self::child_fields(expr, &mut fields));
        let mut choices = vec![Env::new()];
        for field in fields {
            let values = self.child_values(&field, i);
            choices = choices
                .into_iter()
                .flat_map(|env| {
                    values
                        .iter()
                        .map(|value| {
                            let mut env = env.clone();
                            env.push((field.clone(), value.clone()));
                            env
                        })
                        .collect::<Vec<_>>()
                })
                .collect();
        }
        choices
    }

    fn compared(&self, op: CompareOp, left: &Expr, right: &Expr, i: usize) -> bool {
        let pad = |expr: &Expr, other: &Expr| {
            if op.is_regex() {
                expr.clone()
            } else {
                padded(expr, other)
            }
        };
        let (padded_left, padded_right) = (pad(left, right), pad(right, left));
        let (left, right) = (&padded_left, &padded_right);
        let mut results = Vec::new();
        let mut present = false;
        for env in self.choices(&[left, right], i) {
            let (left, right) = (self.value(left, i, &env), self.value(right, i, &env));
            let list = |is: &Is| match is {
                Is::Missing => vec![],
                Is::One(value) => vec![value.clone()],
                Is::Array(list) => list.clone(),
            };
            if left == Is::Missing || right == Is::Missing {
                continue;
            }
            present = true;
            if matches!((&left, &right), (Is::Array(_), Is::Array(_))) {
                results.push(false);
                continue;
            }
            for l in list(&left) {
                results.extend(list(&right).iter().map(|r| holds(op, &l, r) == Some(true)));
            }
        }
        match op {
            CompareOp::Ne | CompareOp::NotMatch => present && results.iter().all(|r| *r),
            _ => results.iter().any(|r| *r),
        }
    }

    /// True, false or unknown.
    fn truth(&self, expr: &Expr, i: usize) -> Option<bool> {
        Some(match &expr.node {
            Node::Literal(Literal::Bool(b)) => *b,
            Node::And(list) => list.iter().all(|e| self.truth(e, i) == Some(true)),
            Node::Or(list) => list.iter().any(|e| self.truth(e, i) == Some(true)),
            Node::Not(inner) => !self.truth(inner, i)?,
            Node::Compare { op, left, right } => self.compared(*op, left, right, i),
            Node::Exists { value, negated } => {
                let exists = self
                    .choices(&[value], i)
                    .iter()
                    .any(|env| self.value(value, i, env) != Is::Missing);
                exists != *negated
            }
            _ => {
                let values: Vec<Val> = self
                    .choices(&[expr], i)
                    .iter()
                    .flat_map(|env| match self.value(expr, i, env) {
                        Is::Missing => vec![],
                        Is::One(value) => vec![value],
                        Is::Array(list) => list,
                    })
                    .collect();
                if values.contains(&Val::Bool(true)) {
                    true
                } else if values.contains(&Val::Bool(false)) {
                    false
                } else {
                    return None;
                }
            }
        })
    }

    /// Everything that an expression is on a span, events and links each by themselves.
    pub fn all_values(&self, expr: &Expr, i: usize) -> (Vec<Val>, bool) {
        let mut all = Vec::new();
        let mut is_array = false;
        for env in self.choices(&[expr], i) {
            match self.value(expr, i, &env) {
                Is::Missing => {}
                Is::One(value) => all.push(value),
                Is::Array(list) => {
                    is_array = true;
                    all.extend(list);
                }
            }
        }
        (all, is_array)
    }

    pub fn search(&self, pipeline: &Pipeline) -> Vec<BTreeSet<usize>> {
        self.pipeline(pipeline, (0..self.spans.len()).collect())
    }

    fn pipeline(&self, pipeline: &Pipeline, input: BTreeSet<usize>) -> Vec<BTreeSet<usize>> {
        let mut sets = vec![input];
        for stage in &pipeline.stages {
            sets.retain(|set| !set.is_empty());
            sets = match stage {
                Stage::Spansets(expr) => sets
                    .into_iter()
                    .flat_map(|set| self.spansets(expr, set))
                    .collect(),
                Stage::Scalar(filter) => {
                    let (ScalarExpr::Aggregate(aggregate), ScalarExpr::Number(literal)) =
                        (&filter.left, &filter.right)
                    else {
                        panic!("{filter} is not supported");
                    };
                    let number = match literal {
                        Literal::Float(x) => Val::Float(*x),
                        Literal::Int(n) | Literal::Duration(n) => Val::Int(*n),
                        other => panic!("{other:?}"),
                    };
                    sets.retain(|set| {
                        let result = self.aggregate(aggregate, set);
                        result
                            .is_some_and(|result| holds(filter.op, &result, &number) == Some(true))
                    });
                    sets
                }
                Stage::By(expr) => sets
                    .into_iter()
                    .flat_map(|set| self.groups(expr, set))
                    .collect(),
                Stage::Coalesce => vec![sets.into_iter().flatten().collect()],
                Stage::Select(_) => sets,
            };
        }
        sets.retain(|set| !set.is_empty());
        sets
    }

    fn groups(&self, expr: &Expr, set: BTreeSet<usize>) -> Vec<BTreeSet<usize>> {
        let mut groups: Vec<(String, BTreeSet<usize>)> = Vec::new();
        for i in self.in_order().into_iter().filter(|i| set.contains(i)) {
            // What has no form to be shown in counts as missing.
            let (values, is_array) = self.all_values(expr, i);
            let key = match values.as_slice() {
                [Val::Other] if !is_array => format!("{:?}", (Vec::<Val>::new(), false)),
                _ => format!("{:?}", (values, is_array)),
            };
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, group)) => {
                    group.insert(i);
                }
                None => groups.push((key, BTreeSet::from([i]))),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    fn aggregate(&self, aggregate: &Aggregate, set: &BTreeSet<usize>) -> Option<Val> {
        let Some(expr) = &aggregate.value else {
            return Some(Val::Int(set.len() as i64));
        };
        let numbers: Vec<Val> = set
            .iter()
            .flat_map(|i| match self.all_values(expr, *i) {
                (values, false) => values,
                (_, true) => vec![],
            })
            .filter(|v| matches!(v, Val::Int(_)) || matches!(v, Val::Float(x) if !x.is_nan()))
            .collect();
        let float = |v: &Val| match v {
            Val::Int(n) => *n as f64,
            Val::Float(x) => *x,
            _ => f64::NAN,
        };
        let floats: Vec<f64> = numbers.iter().map(float).collect();
        if floats.is_empty() {
            return None;
        }
        // All numbers of these tests are exact as floats.
        let sum: f64 = floats.iter().sum();
        let is_duration = matches!(
            expr.node,
            Node::Field(Field::Intrinsic(
                Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart
            ))
        );
        Some(Val::Float(match aggregate.op {
            AggregateOp::Count => floats.len() as f64,
            AggregateOp::Sum => sum,
            AggregateOp::Avg if is_duration => (sum / floats.len() as f64).trunc(),
            AggregateOp::Avg => sum / floats.len() as f64,
            AggregateOp::Min => floats.iter().copied().fold(f64::INFINITY, f64::min),
            AggregateOp::Max => floats.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }))
    }

    fn spansets(&self, expr: &SpansetExpr, input: BTreeSet<usize>) -> Vec<BTreeSet<usize>> {
        let one = |set: BTreeSet<usize>| if set.is_empty() { vec![] } else { vec![set] };
        let (op, left, right) = match expr {
            SpansetExpr::Filter(expr) => {
                return one(input
                    .into_iter()
                    .filter(|i| self.truth(expr, *i) == Some(true))
                    .collect());
            }
            SpansetExpr::Pipeline(pipeline) => return self.pipeline(pipeline, input),
            SpansetExpr::Op { op, left, right } => (*op, left, right),
        };
        let left: BTreeSet<usize> = self
            .spansets(left, input.clone())
            .into_iter()
            .flatten()
            .collect();
        let right: BTreeSet<usize> = self.spansets(right, input).into_iter().flatten().collect();
        let both = || left.union(&right).copied().collect::<BTreeSet<_>>();
        match op {
            SpansetOp::And if left.is_empty() || right.is_empty() => vec![],
            SpansetOp::And | SpansetOp::Or => one(both()),
            SpansetOp::Structural(relation, form) => {
                let has_left = |r: &usize| left.iter().any(|l| self.related(relation, *l, *r));
                let has_right = |l: &usize| right.iter().any(|r| self.related(relation, *l, *r));
                let of_right = right.iter().copied();
                one(match form {
                    Form::Plain => of_right.filter(has_left).collect(),
                    Form::Negated => of_right.filter(|r| !has_left(r)).collect(),
                    Form::Union => {
                        let of_left = left.iter().copied().filter(has_right);
                        of_right.filter(has_left).chain(of_left).collect()
                    }
                })
            }
        }
    }
}
