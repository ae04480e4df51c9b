//! How often an address may be wrong: about one user, and about all users together.
//!
//! Two limits, because many clients may share an address: whoever guesses the password of one user is
//! stopped soon, and one device with an old password does not shut out its neighbours; whoever tries many
//! users is stopped later. The network of an IPv6 address (/64) counts as one. Clients that are connected
//! are not affected, and what a client brings that needs no proof is not counted.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use ahash::AHashMap;

use crate::limits::{AUTH_FAILURE_KEYS_MAX, AUTH_FAILURE_WINDOW, AUTH_FAILURES_PER_ADDRESS_FACTOR};

/// Who is counted: an address, or an address with a user.
type Key = (IpAddr, Option<Box<str>>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Instant,
    count: u32,
}

/// The failures that are remembered.
#[derive(Debug)]
pub struct Attempts {
    /// Failures of one address about one user; 0 counts nothing.
    max: u32,
    failures: AHashMap<Key, Failures>,
}

impl Attempts {
    /// `max` failures of one address about one user bar it; 0 is no limit.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self {
            max,
            failures: AHashMap::new(),
        }
    }

    /// Whether a client may not even try.
    #[must_use]
    pub fn is_barred(&self, address: IpAddr, username: &str, now: Instant) -> bool {
        let count = |key: &Key| match self.failures.get(key) {
            Some(failures) if now < failures.since + AUTH_FAILURE_WINDOW => failures.count,
            _ => 0,
        };
        let network = network(address);
        self.max > 0
            && (count(&(network, Some(username.into()))) >= self.max
                || count(&(network, None)) >= self.max.saturating_mul(AUTH_FAILURES_PER_ADDRESS_FACTOR))
    }

    /// A client was wrong. True when that bars it: worth a line in the log, once.
    pub fn fail(&mut self, address: IpAddr, username: &str, now: Instant) -> bool {
        if self.max == 0 {
            return false;
        }
        let network = network(address);
        let about_user = self.count((network, Some(username.into())), now);
        let in_total = self.count((network, None), now);
        about_user == self.max || in_total == self.max.saturating_mul(AUTH_FAILURES_PER_ADDRESS_FACTOR)
    }

    /// A client was right: what it was wrong about before is forgiven.
    pub fn succeed(&mut self, address: IpAddr, username: &str) {
        if !self.failures.is_empty() {
            self.failures.remove(&(network(address), Some(username.into())));
        }
    }

    fn count(&mut self, key: Key, now: Instant) -> u32 {
        let is_over = |failures: &Failures| now >= failures.since + AUTH_FAILURE_WINDOW;
        if !self.failures.contains_key(&key) && self.failures.len() >= AUTH_FAILURE_KEYS_MAX {
            self.failures.retain(|_, failures| !is_over(failures));
            if self.failures.len() >= AUTH_FAILURE_KEYS_MAX {
                // So many users within one window: whole addresses are what is worth remembering.
                self.failures.retain(|(_, user), _| user.is_none());
            }
            if self.failures.len() >= AUTH_FAILURE_KEYS_MAX {
                self.failures.clear();
            }
        }
        let fresh = Failures { since: now, count: 0 };
        let failures = self.failures.entry(key).or_insert(fresh);
        if is_over(failures) {
            *failures = fresh;
        }
        failures.count = failures.count.saturating_add(1);
        failures.count
    }
}

/// An IPv6 client chooses the lower half of its address itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let high = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(high))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MAX: u32 = 3;

    fn far(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn whoever_guesses_one_password_is_barred_until_the_window_ends() {
        let (mut attempts, start) = (Attempts::new(MAX), Instant::now());
        for n in 1..=MAX {
            assert!(!attempts.is_barred(far(1), "alice", start), "attempt {n}");
            assert_eq!(attempts.fail(far(1), "alice", start), n == MAX);
        }
        assert!(attempts.is_barred(far(1), "alice", start));
        assert!(
            !attempts.is_barred(far(1), "bob", start),
            "its neighbour is heard"
        );
        assert!(
            !attempts.is_barred(far(2), "alice", start),
            "alice herself is not shut out"
        );
        let last = start + AUTH_FAILURE_WINDOW - Duration::from_millis(1);
        assert!(attempts.is_barred(far(1), "alice", last));
        assert!(!attempts.is_barred(far(1), "alice", start + AUTH_FAILURE_WINDOW));
    }

    #[test]
    fn whoever_tries_many_users_is_barred_later() {
        let (mut attempts, now) = (Attempts::new(MAX), Instant::now());
        for n in 0..MAX * AUTH_FAILURES_PER_ADDRESS_FACTOR {
            assert!(!attempts.is_barred(far(1), "new", now));
            attempts.fail(far(1), &format!("user {n}"), now);
        }
        assert!(attempts.is_barred(far(1), "new", now));
        assert!(!attempts.is_barred(far(2), "new", now));
    }

    #[test]
    fn success_forgives() {
        let (mut attempts, now) = (Attempts::new(MAX), Instant::now());
        for _ in 0..3 * MAX {
            attempts.fail(far(1), "alice", now);
            attempts.succeed(far(1), "alice");
            assert!(!attempts.is_barred(far(1), "alice", now));
        }
    }

    #[test]
    fn no_limit_is_no_limit() {
        let (mut attempts, now) = (Attempts::new(0), Instant::now());
        for _ in 0..1000 {
            assert!(!attempts.fail(far(1), "alice", now));
        }
        assert!(!attempts.is_barred(far(1), "alice", now));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (mut attempts, now) = (Attempts::new(MAX), Instant::now());
        for n in 0..MAX {
            attempts.fail(format!("2001:db8::{n}").parse().unwrap(), "alice", now);
        }
        assert!(attempts.is_barred("2001:db8::ffff".parse().unwrap(), "alice", now));
        assert!(!attempts.is_barred("2001:db8:0:1::1".parse().unwrap(), "alice", now));
        for n in 0..MAX {
            attempts.fail(format!("::ffff:10.1.0.{n}").parse().unwrap(), "bob", now);
        }
        assert!(
            !attempts.is_barred("::ffff:10.1.0.9".parse().unwrap(), "bob", now),
            "IPv4 in disguise"
        );
    }

    #[test]
    fn the_memory_of_failures_is_bounded() {
        let (mut attempts, now) = (Attempts::new(MAX), Instant::now());
        for n in 0..2 * AUTH_FAILURE_KEYS_MAX as u32 {
            attempts.fail(IpAddr::from((0x0b00_0000 + n).to_be_bytes()), "alice", now);
            assert!(attempts.failures.len() <= AUTH_FAILURE_KEYS_MAX + 1);
        }
        for n in 0..2 * AUTH_FAILURE_KEYS_MAX {
            attempts.fail(far(1), &n.to_string(), now);
            assert!(attempts.failures.len() <= AUTH_FAILURE_KEYS_MAX + 1);
        }
        assert!(
            attempts.is_barred(far(1), "new", now),
            "the address is still remembered"
        );
    }
}
