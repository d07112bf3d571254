//! Who holds how much: the rules of admission, without clocks' and locks' machinery around them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio::time::Instant;

use super::Arrival;

/// For how long a peer that was refused counts as waiting: by then it has come again, or gone.
const WAITS: Duration = Duration::from_secs(2);
/// While others wait, one peer holds at most this part.
const SHARE: usize = 4;

/// Whether memory was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Granted,
    None,
}

/// All requests that hold memory, or may.
#[derive(Debug)]
pub(super) struct Ledger {
    limit: usize,
    used: usize,
    next: u64,
    peers: HashMap<IpAddr, Peer, RandomState>,
    /// How many peers hold more than their share.
    heavy: usize,
    /// Bodies that are still arriving, the oldest first.
    arriving: BTreeMap<u64, Body>,
    /// Bodies that wait for room, and read nothing meanwhile.
    waiting: BTreeSet<u64>,
    /// Those that wait until others than their peer need nothing.
    held_back: BTreeSet<u64>,
    /// The last two peers that were refused.
    refused: [Option<(IpAddr, Instant)>; 2],
}

#[derive(Debug, Default)]
struct Peer {
    requests: usize,
    bytes: usize,
    arriving: BTreeSet<u64>,
}

#[derive(Debug)]
struct Body {
    peer: IpAddr,
    bytes: usize,
    arrival: Arc<Arrival>,
}

