//! Token buckets: what a limit is, and the buckets in memory that stand in for Redis.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};

/// Buckets kept in memory; beyond them the one that was used longest ago is forgotten, which fills it.
const MAX_BUCKETS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// What a bucket counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All requests of a user.
    User,
    /// All requests from an address: an IPv4 address, or an IPv6 network of 64 bits.
    Ip,
    /// All requests to an endpoint.
    Endpoint,
    /// All requests.
    Global,
}

impl Scope {
    /// The name in metrics, in answers, and in the keys of buckets.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Ip => "ip",
            Self::Endpoint => "endpoint",
            Self::Global => "global",
        }
    }
}

/// Requests a minute: what a bucket holds, and what comes back to it in a minute, evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PerMinute(u32);

impl PerMinute {
    /// The largest; an interval of 20 µs is still exact to 2.5 %.
    const MAX: u32 = 3_000_000;

    /// Known to be within 1 and 3,000,000.
    pub const fn new(tokens: u32) -> Self {
        assert!(tokens >= 1 && tokens <= Self::MAX);
        Self(tokens)
    }

    /// Tokens that a full bucket holds.
    pub const fn tokens(self) -> u32 {
        self.0
    }

    /// Time for one token to come back, microseconds, to the nearest.
    pub const fn interval(self) -> u64 {
        (60_000_000 + self.0 as u64 / 2) / self.0 as u64
    }
}

impl<'de> Deserialize<'de> for PerMinute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tokens = u32::deserialize(deserializer)?;
        if (1..=Self::MAX).contains(&tokens) {
            return Ok(Self(tokens));
        }
        let wanted = "a number of requests a minute from 1 to 3000000";
        Err(D::Error::invalid_value(
            Unexpected::Unsigned(tokens.into()),
            &wanted,
        ))
    }
}

/// One limit as it concerns a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// What it counts together.
    pub scope: Scope,
    /// Its name among all buckets. Users and addresses stand in it as keyed digests.
    pub key: Arc<str>,
    /// How much it holds.
    pub limit: PerMinute,
}

/// What a take came to, told of the bucket that decides: the one to wait longest for, else the one with least left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// All buckets had the tokens; else none was taken.
    pub admitted: bool,
    /// What the bucket counts together.
    pub scope: Scope,
    /// How much it holds.
    pub limit: PerMinute,
    /// Tokens left in it.
    pub left: u32,
    /// Until it is full.
    pub full_in: Duration,
    /// Until it has the tokens of another such request.
    pub wait: Duration,
}

impl Taken {
    /// Whole seconds until another such request is worth it, one at least.
    pub fn retry_after(&self) -> u64 {
        ceil_seconds(self.wait).max(1)
    }

    /// Whole seconds until the bucket is full.
    pub fn reset(&self) -> u64 {
        ceil_seconds(self.full_in)
    }
}

fn ceil_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl fmt::Display for Taken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.scope {
            Scope::User => "this user",
            Scope::Ip => "this address",
            Scope::Endpoint => "this endpoint",
            Scope::Global => "the service",
        };
        write!(
            formatter,
            "{whose} may have {} requests a minute; the next is worth it in {} s",
            self.limit.tokens(),
            self.retry_after()
        )
    }
}

/// Buckets of this process alone. The same algorithm as `take.lua`, which says how it works.
pub struct LocalBuckets {
    began: Instant,
    /// When each will be full, microseconds since the beginning.
    full: Mutex<LruCache<Arc<str>, u64>>,
}

