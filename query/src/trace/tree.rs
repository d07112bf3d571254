//! The order of a trace's spans: parents before their children, siblings by start.
//!
//! Works on indices and explicit stacks, so that depth costs no stack; every span is placed exactly
//! once, whatever the parent ids say.

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
}

/// A span's place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Puts `nodes`, whose ids differ, in tree order.
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

/// The index of each node's parent, if it is there.
fn parents(nodes: &[Node]) -> Vec<usize> {
    let by_id: HashMap<[u8; 8], usize> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| (node.id, index))
        .collect();
    let parent = |node: &Node| {
        let named = (node.parent != [0; 8]).then_some(node.parent)?;
        by_id.get(&named).copied()
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
            edges in prop::collection::vec((0_u64..40, -5_i64..5), 0..40),
        ) {
            let nodes: Vec<_> = edges
                .iter()
                .enumerate()
                .map(|(n, (parent, at))| node(n as u64 + 1, *parent, *at))
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
                prop_assert!(placed.depth == 0 || path.last() == Some(&node.parent));
                prop_assert_eq!(placed.orphan, placed.depth == 0 && node.parent != [0; 8]);
                path.push(node.id);
            }
        }
    }
}
