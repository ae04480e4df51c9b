//! Who may come in: how many connections a node, a listener and an address may have, and how often they
//! may come.
//!
//! Each socket that was let in carries a [`Pass`]; dropped, wherever and whyever that happens, its place
//! is free again. A listener that is at its rate accepts later: sockets wait in the kernel. Everything
//! else is refused at once, before a byte is read, and counted under its reason.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use ahash::AHashMap;
use bytestring::ByteString;

use super::counters::Counters;
use super::throttle::Bucket;
use crate::limits::CROWD_ADDRESSES_MAX;
use crate::mqtt::reason::ReasonCode;

/// What a listener lets in. 0 is no limit in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections at one time.
    pub connections_max: usize,
    /// Connections of one address at one time. Unix sockets have none.
    pub connections_per_address_max: usize,
    /// Connections in a second.
    pub connect_rate: u32,
    /// Connections of one address in a second.
    pub connect_rate_per_address: u32,
}

/// Why a socket was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The node has as many connections as it may have.
    #[error("the node has as many connections as it may have")]
    NodeFull,
    /// The listener has.
    #[error("the listener has as many connections as it may have")]
    ListenerFull,
    /// The address has.
    #[error("its address has as many connections as it may have")]
    AddressFull,
    /// The address comes too often.
    #[error("its address connects too often")]
    AddressRate,
}

impl Refused {
    /// Counts it.
    pub fn count(self, counters: &Counters) {
        match self {
            Self::NodeFull => counters.refused_node_full.one(),
            Self::ListenerFull => counters.refused_listener_full.one(),
            Self::AddressFull => counters.refused_address_full.one(),
            Self::AddressRate => counters.refused_address_rate.one(),
        }
    }
}

/// The connections of a node, over all its listeners.
#[derive(Debug, Default)]
pub struct NodeCrowd {
    connections: AtomicUsize,
    /// 0 is no limit.
    connections_max: usize,
    /// Set while the node is being emptied.
    elsewhere: RwLock<Option<Elsewhere>>,
}

/// Where clients are sent while a node is being emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The Server Reference for 5.0 clients, and whether it is for good.
    pub server: Option<(ByteString, bool)>,
}

impl Elsewhere {
    /// The reference alone.
    #[must_use]
    pub fn reference(&self) -> Option<ByteString> {
        self.server.as_ref().map(|(server, _)| server.clone())
    }

    /// What those hear that have a connection: 0x9C, 0x9D or 0x8B.
    #[must_use]
    pub fn farewell(&self) -> ReasonCode {
        self.redirection().unwrap_or(ReasonCode::ServerShuttingDown)
    }

    /// What those hear that want one: 0x9C, 0x9D or 0x88; 0x8B is no reason of a CONNACK `[MQTT-3.2.2-8]`.
    #[must_use]
    pub fn refusal(&self) -> ReasonCode {
        self.redirection().unwrap_or(ReasonCode::ServerUnavailable)
    }

    fn redirection(&self) -> Option<ReasonCode> {
        let (_, moved) = self.server.as_ref()?;
        Some(if *moved {
            ReasonCode::ServerMoved
        } else {
            ReasonCode::UseAnotherServer
        })
    }
}

impl NodeCrowd {
    /// From now on whoever says CONNECT is sent away; or, without a place, is let in again.
    pub fn send_away(&self, elsewhere: Option<Elsewhere>) {
        *self.elsewhere.write().unwrap_or_else(PoisonError::into_inner) = elsewhere;
    }

    /// Where clients are sent, if the node is being emptied.
    #[must_use]
    pub fn elsewhere(&self) -> Option<Elsewhere> {
        let elsewhere = self.elsewhere.read().unwrap_or_else(PoisonError::into_inner);
        elsewhere.clone()
    }

    /// Nobody is in yet.
    #[must_use]
    pub fn new(connections_max: usize) -> Arc<Self> {
        Arc::new(Self {
            connections: AtomicUsize::new(0),
            connections_max,
            elsewhere: RwLock::default(),
        })
    }

