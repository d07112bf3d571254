//! A trace: its spans in order, and the tree that they make.
//!
//! Spans that are not whole trees are common: the parent of one has not arrived, or never will. What is below
//! a missing parent (an orphan and its descendants) is a tree of its own, so that structural operators work
//! there as everywhere; only nested set numbers stay 0 there, as in Tempo. Two spans may have the same id;
//! the first in order is the parent of those that name it. Parents in a circle are cut open: the first span
//! of the circle counts as having none.

use std::collections::HashMap;

use crate::span::{
    AttributeScope, ChildField, Kind, Scalar, Span, Status, TraceFact, TraceSpan, ValueRef,
};

/// No span.
pub(crate) const NONE: u32 = u32::MAX;

/// The spans of one trace and how they stand to each other. Everything is worked out once, by [`Trace::new`].
///
/// Spans stand in an order that does not depend on the order they came in: by start, then by id. Positions
/// below are in this order.
#[derive(Debug)]
pub struct Trace<'t, S> {
    spans: &'t [S],
    /// The index in `spans` of each position.
    order: Vec<u32>,
    /// The position of each one's parent, after circles are cut open.
    parent: Vec<u32>,
    /// Those that name the same parent have the same number; roots have none.
    family: Vec<u32>,
    /// How many numbers there are.
    families: u32,
    /// Every position, parents before their children.
    topdown: Vec<u32>,
    /// How many spans name each as their parent, also in a circle.
    children: Vec<u32>,
    nested: Vec<Nested>,
    start_ns: u64,
    duration_ns: u64,
    root: Option<u32>,
}

/// The numbers of a span in the nested set of its trace; 0 where no root is above.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Nested {
    left: i64,
    right: i64,
    parent: i64,
}

fn is_root(parent_id: &[u8]) -> bool {
    parent_id.iter().all(|b| *b == 0)
}

impl<'t, S: TraceSpan> Trace<'t, S> {
    /// Works out the tree of `spans`, which belong to one trace and come in any order.
    pub fn new(spans: &'t [S]) -> Self {
        let count = u32::try_from(spans.len()).unwrap_or(NONE - 1);
        let mut order: Vec<u32> = (0..count).collect();
        let key = |index: &u32| {
            let span = &spans[*index as usize];
            (span.start_ns(), span.span_id(), *index)
        };
        order.sort_unstable_by(|l, r| key(l).cmp(&key(r)));
        let mut trace = Self {
            spans,
            parent: vec![NONE; order.len()],
            family: vec![NONE; order.len()],
            families: 0,
            topdown: Vec::with_capacity(order.len()),
            children: vec![0; order.len()],
            nested: vec![Nested::default(); order.len()],
            start_ns: 0,
            duration_ns: 0,
            root: None,
            order,
        };
        trace.find_parents();
        trace.cut_circles();
        trace.walk();
        trace.take_times();
        trace
    }

    fn find_parents(&mut self) {
        let mut positions = HashMap::with_capacity(self.order.len());
        for position in self.positions() {
            let id = self.at(position).span_id();
            if !is_root(id) {
                positions.entry(id).or_insert(position);
            }
        }
        let mut families: HashMap<&[u8], u32> = HashMap::new();
        for position in self.positions() {
            let id = self.at(position).parent_span_id();
            if is_root(id) {
                // The last root gives the trace its name, as in Tempo.
                self.root = Some(position);
                continue;
            }
            let next = self.families;
            let family = *families.entry(id).or_insert(next);
            self.families = next.max(family + 1);
            self.family[position as usize] = family;
            if let Some(parent) = positions.get(id) {
                self.parent[position as usize] = *parent;
                self.children[*parent as usize] += 1;
            }
        }
    }

    /// Takes the parent from one span of each circle, so that what is left are trees.
    fn cut_circles(&mut self) {
        // The walk that passed here; 0 for none yet.
        let mut passed = vec![0u32; self.order.len()];
        for start in self.positions() {
            let walk = start + 1;
            let mut here = start;
            while here != NONE && passed[here as usize] == 0 {
                passed[here as usize] = walk;
                here = self.parent[here as usize];
            }
            if here == NONE || passed[here as usize] != walk {
                continue;
            }
            let mut first = here;
            let mut next = self.parent[here as usize];
            while next != here {
                first = first.min(next);
                next = self.parent[next as usize];
            }
            self.parent[first as usize] = NONE;
        }
    }

    /// The children of all spans, those of one together: of `p` from the first list's `p` to its `p + 1`.
    fn list_children(&self) -> (Vec<u32>, Vec<u32>) {
        let mut counts = vec![0; self.order.len()];
        for position in self.positions() {
            if let Some(count) = counts.get_mut(self.parent[position as usize] as usize) {
                *count += 1;
            }
        }
        let mut starts = Vec::with_capacity(self.order.len() + 1);
        let mut end = 0u32;
        for count in &counts {
            starts.push(end);
            end += count;
        }
        starts.push(end);
        let mut fill = starts.clone();
        let mut children = vec![0; end as usize];
        for position in self.positions() {
            let parent = self.parent[position as usize];
            if parent != NONE {
                let slot = &mut fill[parent as usize];
                children[*slot as usize] = position;
                *slot += 1;
            }
        }
        (starts, children)
    }

