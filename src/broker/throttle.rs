//! How fast one client, one address or one listener may be: token buckets as values.
//!
//! A bucket holds a second's worth of tokens and is written as one instant, the one at which it is full
//! again. What was taken may exceed what was there (a packet is only weighed when it has been read); the
//! client is then not read until the debt is paid. Nobody is disconnected, nothing is dropped.

use std::time::{Duration, Instant};

use crate::session::event::ClientLimits;

/// What may gather in a bucket, as time.
const BURST: Duration = Duration::from_secs(1);

/// One token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    per_s: u32,
    full_at: Instant,
}

impl Bucket {
    /// A full bucket that gets `per_s` tokens a second; `None` where 0 means that there is no limit.
    #[must_use]
    pub fn new(per_s: u32, now: Instant) -> Option<Self> {
        (per_s > 0).then_some(Self { per_s, full_at: now })
    }

    /// Takes tokens, also more than there are.
    pub fn take(&mut self, tokens: u64, now: Instant) {
        let nanos = u128::from(tokens) * 1_000_000_000 / u128::from(self.per_s);
        // Rates and packets are bounded so that this stays below five years; more is as good as that.
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.full_at.max(now);
        self.full_at = from.checked_add(cost).unwrap_or(from);
    }

    /// Takes one token if there is one.
    pub fn try_take(&mut self, now: Instant) -> bool {
        let before = *self;
        self.take(1, now);
        let there_was = self.empty_until(now).is_none();
        if !there_was {
            *self = before;
        }
        there_was
    }

    /// Until when nothing may be taken; `None` when there are tokens.
    #[must_use]
    pub fn empty_until(&self, now: Instant) -> Option<Instant> {
        let wait = self.full_at.saturating_duration_since(now).checked_sub(BURST)?;
        (!wait.is_zero()).then(|| now + wait)
    }

    /// Whether it is full: then it says no more than a new one.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

/// How fast one client may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Throttle {
    /// The throttle of a client; `None` where its limits set no rate.
    #[must_use]
    pub fn new(limits: &ClientLimits, now: Instant) -> Option<Self> {
        let throttle = Self {
            messages: Bucket::new(limits.message_rate, now),
            bytes: Bucket::new(limits.byte_rate, now),
        };
        (throttle.messages.is_some() || throttle.bytes.is_some()).then_some(throttle)
    }

    /// So many bytes were read.
    pub fn read(&mut self, bytes: usize, now: Instant) {
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes as u64, now);
        }
    }

    /// A PUBLISH was handled.
    pub fn published(&mut self, now: Instant) {
        if let Some(bucket) = &mut self.messages {
            bucket.take(1, now);
        }
    }

    /// Until when the client is not read; `None` when it is.
    #[must_use]
    pub fn until(&self, now: Instant) -> Option<Instant> {
        let until = |bucket: &Option<Bucket>| bucket.and_then(|bucket| bucket.empty_until(now));
        until(&self.messages).max(until(&self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(per_s: u32, now: Instant) -> Bucket {
        Bucket::new(per_s, now).expect("a rate")
    }

    #[test]
    fn a_second_s_worth_may_come_at_once_and_no_more() {
        let now = Instant::now();
        let mut ten = bucket(10, now);
        ten.take(10, now);
        assert_eq!(ten.empty_until(now), None);
        ten.take(1, now);
        assert_eq!(ten.empty_until(now), Some(now + Duration::from_millis(100)));
        assert_eq!(ten.empty_until(now + Duration::from_millis(100)), None);
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept_whatever_the_pauses() {
        let began = Instant::now();
        let (mut now, mut taken, mut bytes) = (began, 0, bucket(1000, began));
        while now < began + Duration::from_secs(100) {
            if let Some(until) = bytes.empty_until(now) {
                now = until;
            }
            bytes.take(70, now);
            taken += 70;
            now += Duration::from_millis(taken % 90);
        }
        assert!((100_000..=101_100).contains(&taken), "{taken}");
    }

    #[test]
    fn what_was_not_used_is_not_saved_beyond_a_second() {
        let now = Instant::now();
        let mut ten = bucket(10, now);
        let later = now + Duration::from_secs(3600);
        assert!(ten.is_full(later));
        ten.take(11, later);
        assert!(ten.empty_until(later).is_some());
    }

    #[test]
    fn a_debt_without_end_is_no_overflow() {
        let now = Instant::now();
        let mut one = bucket(1, now);
        for _ in 0..100 {
            one.take(u64::MAX, now);
        }
        assert!(one.empty_until(now).is_some());
    }

    #[test]
    fn a_client_waits_for_the_slower_of_its_two_buckets_and_without_rates_for_none() {
        let now = Instant::now();
        let mut limits = ClientLimits::default();
        assert_eq!(Throttle::new(&limits, now), None);
        (limits.message_rate, limits.byte_rate) = (1, 1000);
        let mut throttle = Throttle::new(&limits, now).expect("rates are set");
        throttle.read(3000, now);
        throttle.published(now);
        assert_eq!(throttle.until(now), Some(now + Duration::from_secs(2)));
        (0..9).for_each(|_| throttle.published(now));
        assert_eq!(throttle.until(now), Some(now + Duration::from_secs(9)));
    }
}
