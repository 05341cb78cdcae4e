//! Making one request: every hop is permitted, resolved once, checked and pinned.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, Url, redirect};
use tokio_util::sync::CancellationToken;
use url::Host;

use super::address::is_permitted;
use super::{Hosts, Method, Request, rule::HostRule};

/// Redirections that are followed, at most.
const MAX_REDIRECTS: usize = 5;
/// Addresses of one name that are tried, at most.
const MAX_ADDRESSES: usize = 16;
/// How long a connection with its handshake may take.
const CONNECT: Duration = Duration::from_secs(10);

/// What an exchange may take.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// All of it, redirections included.
    pub wall: Duration,
    /// Bytes of the answer's content, decompressed.
    pub bytes: u64,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// 100 to 599.
    pub status: u16,
    /// The status line and what of the headers tells about the content, one each line.
    pub head: String,
    /// The content, decompressed.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Policy, or an address that no step may reach. Nothing was sent to it.
    #[error("{0}")]
    Denied(String),
    /// Nothing was sent: no address, no connection, a certificate that is not trusted.
    #[error("{0}")]
    Unreachable(String),
    /// It may have been carried out: the request was sent, and no whole answer came.
    #[error("{0}")]
    Lost(String),
    /// The answer is larger than granted.
    #[error("the answer has more than {0} bytes")]
    TooLarge(u64),
    /// The wall clock ran out. It may have been carried out.
    #[error("there was no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Cancelled. It may have been carried out.
    #[error("the request was cancelled")]
    Cancelled,
}

/// Finds a host's addresses.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Makes requests.
#[derive(Clone)]
pub struct Fetcher {
    resolve: Resolve,
    trusted: Vec<Certificate>,
}

impl Default for Fetcher {
    /// Asks the host's resolver, and trusts the authorities that browsers trust.
    fn default() -> Self {
        let resolve = |host: String| -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            Box::pin(async move {
                let found = tokio::net::lookup_host((host, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        };
        Self::new(Arc::new(resolve), Vec::new())
    }
}

impl Fetcher {
    /// One that finds addresses so, and trusts these authorities beside those that browsers trust.
    #[must_use]
    pub fn new(resolve: Resolve, trusted: Vec<Certificate>) -> Self {
        Self { resolve, trusted }
    }

    /// Makes the request and follows where it is sent, as far as the hosts allow.
    ///
    /// # Errors
    /// [`FetchError`] says whether anything may have been carried out.
    pub async fn fetch(
        &self,
        request: &Request,
        hosts: &Hosts,
        caps: Caps,
        cancel: &CancellationToken,
    ) -> Result<Fetched, FetchError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(FetchError::Cancelled),
            fetched = tokio::time::timeout(caps.wall, self.follow(request, hosts, caps.bytes)) => {
                fetched.unwrap_or(Err(FetchError::TimedOut(caps.wall)))
            }
        }
    }

    async fn follow(
        &self,
        request: &Request,
        hosts: &Hosts,
        most: u64,
    ) -> Result<Fetched, FetchError> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let rule = hosts
                .permit(request.method, &url)
                .map_err(FetchError::Denied)?;
            let client = self.client(&url, rule).await?;
            let answer = ask(&client, request, &url).await?;
            match elsewhere(request.method, &url, &answer)? {
                Some(next) => url = next,
                None => return read(answer, most).await,
            }
        }
        Err(FetchError::Lost(format!(
            "it was sent on more than {MAX_REDIRECTS} times, last to {}",
            url.host_str().unwrap_or_default()
        )))
    }

    /// A client that can reach nothing but the addresses that were checked: whatever the name leads to a moment later.
    async fn client(&self, url: &Url, rule: &HostRule) -> Result<Client, FetchError> {
        let (name, addresses) = match url.host() {
            Some(Host::Ipv4(address)) => (None, vec![IpAddr::V4(address)]),
            Some(Host::Ipv6(address)) => (None, vec![IpAddr::V6(address)]),
            Some(Host::Domain(name)) => (Some(name), self.addresses(name).await?),
            None => return Err(FetchError::Denied("the URL has no host".to_owned())),
        };
        for &address in &addresses {
            if !is_permitted(address, rule.addresses()) {
                let host = url.host_str().unwrap_or_default();
                return Err(FetchError::Denied(format!(
                    "{host} leads to {address}, which is not on the public Internet; a policy may name ranges for a host \
                     (addresses)"
                )));
            }
        }
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("octollm-executor/", env!("CARGO_PKG_VERSION")));
        if let Some(name) = name {
            let sockets: Vec<SocketAddr> = addresses
                .iter()
                .map(|&address| SocketAddr::new(address, 0))
                .collect();
            builder = builder.resolve_to_addrs(name, &sockets);
        }
        for authority in &self.trusted {
            builder = builder.add_root_certificate(authority.clone());
        }
        builder
            .build()
            .map_err(|error| FetchError::Unreachable(told(&error)))
    }

    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, FetchError> {
        let unreachable =
            |problem: String| FetchError::Unreachable(format!("no address of {name}: {problem}"));
        let found = (self.resolve)(name.to_owned()).await;
        let mut found = found.map_err(|error| unreachable(error.to_string()))?;
        if found.is_empty() {
            return Err(unreachable("the name has none".to_owned()));
        }
        found.truncate(MAX_ADDRESSES);
        Ok(found)
    }
}

