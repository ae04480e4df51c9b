//! Who may try to prove the cookie: a value used by every port that begins with the handshake.
//!
//! Loopback is exempt from the count of failures: there, whoever wants to shut the nodes out could
//! simply bind the port first, and a command with a wrong cookie must not shut out its neighbours.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::limits::{
    PROOF_FAILURE_ADDRESSES_MAX, PROOF_FAILURE_WINDOW, PROOF_FAILURES_MAX, REGISTRY_UNPROVED_MAX,
    REGISTRY_UNPROVED_PER_ADDRESS_MAX,
};

/// Connections that are being proved, and addresses that failed to.
#[derive(Debug, Default)]
pub struct Attempts {
    unproved: HashMap<IpAddr, usize>,
    unproved_total: usize,
    failures: HashMap<IpAddr, Failures>,
}

#[derive(Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

/// Why a connection is closed before its handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotNow {
    /// Too many connections are being proved.
    #[error("too many connections have not proved the cookie yet")]
    Crowded,
    /// The address failed too often.
    #[error("the address failed to prove the cookie too often")]
    Barred,
}

impl Attempts {
    /// A connection from `address` begins. Each success has to be ended by [`Attempts::end`].
    ///
    /// # Errors
    /// [`NotNow`]; nothing is counted.
    pub fn begin(&mut self, address: IpAddr, now: Instant) -> Result<(), NotNow> {
        let barred = self.failures.get(&address).is_some_and(|failures| {
            failures.count >= PROOF_FAILURES_MAX && now < failures.since + PROOF_FAILURE_WINDOW
        });
        if barred {
            return Err(NotNow::Barred);
        }
        let here = self.unproved.get(&address).copied().unwrap_or(0);
        if self.unproved_total >= REGISTRY_UNPROVED_MAX || here >= REGISTRY_UNPROVED_PER_ADDRESS_MAX {
            return Err(NotNow::Crowded);
        }
        self.unproved.insert(address, here + 1);
        self.unproved_total += 1;
        Ok(())
    }

    /// A handshake that was begun is over.
    pub fn end(&mut self, address: IpAddr, proved: bool, now: Instant) {
        if let Some(here) = self.unproved.get_mut(&address) {
            *here -= 1;
            self.unproved_total -= 1;
            if *here == 0 {
                self.unproved.remove(&address);
            }
        }
        if !proved && !address.to_canonical().is_loopback() {
            self.fail(address, now);
        }
    }

    fn fail(&mut self, address: IpAddr, now: Instant) {
        let is_over = |failures: &Failures| now >= failures.since + PROOF_FAILURE_WINDOW;
        if !self.failures.contains_key(&address) && self.failures.len() >= PROOF_FAILURE_ADDRESSES_MAX {
            self.failures.retain(|_, failures| !is_over(failures));
            if self.failures.len() >= PROOF_FAILURE_ADDRESSES_MAX {
                // So many addresses within one window: none of them is worth remembering.
                self.failures.clear();
            }
        }
        let failures = self
            .failures
            .entry(address)
            .or_insert(Failures { since: now, count: 0 });
        if is_over(failures) {
            *failures = Failures { since: now, count: 0 };
        }
        failures.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn far(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn an_address_that_fails_too_often_is_barred_until_the_window_ends() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        for n in 0..PROOF_FAILURES_MAX {
            attempts
                .begin(far(1), start)
                .unwrap_or_else(|_| panic!("attempt {n}"));
            attempts.end(far(1), false, start);
        }
        assert_eq!(attempts.begin(far(1), start), Err(NotNow::Barred));
        assert_eq!(attempts.begin(far(2), start), Ok(()), "its neighbour is heard");
        let last = start + PROOF_FAILURE_WINDOW - Duration::from_millis(1);
        assert_eq!(attempts.begin(far(1), last), Err(NotNow::Barred));
        assert_eq!(attempts.begin(far(1), start + PROOF_FAILURE_WINDOW), Ok(()));
    }

    #[test]
    fn loopback_is_never_barred() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let address: IpAddr = address.parse().unwrap();
            for _ in 0..3 * PROOF_FAILURES_MAX {
                attempts.begin(address, now).unwrap();
                attempts.end(address, false, now);
            }
        }
    }

    #[test]
    fn unproved_connections_are_bounded_per_address_and_in_total() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for address in 1..=4 {
            for _ in 0..REGISTRY_UNPROVED_PER_ADDRESS_MAX {
                attempts.begin(far(address), now).unwrap();
            }
            assert_eq!(attempts.begin(far(address), now), Err(NotNow::Crowded));
        }
        assert_eq!(attempts.begin(far(5), now), Err(NotNow::Crowded));
        attempts.end(far(1), true, now);
        attempts.begin(far(5), now).unwrap();
    }

    #[test]
    fn the_memory_of_failures_is_bounded() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for n in 0..3 * PROOF_FAILURE_ADDRESSES_MAX as u32 {
            let address = IpAddr::from((0x0b00_0000 + n).to_be_bytes());
            attempts.begin(address, now).unwrap();
            attempts.end(address, false, now);
            assert!(attempts.failures.len() <= PROOF_FAILURE_ADDRESSES_MAX);
        }
        assert!(attempts.unproved.is_empty() && attempts.unproved_total == 0);
    }
}
