//! The order of a trace's spans: parents before their children, siblings by start.
//!
//! Works on indices and explicit stacks, so that depth costs no stack; every span is placed exactly
//! once, whatever the parent ids say.
//!
//! A client and a server span may share one id, as Zipkin's do (B3 propagation): then the server stands
//! below the client, and what names that id as its parent stands below the one of its own service.

use std::collections::HashMap;

/// What the tree needs to know of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The span's own id.
    pub id: [u8; 8],
    /// Its parent's id; zeros for none.
    pub parent: [u8; 8],
    /// Its start.
    pub start_ns: i64,
    /// The number of its service.
    pub service: usize,
    /// Which end of a call it is.
    pub side: Side,
}

/// Which end of a call a span is, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// A client or producer span.
    Caller,
    /// A server or consumer span.
    Callee,
    /// Neither.
    #[default]
    Inner,
}

impl Side {
    /// The side of a span kind, by its number in the store.
    pub fn of_kind(kind: i8) -> Self {
        match kind {
            2 | 5 => Self::Callee,
            3 | 4 => Self::Caller,
            _ => Self::Inner,
        }
    }
}

/// A span's place in the tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placed {
    /// Which node it is.
    pub index: usize,
    /// 0 for a root.
    pub depth: usize,
    /// Whether it names a parent that it does not hang below: the parent is not there, or is its
    /// own descendant.
    pub orphan: bool,
    /// How much earlier than its parent it starts, which only clocks that differ can do.
    pub skew_ns: Option<u64>,
}

const NONE: usize = usize::MAX;

/// Puts `nodes`, which differ in their id, service or side, in tree order.
pub fn order(nodes: &[Node]) -> Vec<Placed> {
    let mut by_start: Vec<usize> = (0..nodes.len()).collect();
    by_start.sort_unstable_by_key(|index| key(nodes, *index));
    let parents = parents(nodes);
    let children = Children::new(&parents, &by_start);
    let mut walk = Walk {
        nodes,
        parents: &parents,
        children: &children,
        placed: vec![false; nodes.len()],
        out: Vec::with_capacity(nodes.len()),
    };
    for root in by_start
        .iter()
        .copied()
        .filter(|index| at(&parents, *index) == NONE)
    {
        walk.descend(root);
    }
    // What is left hangs below cycles: each is opened at its earliest span.
    let mut trail = vec![NONE; nodes.len()];
    for index in by_start {
        if !walk.is_placed(index) {
            let root = earliest_of_cycle(nodes, &parents, &mut trail, index);
            walk.descend(root);
        }
    }
    walk.out
}

/// Spans sort by start, and by id where starts are equal.
fn key(nodes: &[Node], index: usize) -> Option<(i64, [u8; 8])> {
    nodes.get(index).map(|node| (node.start_ns, node.id))
}

fn at(list: &[usize], index: usize) -> usize {
    list.get(index).copied().unwrap_or(NONE)
}

/// The nodes that have an id.
#[derive(Clone, Copy)]
struct Holders {
    first: usize,
    caller: Option<usize>,
    callee: Option<usize>,
}

/// The index of each node's parent, if it is there.
fn parents(nodes: &[Node]) -> Vec<usize> {
    let mut by_id: HashMap<[u8; 8], Holders> = HashMap::with_capacity(nodes.len());
    // Only of ids that several nodes have.
    let mut by_service: HashMap<([u8; 8], usize), usize> = HashMap::new();
    let mut shared = false;
    for (index, node) in nodes.iter().enumerate() {
        let holders = by_id.entry(node.id).or_insert(Holders {
            first: index,
            caller: None,
            callee: None,
        });
        shared |= holders.first != index;
        match node.side {
            Side::Caller => _ = holders.caller.get_or_insert(index),
            Side::Callee => _ = holders.callee.get_or_insert(index),
            Side::Inner => {}
        }
    }
    if shared {
        for (index, node) in nodes.iter().enumerate() {
            let place = by_service.entry((node.id, node.service)).or_insert(index);
            // What a service does for a call hangs below the call's server span.
            if node.side == Side::Callee {
                *place = index;
            }
        }
    }
    let parent = |node: &Node| {
        let own = by_id.get(&node.id)?;
        if let Some(caller) = own.caller.filter(|_| node.side == Side::Callee) {
            return Some(caller);
        }
        let named = (node.parent != [0; 8]).then_some(node.parent)?;
        let holders = by_id.get(&named)?;
        let of_service = by_service.get(&(named, node.service)).copied();
        Some(of_service.or(holders.callee).unwrap_or(holders.first))
    };
    nodes
        .iter()
        .map(|node| parent(node).unwrap_or(NONE))
        .collect()
}

/// Each node's children by start: one list of all, and where each node's begin.
struct Children {
    begins: Vec<usize>,
    list: Vec<usize>,
}

