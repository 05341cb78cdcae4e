//! What the host has that an attack is after, and what is looked for on it afterwards.

use std::fs::{self, Permissions};
use std::io::ErrorKind::WouldBlock;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use octollm_executor::exec::Space;
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

/// Settings of the kernel that attacks write to.
const SETTINGS: [&str; 3] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
];

/// A secret that anybody on the host may read, a process, sockets that listen: an attack that gets out finds them.
pub struct Host {
    directory: TempDir,
    secret: String,
    canary: PathBuf,
    bystander: Mutex<Child>,
    port: TcpListener,
    by_path: UnixListener,
    by_name: UnixListener,
    name: String,
    settings: Vec<Option<String>>,
    markers: AtomicU64,
}

impl Host {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let secret = format!("secret-{}", Uuid::new_v4().simple());
        let canary = directory.path().join("canary");
        fs::write(&canary, &secret).unwrap();
        let name = format!("octo-{}", Uuid::new_v4().simple());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let host = Self {
            bystander: Mutex::new(Command::new("sleep").arg("600").spawn().unwrap()),
            port: TcpListener::bind("0.0.0.0:0").unwrap(),
            by_path: UnixListener::bind(directory.path().join("socket")).unwrap(),
            by_name: UnixListener::bind_addr(&address).unwrap(),
            settings: SETTINGS.map(|path| fs::read_to_string(path).ok()).into(),
            // Eight digits for each run, so that runs at the same time don't see each other's processes.
            markers: AtomicU64::new(u64::from(Uuid::new_v4().as_fields().0) % 100_000_000 * 10_000),
            directory,
            secret,
            canary,
            name,
        };
        let socket = host.directory.path().join("socket");
        fs::set_permissions(socket, Permissions::from_mode(0o777)).unwrap();
        host.port.set_nonblocking(true).unwrap();
        host.by_path.set_nonblocking(true).unwrap();
        host.by_name.set_nonblocking(true).unwrap();
        host
    }

    /// A number that no other case has: in file names, in command lines.
    pub fn marker(&self) -> String {
        format!("{:012}", self.markers.fetch_add(1, Ordering::Relaxed))
    }

    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The data directory of `octo exec`.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A workspace for several requests.
    pub fn task_space(&self, marker: &str) -> Space {
        let task = format!("task-{marker}").parse().unwrap();
        Space::open(&self.data(), Some(&task)).unwrap()
    }

    /// The text with what it names of this host.
    pub fn fill(&self, text: &str, marker: &str) -> String {
        let show = |path: &Path| path.to_str().unwrap().to_owned();
        let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let replacements = [
            ("@canary@", show(&self.canary)),
            ("@data@", show(&self.data())),
            ("@socket@", show(&self.directory.path().join("socket"))),
            ("@abstract@", self.name.clone()),
            ("@port@", self.port.local_addr().unwrap().port().to_string()),
            ("@pid@", self.bystander.lock().unwrap().id().to_string()),
            ("@parent@", std::process::id().to_string()),
            ("@hostname@", host_name.trim().to_owned()),
            ("@marker@", marker.to_owned()),
            ("@many@", json!(vec!["x"; 5000]).to_string()),
            ("@deep@", "[".repeat(5000) + &"]".repeat(5000)),
        ];
        let mut text = text.to_owned();
        for (name, value) in replacements {
            text = text.replace(name, &value);
        }
        text
    }

    /// Processes of the case that have outlived it.
    pub fn survivors(&self, marker: &str) -> Vec<String> {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let pids =
            processes.filter(|entry| entry.file_name().to_string_lossy().parse::<i32>().is_ok());
        let survivors = pids.filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(marker)
                .then(|| format!("process {:?} survived: {line}", entry.file_name()))
        });
        survivors.collect()
    }

    /// Files that the case has made where it must not.
    pub fn strays(&self, marker: &str) -> Vec<String> {
        let places = [
            "/", "/tmp", "/usr", "/usr/bin", "/etc", "/dev", "/dev/shm", "/run", "/var/tmp",
            "/root", "/home",
        ];
        let own = [self.directory.path().to_owned(), self.data()];
        let places = places.iter().map(PathBuf::from).chain(own);
        let strays = places.map(|place| place.join(format!("octo-{marker}")));
        strays
            .filter(|stray| stray.symlink_metadata().is_ok())
            .map(|stray| format!("{} was made", stray.display()))
            .collect()
    }

    /// What the cases together have done to the host.
    pub fn damage(&self) -> Vec<String> {
        let settings: Vec<_> = SETTINGS.map(|path| fs::read_to_string(path).ok()).into();
        let is_untouched = |error: std::io::Error| error.kind() == WouldBlock;
        [
            (
                fs::read_to_string(&self.canary).ok().as_ref() == Some(&self.secret),
                "the host's file was changed",
            ),
            (
                settings == self.settings,
                "a setting of the kernel was changed",
            ),
            (
                self.bystander.lock().unwrap().try_wait().unwrap().is_none(),
                "a process of the host was killed",
            ),
            (
                self.port.accept().is_err_and(is_untouched),
                "a port of the host was reached",
            ),
            (
                self.by_path.accept().is_err_and(is_untouched),
                "a socket of the host was reached",
            ),
            (
                self.by_name.accept().is_err_and(is_untouched),
                "an abstract socket of the host was reached",
            ),
        ]
        .into_iter()
        .filter(|(is_well, _)| !is_well)
        .map(|(_, damage)| damage.to_owned())
        .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let mut bystander = self.bystander.lock().unwrap();
        let _ = bystander.kill();
        let _ = bystander.wait();
    }
}
