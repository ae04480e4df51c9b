//! When each retained topic was written last, on all nodes of a cluster alike.
//!
//! A [`Stamp`] is a hybrid logical time and the node that wrote; of two writes of a topic the greater stamp
//! holds, wherever and in whatever order they come. A cleared topic leaves a *tombstone*, so that an older
//! message which another node still has does not come back. A [`StampBook`] keeps both, in
//! [`BUCKETS`] buckets of which each has a hash: two nodes whose hashes are equal hold the same.
//!
//! Tombstones are kept for [`RETAINED_TOMBSTONE_AGE`], at most [`RETAINED_TOMBSTONES_MAX`] of them and
//! [`RETAINED_TOMBSTONE_BYTES_MAX`] of topics. Beyond that the oldest is forgotten: a node that was away when
//! its topic was cleared, and comes back, brings the message back with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::limits::{
    CLOCK_AHEAD_MAX, RETAINED_TOMBSTONE_AGE, RETAINED_TOMBSTONE_BYTES_MAX, RETAINED_TOMBSTONES_MAX,
};
use crate::node_name::NodeName;

#[cfg(test)]
mod tests;

/// Buckets of a [`StampBook`]; a part of the protocol between nodes.
pub const BUCKETS: usize = 256;

/// Bits of a [`HybridTime`] that count within a microsecond.
const LOGICAL_BITS: u32 = 12;

/// Microseconds of the wall clock since 1970, and below them 12 bits that count what happened within one or
/// before the clock moved on. Good until the year 2112.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct HybridTime(pub u64);

impl HybridTime {
    /// The first one of a moment of the wall clock.
    #[must_use]
    pub fn at(wall_us: u64) -> Self {
        Self(wall_us << LOGICAL_BITS)
    }

    /// The moment, in microseconds since 1970.
    #[must_use]
    pub fn wall_us(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }
}

/// Microseconds of the wall clock since 1970, for those who hand it to values.
#[must_use]
pub fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, us)
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A time that lies more than [`CLOCK_AHEAD_MAX`] ahead of our own clock: one of the two clocks is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} ahead of our clock")]
pub struct Ahead(pub Duration);

/// The clock of a node. It never runs backwards, and is behind no time that it has [observed](Self::observe).
#[derive(Debug, Default)]
pub struct HybridClock(AtomicU64);

impl HybridClock {
    /// A time that is greater than every earlier one of this clock.
    pub fn stamp(&self, wall_us: u64) -> HybridTime {
        let now = HybridTime::at(wall_us).0;
        let next = |last: u64| now.max(last.saturating_add(1));
        let last = self.0.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
        HybridTime(next(last.unwrap_or_else(|last| last)))
    }

    /// From now on this clock is beyond `seen`, so that who read a message here and answers it is later.
    ///
    /// # Errors
    /// [`Ahead`]: it is not believed, and the clock stays as it is.
    pub fn observe(&self, seen: HybridTime, wall_us: u64) -> Result<(), Ahead> {
        let ahead = Duration::from_micros(seen.wall_us().saturating_sub(wall_us));
        if ahead > CLOCK_AHEAD_MAX {
            return Err(Ahead(ahead));
        }
        self.0.fetch_max(seen.0, Relaxed);
        Ok(())
    }

    /// Goes on where another clock of this node stood.
    pub fn follow(&self, other: &Self) {
        self.0.fetch_max(other.0.load(Relaxed), Relaxed);
    }
}

/// Which of two writes of a topic holds: the greater.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp {
    /// When it was written.
    pub time: HybridTime,
    /// Where; decides between equal times.
    pub node: NodeName,
}

/// What is known of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Its last write.
    pub stamp: Stamp,
    /// Of a tombstone: when the topic was cleared or its message expired, in microseconds since 1970.
    pub died_us: Option<u64>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Of topics and stamps, but not of whether they live: a message that has expired here and not yet
    /// elsewhere is no difference.
    hash: u64,
    known: BTreeMap<Arc<[u8]>, Known>,
}

/// Topic → [`Known`], with hashes. Topics are whatever bytes the owner takes for them.
#[derive(Debug)]
pub struct StampBook {
    buckets: Box<[Bucket]>,
    tombstones: BTreeSet<(u64, Arc<[u8]>)>,
    tombstone_bytes: usize,
    /// Tombstones up to here were forgotten to make room, and are not taken again.
    floor_us: u64,
    /// How many.
    crowded_out: u64,
    len: usize,
}

impl Default for StampBook {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
            tombstones: BTreeSet::new(),
            tombstone_bytes: 0,
            floor_us: 0,
            crowded_out: 0,
            len: 0,
        }
    }
}