    /// Goes through the trees from their tops, those of roots first.
    fn walk(&mut self) {
        let (starts, children) = self.list_children();
        let mut tops = Vec::new();
        for numbered in [true, false] {
            tops.extend(self.positions().filter_map(|p| {
                let is_top = self.parent[p as usize] == NONE;
                let is_root = self.family[p as usize] == NONE;
                (is_top && is_root == numbered).then_some((p, numbered))
            }));
        }
        let mut next = 1;
        let mut path: Vec<(u32, u32)> = Vec::new();
        for (top, numbered) in tops {
            let mut enter = Some((top, -1));
            while let Some((position, parent)) = enter.take().or_else(|| {
                // Up to the next one that has a child left.
                while let Some((above, child)) = path.last_mut() {
                    let above = *above as usize;
                    if *child < starts[above + 1] {
                        let position = children[*child as usize];
                        *child += 1;
                        return Some((position, self.nested[above].left));
                    }
                    if numbered {
                        self.nested[above].right = next;
                        next += 1;
                    }
                    path.pop();
                }
                None
            }) {
                self.topdown.push(position);
                if numbered {
                    let nested = &mut self.nested[position as usize];
                    (nested.left, nested.parent) = (next, parent);
                    next += 1;
                }
                path.push((position, starts[position as usize]));
            }
        }
    }

    fn take_times(&mut self) {
        let end = |span: &S| span.start_ns().saturating_add(span.duration_ns());
        let start_ns = self.spans.iter().map(S::start_ns).min().unwrap_or(0);
        let end_ns = self.spans.iter().map(end).max().unwrap_or(0);
        self.start_ns = start_ns;
        self.duration_ns = end_ns.saturating_sub(start_ns);
        // A trace without a root is named after the span that it starts with.
        self.root = self.root.or_else(|| self.positions().next());
    }

    pub(crate) fn at(&self, position: u32) -> &'t S {
        &self.spans[self.order[position as usize] as usize]
    }

    /// The span at `position`, which knows its trace.
    pub(crate) fn in_trace(&self, position: u32) -> InTrace<'_, S> {
        InTrace {
            span: self.at(position),
            trace: self,
            position,
        }
    }

    /// The name of the root, or of the first span where there is no root.
    pub fn root_name(&self) -> &'t str {
        self.root.map_or("", |root| self.at(root).name())
    }

    /// The service of the root, or of the first span where there is no root.
    pub fn root_service(&self) -> &'t str {
        self.root.map_or("", |root| self.at(root).service_name())
    }
}

impl<'t, S> Trace<'t, S> {
    /// The spans as they were given.
    pub fn spans(&self) -> &'t [S] {
        self.spans
    }

    /// When the first span starts, in nanoseconds since 1970.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// From the start of the first span to the end of the last, in nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.duration_ns
    }

    /// The index of the span that the trace is named after: the root that started last, or the first span
    /// where there is no root. None only without spans.
    pub fn root(&self) -> Option<usize> {
        self.root.map(|root| self.index(root))
    }

    /// The indexes of all spans by start, then by id.
    pub fn in_order(&self) -> impl Iterator<Item = usize> + '_ {
        self.order.iter().map(|index| *index as usize)
    }

    pub(crate) fn positions(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.order.len()).unwrap_or(NONE)
    }

    pub(crate) fn index(&self, position: u32) -> usize {
        self.order[position as usize] as usize
    }

    /// The position of the parent; `NONE` for tops of trees.
    pub(crate) fn parent(&self, position: u32) -> u32 {
        self.parent[position as usize]
    }

    pub(crate) fn family(&self, position: u32) -> u32 {
        self.family[position as usize]
    }

    pub(crate) fn families(&self) -> u32 {
        self.families
    }

    /// Every position, parents before their children.
    pub(crate) fn topdown(&self) -> &[u32] {
        &self.topdown
    }
}

/// A span that knows its trace.
#[derive(Debug)]
pub(crate) struct InTrace<'a, S> {
    span: &'a S,
    trace: &'a Trace<'a, S>,
    position: u32,
}

impl<'a, S> InTrace<'a, S> {
    pub(crate) fn span(&self) -> &'a S {
        self.span
    }
}

impl<S: TraceSpan> Span for InTrace<'_, S> {
    type Array<'a>
        = S::Array<'a>
    where
        Self: 'a;

    fn name(&self) -> &str {
        self.span.name()
    }

    fn status(&self) -> Status {
        self.span.status()
    }

    fn status_message(&self) -> &str {
        self.span.status_message()
    }

    fn kind(&self) -> Kind {
        self.span.kind()
    }

    fn duration_ns(&self) -> u64 {
        self.span.duration_ns()
    }

    fn trace_id(&self) -> &[u8] {
        self.span.trace_id()
    }

    fn span_id(&self) -> &[u8] {
        self.span.span_id()
    }

    fn parent_span_id(&self) -> &[u8] {
        self.span.parent_span_id()
    }

    fn scope_name(&self) -> &str {
        self.span.scope_name()
    }

    fn scope_version(&self) -> &str {
        self.span.scope_version()
    }

    fn attribute(&self, scope: AttributeScope, key: &str) -> Option<ValueRef<'_, S::Array<'_>>> {
        self.span.attribute(scope, key)
    }

    fn any_child(&self, field: ChildField<'_>, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        self.span.any_child(field, test)
    }

    fn trace_fact(&self, fact: TraceFact) -> Option<Scalar<'_>> {
        let at = self.position as usize;
        let nested = self.trace.nested[at];
        Some(match fact {
            TraceFact::ChildCount => Scalar::Int(i64::from(self.trace.children[at])),
            TraceFact::Duration => {
                Scalar::Int(i64::try_from(self.trace.duration_ns).unwrap_or(i64::MAX))
            }
            TraceFact::RootName => Scalar::Str(self.trace.root_name()),
            TraceFact::RootService => Scalar::Str(self.trace.root_service()),
            TraceFact::NestedSetLeft => Scalar::Int(nested.left),
            TraceFact::NestedSetRight => Scalar::Int(nested.right),
            TraceFact::NestedSetParent => Scalar::Int(nested.parent),
        })
    }
}
