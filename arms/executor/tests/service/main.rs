//! The executor's process on a real broker. The tests play reflex and orchestrator: they write the events that these
//! would write, and read what the executor puts on record.

mod capabilities;
mod claims;
mod crash;
mod deliveries;
mod execute;
mod grant;
mod receipts;
mod results;
mod stops;
mod workspaces;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use grant::Grant;
use octollm_events::testing::NatsServer;
use octollm_events::{Bus, Event, Log, NewEvent, Position};
use octollm_executor::receipt::Key;
use octollm_executor::workspace::{Caps, Tree};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(40);

/// A broker, the log, and a place for executors.
struct World {
    server: NatsServer,
    bus: Bus,
    log: Log,
    home: TempDir,
}

impl World {
    async fn new() -> Self {
        let server = NatsServer::start().await;
        let bus = server.connect("orchestrator").await;
        let log = Log::new(bus.clone(), "orchestrator");
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("capability.pub"), grant::public_key()).unwrap();
        Key::load_or_make(&home.path().join("receipt.key")).unwrap();
        Self {
            server,
            bus,
            log,
            home,
        }
    }

    /// Starts an executor and waits until it listens.
    async fn executor(&self) -> ExecutorProcess {
        self.executor_by(&[env!("CARGO_BIN_EXE_octollm-executor")])
            .await
    }

    async fn executor_by(&self, argv: &[&str]) -> ExecutorProcess {
        self.executor_with(argv, &[]).await
    }

    async fn executor_with(&self, argv: &[&str], settings: &[(&str, &str)]) -> ExecutorProcess {
        let log = self
            .home
            .path()
            .join(format!("executor-{}.log", Uuid::new_v4()));
        let process = Command::new(argv[0])
            .args(&argv[1..])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("OCTO_NATS__URL", self.server.url())
            .env("OCTO_EXECUTOR__PORT", "0")
            .env(
                "OCTO_EXECUTOR__CAPABILITY_PUBLIC_KEY_FILE",
                self.home.path().join("capability.pub"),
            )
            .env(
                "OCTO_EXECUTOR__RECEIPT_KEY_FILE",
                self.home.path().join("receipt.key"),
            )
            .envs(settings.iter().copied())
            // Coverage runs tell the program where to write.
            .envs(std::env::var_os("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut executor = ExecutorProcess {
            process,
            log,
            port: 0,
        };
        executor.port = eventually("the executor does not listen", async || {
            executor.logged_port()
        })
        .await;
        executor
    }

    /// Shortens the time after which the broker delivers again what an executor has not answered.
    async fn ack_wait(&self, time: Duration) {
        self.consumer(time, "update").await;
    }

    /// Has the broker deliver everything anew.
    async fn forget_acks(&self) {
        let stream = self.bus.jetstream().get_stream("EVENTS").await.unwrap();
        stream.delete_consumer("executor").await.unwrap();
        self.consumer(Duration::from_secs(30), "create").await;
    }

    async fn consumer(&self, ack_wait: Duration, action: &str) {
        let config = json!({
            "durable_name": "executor", "filter_subjects": ["step.dispatched.*"], "ack_policy": "explicit",
            "ack_wait": ack_wait.as_nanos() as u64, "max_deliver": -1, "max_ack_pending": 256,
        });
        let body = json!({"stream_name": "EVENTS", "config": config, "action": action});
        let subject = "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.executor";
        let answer = self
            .bus
            .client()
            .request(subject, body.to_string().into())
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["error"], Value::Null);
    }

    /// Content of an object in the artifact store.
    async fn object(&self, name: &str) -> Option<Vec<u8>> {
        let store = self
            .bus
            .jetstream()
            .get_object_store("ARTIFACTS")
            .await
            .unwrap();
        let mut object = store.get(name).await.ok()?;
        let mut content = Vec::new();
        object.read_to_end(&mut content).await.unwrap();
        Some(content)
    }

    /// Puts a new task on record.
    async fn task(&self) -> Task<'_> {
        self.task_with(json!({})).await
    }

    async fn task_with(&self, more: Value) -> Task<'_> {
        let id = Uuid::new_v4();
        let digest = "0".repeat(64);
        let mut received = json!({
            "goal": "try the executor", "constraints": [], "context": {}, "acceptance_criteria": [],
            "budget": {"max_tokens": 10000, "max_cost_usd": 1.0, "max_time_seconds": 300, "max_retries": 3},
            "priority": "medium", "metadata": {},
            "verdict": {"ruleset": {"version": "1", "digest": digest}, "decision": "allow", "score": 0,
                        "findings": [], "redactions": [], "truncated": false},
            "source": {"channel": "http", "principal": "local"}, "submission_digest": digest,
        });
        received
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let event = NewEvent::from_json("task.received", &received, id, "").unwrap();
        let end = self.log.append(id, &event, &Position::START).await.unwrap();
        Task {
            world: self,
            id,
            end,
        }
    }
}

/// A task on record.
struct Task<'a> {
    world: &'a World,
    id: Uuid,
    end: Position,
}

