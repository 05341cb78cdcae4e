//! A server that says just what it is told to, whatever it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

/// What is said once a request has come.
#[derive(Clone)]
struct Speech {
    first: Vec<u8>,
    /// And this over and over.
    then: Vec<u8>,
    /// With such a pause in between.
    pause: Option<Duration>,
}

#[derive(Default)]
struct Record {
    seen: Mutex<Vec<String>>,
    connections: AtomicUsize,
    reached: Notify,
}

/// A server on loopback, until it is dropped.
pub struct Server {
    pub port: u16,
    record: Arc<Record>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Says this and closes.
    pub async fn answering(answer: impl AsRef<[u8]>) -> Self {
        Self::saying(answer.as_ref(), "", None, None).await
    }

    /// Says this, and then one byte at a time.
    pub async fn dribbling(first: &str) -> Self {
        let pause = Some(Duration::from_millis(20));
        Self::saying(first.as_bytes(), "x", pause, None).await
    }

    /// Says this, and then that for ever.
    pub async fn flooding(first: &str, then: &str) -> Self {
        Self::saying(first.as_bytes(), &then.repeat(1000), None, None).await
    }

    /// Says this over TLS, with a certificate for that name, which is given.
    pub async fn with_tls(name: &str, answer: &str) -> (Self, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        let tls = Some(TlsAcceptor::from(Arc::new(config)));
        (
            Self::saying(answer.as_bytes(), "", None, tls).await,
            certificate.to_vec(),
        )
    }

    async fn saying(
        first: &[u8],
        then: &str,
        pause: Option<Duration>,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let speech = Speech {
            first: first.to_vec(),
            then: then.as_bytes().to_vec(),
            pause,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let record = Arc::new(Record::default());
        let recorder = Arc::clone(&record);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                recorder.connections.fetch_add(1, Ordering::Relaxed);
                let (speech, recorder, tls) = (speech.clone(), Arc::clone(&recorder), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => speak(stream, &speech, &recorder).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => speak(stream, &speech, &recorder).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self {
            port,
            record,
            serving,
        }
    }

    /// The requests that came.
    pub fn seen(&self) -> Vec<String> {
        self.record.seen.lock().unwrap().clone()
    }

    /// Connections that were made.
    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::Relaxed)
    }

    /// Once the first request has come.
    pub async fn reached(&self) {
        self.record.reached.notified().await;
    }

    /// Its port, where nobody listens any more.
    pub async fn leave(self) -> u16 {
        self.serving.abort();
        let port = self.port;
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
        port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Reads one request with its content, records it, and says what is to be said. None when the client has gone.
async fn speak(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    speech: &Speech,
    record: &Record,
) -> Option<()> {
    let mut request = Vec::new();
    let whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        (body.len() >= length).then_some(text)
    };
    let text = loop {
        if let Some(text) = whole(&request) {
            break text;
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    };
    record.seen.lock().unwrap().push(text);
    record.reached.notify_one();
    stream.write_all(&speech.first).await.ok()?;
    while !speech.then.is_empty() {
        stream.write_all(&speech.then).await.ok()?;
        stream.flush().await.ok()?;
        if let Some(pause) = speech.pause {
            tokio::time::sleep(pause).await;
        }
    }
    stream.shutdown().await.ok()
}