async fn ask(client: &Client, request: &Request, url: &Url) -> Result<Response, FetchError> {
    let method = reqwest::Method::from_bytes(request.method.as_str().as_bytes());
    let method = method.map_err(|error| FetchError::Unreachable(error.to_string()))?;
    let mut asked = client
        .request(method, url.clone())
        .headers(request.headers.clone());
    if let Some(body) = &request.body {
        asked = asked.body(body.clone());
    }
    asked.send().await.map_err(|error| {
        let (sent, problem) = (!error.is_connect() && !error.is_builder(), told(&error));
        let host = url.host_str().unwrap_or_default();
        if sent {
            FetchError::Lost(format!("{host} gave no answer: {problem}"))
        } else {
            FetchError::Unreachable(format!("no connection to {host}: {problem}"))
        }
    })
}

/// Where an answer sends on to. Only what merely looks is followed: everything else has been asked for once.
fn elsewhere(method: Method, from: &Url, answer: &Response) -> Result<Option<Url>, FetchError> {
    let is_redirection = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = answer.headers().get(LOCATION) else {
        return Ok(None);
    };
    if !is_redirection || !method.is_safe() {
        return Ok(None);
    }
    let next = location
        .to_str()
        .ok()
        .and_then(|location| from.join(location).ok())
        .filter(|next| next.username().is_empty() && next.password().is_none())
        .ok_or_else(|| {
            FetchError::Denied("it was sent on to what is no URL for a step".to_owned())
        })?;
    Ok(Some(next))
}

/// Reads the content as far as granted: what unpacks to more is given up on the way, and never held whole.
async fn read(mut answer: Response, most: u64) -> Result<Fetched, FetchError> {
    let status = answer.status();
    let mut head = format!("{:?} {status}\n", answer.version());
    for name in [CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION, RETRY_AFTER] {
        if let Some(value) = answer.headers().get(&name) {
            head += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        }
    }
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if (body.len() + chunk.len()) as u64 > most => {
                return Err(FetchError::TooLarge(most));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                return Err(FetchError::Lost(format!(
                    "the answer broke off: {}",
                    told(&error)
                )));
            }
        }
    }
    Ok(Fetched {
        status: status.as_u16(),
        head,
        body,
    })
}

/// What happened, with its causes and without the URL, which may hold what is nobody's business.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        // The outermost names the URL; what it says beyond its cause is nothing.
        if error.source().is_none() || !error.is::<reqwest::Error>() {
            text = if text.is_empty() {
                error.to_string()
            } else {
                format!("{text}: {error}")
            };
        }
        cause = error.source();
    }
    text
}