    /// Connections at this time.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

/// The connections of one listener. Outlives the listener's crashes.
#[derive(Debug)]
pub struct Crowd {
    node: Arc<NodeCrowd>,
    limits: DoorLimits,
    connections: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    rate: Mutex<Option<Bucket>>,
    addresses: Mutex<AHashMap<IpAddr, Visitor>>,
}

/// What is known of one address.
#[derive(Debug)]
struct Visitor {
    connections: usize,
    rate: Option<Bucket>,
}

impl Crowd {
    /// A door through which nobody has come yet.
    #[must_use]
    pub fn new(limits: DoorLimits, node: &Arc<NodeCrowd>, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            node: node.clone(),
            limits,
            connections: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            rate: Mutex::new(Bucket::new(limits.connect_rate, now)),
            addresses: Mutex::default(),
        })
    }

    /// What it lets in.
    #[must_use]
    pub fn limits(&self) -> &DoorLimits {
        &self.limits
    }

    /// Connections at this time, at most, and how many sockets were ever accepted and refused.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen {
            connections: self.connections.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }

    /// Until when no socket is to be accepted; `None` when one may be.
    #[must_use]
    pub fn closed_until(&self, now: Instant) -> Option<Instant> {
        lock(&self.rate)
            .as_ref()
            .and_then(|bucket| bucket.empty_until(now))
    }

    /// A socket was accepted: whether it may stay.
    ///
    /// # Errors
    /// The first limit that it meets. Nothing but the count of refusals is changed then.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>, now: Instant) -> Result<Pass, Refused> {
        if let Some(bucket) = lock(&self.rate).as_mut() {
            bucket.take(1, now);
        }
        let admitted = self.enter(address, now);
        match admitted {
            Ok(_) => self.accepted.fetch_add(1, Relaxed),
            Err(_) => self.refused.fetch_add(1, Relaxed),
        };
        admitted
    }

    fn enter(self: &Arc<Self>, address: Option<IpAddr>, now: Instant) -> Result<Pass, Refused> {
        if !reserve(&self.node.connections, self.node.connections_max) {
            return Err(Refused::NodeFull);
        }
        if !reserve(&self.connections, self.limits.connections_max) {
            self.node.connections.fetch_sub(1, Relaxed);
            return Err(Refused::ListenerFull);
        }
        // From here on it is the pass that gives back.
        let mut pass = Pass {
            crowd: self.clone(),
            address: None,
        };
        if let Some(address) = address.filter(|_| self.counts_addresses()) {
            self.enter_from(address, now)?;
            pass.address = Some(address);
        }
        Ok(pass)
    }

    fn counts_addresses(&self) -> bool {
        self.limits.connections_per_address_max > 0 || self.limits.connect_rate_per_address > 0
    }

    fn enter_from(&self, address: IpAddr, now: Instant) -> Result<(), Refused> {
        let mut addresses = lock(&self.addresses);
        if addresses.len() >= CROWD_ADDRESSES_MAX && !addresses.contains_key(&address) {
            addresses.retain(|_, visitor| !visitor.is_forgettable(now));
            if addresses.len() >= CROWD_ADDRESSES_MAX {
                return Err(Refused::AddressFull);
            }
        }
        let visitor = addresses.entry(address).or_insert_with(|| Visitor {
            connections: 0,
            rate: Bucket::new(self.limits.connect_rate_per_address, now),
        });
        let max = self.limits.connections_per_address_max;
        if max > 0 && visitor.connections >= max {
            return Err(Refused::AddressFull);
        }
        if visitor.rate.as_mut().is_some_and(|bucket| !bucket.try_take(now)) {
            return Err(Refused::AddressRate);
        }
        visitor.connections += 1;
        Ok(())
    }

    fn leave(&self, address: IpAddr) {
        let mut addresses = lock(&self.addresses);
        if let Some(visitor) = addresses.get_mut(&address) {
            visitor.connections = visitor.connections.saturating_sub(1);
            if visitor.connections == 0 && visitor.rate.is_none() {
                addresses.remove(&address);
            }
        }
    }
}

impl Visitor {
    fn is_forgettable(&self, now: Instant) -> bool {
        self.connections == 0 && self.rate.as_ref().is_none_or(|bucket| bucket.is_full(now))
    }
}

/// What has gone through a door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections at this time.
    pub connections: usize,
    /// Sockets let in since the node started.
    pub accepted: u64,
    /// Sockets closed at once since then.
    pub refused: u64,
}

