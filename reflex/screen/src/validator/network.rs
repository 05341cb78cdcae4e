//! Addresses of networks.

use std::net::IpAddr;

/// Bytes of an IP address, with its prefix length if it has one.
pub(super) fn ip(candidate: &str) -> Option<usize> {
    let (address, prefix) = match candidate.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (candidate, None),
    };
    let address = address.trim_end_matches('.');
    // A zone names an interface of the host (RFC 4007).
    let bare = address.split_once('%').map_or(address, |(bare, _)| bare);
    let parsed: IpAddr = bare.parse().ok()?;
    let limit = if parsed.is_ipv4() { 32 } else { 128 };
    let prefixed =
        prefix.is_some_and(|prefix| prefix.parse::<u32>().is_ok_and(|bits| bits <= limit));
    // `::` and `a::b` are paths in several languages.
    let path = parsed.is_ipv6() && !prefixed && !bare.bytes().any(|byte| byte.is_ascii_digit());
    (!path).then_some(if prefixed {
        candidate.len()
    } else {
        address.len()
    })
}
