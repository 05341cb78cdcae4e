//! Rate limits: token buckets that all instances share in Redis, and that each keeps for itself while Redis is gone.
//!
//! A request takes from up to four buckets (user, address, endpoint, all together) in one step, so a refused one costs
//! nothing. What asks while a call to Redis is under way goes with the next: under load one round trip serves many
//! requests, and each is still decided exactly.

mod bucket;
mod shared;

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;

pub use bucket::{Bucket, PerMinute, Scope, Taken};

use crate::digest::DigestKey;
use crate::link::Link;
use crate::metrics::Metrics;
use bucket::LocalBuckets;
use shared::SharedBuckets;

/// What a caller may do in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// 60 requests.
    Free,
    /// 600 requests.
    Basic,
    /// 6,000 requests.
    Pro,
    /// Anything.
    Unlimited,
}

impl Tier {
    const fn limit(self) -> Option<PerMinute> {
        match self {
            Self::Free => Some(PerMinute::new(60)),
            Self::Basic => Some(PerMinute::new(600)),
            Self::Pro => Some(PerMinute::new(6000)),
            Self::Unlimited => None,
        }
    }
}

/// What a request is for. Both ways in and all paths of one purpose share a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Submissions, from the bus too.
    Tasks,
    /// Cancel and resume.
    Commands,
    /// Texts to screen; each text of a batch counts.
    Process,
}

impl Endpoint {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Commands => "commands",
            Self::Process => "process",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user of an API key, or nobody in particular.
    pub user: Option<Arc<str>>,
    /// What it may do.
    pub tier: Tier,
    /// Where from; None on the bus.
    pub address: Option<IpAddr>,
}

/// The name of a proxy's header that says where a request came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// A list of addresses, each proxy adding the one that it was asked by.
    #[default]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

/// Section `limits` of the settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Of callers without a key; unlimited on loopback, else free.
    pub default_tier: Option<Tier>,
    /// Of raw publishes, all of them together; without it the default tier.
    pub bus_tier: Option<Tier>,
    /// The API keys, see `caller`.
    pub keys_file: Option<PathBuf>,
    /// For each address, whoever asks from there.
    pub per_ip: Option<PerMinute>,
    /// For each endpoint, all callers together.
    pub per_endpoint: PerEndpoint,
    /// For everything together.
    pub global: Option<PerMinute>,
    /// Networks whose hosts are believed what `proxy_header` says.
    pub trusted_proxies: Vec<IpNet>,
    /// The header that the trusted proxies write.
    pub proxy_header: ProxyHeader,
}

/// Limits of the endpoints.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PerEndpoint {
    /// Of [`Endpoint::Tasks`].
    pub tasks: Option<PerMinute>,
    /// Of [`Endpoint::Commands`].
    pub commands: Option<PerMinute>,
    /// Of [`Endpoint::Process`].
    pub process: Option<PerMinute>,
}

/// The tier of callers without a key, where the service listens on `host`.
pub fn default_tier(settings: &LimitSettings, host: IpAddr) -> Tier {
    let usual = if host.to_canonical().is_loopback() {
        Tier::Unlimited
    } else {
        Tier::Free
    };
    settings.default_tier.unwrap_or(usual)
}

/// The tier of all raw publishes together.
pub fn bus_tier(settings: &LimitSettings, host: IpAddr) -> Tier {
    settings
        .bus_tier
        .unwrap_or_else(|| default_tier(settings, host))
}

/// The limits of the service.
pub struct Limits {
    digests: DigestKey,
    per_ip: Option<PerMinute>,
    tasks: Option<Bucket>,
    commands: Option<Bucket>,
    process: Option<Bucket>,
    global: Option<Bucket>,
    shared: Option<SharedBuckets>,
    local: LocalBuckets,
    metrics: Metrics,
}

impl Limits {
    /// As set; `link` leads to the buckets that all instances share.
    pub fn new(
        settings: &LimitSettings,
        link: Option<Link>,
        key: &DigestKey,
        metrics: Metrics,
    ) -> Self {
        let endpoint = |endpoint: Endpoint, limit: Option<PerMinute>| {
            Some(Bucket {
                scope: Scope::Endpoint,
                key: key_of(Scope::Endpoint, endpoint.as_str()),
                limit: limit?,
            })
        };
        Self {
            digests: key.derive("rate limits"),
            per_ip: settings.per_ip,
            tasks: endpoint(Endpoint::Tasks, settings.per_endpoint.tasks),
            commands: endpoint(Endpoint::Commands, settings.per_endpoint.commands),
            process: endpoint(Endpoint::Process, settings.per_endpoint.process),
            global: settings.global.map(|limit| Bucket {
                scope: Scope::Global,
                key: key_of(Scope::Global, "all"),
                limit,
            }),
            shared: link.map(SharedBuckets::new),
            local: LocalBuckets::new(),
            metrics,
        }
    }

    /// Takes `cost` tokens from every bucket that concerns the request. None where no limit concerns it.
    pub async fn take(&self, caller: &Caller, endpoint: Endpoint, cost: u32) -> Option<Taken> {
        let buckets = self.buckets(caller, endpoint);
        if buckets.is_empty() {
            return None;
        }
        let shared = match &self.shared {
            Some(shared) => shared.take(&buckets, cost).await,
            None => None,
        };
        let (taken, store) = match shared {
            Some(taken) => (taken, "redis"),
            None => (self.local.take(&buckets, cost)?, "memory"),
        };
        let scope = if taken.admitted {
            ""
        } else {
            taken.scope.as_str()
        };
        let decision = if taken.admitted {
            "admitted"
        } else {
            "refused"
        };
        self.metrics
            .limits
            .with_label_values(&[decision, scope, store])
            .inc();
        Some(taken)
    }

    fn buckets(&self, caller: &Caller, endpoint: Endpoint) -> Vec<Bucket> {
        let tier = caller.tier.limit();
        let user = caller.user.as_deref().zip(tier);
        // Whom nobody knows is known by the address.
        let own = if caller.user.is_none() { tier } else { None };
        let per_ip = [own, self.per_ip]
            .into_iter()
            .flatten()
            .min_by_key(|limit| limit.tokens());
        let address = caller.address.zip(per_ip);
        let endpoint = match endpoint {
            Endpoint::Tasks => &self.tasks,
            Endpoint::Commands => &self.commands,
            Endpoint::Process => &self.process,
        };
        let mut buckets = Vec::new();
        if let Some((user, limit)) = user {
            buckets.push(self.personal(Scope::User, user, limit));
        }
        if let Some((address, limit)) = address {
            buckets.push(self.personal(Scope::Ip, &network(address), limit));
        }
        buckets.extend(endpoint.iter().chain(&self.global).cloned());
        buckets
    }

    /// A bucket whose owner is not to be read in Redis.
    fn personal(&self, scope: Scope, owner: &str, limit: PerMinute) -> Bucket {
        let digest = self
            .digests
            .mac(&[scope.as_str().as_bytes(), owner.as_bytes()]);
        Bucket {
            scope,
            key: key_of(scope, &hex::encode(&digest[..16])),
            limit,
        }
    }
}

/// The braces keep all buckets on one node of a cluster: one step can't take from two.
fn key_of(scope: Scope, owner: &str) -> Arc<str> {
    format!("{{octollm:limit}}:{}:{owner}", scope.as_str()).into()
}

/// What counts as one place: an IPv4 address, or the 64 bits of IPv6 that one customer has at least.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).to_string(),
    }
}
