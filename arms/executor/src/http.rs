//! The action `http`: one request that the executor makes itself. No program of a step ever reaches a network.
//!
//! What may be asked of whom is policy ([`Hosts`]); where a name leads to is checked once, and the connection goes to
//! just the addresses that were checked ([`fetch`]).

mod address;
mod fetch;
mod rule;

use std::collections::BTreeMap;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::action;
use crate::workspace::WorkspacePath;

pub use fetch::{Caps, FetchError, Fetched, Fetcher, Resolve};
pub use rule::{HostRule, Hosts, Method, Scheme};

/// Characters of a URL, at most.
const MAX_URL: usize = 2048;
/// Headers of a request, at most.
const MAX_HEADERS: usize = 32;
/// Bytes of a header's value, at most.
const MAX_HEADER_BYTES: usize = 1024;
/// Headers that a request may carry: what is asked for and what is sent. What frames the message or leads it elsewhere is
/// the client's own affair, and credentials don't belong into a plan, which the log keeps for ever.
const HEADERS: [&str; 13] = [
    "accept",
    "accept-language",
    "cache-control",
    "content-language",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "prefer",
    "range",
    "x-request-id",
];

/// A request, as a plan says it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RequestForm")]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// Of whom: `https` or `http`, with a host, without user and password; the fragment is not sent.
    pub url: Url,
    /// With which headers.
    pub headers: HeaderMap,
    /// With which content.
    pub body: Option<Vec<u8>>,
    /// The file that the answer's content goes to, instead of the output.
    pub save: Option<WorkspacePath>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestForm {
    method: Method,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    text: Option<String>,
    base64: Option<String>,
    save: Option<WorkspacePath>,
}

impl TryFrom<RequestForm> for Request {
    type Error = String;

    fn try_from(form: RequestForm) -> Result<Self, Self::Error> {
        let has_body = form.text.is_some() || form.base64.is_some();
        if has_body && form.method.is_safe() {
            return Err(format!("{} takes neither text nor base64", form.method));
        }
        let body = if has_body {
            Some(action::content(form.text, form.base64.as_deref())?)
        } else {
            None
        };
        Ok(Self {
            method: form.method,
            url: location(&form.url)?,
            headers: headers(&form.headers)?,
            body,
            save: form.save,
        })
    }
}

/// A URL that a request may go to, whatever the policy says of its host.
fn location(text: &str) -> Result<Url, String> {
    if text.chars().count() > MAX_URL || text.chars().any(char::is_control) {
        return Err(format!(
            "the URL is longer than {MAX_URL} characters, or has control characters"
        ));
    }
    let url = Url::parse(text).map_err(|error| format!("the URL {text:?}: {error}"))?;
    let problem = if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        "is not of the form https://host/path"
    } else if !url.username().is_empty() || url.password().is_some() {
        "names a user or a password; the log would keep them"
    } else {
        return Ok(url);
    };
    Err(format!("the URL {text:?} {problem}"))
}

fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    if given.len() > MAX_HEADERS {
        return Err(format!("more than {MAX_HEADERS} headers"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let lower = name.to_ascii_lowercase();
        if !HEADERS.contains(&lower.as_str()) {
            let allowed = HEADERS.join(", ");
            return Err(format!(
                "the header {name:?} can't be set; allowed are: {allowed}"
            ));
        }
        let parsed = HeaderName::from_bytes(lower.as_bytes()).ok();
        let content = HeaderValue::from_str(value)
            .ok()
            .filter(|value| value.len() <= MAX_HEADER_BYTES);
        let (Some(parsed), Some(content)) = (parsed, content) else {
            return Err(format!(
                "the value of the header {name:?} is longer than {MAX_HEADER_BYTES} bytes, or has control characters"
            ));
        };
        if headers.insert(parsed, content).is_some() {
            return Err(format!("the header {name:?} is there twice"));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_parses_with_all_its_parts() {
        let request: Request = serde_json::from_value(json!({
            "method": "POST", "url": "https://api.example.org/items?n=1", "text": "{}",
            "headers": {"Content-Type": "application/json"}, "save": "answer.json"
        }))
        .unwrap();
        assert_eq!(request.body.as_deref(), Some(b"{}".as_slice()));
        assert_eq!(request.headers["content-type"], "application/json");
    }

    #[test]
    fn what_breaks_the_contract_is_refused() {
        for broken in [
            json!({"method": "TRACE", "url": "https://example.org"}),
            json!({"method": "get", "url": "https://example.org"}),
            json!({"method": "GET"}),
            json!({"method": "GET", "url": "example.org"}),
            json!({"method": "GET", "url": "/etc/passwd"}),
            json!({"method": "GET", "url": "file:///etc/passwd"}),
            json!({"method": "GET", "url": "gopher://example.org:70/"}),
            json!({"method": "GET", "url": "https://user:secret@example.org"}),
            json!({"method": "GET", "url": "https://example.org@evil.example/"}),
            json!({"method": "GET", "url": "https://exa\u{0}mple.org"}),
            json!({"method": "GET", "url": "https://example.org/\r\nHost: evil.example"}),
            json!({"method": "GET", "url": format!("https://example.org/{}", "x".repeat(MAX_URL))}),
            json!({"method": "GET", "url": "https://example.org", "text": "x"}),
            json!({"method": "POST", "url": "https://example.org", "text": "x", "base64": "eA=="}),
            json!({"method": "GET", "url": "https://example.org", "headers": {"Host": "evil.example"}}),
            json!({"method": "GET", "url": "https://example.org", "headers": {"Authorization": "Bearer x"}}),
            json!({"method": "GET", "url": "https://example.org", "headers": {"X-Forwarded-For": "127.0.0.1"}}),
            json!({"method": "GET", "url": "https://example.org", "headers": {"Accept": "a\r\nHost: b"}}),
            json!({"method": "GET", "url": "https://example.org", "headers": {"Accept": "a", "accept": "b"}}),
            json!({"method": "GET", "url": "https://example.org", "save": "../a"}),
            json!({"method": "GET", "url": "https://example.org", "follow": true}),
        ] {
            assert!(
                serde_json::from_value::<Request>(broken.clone()).is_err(),
                "accepted {broken}"
            );
        }
    }
}