impl LocalBuckets {
    /// All buckets full.
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            full: Mutex::new(LruCache::new(MAX_BUCKETS)),
        }
    }

    /// Takes `cost` tokens from each of `buckets`, or nothing. None where there are no buckets.
    pub fn take(&self, buckets: &[Bucket], cost: u32) -> Option<Taken> {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.take_at(buckets, cost, now)
    }

    fn take_at(&self, buckets: &[Bucket], cost: u32, now: u64) -> Option<Taken> {
        // Nothing panics while it is held.
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fullness: Vec<u64> = buckets
            .iter()
            .map(|bucket| {
                let stored = full.get(&bucket.key).copied().unwrap_or(now);
                stored.clamp(now, now + holds(bucket))
            })
            .collect();
        let price = |bucket: &Bucket| u64::from(cost) * bucket.limit.interval();
        let admitted = buckets
            .iter()
            .zip(&fullness)
            .all(|(bucket, full)| full + price(bucket) <= now + holds(bucket));
        if admitted {
            for (bucket, until) in buckets.iter().zip(&mut fullness) {
                *until += price(bucket);
                full.put(Arc::clone(&bucket.key), *until);
            }
        }
        let outcomes = buckets.iter().zip(fullness).map(|(bucket, full)| Taken {
            admitted,
            scope: bucket.scope,
            limit: bucket.limit,
            left: u32::try_from((now + holds(bucket) - full) / bucket.limit.interval())
                .unwrap_or(u32::MAX),
            full_in: Duration::from_micros(full - now),
            wait: Duration::from_micros((full + price(bucket)).saturating_sub(now + holds(bucket))),
        });
        outcomes.reduce(|one, other| {
            let sooner =
                other.wait < one.wait || (other.wait == one.wait && other.left >= one.left);
            if sooner { one } else { other }
        })
    }
}

/// Microseconds in which an empty bucket becomes full.
fn holds(bucket: &Bucket) -> u64 {
    u64::from(bucket.limit.tokens()) * bucket.limit.interval()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(scope: Scope, limit: u32) -> Bucket {
        Bucket {
            scope,
            key: scope.as_str().into(),
            limit: PerMinute::new(limit),
        }
    }

    #[test]
    fn a_bucket_holds_a_minute_and_comes_back_evenly() {
        let (buckets, user) = (LocalBuckets::new(), [bucket(Scope::User, 60)]);
        for left in (0..60).rev() {
            let taken = buckets.take_at(&user, 1, 0).expect("a bucket");
            assert_eq!((taken.admitted, taken.left), (true, left));
        }
        let refused = buckets.take_at(&user, 1, 0).expect("a bucket");
        assert_eq!(
            (refused.admitted, refused.wait, refused.full_in),
            (false, Duration::from_secs(1), Duration::from_secs(60))
        );
        let early = buckets.take_at(&user, 1, 999_999).expect("a bucket");
        assert!(!early.admitted);
        let later = buckets.take_at(&user, 1, 1_000_000).expect("a bucket");
        assert_eq!((later.admitted, later.left), (true, 0));
    }

    #[test]
    fn a_request_takes_from_all_of_its_buckets_or_from_none() {
        let buckets = LocalBuckets::new();
        let both = [bucket(Scope::User, 10), bucket(Scope::Global, 3)];
        assert!(buckets.take_at(&both, 3, 0).expect("buckets").admitted);
        let refused = buckets.take_at(&both, 1, 0).expect("buckets");
        assert_eq!(
            (refused.admitted, refused.scope, refused.limit.tokens()),
            (false, Scope::Global, 3)
        );
        let user = buckets.take_at(&both[..1], 7, 0).expect("a bucket");
        assert!(user.admitted, "the refused request took nothing: {user:?}");
        assert_eq!(buckets.take_at(&[], 1, 0), None);
    }

    #[test]
    fn a_lower_limit_holds_at_once() {
        let buckets = LocalBuckets::new();
        assert!(
            buckets
                .take_at(&[bucket(Scope::User, 60)], 60, 0)
                .expect("a bucket")
                .admitted
        );
        let lower = buckets
            .take_at(&[bucket(Scope::User, 6000)], 1, 0)
            .expect("a bucket");
        assert_eq!(
            (lower.admitted, lower.wait),
            (false, Duration::from_millis(10))
        );
    }

    #[test]
    fn intervals_are_to_the_nearest_microsecond() {
        for (limit, interval) in [
            (60, 1_000_000),
            (7000, 8571),
            (2_500_000, 24),
            (3_000_000, 20),
        ] {
            assert_eq!(PerMinute::new(limit).interval(), interval);
        }
    }
}
