//! Who asks over HTTP: the user of an API key, and the address behind trusted proxies.
//!
//! The keys' file is TOML, one table `[[keys]]` for each: `sha256` of the key in hexadecimal, `user`, and `tier`. A key
//! is sent as `Authorization: Bearer <key>`. It should be random, of 32 characters at least: its digest can't be guessed
//! then, so the file is no secret.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix_web::http::header::{AUTHORIZATION, FORWARDED, HeaderMap, HeaderName};
use ipnet::IpNet;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::limits::{Caller, LimitSettings, ProxyHeader, Tier, default_tier};

/// Longest user name, characters (schema `record`, principals).
const MAX_USER: usize = 100;

/// Names that stand for somebody else in events.
const RESERVED: [&str; 3] = ["bus", "local", "operator"];

/// Most hops of a proxies' header that are looked at.
const MAX_HOPS: usize = 32;

/// The file of keys can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the API keys in {} {reason}; check OCTO_REFLEX__LIMITS__KEYS_FILE", path.display())]
pub struct KeysError {
    path: PathBuf,
    reason: String,
}

/// The key that was sent is none of this deployment's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKey;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    sha256: String,
    user: String,
    tier: Tier,
}

#[derive(Clone)]
struct User {
    name: Arc<str>,
    tier: Tier,
}

/// Tells who asks.
pub struct Callers {
    /// By the SHA-256 of the key; None where nobody has a key.
    users: Option<HashMap<[u8; 32], User>>,
    default_tier: Tier,
    trusted: Vec<IpNet>,
    header: ProxyHeader,
}

impl Callers {
    /// As set, for a service that listens on `host`.
    pub fn new(settings: &LimitSettings, host: IpAddr) -> Result<Self, KeysError> {
        let users = settings.keys_file.as_deref().map(read).transpose()?;
        Ok(Self {
            users,
            default_tier: default_tier(settings, host),
            trusted: settings.trusted_proxies.clone(),
            header: settings.proxy_header,
        })
    }

    /// Who sends these headers from `peer`.
    ///
    /// # Errors
    ///
    /// Where there are keys and this one is unknown. Without a key one is nobody in particular.
    pub fn caller(
        &self,
        headers: &HeaderMap,
        peer: Option<SocketAddr>,
    ) -> Result<Caller, UnknownKey> {
        let user = match (&self.users, headers.get(AUTHORIZATION)) {
            (Some(users), Some(given)) => {
                let key = given.as_bytes();
                let (scheme, key) = key.split_at_checked(7).ok_or(UnknownKey)?;
                if !scheme.eq_ignore_ascii_case(b"bearer ") {
                    return Err(UnknownKey);
                }
                let digest: [u8; 32] = Sha256::digest(key.trim_ascii()).into();
                Some(users.get(&digest).ok_or(UnknownKey)?.clone())
            }
            _ => None,
        };
        let tier = user.as_ref().map_or(self.default_tier, |user| user.tier);
        Ok(Caller {
            user: user.map(|user| user.name),
            tier,
            address: peer.map(|peer| self.address(headers, peer.ip())),
        })
    }

    /// The last address that no trusted proxy stands behind: what is said farther left may be invented.
    fn address(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let name = match self.header {
            ProxyHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ProxyHeader::Forwarded => FORWARDED,
        };
        let lines: Vec<&str> = headers
            .get_all(name)
            .map(|line| line.to_str().unwrap_or_default())
            .collect();
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
        let mut address = peer;
        for hop in hops.take(MAX_HOPS) {
            let node = match self.header {
                ProxyHeader::XForwardedFor => Some(hop),
                ProxyHeader::Forwarded => forwarded_for(hop),
            };
            let Some(before) = node.and_then(node_address) else {
                break;
            };
            address = before;
            if !self.trusts(address) {
                break;
            }
        }
        address
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }
}

fn read(path: &Path) -> Result<HashMap<[u8; 32], User>, KeysError> {
    let failed = |reason: String| KeysError {
        path: path.to_owned(),
        reason,
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| failed(format!("can't be read: {error}")))?;
    // The parser's own message would show the line.
    let file: File = toml::from_str(&text)
        .map_err(|error| failed(format!("have the wrong form: {}", error.message())))?;
    let mut users = HashMap::new();
    for (index, entry) in file.keys.into_iter().enumerate() {
        let number = index + 1;
        let mut digest = [0; 32];
        hex::decode_to_slice(&entry.sha256, &mut digest)
            .map_err(|_| failed(format!("have no SHA-256 in table {number}")))?;
        let length = entry.user.chars().count();
        if !(1..=MAX_USER).contains(&length) || RESERVED.contains(&entry.user.as_str()) {
            return Err(failed(format!(
                "have no user of 1 to {MAX_USER} characters in table {number}, or one of {}",
                RESERVED.join(", ")
            )));
        }
        let user = User {
            name: entry.user.into(),
            tier: entry.tier,
        };
        if users.insert(digest, user).is_some() {
            return Err(failed(format!("have the key of table {number} twice")));
        }
    }
    Ok(users)
}

