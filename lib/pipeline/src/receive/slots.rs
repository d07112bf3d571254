//! Which connections a listener has open, by address. When there are as many as there may be, idle ones
//! of an address that has more than a quarter of them are closed for those of others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio_util::sync::CancellationToken;

/// An address keeps at least this part of the connections.
const SHARE: usize = 4;

/// A listener's connections.
#[derive(Debug)]
pub(super) struct Slots {
    max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    next: u64,
    peers: HashMap<IpAddr, BTreeMap<u64, Arc<Line>>, RandomState>,
    /// How many addresses have more than their share.
    heavy: usize,
}

/// One connection, as others see it.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Requests under way.
    calls: AtomicUsize,
    /// It makes room for another.
    pub(super) closed: CancellationToken,
}

/// A request under way on a connection, which is not idle meanwhile.
#[derive(Debug)]
pub(super) struct Call(Arc<Line>);

impl Line {
    /// A request begins.
    pub(super) fn call(self: &Arc<Self>) -> Call {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Call(Arc::clone(self))
    }

    fn is_idle(&self) -> bool {
        self.calls.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's place; free again on drop.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    peer: IpAddr,
    number: u64,
    pub(super) line: Arc<Line>,
}

impl Slots {
    /// So many at a time.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            open: Mutex::default(),
        })
    }

    /// A place for a connection from there, if there is one or one can be made.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let mut open = self.lock();
        if open.all >= self.max {
            let (victim, number) = self.victim(&open, peer)?;
            if let Some(line) = self.remove(&mut open, victim, number) {
                line.closed.cancel();
            }
        }
        let number = open.next;
        open.next += 1;
        let line = Arc::<Line>::default();
        let of_peer = open.peers.entry(peer).or_default();
        of_peer.insert(number, Arc::clone(&line));
        let becomes_heavy = of_peer.len() == self.share() + 1;
        open.all += 1;
        open.heavy += usize::from(becomes_heavy);
        drop(open);
        Some(Slot {
            slots: Arc::clone(self),
            peer,
            number,
            line,
        })
    }

    /// The youngest idle connection of the address that has most.
    fn victim(&self, open: &Open, peer: IpAddr) -> Option<(IpAddr, u64)> {
        let share = self.share();
        if open.heavy == 0
            || open
                .peers
                .get(&peer)
                .is_some_and(|lines| lines.len() >= share)
        {
            return None;
        }
        let heavy = open.peers.iter().filter(|(_, lines)| lines.len() > share);
        let (victim, lines) = heavy.max_by_key(|(_, lines)| lines.len())?;
        let mut idle = lines.iter().rev().filter(|(_, line)| line.is_idle());
        idle.next().map(|(&number, _)| (*victim, number))
    }

    fn remove(&self, open: &mut Open, peer: IpAddr, number: u64) -> Option<Arc<Line>> {
        let of_peer = open.peers.get_mut(&peer)?;
        let line = of_peer.remove(&number)?;
        let left = of_peer.len();
        if left == 0 {
            open.peers.remove(&peer);
        }
        open.all -= 1;
        open.heavy -= usize::from(left == self.share());
        Some(line)
    }

    fn share(&self) -> usize {
        self.max / SHARE
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.slots.lock();
        self.slots.remove(&mut open, self.peer, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn counts(slots: &Slots) -> (usize, usize) {
        let open = slots.lock();
        let sum: usize = open.peers.values().map(BTreeMap::len).sum();
        assert_eq!(sum, open.all);
        (open.all, open.heavy)
    }

    #[test]
    fn idle_connections_of_one_address_make_room_for_others() {
        let slots = Slots::new(8);
        let hoard: Vec<_> = (0..8).map(|_| slots.admit(address(1)).unwrap()).collect();
        let busy: Vec<_> = hoard.iter().take(3).map(|slot| slot.line.call()).collect();
        assert!(slots.admit(address(1)).is_none(), "its own are not closed");
        let others: Vec<_> = (0..2).map(|_| slots.admit(address(2)).unwrap()).collect();
        assert!(slots.admit(address(2)).is_none(), "it has its share");
        let closed = |slot: &&Slot| slot.line.closed.is_cancelled();
        assert_eq!(hoard.iter().filter(closed).count(), 2);
        let third: Vec<_> = (3..6).map(|n| slots.admit(address(n)).unwrap()).collect();
        assert!(slots.admit(address(7)).is_none(), "what is left is in use");
        assert!(
            hoard
                .iter()
                .take(3)
                .all(|slot| !slot.line.closed.is_cancelled())
        );
        assert_eq!(counts(&slots), (8, 1));
        drop((busy, hoard, others, third));
        assert_eq!(counts(&slots), (0, 0));
    }

    #[test]
    fn one_place_is_not_taken_from_its_owner() {
        let slots = Slots::new(1);
        let _only = slots.admit(address(1)).unwrap();
        assert!(slots.admit(address(1)).is_none());
    }
}
