//! The client of the action `http` against servers that mean harm, on loopback.

mod server;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use octollm_executor::http::{Caps, FetchError, Fetched, Fetcher, Hosts, Request, Resolve};
use reqwest::Certificate;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use server::Server;

const NAME: &str = "api.example.org";
const CAPS: Caps = Caps {
    wall: Duration::from_secs(20),
    bytes: 1 << 20,
};

/// Leads every name to these addresses, and counts how often it was asked.
fn leading_to(addresses: &[&str]) -> (Resolve, Arc<AtomicUsize>) {
    let found: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let resolve = move |_: String| -> futures::future::BoxFuture<'static, _> {
        count.fetch_add(1, Ordering::Relaxed);
        let found = found.clone();
        Box::pin(async move { Ok(found) })
    };
    (Arc::new(resolve), asked)
}

fn loopback() -> Fetcher {
    Fetcher::new(leading_to(&["127.0.0.1"]).0, Vec::new())
}

/// A host in the clear on this port, which may be found on loopback.
fn hosts(port: u16) -> Hosts {
    granted(port, "http", r#", addresses = ["127.0.0.0/8"]"#)
}

fn granted(port: u16, scheme: &str, more: &str) -> Hosts {
    toml::from_str(&format!(
        r#"hosts = [{{ host = "{NAME}", methods = ["GET", "HEAD", "POST"], scheme = "{scheme}", ports = [{port}]{more} }}]"#
    ))
    .unwrap()
}

fn request(value: Value) -> Request {
    serde_json::from_value(value).unwrap()
}

fn get(port: u16) -> Request {
    request(json!({"method": "GET", "url": format!("http://{NAME}:{port}/a?b=c")}))
}

async fn fetch(fetcher: &Fetcher, asked: &Request, hosts: &Hosts) -> Result<Fetched, FetchError> {
    fetcher
        .fetch(asked, hosts, CAPS, &CancellationToken::new())
        .await
}

#[tokio::test]
async fn an_answer_comes_back_and_the_request_says_no_more_than_it_should() {
    let server = Server::answering(
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n\r\nnope\n",
    )
    .await;
    let fetched = fetch(&loopback(), &get(server.port), &hosts(server.port)).await;
    let fetched = fetched.unwrap();
    assert_eq!(
        (fetched.status, fetched.body.as_slice()),
        (404, b"nope\n".as_slice())
    );
    assert_eq!(
        fetched.head,
        "HTTP/1.1 404 Not Found\ncontent-type: text/plain\n"
    );
    let seen = server.seen();
    assert!(seen[0].starts_with("GET /a?b=c HTTP/1.1\r\n"), "{seen:?}");
    assert!(seen[0].contains(&format!("host: {NAME}:{}\r\n", server.port)));
    for absent in ["referer", "cookie", "authorization", "proxy"] {
        assert!(!seen[0].to_lowercase().contains(absent), "{seen:?}");
    }
}

#[tokio::test]
async fn content_is_sent_once() {
    let server = Server::answering(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let asked = request(json!({
        "method": "POST", "url": format!("http://{NAME}:{}/", server.port), "text": "once",
        "headers": {"content-type": "text/plain"}
    }));
    let fetched = fetch(&loopback(), &asked, &hosts(server.port))
        .await
        .unwrap();
    assert_eq!(fetched.status, 307, "what was sent is not sent on");
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].ends_with("\r\n\r\nonce"), "{seen:?}");
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_before_anything_is_sent() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let open = granted(server.port, "http", "");
    for inside in [
        &["127.0.0.1"][..],
        &["::1"],
        &["0.0.0.0"],
        &["169.254.169.254"],
        &["10.0.0.1"],
        &["100.64.0.1"],
        &["::ffff:127.0.0.1"],
        &["fd00:ec2::254"],
        &["fe80::1"],
        // A second address is what the attacker hopes that the client will fall back to.
        &["93.184.215.14", "127.0.0.1"],
    ] {
        let fetcher = Fetcher::new(leading_to(inside).0, Vec::new());
        let told = fetch(&fetcher, &get(server.port), &open).await;
        assert!(
            matches!(told, Err(FetchError::Denied(_))),
            "{inside:?}: {told:?}"
        );
    }
    assert!(server.seen().is_empty());
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_address_of_ones_own_network_needs_its_range_named() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let elsewhere = granted(server.port, "http", r#", addresses = ["10.0.0.0/8"]"#);
    let told = fetch(&loopback(), &get(server.port), &elsewhere).await;
    assert!(matches!(told, Err(FetchError::Denied(_))), "{told:?}");
    let literal =
        request(json!({"method": "GET", "url": format!("http://127.0.0.1:{}/", server.port)}));
    let told = fetch(&loopback(), &literal, &hosts(server.port)).await;
    assert!(matches!(told, Err(FetchError::Denied(_))), "{told:?}");
    assert_eq!(server.connections(), 0);
    let itself: Hosts = toml::from_str(&format!(
        r#"hosts = [{{ host = "127.0.0.1", methods = ["GET"], scheme = "http", ports = [{}] }}]"#,
        server.port
    ))
    .unwrap();
    let told = fetch(&loopback(), &literal, &itself).await;
    assert!(matches!(told, Err(FetchError::Denied(_))), "{told:?}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_is_resolved_once_so_that_it_can_not_lead_elsewhere_a_moment_later() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let (resolve, asked) = leading_to(&["127.0.0.1"]);
    let fetcher = Fetcher::new(resolve, Vec::new());
    fetch(&fetcher, &get(server.port), &hosts(server.port))
        .await
        .unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn each_hop_of_a_redirection_is_asked_for_anew() {
    let inside = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret").await;
    for target in [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        format!("http://127.0.0.1:{}/", inside.port),
        format!("http://localhost:{}/", inside.port),
        format!("http://{NAME}:{}/", inside.port),
        format!("//{NAME}:{}/", inside.port),
        format!("https://{NAME}/"),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
        format!("http://user:word@{NAME}/"),
        "http://[::1]/".to_owned(),
        "http://0x7f000001/".to_owned(),
    ] {
        let server = Server::answering(&format!(
            "HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        let told = fetch(&loopback(), &get(server.port), &hosts(server.port)).await;
        assert!(
            matches!(told, Err(FetchError::Denied(_))),
            "{target}: {told:?}"
        );
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn a_redirection_within_what_is_allowed_is_followed_and_a_circle_is_left() {
    let server =
        Server::answering("HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")
            .await;
    let told = fetch(&loopback(), &get(server.port), &hosts(server.port)).await;
    assert!(matches!(told, Err(FetchError::Lost(_))), "{told:?}");
    let seen = server.seen();
    assert_eq!(seen.len(), 6);
    assert!(seen[5].starts_with("GET /again HTTP/1.1\r\n"), "{seen:?}");
}

#[tokio::test]
async fn a_server_that_dribbles_runs_into_the_wall_clock() {
    let server = Server::dribbling("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
    let caps = Caps {
        wall: Duration::from_millis(300),
        ..CAPS
    };
    let (fetcher, never) = (loopback(), CancellationToken::new());
    let told = fetcher
        .fetch(&get(server.port), &hosts(server.port), caps, &never)
        .await;
    assert!(matches!(told, Err(FetchError::TimedOut(_))), "{told:?}");
}

#[tokio::test]
async fn content_that_unpacks_to_more_than_granted_is_given_up() {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        packed.write_all(&[0; 1 << 20]).unwrap();
    }
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 100_000);
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    )
    .into_bytes();
    answer.extend(packed);
    let server = Server::answering(answer).await;
    let told = fetch(&loopback(), &get(server.port), &hosts(server.port)).await;
    assert!(
        matches!(told, Err(FetchError::TooLarge(1_048_576))),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_flood_is_given_up() {
    let server = Server::flooding("HTTP/1.1 200 OK\r\n\r\n", "12345678").await;
    let told = fetch(&loopback(), &get(server.port), &hosts(server.port)).await;
    assert!(matches!(told, Err(FetchError::TooLarge(_))), "{told:?}");
    let server = Server::flooding("HTTP/1.1 200 OK\r\n", "X-Header: 1\r\n").await;
    let told = fetch(&loopback(), &get(server.port), &hosts(server.port)).await;
    assert!(matches!(told, Err(FetchError::Lost(_))), "{told:?}");
}

#[tokio::test]
async fn it_is_told_whether_anything_may_have_been_carried_out() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "nonsense\r\n\r\n",
    ] {
        let server = Server::answering(answer).await;
        let told = fetch(&loopback(), &get(server.port), &hosts(server.port)).await;
        assert!(
            matches!(told, Err(FetchError::Lost(_))),
            "{answer:?}: {told:?}"
        );
    }
    let gone = Server::answering("").await.leave().await;
    let told = fetch(&loopback(), &get(gone), &hosts(gone)).await;
    let Err(FetchError::Unreachable(problem)) = told else {
        panic!("{told:?}");
    };
    assert!(
        !problem.contains("b=c"),
        "the URL is nobody's business: {problem}"
    );
    let nowhere = Fetcher::new(leading_to(&[]).0, Vec::new());
    let told = fetch(&nowhere, &get(gone), &hosts(gone)).await;
    assert!(matches!(told, Err(FetchError::Unreachable(_))), "{told:?}");
}

#[tokio::test]
async fn a_cancel_ends_it_at_once() {
    let server = Server::dribbling("HTTP/1.1 200 OK\r\n").await;
    let cancel = CancellationToken::new();
    let (fetcher, asked, hosts) = (loopback(), get(server.port), hosts(server.port));
    let fetching = fetcher.fetch(&asked, &hosts, CAPS, &cancel);
    let cancelling = async {
        server.reached().await;
        cancel.cancel();
    };
    let (told, ()) = tokio::join!(fetching, cancelling);
    assert!(matches!(told, Err(FetchError::Cancelled)), "{told:?}");
}

#[tokio::test]
async fn a_certificate_must_be_trusted_and_be_the_hosts_own() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (server, certificate) = Server::with_tls(NAME, answer).await;
    let hosts = granted(server.port, "https", r#", addresses = ["127.0.0.0/8"]"#);
    let asked =
        request(json!({"method": "GET", "url": format!("https://{NAME}:{}/", server.port)}));
    let told = fetch(&loopback(), &asked, &hosts).await;
    assert!(matches!(told, Err(FetchError::Unreachable(_))), "{told:?}");
    assert!(server.seen().is_empty());
    let trusting = |certificate: &[u8]| {
        let authority = Certificate::from_der(certificate).unwrap();
        Fetcher::new(leading_to(&["127.0.0.1"]).0, vec![authority])
    };
    let fetched = fetch(&trusting(&certificate), &asked, &hosts).await;
    assert_eq!(fetched.unwrap().body, b"ok");

    let (other, certificate) = Server::with_tls("other.example.org", answer).await;
    let hosts = granted(other.port, "https", r#", addresses = ["127.0.0.0/8"]"#);
    let asked = request(json!({"method": "GET", "url": format!("https://{NAME}:{}/", other.port)}));
    let told = fetch(&trusting(&certificate), &asked, &hosts).await;
    assert!(matches!(told, Err(FetchError::Unreachable(_))), "{told:?}");
    assert!(other.seen().is_empty());
}