/// One connection's place at its listener, its node and its address; free again when this is dropped.
#[derive(Debug)]
pub struct Pass {
    crowd: Arc<Crowd>,
    /// The address under which it is counted, if addresses are.
    address: Option<IpAddr>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.crowd.connections.fetch_sub(1, Relaxed);
        self.crowd.node.connections.fetch_sub(1, Relaxed);
        if let Some(address) = self.address {
            self.crowd.leave(address);
        }
    }
}

/// Takes a place if there is one; `max` 0 is no limit.
fn reserve(places: &AtomicUsize, max: usize) -> bool {
    let taken = places.fetch_update(Relaxed, Relaxed, |n| (max == 0 || n < max).then_some(n + 1));
    taken.is_ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn other(n: u8) -> Option<IpAddr> {
        Some([10, 0, 0, n].into())
    }

    fn door(limits: DoorLimits) -> (Arc<Crowd>, Instant) {
        let now = Instant::now();
        (Crowd::new(limits, &NodeCrowd::new(0), now), now)
    }

    #[test]
    fn a_listener_lets_in_as_many_as_it_may_have_and_again_when_one_goes() {
        let (door, now) = door(DoorLimits {
            connections_max: 2,
            ..DoorLimits::default()
        });
        let first = door.admit(HERE, now).expect("room");
        let _second = door.admit(None, now).expect("room");
        assert_eq!(door.admit(HERE, now).unwrap_err(), Refused::ListenerFull);
        drop(first);
        let _third = door.admit(HERE, now).expect("room again");
        let seen = Seen {
            connections: 2,
            accepted: 3,
            refused: 1,
        };
        assert_eq!(door.seen(), seen);
    }

    #[test]
    fn all_listeners_together_have_no_more_than_the_node_may() {
        let (now, node) = (Instant::now(), NodeCrowd::new(1));
        let doors = [(); 2].map(|()| Crowd::new(DoorLimits::default(), &node, now));
        let pass = doors[0].admit(HERE, now).expect("room");
        assert_eq!(doors[1].admit(HERE, now).unwrap_err(), Refused::NodeFull);
        drop(pass);
        assert_eq!(node.connections(), 0);
        assert!(doors[1].admit(HERE, now).is_ok());
    }

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let (door, now) = door(DoorLimits {
            connections_per_address_max: 1,
            ..DoorLimits::default()
        });
        let pass = door.admit(HERE, now).expect("room");
        assert_eq!(door.admit(HERE, now).unwrap_err(), Refused::AddressFull);
        assert!(door.admit(other(1), now).is_ok());
        drop(pass);
        assert!(door.admit(HERE, now).is_ok());
        assert_eq!(door.seen().connections, 0, "a refusal takes no place");
        assert!(lock(&door.addresses).is_empty(), "who is gone is forgotten");
    }

    #[test]
    fn an_address_that_comes_too_often_is_refused_until_its_tokens_return() {
        let (door, now) = door(DoorLimits {
            connect_rate_per_address: 2,
            ..DoorLimits::default()
        });
        for _ in 0..2 {
            door.admit(HERE, now).expect("a token");
        }
        assert_eq!(door.admit(HERE, now).unwrap_err(), Refused::AddressRate);
        assert!(door.admit(other(1), now).is_ok());
        assert!(door.admit(HERE, now + Duration::from_secs(2)).is_ok());
    }

    #[test]
    fn a_listener_at_its_rate_accepts_later_and_refuses_nobody() {
        let (door, now) = door(DoorLimits {
            connect_rate: 1,
            ..DoorLimits::default()
        });
        assert_eq!(door.closed_until(now), None);
        door.admit(HERE, now).expect("let in");
        door.admit(HERE, now).expect("let in, it was accepted already");
        assert_eq!(door.closed_until(now), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn addresses_are_remembered_only_as_long_as_they_must_be() {
        let (door, now) = door(DoorLimits {
            connect_rate_per_address: 1,
            ..DoorLimits::default()
        });
        for n in 0..CROWD_ADDRESSES_MAX as u32 {
            drop(door.admit(Some(IpAddr::V4(n.into())), now));
        }
        assert_eq!(door.admit(other(9), now).map(drop), Err(Refused::AddressFull));
        assert!(door.admit(other(9), now + Duration::from_secs(2)).is_ok());
        assert_eq!(lock(&door.addresses).len(), 1);
    }
}
