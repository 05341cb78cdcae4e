//! Which hosts a step may speak to, and how.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use url::Host;

/// Hosts in one policy, at most.
const MAX_HOSTS: usize = 1000;

/// A method of HTTP (RFC 9110, RFC 5789).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    Get,
    /// Reads the headers alone.
    Head,
    /// Sends.
    Post,
    /// Puts in place.
    Put,
    /// Changes in part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// Whether it only looks (RFC 9110, 9.2.1).
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// With TLS.
    #[default]
    Https,
    /// In the clear: anybody on the way may read and change it.
    Http,
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// One host that may be spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HostRule {
    /// Its exact name in lower case (an internationalised one in its `xn--` form), or its address as one writes it.
    host: String,
    /// What may be asked of it.
    methods: BTreeSet<Method>,
    /// How.
    #[serde(default)]
    scheme: Scheme,
    /// Its ports; the scheme's own where none is named.
    #[serde(default)]
    ports: BTreeSet<u16>,
    /// Special-purpose ranges that it may be found in, such as `10.1.0.0/16` for a host of one's own network. Without,
    /// its addresses must be public.
    #[serde(default)]
    addresses: Vec<IpNet>,
}

impl HostRule {
    /// The ranges beside the public Internet.
    pub(super) fn addresses(&self) -> &[IpNet] {
        &self.addresses
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.contains(&port) || (self.ports.is_empty() && port == self.scheme.port())
    }

    fn describe(&self) -> String {
        let methods: Vec<_> = self.methods.iter().map(|method| method.as_str()).collect();
        let ports: Vec<_> = self.ports.iter().map(|port| format!(":{port}")).collect();
        let (methods, scheme, ports) = (methods.join("|"), self.scheme.as_str(), ports.join("|"));
        format!("{methods} {scheme}://{}{ports}", self.host)
    }
}

/// The hosts that steps may speak to; none by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(try_from = "HostsForm")]
pub struct Hosts {
    hosts: Vec<HostRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostsForm {
    #[serde(default)]
    hosts: Vec<HostRule>,
}

impl TryFrom<HostsForm> for Hosts {
    type Error = String;

    fn try_from(form: HostsForm) -> Result<Self, Self::Error> {
        if form.hosts.len() > MAX_HOSTS {
            return Err(format!("more than {MAX_HOSTS} hosts"));
        }
        for rule in &form.hosts {
            let host = &rule.host;
            if !is_exact(host) {
                return Err(format!(
                    "the host {host:?} is not an exact name in lower case, nor an address"
                ));
            }
            if rule.methods.is_empty() || rule.ports.contains(&0) {
                return Err(format!("the host {host:?} has no method, or the port 0"));
            }
        }
        Ok(Self { hosts: form.hosts })
    }
}

/// A host as it stands in a URL that was parsed: no other spelling would ever be met.
fn is_exact(host: &str) -> bool {
    match Host::parse(host) {
        Ok(Host::Domain(name)) => {
            let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
            let mut labels = name.split('.');
            name == host && labels.all(|label| !label.is_empty() && label.bytes().all(is_plain))
        }
        Ok(address) => address.to_string() == host,
        Err(_) => false,
    }
}

impl Hosts {
    /// What may be asked of whom, one line each.
    pub fn describe(&self) -> impl Iterator<Item = String> + '_ {
        self.hosts.iter().map(HostRule::describe)
    }

    /// The rule that allows a request.
    ///
    /// # Errors
    /// Why it is not allowed, and what would be.
    pub(super) fn permit(&self, method: Method, url: &Url) -> Result<&HostRule, String> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(0);
        let of_host: Vec<&HostRule> = self.hosts.iter().filter(|rule| rule.host == host).collect();
        let allowed = of_host.iter().find(|rule| {
            rule.scheme.as_str() == url.scheme()
                && rule.methods.contains(&method)
                && rule.has_port(port)
        });
        if let Some(rule) = allowed {
            return Ok(rule);
        }
        let scheme = url.scheme();
        let offer = if of_host.is_empty() {
            self.describe().collect::<Vec<_>>()
        } else {
            of_host.iter().map(|rule| rule.describe()).collect()
        };
        let offer = if offer.is_empty() {
            "no host is allowed".to_owned()
        } else {
            format!("allowed are: {}", offer.join(", "))
        };
        Err(format!(
            "{method} {scheme}://{host}:{port} is not allowed; {offer}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Result<Hosts, toml::de::Error> {
        toml::from_str(text)
    }

    fn permits(hosts: &Hosts, method: Method, url: &str) -> bool {
        hosts.permit(method, &Url::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn scheme_host_port_and_method_must_be_just_those() {
        let hosts = hosts(
            r#"hosts = [{ host = "api.example.org", methods = ["GET", "HEAD"] },
                        { host = "db.internal", methods = ["POST"], scheme = "http", ports = [8080], addresses = ["10.0.0.0/8"] }]"#,
        )
        .unwrap();
        assert!(permits(&hosts, Method::Get, "https://api.example.org/a"));
        assert!(permits(
            &hosts,
            Method::Get,
            "https://API.example.org:443/a"
        ));
        assert!(permits(&hosts, Method::Post, "http://db.internal:8080/"));
        for (method, url) in [
            (Method::Post, "https://api.example.org/"),
            (Method::Get, "http://api.example.org/"),
            (Method::Get, "https://api.example.org:8443/"),
            (Method::Get, "https://api.example.org./"),
            (Method::Get, "https://sub.api.example.org/"),
            (Method::Get, "https://example.org/"),
            (Method::Get, "https://api.example.org.evil.example/"),
            (Method::Get, "https://127.0.0.1/"),
            (Method::Post, "http://db.internal/"),
            (Method::Post, "https://db.internal:8080/"),
        ] {
            let told = hosts.permit(method, &Url::parse(url).unwrap());
            assert!(
                told.unwrap_err().contains("allowed are: "),
                "{method} {url}"
            );
        }
    }

    #[test]
    fn other_spellings_of_an_address_are_that_address() {
        let hosts = hosts(r#"hosts = [{ host = "192.0.2.7", methods = ["GET"] }]"#).unwrap();
        for url in [
            "https://192.0.2.7/",
            "https://0xc0000207/",
            "https://3221225991/",
            "https://0300.0.2.7/",
        ] {
            assert!(permits(&hosts, Method::Get, url), "{url}");
        }
        assert!(!permits(&hosts, Method::Get, "https://[::ffff:192.0.2.7]/"));
    }

    #[test]
    fn what_is_no_exact_name_is_refused_at_load() {
        for host in [
            "",
            "*.example.org",
            "Example.org",
            "example.org.",
            "a b",
            "example.org:80",
            "0x7f.1",
            "münchen.example",
        ] {
            let text = format!(r#"hosts = [{{ host = "{host}", methods = ["GET"] }}]"#);
            assert!(hosts(&text).is_err(), "{host:?}");
        }
        for rest in [
            "",
            "methods = []",
            r#"methods = ["TRACE"]"#,
            r#"methods = ["GET"], ports = [0]"#,
            r#"methods = ["GET"], prots = [1]"#,
        ] {
            let text = format!(r#"hosts = [{{ host = "example.org", {rest} }}]"#);
            assert!(hosts(&text).is_err(), "{rest:?}");
        }
        assert_eq!(hosts("").unwrap(), Hosts::default());
    }
}