impl Children {
    fn new(parents: &[usize], by_start: &[usize]) -> Self {
        let mut begins = vec![0_usize; parents.len() + 1];
        for parent in parents.iter().filter(|parent| **parent != NONE) {
            if let Some(count) = begins.get_mut(parent + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for begin in &mut begins {
            sum += *begin;
            *begin = sum;
        }
        let mut next = begins.clone();
        let mut list = vec![NONE; sum];
        for child in by_start {
            let slot = next.get_mut(at(parents, *child));
            if let Some(slot) = slot
                && let Some(entry) = list.get_mut(*slot)
            {
                *entry = *child;
                *slot += 1;
            }
        }
        Self { begins, list }
    }

    fn of(&self, index: usize) -> &[usize] {
        let (begin, end) = (at(&self.begins, index), at(&self.begins, index + 1));
        self.list.get(begin..end).unwrap_or_default()
    }
}

struct Walk<'a> {
    nodes: &'a [Node],
    parents: &'a [usize],
    children: &'a Children,
    placed: Vec<bool>,
    out: Vec<Placed>,
}

impl Walk<'_> {
    fn is_placed(&self, index: usize) -> bool {
        self.placed.get(index).copied().unwrap_or(true)
    }

    fn descend(&mut self, root: usize) {
        let mut stack = vec![(root, 0)];
        while let Some((index, depth)) = stack.pop() {
            if self.is_placed(index) {
                continue;
            }
            if let Some(placed) = self.placed.get_mut(index) {
                *placed = true;
            }
            self.out.push(self.place(index, depth));
            // The stack gives back the last first.
            let children = self.children.of(index).iter().rev();
            stack.extend(children.map(|child| (*child, depth + 1)));
        }
    }

    fn place(&self, index: usize, depth: usize) -> Placed {
        let start = |index: usize| self.nodes.get(index).map(|node| node.start_ns);
        let named = self
            .nodes
            .get(index)
            .is_some_and(|node| node.parent != [0; 8]);
        let parent = Some(at(self.parents, index)).filter(|_| depth > 0);
        let skew_ns = parent
            .and_then(start)
            .zip(start(index))
            .and_then(|(parent, child)| u64::try_from(parent.saturating_sub(child)).ok())
            .filter(|skew| *skew > 0);
        Placed {
            index,
            depth,
            orphan: depth == 0 && named,
            skew_ns,
        }
    }
}