/// The node of `for=` in one element of `Forwarded` (RFC 7239, 4).
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let ours = name.trim().eq_ignore_ascii_case("for");
        ours.then(|| value.trim().trim_matches('"'))
    })
}

/// The address of a node that may come with a port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`, `2001:db8::1`.
fn node_address(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    let bare = node
        .strip_prefix('[')
        .and_then(|inner| inner.split_once(']'))
        .map_or(node, |(address, _)| address);
    let address = bare.parse::<IpAddr>().ok().or_else(|| {
        let (address, _port) = bare.split_once(':')?;
        address.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    });
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn callers(header: ProxyHeader) -> Callers {
        let settings = LimitSettings {
            trusted_proxies: ["10.0.0.0/8", "fd00::/8"]
                .map(|network| network.parse().expect("a network"))
                .to_vec(),
            proxy_header: header,
            ..LimitSettings::default()
        };
        Callers::new(&settings, IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("no keys")
    }

    fn address(header: ProxyHeader, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            let value = HeaderValue::from_str(line).expect("a header's value");
            headers.append(HeaderName::from_static(name), value);
        }
        let peer = SocketAddr::new(peer.parse().expect("an address"), 4711);
        let caller = callers(header).caller(&headers, Some(peer));
        let address = caller.expect("there are no keys").address;
        address.expect("HTTP has one").to_string()
    }

    #[test]
    fn the_address_is_the_last_that_no_trusted_proxy_wrote() {
        let forwarded = |peer: &str, line: &str| {
            address(
                ProxyHeader::XForwardedFor,
                peer,
                &[("x-forwarded-for", line)],
            )
        };
        assert_eq!(forwarded("10.0.0.1", "198.51.100.7"), "198.51.100.7");
        // What a client says of itself stands farther left.
        assert_eq!(
            forwarded("10.0.0.1", "1.1.1.1, 198.51.100.7, 10.2.3.4"),
            "198.51.100.7"
        );
        assert_eq!(
            forwarded("::ffff:10.0.0.1", "198.51.100.7:4711"),
            "198.51.100.7"
        );
        assert_eq!(forwarded("fd00::1", "[2001:db8::7]:80"), "2001:db8::7");
        // Nobody else is believed, and nonsense ends the list.
        assert_eq!(forwarded("198.51.100.9", "1.1.1.1"), "198.51.100.9");
        assert_eq!(
            forwarded("10.0.0.1", "1.1.1.1, unknown, 10.0.0.2"),
            "10.0.0.2"
        );
        assert_eq!(forwarded("10.0.0.1", ""), "10.0.0.1");
        let lines = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
        ];
        assert_eq!(
            address(ProxyHeader::XForwardedFor, "10.0.0.1", &lines),
            "2.2.2.2"
        );
    }

    #[test]
    fn only_the_header_that_the_proxies_write_counts() {
        let lines = [
            (
                "forwarded",
                "for=1.1.1.1;proto=https, For=\"[2001:db8::7]:80\";by=10.0.0.1",
            ),
            ("x-forwarded-for", "2.2.2.2"),
        ];
        assert_eq!(
            address(ProxyHeader::Forwarded, "10.0.0.1", &lines),
            "2001:db8::7"
        );
        assert_eq!(
            address(ProxyHeader::XForwardedFor, "10.0.0.1", &lines),
            "2.2.2.2"
        );
        let lines = [("forwarded", "for=1.1.1.1, proto=http")];
        assert_eq!(
            address(ProxyHeader::Forwarded, "10.0.0.1", &lines),
            "10.0.0.1"
        );
    }

    #[test]
    fn a_wrong_file_of_keys_is_named_and_not_shown() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.toml");
        let digest = "5a".repeat(32);
        let table = |user: &str| {
            format!("[[keys]]\nsha256 = \"{digest}\"\nuser = \"{user}\"\ntier = \"free\"\n")
        };
        for (text, part) in [
            ("hunter2".to_owned(), "wrong form"),
            (
                "[[keys]]\nsha256 = \"hunter2\"\nuser = \"ada\"\ntier = \"free\"".to_owned(),
                "SHA-256 in table 1",
            ),
            (table("bus"), "table 1"),
            (table("ada") + &table("bob"), "twice"),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = read(&path).err().expect("refused").to_string();
            assert!(
                error.contains(part) && !error.contains("hunter2"),
                "{error}"
            );
        }
        std::fs::write(&path, table("ada")).expect("written");
        assert!(read(&path).is_ok());
    }

    #[test]
    fn on_loopback_alone_nobody_is_limited_unless_told() {
        let settings = LimitSettings::default();
        for (host, tier) in [
            ("127.0.0.1", Tier::Unlimited),
            ("::1", Tier::Unlimited),
            ("0.0.0.0", Tier::Free),
        ] {
            assert_eq!(
                default_tier(&settings, host.parse().expect("an address")),
                tier
            );
        }
    }
}
