//! A broker, a reflex, and a plain HTTP client.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use octollm_events::testing::NatsServer;
use octollm_events::{Bus, Event, Log};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

pub const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Waits until `state` gives something; panics with `what` when it does not in time.
pub async fn eventually<T>(what: &str, mut state: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = state().await {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Variables of the environment.
type Settings = Vec<(String, String)>;

fn owned(settings: &[(&str, &str)]) -> Settings {
    let settings = settings.iter();
    settings
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The service's process; it is killed when the value is dropped.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    pub address: SocketAddr,
}

impl Process {
    async fn start(home: &TempDir, nats_url: &str, settings: &Settings) -> Self {
        let key = home.path().join("digest.key");
        std::fs::write(&key, "5a".repeat(32)).expect("the key is written");
        let mut child = command(home)
            .env("OCTO_NATS__URL", nats_url)
            .env("OCTO_REFLEX__PORT", "0")
            .env("OCTO_REFLEX__DIGEST_KEY_FILE", &key)
            .envs(settings.iter().cloned())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the service starts");
        let output = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let sink = Arc::clone(&output);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut text = sink.lock().expect("no writer panics");
                text.push_str(&line);
                text.push('\n');
            }
        });
        let address = eventually("the service listens", async || {
            let text = output.lock().expect("no writer panics").clone();
            let lines = text
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut addresses = lines.filter(|line| line["message"] == "listening");
            addresses.find_map(|line| line["address"].as_str()?.parse().ok())
        })
        .await;
        Self {
            child,
            output,
            address,
        }
    }

    /// All that it wrote to stdout.
    pub fn output(&self) -> String {
        self.output.lock().expect("no writer panics").clone()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(status.expect("kill runs").success());
    }

    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the service ends", async || {
            self.child.try_wait().expect("a child of ours")
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; `wait` takes it away in either case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The service's program with an environment of its own.
pub fn command(home: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_octollm-reflex"));
    command
        .env_clear()
        .current_dir(home.path())
        .stdin(Stdio::null());
    // Coverage runs tell the program where to write.
    if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
        command.env("LLVM_PROFILE_FILE", profile);
    }
    command
}

/// A broker with a reflex.
pub struct Stand {
    pub process: Process,
    pub server: NatsServer,
    pub bus: Bus,
    pub log: Log,
    home: TempDir,
    settings: Settings,
}

impl Stand {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With settings of one's own, as variables of the environment.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let settings = owned(settings);
        let server = NatsServer::start().await;
        let bus = server.connect("test").await;
        let home = tempfile::tempdir().expect("a temporary directory");
        let process = Process::start(&home, &server.url(), &settings).await;
        let stand = Self {
            process,
            log: Log::new(bus.clone(), "test"),
            bus,
            server,
            home,
            settings,
        };
        stand.until_ready(200).await;
        stand
    }

    /// A second instance beside the first.
    pub async fn another(&self, settings: &[(&str, &str)]) -> Process {
        Process::start(&self.home, &self.server.url(), &owned(settings)).await
    }

    /// Kills the service as a crash would and starts it again.
    pub async fn restart(&mut self) {
        self.process.signal("KILL");
        self.process.ended().await;
        self.process = Process::start(&self.home, &self.server.url(), &self.settings).await;
        self.until_ready(200).await;
    }

    pub async fn until_ready(&self, status: u16) -> Answer {
        eventually("/ready answers as expected", async || {
            let answer = self.get("/ready").await;
            (answer.status == status).then_some(answer)
        })
        .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
        .await
    }

    pub async fn submit(&self, body: &Value) -> Answer {
        submit_to(self.process.address, body).await
    }

    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        request(self.process.address, method, path, headers, body).await
    }

    /// The task's events, once there is one.
    pub async fn events(&self, task_id: Uuid) -> Vec<Event> {
        eventually("the task is on record", async || {
            let events = self
                .log
                .read(task_id, None)
                .await
                .expect("the task can be read");
            (!events.is_empty()).then_some(events)
        })
        .await
    }

    /// Number of events in the whole log.
    pub async fn log_length(&self) -> u64 {
        let mut stream = self
            .bus
            .jetstream()
            .get_stream("EVENTS")
            .await
            .expect("the stream is there");
        stream.info().await.expect("it answers").state.messages
    }

    /// Waits until every message of `COMMANDS` has been answered for.
    pub async fn until_taken(&self) {
        let stream = self
            .bus
            .jetstream()
            .get_stream("COMMANDS")
            .await
            .expect("the stream is there");
        eventually("COMMANDS is empty", async || {
            (stream.get_info().await.expect("it answers").state.messages == 0).then_some(())
        })
        .await;
    }
}

/// A submission to a reflex at `address`.
pub async fn submit_to(address: SocketAddr, body: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    request(
        address,
        "POST",
        "/api/v1/tasks",
        &headers,
        body.to_string().as_bytes(),
    )
    .await
}

pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: reflex\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream
        .write_all(head.as_bytes())
        .await
        .expect("the head is sent");
    // A server that refuses a body may close before it has read all of it.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    Answer::parse(&String::from_utf8(answer).expect("answers are UTF-8"))
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Answer {
    fn parse(answer: &str) -> Self {
        let (head, text) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .expect("a status line");
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self {
            status,
            headers,
            text: text.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn task_id(&self) -> Uuid {
        self.json()["task_id"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("no task id: {self:?}"))
    }
}