impl StampBook {
    /// Topics that live.
    #[must_use]
    pub fn live_len(&self) -> usize {
        self.len - self.tombstones.len()
    }

    /// Tombstones, and how many were forgotten before their time to make room.
    #[must_use]
    pub fn tombstones(&self) -> (usize, u64) {
        (self.tombstones.len(), self.crowded_out)
    }

    /// The hash of each bucket.
    #[must_use]
    pub fn digest(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.hash).collect()
    }

    /// What is known of a topic.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Known> {
        self.buckets[bucket_of(key)].known.get(key)
    }

    /// Whether a write would hold against what is known.
    #[must_use]
    pub fn is_newer(&self, key: &[u8], stamp: &Stamp) -> bool {
        self.get(key).is_none_or(|known| known.stamp < *stamp)
    }

    /// Whether a tombstone is of use: not too old, and not one that had to make room before.
    #[must_use]
    pub fn is_wanted(&self, died_us: u64, now_us: u64) -> bool {
        died_us > self.floor_us && died_us.saturating_add(us(RETAINED_TOMBSTONE_AGE)) > now_us
    }

    /// This write holds, and its message is there.
    pub fn live(&mut self, key: &Arc<[u8]>, stamp: Stamp) {
        self.put(key, Known { stamp, died_us: None });
    }

    /// This write holds, and there is no message, since `died_us`.
    pub fn bury(&mut self, key: &Arc<[u8]>, stamp: Stamp, died_us: u64) {
        let died = Some(died_us);
        self.put(key, Known { stamp, died_us: died });
        self.tombstone_bytes += key.len();
        self.tombstones.insert((died_us, key.clone()));
        while self.tombstones.len() > RETAINED_TOMBSTONES_MAX
            || self.tombstone_bytes > RETAINED_TOMBSTONE_BYTES_MAX
        {
            let Some((died_us, key)) = self.tombstones.first().cloned() else {
                break;
            };
            self.forget(&key);
            self.floor_us = self.floor_us.max(died_us);
            self.crowded_out += 1;
        }
    }

    /// Nothing is known of a topic any more.
    pub fn forget(&mut self, key: &[u8]) -> Option<Known> {
        let bucket = &mut self.buckets[bucket_of(key)];
        let (key, known) = bucket.known.remove_entry(key)?;
        bucket.hash ^= hash_of(&key, &known.stamp);
        self.len -= 1;
        if let Some(died_us) = known.died_us {
            self.tombstone_bytes -= key.len();
            self.tombstones.remove(&(died_us, key));
        }
        Some(known)
    }

    /// Forgets tombstones whose time is over, and tells which.
    pub fn sweep(&mut self, now_us: u64, forgotten: &mut impl FnMut(&[u8])) {
        let age = us(RETAINED_TOMBSTONE_AGE);
        while let Some((died_us, key)) = self.tombstones.first().cloned() {
            if died_us.saturating_add(age) > now_us {
                return;
            }
            self.forget(&key);
            forgotten(&key);
        }
    }

    /// A bucket's topics behind `after`, in order.
    pub fn list<'a>(
        &'a self,
        bucket: u8,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a Arc<[u8]>, &'a Known)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.buckets[usize::from(bucket)]
            .known
            .range::<[u8], _>((from, Bound::Unbounded))
    }

    /// This write holds, its message is there, and nothing was known of the topic or it was forgotten.
    pub fn first(&mut self, key: &Arc<[u8]>, stamp: Stamp) {
        self.add(key, Known { stamp, died_us: None });
    }

    fn put(&mut self, key: &Arc<[u8]>, known: Known) {
        self.forget(key);
        self.add(key, known);
    }

    fn add(&mut self, key: &Arc<[u8]>, known: Known) {
        let bucket = &mut self.buckets[bucket_of(key)];
        bucket.hash ^= hash_of(key, &known.stamp);
        bucket.known.insert(key.clone(), known);
        self.len += 1;
    }
}

/// The bucket of a topic.
#[must_use]
pub fn bucket_of(key: &[u8]) -> usize {
    (mixed(fnv(FNV_OFFSET, key)) % BUCKETS as u64) as usize
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

fn hash_of(key: &[u8], stamp: &Stamp) -> u64 {
    let hash = fnv(fnv(FNV_OFFSET, key), &stamp.time.0.to_be_bytes());
    mixed(fnv(hash, stamp.node.as_str().as_bytes()))
}

/// FNV-1a: the same on every node and in every version.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(hash, step)
}

/// Spreads what FNV leaves in the low bits (the finalizer of splitmix64): hashes are put together by XOR.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
