//! A TCP proxy before the broker that can lose an ack, or every connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub struct Proxy {
    port: u16,
    to_lose: Arc<AtomicUsize>,
    cuts: watch::Sender<()>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Passes connections on to the broker at `upstream`.
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to_lose = Arc::new(AtomicUsize::new(0));
        let mut accepting = JoinSet::new();
        let shared = to_lose.clone();
        let (cuts, cut) = watch::channel(());
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(broker) = TcpStream::connect(("127.0.0.1", upstream)).await else {
                    continue; // the broker is away
                };
                let (pass, mut cut) = (pass(client, broker, shared.clone()), cut.clone());
                cut.mark_unchanged();
                connections.spawn(async move {
                    tokio::select! {
                        () = pass => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            port,
            to_lose,
            cuts,
            _accepting: accepting,
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The next `count` acks of publishes are swallowed, each with its connection.
    pub fn lose_acks(&self, count: usize) {
        self.to_lose.store(count, Ordering::SeqCst);
    }

    /// Ends every connection; new ones are taken.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Acks still to be lost.
    pub fn left_to_lose(&self) -> usize {
        self.to_lose.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, broker: TcpStream, to_lose: Arc<AtomicUsize>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let upwards = async move {
        let _ = copy(&mut from_client, &mut to_broker).await;
    };
    let downwards = async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = from_broker.read(&mut buffer).await {
            let chunk = &buffer[..count];
            let is_ack = chunk
                .windows(ACK.len())
                .any(|window| window == ACK.as_bytes());
            let lose = |left: usize| left.checked_sub(1);
            if is_ack
                && to_lose
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose)
                    .is_ok()
            {
                return;
            }
            if to_client.write_all(chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = upwards => {}
        () = downwards => {}
    }
}

/// How every ack of a publish begins.
const ACK: &str = r#"{"stream":""#;
