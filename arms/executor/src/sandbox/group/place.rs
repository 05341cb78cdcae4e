//! Where control groups are, and whose they are.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Version of the kernel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Each controller in a hierarchy of its own.
    One,
    /// One hierarchy for all.
    Two,
}

/// A hierarchy, and this process's place in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub version: Version,
    /// Of version 1: the controllers. Of version 2 each directory says so itself.
    controllers: Vec<String>,
    mount: PathBuf,
    own: PathBuf,
}

/// The hierarchies, by `/proc/self/cgroup` (cgroups(7)) and `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Those that
/// are not mounted, or mounted so that this process's group is not below, are left out.
pub(super) fn hierarchies(cgroup: &str, mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo
        .lines()
        .filter_map(|line| hierarchy(cgroup, line))
        .collect()
}

fn hierarchy(cgroup: &str, mount: &str) -> Option<Hierarchy> {
    let (place, kind) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, mount) = (place.next()?, PathBuf::from(place.next()?));
    let mut kind = kind.split(' ');
    let (version, options) = match kind.next()? {
        "cgroup" => (Version::One, kind.nth(1)?),
        "cgroup2" => (Version::Two, ""),
        _ => return None,
    };
    let options: Vec<&str> = options.split(',').collect();
    let (controllers, path) = cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let names: Vec<&str> = controllers.split(',').collect();
        let is_it = match version {
            Version::One => {
                !controllers.is_empty() && names.iter().all(|name| options.contains(name))
            }
            Version::Two => controllers.is_empty(),
        };
        is_it.then_some((names, path))
    })?;
    let below = Path::new(path).strip_prefix(root).ok()?;
    if below
        .components()
        .any(|part| part == std::path::Component::ParentDir)
    {
        return None;
    }
    Some(Hierarchy {
        version,
        controllers: controllers.into_iter().map(str::to_owned).collect(),
        own: mount.join(below),
        mount,
    })
}

impl Hierarchy {
    /// Where groups may be made: in our own, or beside it. Version 2 gives no controllers to the groups below one that has
    /// processes; who delegates a group to us (systemd: `Delegate=`, `DelegateSubgroup=`) puts us into one below it.
    pub(super) fn candidates(&self) -> impl Iterator<Item = PathBuf> {
        let beside = self.own.parent().map(Path::to_owned);
        let beside =
            beside.filter(|parent| self.version == Version::Two && parent.starts_with(&self.mount));
        [Some(self.own.clone()), beside].into_iter().flatten()
    }

    /// Whether it could have the controller at all.
    pub(super) fn may_have(&self, controller: &str) -> bool {
        self.version == Version::Two || self.controllers.iter().any(|name| name == controller)
    }

    /// Whether the groups in this directory can have the controller; switches it on where it is not.
    pub(super) fn offers(&self, directory: &Path, controller: &str) -> bool {
        if self.version == Version::One {
            return self.may_have(controller);
        }
        let lists = |file: &str| {
            fs::read_to_string(directory.join(file))
                .is_ok_and(|names| names.split_whitespace().any(|name| name == controller))
        };
        let switch = "cgroup.subtree_control";
        lists("cgroup.controllers")
            && (lists(switch)
                || fs::write(directory.join(switch), format!("+{controller}")).is_ok())
    }
}

/// Who made a group: a process, by what no other one has in common with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Maker {
    /// Its process id namespace: numbers of another mean nothing here.
    namespace: u64,
    process: u32,
    /// When it started, in ticks since the boot: process ids are used again.
    started: u64,
}

const PREFIX: &str = "octollm-step";

impl Maker {
    /// This process.
    pub(super) fn this() -> io::Result<Self> {
        let process = std::process::id();
        let started =
            started(process).ok_or_else(|| io::Error::other("/proc/self/stat can't be read"))?;
        Ok(Self {
            namespace: namespace()?,
            process,
            started,
        })
    }

