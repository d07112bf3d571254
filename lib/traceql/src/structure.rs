//! Structural operators: which spans stand in a relation to which, in time that grows with the trace and not
//! with its square.

use crate::query::{Form, Relation};
use crate::trace::{NONE, Trace};

/// A mark for each position of a trace.
type Marks = Vec<bool>;

/// The positions that the operator answers, in order. `left` and `right` are positions in order.
pub(crate) fn related<S>(
    trace: &Trace<'_, S>,
    relation: Relation,
    form: Form,
    left: &[u32],
    right: &[u32],
) -> Vec<u32> {
    let holds = with_some(trace, relation, &marked(trace, left));
    let of_right = right.iter().copied();
    match form {
        Form::Plain => of_right.filter(|p| holds[*p as usize]).collect(),
        Form::Negated => of_right.filter(|p| !holds[*p as usize]).collect(),
        Form::Union => {
            let mut both: Vec<u32> = of_right.filter(|p| holds[*p as usize]).collect();
            let holds = with_some(trace, inverse(relation), &marked(trace, right));
            both.extend(left.iter().filter(|p| holds[**p as usize]));
            both.sort_unstable();
            both.dedup();
            both
        }
    }
}

fn inverse(relation: Relation) -> Relation {
    match relation {
        Relation::Child => Relation::Parent,
        Relation::Parent => Relation::Child,
        Relation::Descendant => Relation::Ancestor,
        Relation::Ancestor => Relation::Descendant,
        Relation::Sibling => Relation::Sibling,
    }
}

fn marked<S>(trace: &Trace<'_, S>, positions: &[u32]) -> Marks {
    let mut marks = vec![false; trace.positions().len()];
    for position in positions {
        marks[*position as usize] = true;
    }
    marks
}

/// For each position whether it stands in the relation to some span of `left`.
fn with_some<S>(trace: &Trace<'_, S>, relation: Relation, left: &Marks) -> Marks {
    let mut holds = vec![false; left.len()];
    match relation {
        Relation::Child => {
            for p in trace.positions() {
                let parent = trace.parent(p);
                holds[p as usize] = parent != NONE && left[parent as usize];
            }
        }
        Relation::Parent => {
            for p in trace.positions().filter(|p| left[*p as usize]) {
                if let Some(parent) = holds.get_mut(trace.parent(p) as usize) {
                    *parent = true;
                }
            }
        }
        Relation::Descendant => {
            for p in trace.topdown() {
                let parent = trace.parent(*p) as usize;
                if left.get(parent) == Some(&true) || holds.get(parent) == Some(&true) {
                    holds[*p as usize] = true;
                }
            }
        }
        Relation::Ancestor => {
            for p in trace.topdown().iter().rev() {
                let below = left[*p as usize] || holds[*p as usize];
                if let Some(parent) = holds.get_mut(trace.parent(*p) as usize) {
                    *parent |= below;
                }
            }
        }
        Relation::Sibling => {
            let mut siblings = vec![0u32; trace.families() as usize];
            for p in trace.positions().filter(|p| left[*p as usize]) {
                if let Some(count) = siblings.get_mut(trace.family(p) as usize) {
                    *count += 1;
                }
            }
            for p in trace.positions() {
                // One is not a sibling of itself.
                let own = u32::from(left[p as usize]);
                let count = siblings.get(trace.family(p) as usize);
                holds[p as usize] = count.is_some_and(|count| *count > own);
            }
        }
    }
    holds
}