impl Ledger {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: 0,
            next: 0,
            peers: HashMap::default(),
            heavy: 0,
            arriving: BTreeMap::new(),
            waiting: BTreeSet::new(),
            held_back: BTreeSet::new(),
            refused: [None; 2],
        }
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn somebody_waits(&self) -> bool {
        !self.waiting.is_empty() || !self.held_back.is_empty()
    }

    /// A body begins to arrive; returns its number.
    pub(super) fn begin(&mut self, peer: IpAddr, arrival: Arc<Arrival>) -> u64 {
        let age = self.next;
        self.next += 1;
        let of_peer = self.peers.entry(peer).or_default();
        of_peer.requests += 1;
        of_peer.arriving.insert(age);
        let body = Body {
            peer,
            bytes: 0,
            arrival,
        };
        self.arriving.insert(age, body);
        age
    }

    /// A body has arrived.
    pub(super) fn arrived(&mut self, peer: IpAddr, age: u64) {
        self.arriving.remove(&age);
        self.waiting.remove(&age);
        self.held_back.remove(&age);
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.arriving.remove(&age);
        }
    }

    /// A request is over, and gives back so much.
    pub(super) fn end(&mut self, peer: IpAddr, age: u64, bytes: usize) {
        self.arrived(peer, age);
        self.give(peer, bytes);
        if let Some(of_peer) = self.peers.get_mut(&peer) {
            of_peer.requests -= 1;
            if of_peer.requests == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    /// A request holds `after` instead of `before`, whatever the limit.
    pub(super) fn set(&mut self, peer: IpAddr, age: u64, before: usize, after: usize) {
        if let Some(body) = self.arriving.get_mut(&age) {
            body.bytes = after;
        }
        if after > before {
            self.hold(peer, after - before);
        } else {
            self.give(peer, before - after);
        }
    }

    /// Whether a request that begins now may find room. If not, its peer counts as waiting.
    pub(super) fn may_grow(&mut self, peer: IpAddr, more: usize) -> bool {
        let over = self.held_by(peer).saturating_add(more) > self.share();
        let fits = self.used.saturating_add(more) <= self.limit;
        let may = match fits {
            true => !(over && self.others_wait(peer)) && self.waiting.is_empty(),
            // It is others who hold too much, and they have something to give.
            false => !over && self.heaviest().is_some(),
        };
        if !may && !fits {
            self.note_refused(peer);
        }
        may
    }

    /// Finds `more` bytes for a request, if need be those of bodies that are still arriving: the
    /// youngest of a peer that holds more than its share, or else the youngest of all. With `wait` the
    /// body counts as waiting when there are none.
    pub(super) fn grow(
        &mut self,
        peer: IpAddr,
        age: u64,
        more: usize,
        arriving: bool,
        wait: bool,
    ) -> Room {
        loop {
            let over = self.held_by(peer).saturating_add(more) > self.share();
            let full = self.used.saturating_add(more) > self.limit;
            // What has arrived must get through, or nothing is ever given back.
            let held_back = arriving && over && self.others_wait(peer);
            let in_turn = !arriving || self.waiting.first().is_none_or(|&first| first >= age);
            if !full && !held_back && in_turn {
                self.waiting.remove(&age);
                self.held_back.remove(&age);
                self.refused = self.refused.map(|one| one.filter(|(who, _)| *who != peer));
                if let Some(body) = self.arriving.get_mut(&age) {
                    body.bytes += more;
                }
                self.hold(peer, more);
                return Room::Granted;
            }
            let victim = match full && !held_back {
                true => self.victim(peer, age, over),
                false => None,
            };
            let Some(victim) = victim else {
                if full && !held_back {
                    self.note_refused(peer);
                }
                if wait {
                    let (queue, other) = match held_back {
                        true => (&mut self.held_back, &mut self.waiting),
                        false => (&mut self.waiting, &mut self.held_back),
                    };
                    queue.insert(age);
                    other.remove(&age);
                }
                return Room::None;
            };
            self.revoke(victim);
        }
    }

    /// Whose memory a request is given.
    fn victim(&self, peer: IpAddr, age: u64, over: bool) -> Option<u64> {
        if !over && let Some(body) = self.heaviest() {
            return Some(body);
        }
        let youngest = match over {
            // It may not take from those who hold less.
            true => self.peers.get(&peer)?.arriving.last().copied(),
            false => self.arriving.last_key_value().map(|(&age, _)| age),
        };
        youngest.filter(|&youngest| youngest > age)
    }

    /// The youngest body of the peer that holds most beyond its share.
    fn heaviest(&self) -> Option<u64> {
        if self.heavy == 0 {
            return None;
        }
        let share = self.share();
        self.peers
            .values()
            .filter(|peer| peer.bytes > share)
            .filter_map(|peer| Some((peer.bytes, self.youngest_with_bytes(peer)?)))
            .max()
            .map(|(_, age)| age)
    }

    fn youngest_with_bytes(&self, peer: &Peer) -> Option<u64> {
        let holds = |age: &&u64| self.arriving.get(age).is_some_and(|body| body.bytes > 0);
        peer.arriving.iter().rev().find(holds).copied()
    }

    fn revoke(&mut self, age: u64) {
        let Some(body) = self.arriving.get(&age) else {
            return;
        };
        let (peer, bytes) = (body.peer, body.bytes);
        // Its task lets go of the memory as soon as it runs, a moment from now.
        body.arrival.revoke();
        self.arrived(peer, age);
        self.give(peer, bytes);
    }

    fn share(&self) -> usize {
        self.limit / SHARE
    }

    fn held_by(&self, peer: IpAddr) -> usize {
        self.peers.get(&peer).map_or(0, |peer| peer.bytes)
    }

    fn hold(&mut self, peer: IpAddr, bytes: usize) {
        let share = self.share();
        self.used = self.used.saturating_add(bytes);
        if let Some(peer) = self.peers.get_mut(&peer) {
            let was_heavy = peer.bytes > share;
            peer.bytes = peer.bytes.saturating_add(bytes);
            self.heavy += usize::from(!was_heavy && peer.bytes > share);
        }
    }

    fn give(&mut self, peer: IpAddr, bytes: usize) {
        let share = self.share();
        self.used = self.used.saturating_sub(bytes);
        if let Some(peer) = self.peers.get_mut(&peer) {
            let was_heavy = peer.bytes > share;
            peer.bytes = peer.bytes.saturating_sub(bytes);
            self.heavy -= usize::from(was_heavy && peer.bytes <= share);
        }
    }

    /// Whether a peer other than this one was refused a moment ago.
    fn others_wait(&self, peer: IpAddr) -> bool {
        let mut waiting = self.refused.iter().flatten();
        waiting.any(|(who, when)| *who != peer && when.elapsed() < WAITS)
    }

    fn note_refused(&mut self, peer: IpAddr) {
        let [first, _] = self.refused;
        if first.is_some_and(|(who, _)| who != peer) {
            self.refused[1] = first;
        }
        self.refused[0] = Some((peer, Instant::now()));
    }
}