impl Task<'_> {
    async fn events(&self) -> Vec<Event> {
        self.world.log.read(self.id, None).await.unwrap()
    }

    /// Appends after whatever is there.
    async fn append(&mut self, kind: &str, payload: &Value, key: &str) {
        let event = NewEvent::from_json(kind, payload, self.id, key).unwrap();
        loop {
            match self.world.log.append(self.id, &event, &self.end).await {
                Ok(end) => {
                    self.end = end;
                    return;
                }
                Err(octollm_events::AppendError::Conflict { .. }) => {
                    self.end = self.events().await.last().unwrap().position();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Puts the task's end on record, as the schema's own example has it.
    async fn end(&mut self, kind: &str) {
        let schema = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../../events/schemas/{kind}/v1.json"));
        let schema: Value =
            serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
        self.append(kind, &schema["examples"][0], "").await;
    }

    /// Dispatches the first attempt of a step; `fields` replace its defaults.
    async fn dispatch(&mut self, id: &str, action: Value, fields: Value) {
        let step = step(id, action, fields);
        let token = Grant::new("executor", self.id, &step).sign();
        self.dispatch_with(&step, &token).await;
    }

    /// Dispatches the first attempt of a step with whatever capability.
    async fn dispatch_with(&mut self, step: &Value, token: &str) {
        let mut dispatched = json!({
            "plan_version": 1, "attempt": 1, "purpose": "run", "step": step, "deadline": "2999-01-01T00:00:00.000Z",
            "capability": token,
        });
        let id = step["id"].as_str().unwrap();
        let key = format!("1/{id}/1");
        loop {
            // As the orchestrator does: the workspace is that of the log up to here.
            let events = self.events().await;
            if let Some(digest) = newest(&events) {
                dispatched["workspace"] = json!(digest);
            }
            let event = NewEvent::from_json("step.dispatched", &dispatched, self.id, &key).unwrap();
            let end = events.last().unwrap().position();
            match self.world.log.append(self.id, &event, &end).await {
                Ok(end) => return self.end = end,
                Err(octollm_events::AppendError::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Content of a file in the workspace that the log names.
    async fn file(&self, path: &str) -> Option<String> {
        let digest = newest(&self.events().await)?;
        let snapshot = self
            .world
            .object(&format!("workspace/{}/{digest}", self.id))
            .await?;
        let tree = Tree::from_snapshot(&*snapshot, Some(&digest), &Caps::default()).unwrap();
        let content = tree
            .read(&path.to_owned().try_into().unwrap(), 1 << 20)
            .ok()?;
        Some(String::from_utf8(content.into()).unwrap())
    }

    /// Waits for the step's result; gives its kind and payload.
    async fn result(&self, id: &str) -> (String, Value) {
        eventually(&format!("step {id} has no result"), async || {
            let results = self.results(id).await;
            results.into_iter().next()
        })
        .await
    }

    async fn results(&self, id: &str) -> Vec<(String, Value)> {
        let events = self.events().await.into_iter();
        let results =
            events.filter(|event| matches!(event.kind.as_str(), "step.executed" | "step.failed"));
        let decoded = results.map(|event| {
            (
                event.kind,
                serde_json::from_slice::<Value>(&event.body).unwrap(),
            )
        });
        decoded
            .filter(|(_, payload)| payload["step_id"] == id)
            .collect()
    }

    /// Dispatches and waits.
    async fn run(&mut self, id: &str, action: Value, fields: Value) -> (String, Value) {
        self.dispatch(id, action, fields).await;
        self.result(id).await
    }
}

/// The digest of the workspace as the log has it; none: nothing has changed it.
fn newest(events: &[Event]) -> Option<String> {
    let executed = events.iter().filter(|event| event.kind == "step.executed");
    let payloads = executed.map(|event| serde_json::from_slice::<Value>(&event.body).unwrap());
    let digests =
        payloads.filter_map(|payload| payload["workspace"]["after"].as_str().map(str::to_owned));
    digests.last()
}

/// A process of the executor; killed when dropped.
struct ExecutorProcess {
    process: Child,
    log: PathBuf,
    port: u16,
}

impl ExecutorProcess {
    fn logged_port(&self) -> Option<u16> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["message"] == "listening")?;
        line["address"].as_str()?.rsplit_once(':')?.1.parse().ok()
    }

    /// Status and body of a GET.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    /// Value of a metric's first series that starts so.
    async fn metric(&self, series: &str) -> f64 {
        let (_, metrics) = self.get("/metrics").await;
        let line = metrics
            .lines()
            .find(|line| line.starts_with(series) && !line.starts_with('#'));
        line.map_or(0.0, |line| {
            line.rsplit(' ').next().unwrap().parse().unwrap()
        })
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Asks it to stop and gives its exit code.
    async fn stop(mut self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let status = eventually("it does not stop", async || {
            self.process.try_wait().unwrap()
        })
        .await;
        status.code()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for ExecutorProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Asks until there is an answer.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A step; `fields` replace its defaults.
fn step(id: &str, action: Value, fields: Value) -> Value {
    let mut step = json!({
        "id": id, "title": id, "arm": "executor", "action": action, "depends_on": [], "acceptance": [],
        "effect": "pure",
        "limits": {"wall_ms": 30000, "memory_bytes": 268_435_456, "output_bytes": 1_048_576},
    });
    step.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    step
}

fn command(pipeline: Value) -> Value {
    json!({"kind": "command", "pipeline": pipeline})
}

/// Host processes whose command line holds the marker.
fn alive(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let command_lines =
        processes.filter_map(|entry| std::fs::read(Path::new(&entry.path()).join("cmdline")).ok());
    command_lines
        .filter(|line| String::from_utf8_lossy(line).contains(marker))
        .count()
}

/// An argument of `sleep` that nobody else uses.
fn marker() -> String {
    format!("9999.{:09}", Uuid::new_v4().as_u128() % 1_000_000_000)
}