/// Follows the parents of `start` to their cycle and finds its earliest node. `trail` remembers,
/// for each node, from where it was last walked over, so that all walks together are as long as the
/// trace.
fn earliest_of_cycle(
    nodes: &[Node],
    parents: &[usize],
    trail: &mut [usize],
    start: usize,
) -> usize {
    let mut index = start;
    while at(trail, index) != start {
        match trail.get_mut(index) {
            Some(mark) => *mark = start,
            None => return start,
        }
        index = at(parents, index);
    }
    let entry = index;
    let mut earliest = entry;
    loop {
        index = at(parents, index);
        if index == entry {
            return earliest;
        }
        if key(nodes, index) < key(nodes, earliest) {
            earliest = index;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(id: u64, parent: u64, start_ns: i64) -> Node {
        Node {
            id: id.to_be_bytes(),
            parent: parent.to_be_bytes(),
            start_ns,
            service: 0,
            side: Side::Inner,
        }
    }

    /// Nodes as (id, parent, start); each placed one as `<dots for depth><id>`, `!` for an orphan,
    /// `~n` for skew.
    #[track_caller]
    fn check(nodes: &[(u64, u64, i64)], expect: &str) {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(id, parent, at)| node(*id, *parent, *at))
            .collect();
        let text = order(&nodes).into_iter().map(|placed| {
            let id = u64::from_be_bytes(nodes[placed.index].id);
            let orphan = if placed.orphan { "!" } else { "" };
            let skew = placed
                .skew_ns
                .map(|ns| format!("~{ns}"))
                .unwrap_or_default();
            format!("{}{id}{orphan}{skew}", ".".repeat(placed.depth))
        });
        assert_eq!(text.collect::<Vec<_>>().join(" "), expect);
    }

    #[test]
    fn trees() {
        check(&[], "");
        check(&[(1, 0, 0)], "1");
        check(&[(3, 1, 20), (2, 1, 10), (1, 0, 0)], "1 .2 .3");
        check(&[(1, 0, 0), (2, 1, 1), (3, 2, 2), (4, 1, 3)], "1 .2 ..3 .4");
        check(&[(1, 0, 0), (3, 1, 5), (2, 1, 5)], "1 .2 .3");
        check(&[(2, 0, 5), (1, 0, 9)], "2 1");
    }

    #[test]
    fn orphans() {
        check(&[(2, 9, 0)], "2!");
        check(&[(1, 0, 0), (2, 9, 5), (3, 2, 6)], "1 2! .3");
        check(&[(1, 0, 7), (2, 9, 5)], "2! 1");
    }

    #[test]
    fn skew() {
        check(&[(1, 0, 10), (2, 1, 3)], "1 .2~7");
        check(&[(1, 0, 10), (2, 1, 10)], "1 .2");
        check(
            &[(1, 0, i64::MAX), (2, 1, i64::MIN)],
            "1 .2~9223372036854775807",
        );
    }

    #[test]
    fn cycles() {
        check(&[(1, 1, 0)], "1!");
        check(&[(1, 2, 5), (2, 1, 3)], "2! .1");
        check(&[(1, 2, 5), (2, 3, 3), (3, 1, 9)], "2! .1 ..3");
        // The tail of a cycle starts first, but hangs below it.
        check(&[(1, 2, 5), (2, 1, 6), (3, 1, 0)], "1! .3~5 .2");
        check(&[(1, 0, 0), (2, 3, 1), (3, 2, 2), (5, 5, 4)], "1 2! .3 5!");
    }

    /// Nodes as (id, parent, service, side); each placed one as `<dots for depth><service><id>`.
    #[track_caller]
    fn check_shared(nodes: &[(u64, u64, u8, Side)], expect: &str) {
        let nodes: Vec<_> = (0..)
            .zip(nodes)
            .map(|(at, (id, parent, service, side))| Node {
                service: usize::from(*service),
                side: *side,
                ..node(*id, *parent, at)
            })
            .collect();
        let text = order(&nodes).into_iter().map(|placed| {
            let node = nodes[placed.index];
            let service = char::from(u8::try_from(node.service).unwrap());
            let id = u64::from_be_bytes(node.id);
            let orphan = if placed.orphan { "!" } else { "" };
            format!("{}{service}{id}{orphan}", ".".repeat(placed.depth))
        });
        assert_eq!(text.collect::<Vec<_>>().join(" "), expect);
    }

    #[test]
    fn a_client_and_a_server_that_share_an_id() {
        use Side::{Callee, Caller, Inner};
        let (web, api, db) = (b'w', b'a', b'd');
        check_shared(
            &[
                (1, 0, web, Callee),
                (2, 1, web, Caller),
                (2, 1, api, Callee),
                (3, 2, api, Caller),
                (3, 2, db, Callee),
                (4, 2, web, Inner),
            ],
            "w1 .w2 ..a2 ...a3 ....d3 ..w4",
        );
        // The server came first, the client has no parent, or never came.
        check_shared(&[(2, 0, api, Callee), (2, 0, web, Caller)], "w2 .a2");
        check_shared(
            &[(1, 0, web, Callee), (2, 1, api, Callee), (3, 2, api, Inner)],
            "w1 .a2 ..a3",
        );
        // A service that calls itself.
        check_shared(
            &[(2, 0, web, Caller), (2, 0, web, Callee), (3, 2, web, Inner)],
            "w2 .w2 ..w3",
        );
        // Two servers of one client; a third service's child hangs below one of them.
        check_shared(
            &[
                (2, 0, web, Caller),
                (2, 0, api, Callee),
                (2, 0, db, Callee),
                (3, 2, b'x', Inner),
            ],
            "w2 .a2 ..x3 .d2",
        );
        // Ids that name each other.
        check_shared(&[(2, 2, web, Caller), (2, 2, api, Callee)], "w2! .a2");
    }

    #[test]
    fn a_long_chain() {
        let nodes: Vec<_> = (0..100_000).map(|n| node(n + 1, n, 0)).collect();
        let placed = order(&nodes);
        assert_eq!(placed.len(), 100_000);
        assert_eq!(placed.last().map(|last| last.depth), Some(99_999));
    }

    proptest! {
        #[test]
        fn each_span_once_and_below_its_parent(
            edges in prop::collection::vec((0_u64..40, 0_u64..40, -5_i64..5, 0_usize..6), 0..40),
            shared in any::<bool>(),
        ) {
            let nodes: Vec<_> = edges
                .iter()
                .enumerate()
                .map(|(n, (id, parent, at, more))| Node {
                    service: more % 2,
                    side: [Side::Inner, Side::Caller, Side::Callee][more / 2],
                    ..node(if shared { id / 3 } else { n as u64 + 1 }, *parent, *at)
                })
                .collect();
            let placed = order(&nodes);
            let mut seen: Vec<_> = placed.iter().map(|placed| placed.index).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..nodes.len()).collect::<Vec<_>>());
            let mut path: Vec<[u8; 8]> = Vec::new();
            for placed in placed {
                let node = nodes[placed.index];
                prop_assert!(placed.depth <= path.len());
                path.truncate(placed.depth);
                let above = path.last();
                let shares = node.side == Side::Callee && above == Some(&node.id);
                prop_assert!(placed.depth == 0 || above == Some(&node.parent) || shares);
                prop_assert_eq!(placed.orphan, placed.depth == 0 && node.parent != [0; 8]);
                path.push(node.id);
            }
        }
    }
}