    fn parse(name: &str) -> Option<Self> {
        let mut numbers = name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-');
        let maker = Self {
            namespace: numbers.next()?.parse().ok()?,
            process: numbers.next()?.parse().ok()?,
            started: numbers.next()?.parse().ok()?,
        };
        let _: u64 = numbers.next()?.parse().ok()?;
        numbers.next().is_none().then_some(maker)
    }
}

impl fmt::Display for Maker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{PREFIX}-{}-{}-{}",
            self.namespace, self.process, self.started
        )
    }
}

/// Whether a group of this name was made by a process of our namespace that is no more.
pub(super) fn is_left_over(name: &str) -> bool {
    Maker::parse(name).is_some_and(|maker| {
        namespace().is_ok_and(|ours| ours == maker.namespace)
            && started(maker.process) != Some(maker.started)
    })
}

fn namespace() -> io::Result<u64> {
    fs::metadata("/proc/self/ns/pid").map(|found| found.ino())
}

/// Field 22 of proc_pid_stat(5); the second, a name in parentheses, may hold anything.
fn started(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

/// The name of a group whose maker was a process before this one.
#[cfg(test)]
pub(super) fn left_over_name() -> String {
    let this = Maker::this().expect("this process is there");
    let started = this.started - 1;
    format!("{}-0", Maker { started, ..this })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(cgroup: &str, mountinfo: &str) -> Vec<(Version, String)> {
        let found = hierarchies(cgroup, mountinfo);
        found
            .into_iter()
            .map(|found| (found.version, found.own.display().to_string()))
            .collect()
    }

    #[test]
    fn a_host_of_both_versions() {
        let cgroup = "4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/c\n";
        let mountinfo = "30 1 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            31 30 0:2 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
            32 30 0:3 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            33 30 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            own(cgroup, mountinfo),
            [
                (Version::One, "/sys/fs/cgroup/cpu,cpuacct/".to_owned()),
                (Version::One, "/sys/fs/cgroup/memory/a/b".to_owned()),
                (Version::Two, "/sys/fs/cgroup/unified/c".to_owned()),
            ]
        );
    }

    #[test]
    fn a_container_sees_its_part() {
        let mounted = |root| format!("33 30 0:4 {root} /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
        let at = |cgroup, root| own(cgroup, &mounted(root));
        let here = |path: &str| vec![(Version::Two, path.to_owned())];
        assert_eq!(at("0::/", "/"), here("/sys/fs/cgroup/"));
        assert_eq!(at("0::/docker/x/y", "/docker/x"), here("/sys/fs/cgroup/y"));
        assert_eq!(at("0::/elsewhere", "/docker/x"), []);
        assert_eq!(at("0::/../x", "/"), []);
    }

    #[test]
    fn beside_our_own_group_but_not_above_the_mount() {
        let mountinfo = "33 30 0:4 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let candidates = |cgroup| {
            let found = hierarchies(cgroup, mountinfo).remove(0);
            found
                .candidates()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            candidates("0::/a.service/b"),
            ["/sys/fs/cgroup/a.service/b", "/sys/fs/cgroup/a.service"]
        );
        assert_eq!(candidates("0::/"), ["/sys/fs/cgroup/"]);
    }

    #[test]
    fn only_the_groups_of_the_dead_are_left_over() {
        let this = Maker::this().unwrap();
        assert_eq!(
            Maker::parse(&format!("{this}-7")),
            Some(Maker::this().unwrap())
        );
        assert!(!is_left_over(&format!("{this}-7")));
        let earlier = Maker {
            started: this.started - 1,
            ..Maker::this().unwrap()
        };
        assert!(is_left_over(&format!("{earlier}-7")));
        let elsewhere = Maker {
            namespace: this.namespace + 1,
            ..earlier
        };
        assert!(!is_left_over(&format!("{elsewhere}-7")));
        for name in [
            "octollm-step",
            "octollm-step-1-2-3",
            "octollm-step-1-2-3-4-5",
            "octollm-step-1-2-x-4",
            "system.slice",
        ] {
            assert!(!is_left_over(name), "{name}");
        }
    }
}
