//! The connections that a port serves at once, shared between the addresses that connect.
//!
//! A client that opens connections and sends nothing would lock out the kubelet, which then restarts a healthy
//! container. So a new connection is always accepted: at the limit, the oldest connection of the address with the
//! most is closed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Places for so many connections.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// The oldest first.
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    from: IpAddr,
    wanted: CancellationToken,
}

impl Places {
    /// Places for `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::default(),
        })
    }

    /// A place for a new connection from this address.
    pub fn take(self: &Arc<Self>, from: IpAddr) -> Place {
        // A dual-stack socket reports IPv4 addresses as IPv4-mapped IPv6 addresses.
        let from = from.to_canonical();
        let wanted = CancellationToken::new();
        let mut taken = self.lock();
        if taken.connections.len() >= self.most {
            taken.give_up_one();
        }
        let number = taken.next;
        taken.next += 1;
        taken.connections.push(Connection {
            number,
            from,
            wanted: wanted.clone(),
        });
        Place {
            places: Arc::clone(self),
            number,
            wanted,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Takes the place of the oldest connection of the address that has the most.
    fn give_up_one(&mut self) {
        let mut by_address: HashMap<IpAddr, usize> = HashMap::new();
        for connection in &self.connections {
            *by_address.entry(connection.from).or_default() += 1;
        }
        let most = by_address.values().max().copied();
        let oldest = self
            .connections
            .iter()
            .position(|connection| by_address.get(&connection.from).copied() == most);
        if let Some(oldest) = oldest {
            self.connections.remove(oldest).wanted.cancel();
        }
    }
}

/// The place of a connection; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    wanted: CancellationToken,
}

impl Place {
    /// Waits until another connection has the place: this one must end.
    pub async fn lost(&self) {
        self.wanted.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken
            .connections
            .retain(|connection| connection.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn the_address_with_the_most_loses_its_oldest() {
        let places = Places::new(4);
        let kubelet = places.take(address(1));
        let flood: Vec<_> = (0..3).map(|_| places.take(address(2))).collect();
        let lost = |place: &Place| place.wanted.is_cancelled();
        assert!(!flood.iter().any(lost));
        let prometheus = places.take(address(3));
        assert_eq!(
            flood.iter().map(lost).collect::<Vec<_>>(),
            [true, false, false]
        );
        let more = places.take(address(2));
        assert_eq!(
            flood.iter().map(lost).collect::<Vec<_>>(),
            [true, true, false]
        );
        assert!(!lost(&kubelet) && !lost(&prometheus) && !lost(&more));
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let places = Places::new(2);
        let first = places.take(address(1));
        drop(places.take(address(2)));
        let second = places.take("::ffff:10.0.0.2".parse().unwrap());
        assert!(!first.wanted.is_cancelled());
        // It counts as the IPv4 address that it is.
        drop(first);
        let third = places.take(address(2));
        let fourth = places.take(address(3));
        assert!(second.wanted.is_cancelled());
        assert!(!third.wanted.is_cancelled() && !fourth.wanted.is_cancelled());
    }
}
