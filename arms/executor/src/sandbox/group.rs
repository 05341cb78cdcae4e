//! Control groups: what a step may use as a whole, and a way to kill it that nothing escapes.
//!
//! Each step gets a group of its own in every hierarchy that can hold one: of version 2 where the controllers are there,
//! of version 1 where they are not; both at once on hosts that mix them. What a host does not give us is left to the
//! limits of each process, and no layer claims it.

mod alarm;
mod place;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(super) use self::alarm::{Alarm, Exhausted};
use self::place::{Hierarchy, Version};
use super::init::OUR_PROCESSES;
use super::{Denial, DenialKind, Layer, Limits};
use crate::workspace::Caps;

/// What the launcher and the first process may use besides the programs.
const OUR_BYTES: u64 = 8 << 20;
/// Processor time of a step, microseconds in each period: one processor.
const CPU_QUOTA: u32 = 100_000;
const CPU_PERIOD: u32 = 100_000;
/// How long a killed group may take to become empty.
const EMPTY_TIME: Duration = Duration::from_secs(5);
const EMPTY_POLL: Duration = Duration::from_millis(2);

/// Counts the groups of this process, whoever makes them.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// What limits something for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
    Cpu,
}

const CONTROLLERS: [(Controller, &str, Layer); 3] = [
    (Controller::Memory, "memory", Layer::StepMemory),
    (Controller::Pids, "pids", Layer::StepProcesses),
    (Controller::Cpu, "cpu", Layer::StepCpu),
];

/// Where this host lets us make groups.
#[derive(Debug)]
pub(super) struct Groups {
    places: Vec<Place>,
}

/// A directory in which groups can be made, and what can be limited there.
#[derive(Debug, Clone)]
struct Place {
    directory: PathBuf,
    version: Version,
    controllers: Vec<Controller>,
}

impl Groups {
    /// Looks for hierarchies in which this process can make groups, tries each, and removes what dead executors have left.
    pub(super) fn find() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let hierarchies =
            place::hierarchies(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        let mut places: Vec<Place> = Vec::new();
        for hierarchy in &hierarchies {
            let Some(mut place) = usable(hierarchy) else {
                continue;
            };
            // A controller belongs to one hierarchy; a host that says otherwise is believed the first time.
            let taken = |controller: &Controller| {
                places
                    .iter()
                    .any(|place| place.controllers.contains(controller))
            };
            place.controllers.retain(|controller| !taken(controller));
            sweep(&place.directory);
            if place.version == Version::Two || !place.controllers.is_empty() {
                places.push(place);
            }
        }
        tracing::info!(?places, "control groups for steps");
        Self { places }
    }

    /// A group with these limits, with the process in it, and all that it starts.
    ///
    /// # Errors
    /// What could be done at the start can't be done any more.
    pub(super) fn enclose(&self, process: u32, limits: &Limits) -> io::Result<Group> {
        let mut group = Group::new();
        for place in &self.places {
            group.members.push(place.make(&own_name()?)?);
            let member = &group.members[group.members.len() - 1];
            for controller in &member.controllers {
                member.limit(*controller, limits)?;
            }
            fs::write(member.directory.join("cgroup.procs"), process.to_string())?;
        }
        Ok(group)
    }

    /// What is left to the limits of each process where groups hold the step as a whole.
    pub(super) fn remainder(&self, limits: &Limits) -> Limits {
        let holds = |controller| {
            self.places
                .iter()
                .any(|place| place.controllers.contains(&controller))
        };
        Limits {
            // Address space is reserved generously by many a runtime that never uses it.
            memory_bytes: if holds(Controller::Memory) {
                u64::MAX
            } else {
                limits.memory_bytes
            },
            // One more, so that it is the group that refuses, and counts it.
            processes: limits.processes + u64::from(holds(Controller::Pids)),
            ..*limits
        }
    }
}

/// The first directory of the hierarchy in which a group can be made, and limited by as many controllers as it has.
fn usable(hierarchy: &Hierarchy) -> Option<Place> {
    let offered = CONTROLLERS
        .iter()
        .filter(|(_, name, _)| hierarchy.may_have(name));
    if offered.count() == 0 {
        return None;
    }
    let name = own_name().ok()?;
    let tried = hierarchy.candidates().filter_map(|directory| {
        let controllers = CONTROLLERS
            .into_iter()
            .filter(|(_, name, _)| hierarchy.offers(&directory, name))
            .map(|(controller, ..)| controller)
            .collect();
        let mut place = Place {
            directory,
            version: hierarchy.version,
            controllers,
        };
        let group = place.make(&name).ok()?;
        let limits = Limits {
            wall: Duration::ZERO,
            cpu_seconds: 0,
            memory_bytes: 1 << 30,
            processes: 64,
            open_files: 0,
            file_bytes: 0,
            tmp_bytes: 0,
            workspace: Caps::default(),
            output_bytes: 0,
        };
        place
            .controllers
            .retain(|controller| group.limit(*controller, &limits).is_ok());
        fs::remove_dir(&group.directory).ok()?;
        Some(place)
    });
    // The place with most; the first of these.
    tried.reduce(|best, next| {
        if next.controllers.len() > best.controllers.len() {
            next
        } else {
            best
        }
    })
}

impl Place {
    fn make(&self, name: &str) -> io::Result<Self> {
        let directory = self.directory.join(name);
        fs::create_dir(&directory)?;
        Ok(Self {
            directory,
            ..self.clone()
        })
    }

    fn limit(&self, controller: Controller, limits: &Limits) -> io::Result<()> {
        let set = |file: &str, value: String| fs::write(self.directory.join(file), value);
        let if_there = |result: io::Result<()>| match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()), // a kernel that counts no swap
            other => other,
        };
        let bytes = limits.memory_bytes.saturating_add(OUR_BYTES).to_string();
        match (controller, self.version) {
            (Controller::Memory, Version::One) => {
                set("memory.limit_in_bytes", bytes.clone())?;
                if_there(set("memory.memsw.limit_in_bytes", bytes))
            }
            (Controller::Memory, Version::Two) => {
                set("memory.max", bytes)?;
                // A step with a part of it killed is of no use to anybody.
                if_there(set("memory.oom.group", "1".to_owned()))?;
                if_there(set("memory.swap.max", "0".to_owned()))
            }
            (Controller::Pids, _) => {
                set("pids.max", (limits.processes + OUR_PROCESSES).to_string())
            }
            (Controller::Cpu, Version::One) => {
                set("cpu.cfs_period_us", CPU_PERIOD.to_string())?;
                set("cpu.cfs_quota_us", CPU_QUOTA.to_string())
            }
            (Controller::Cpu, Version::Two) => set("cpu.max", format!("{CPU_QUOTA} {CPU_PERIOD}")),
        }
    }

    /// The number behind a name in one of the group's files, or the only number there.
    fn count(&self, file: &str, name: Option<&str>) -> Option<u64> {
        let text = fs::read_to_string(self.directory.join(file)).ok()?;
        match name {
            None => text.trim().parse().ok(),
            Some(name) => text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse().ok()),
        }
    }

    fn kill(&self) {
        if fs::write(self.directory.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        // Version 1, or a kernel before 5.14. Who forks faster than this is stopped by the first process's end.
        let members = fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default();
        for process in members.lines().filter_map(|line| line.parse().ok()) {
            if process > 0 {
                let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
            }
        }
    }

    /// The kernel removes no group with a process in it: that it is gone confirms that it was empty.
    fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// What a group has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Evidence {
    /// Processes that the kernel killed because the group's memory was used up.
    pub oom_kills: u64,
    /// Processes and threads that were refused because there were as many as granted.
    pub refused_processes: u64,
    /// The most memory that all processes had together, bytes.
    pub memory_peak_bytes: Option<u64>,
    /// The most processes and threads at once.
    pub processes_peak: Option<u64>,
    /// User and system time of all processes.
    pub cpu: Option<Duration>,
}

impl Evidence {
    /// What its limits denied.
    pub(super) fn denials(&self) -> impl Iterator<Item = Denial> {
        let denial = |kind, detail: &str, count| {
            (count > 0).then(|| Denial {
                kind,
                detail: detail.to_owned(),
                count,
            })
        };
        [
            denial(DenialKind::Oom, "memory", self.oom_kills),
            denial(DenialKind::Pids, "processes", self.refused_processes),
        ]
        .into_iter()
        .flatten()
    }
}

/// The groups of one step, one in each hierarchy. Dropping it kills what is inside.
#[derive(Debug)]
pub(super) struct Group {
    members: Vec<Place>,
}

impl Group {
    fn new() -> Self {
        Self {
            members: Vec::new(),
        }
    }

    /// What is in force by it.
    pub(super) fn layers(&self) -> Vec<Layer> {
        let holds = |controller| {
            self.members
                .iter()
                .any(|member| member.controllers.contains(&controller))
        };
        let mut layers: Vec<Layer> = CONTROLLERS
            .into_iter()
            .filter(|(controller, ..)| holds(*controller))
            .map(|(.., layer)| layer)
            .collect();
        let can_kill = |member: &Place| member.directory.join("cgroup.kill").exists();
        if self.members.iter().any(can_kill) {
            layers.push(Layer::CgroupKill);
        }
        layers
    }

    /// What it has seen until now.
    pub(super) fn evidence(&self) -> Evidence {
        let mut evidence = Evidence::default();
        for member in &self.members {
            for controller in &member.controllers {
                match (controller, member.version) {
                    (Controller::Memory, Version::One) => {
                        evidence.oom_kills = member
                            .count("memory.oom_control", Some("oom_kill "))
                            .unwrap_or(0);
                        evidence.memory_peak_bytes =
                            member.count("memory.max_usage_in_bytes", None);
                    }
                    (Controller::Memory, Version::Two) => {
                        evidence.oom_kills = member
                            .count("memory.events", Some("oom_kill "))
                            .unwrap_or(0);
                        evidence.memory_peak_bytes = member.count("memory.peak", None);
                    }
                    (Controller::Pids, _) => {
                        evidence.refused_processes =
                            member.count("pids.events", Some("max ")).unwrap_or(0);
                        evidence.processes_peak = member.count("pids.peak", None);
                    }
                    (Controller::Cpu, Version::One) => {
                        let used = member.count("cpuacct.usage", None);
                        evidence.cpu = used.map(Duration::from_nanos);
                    }
                    (Controller::Cpu, Version::Two) => {
                        let used = member.count("cpu.stat", Some("usage_usec "));
                        evidence.cpu = used.map(Duration::from_micros);
                    }
                }
            }
        }
        evidence
    }

    /// Rings when it has used up what it may have.
    pub(super) fn alarm(&self) -> Alarm {
        Alarm::of(&self.members)
    }

    /// Kills everything inside.
    pub(super) fn kill(&self) {
        self.members.iter().for_each(Place::kill);
    }

    /// Removes the groups, which confirms that nobody is left inside; kills who is.
    ///
    /// # Errors
    /// Somebody is left.
    pub(super) fn close(mut self) -> io::Result<()> {
        empty(&std::mem::take(&mut self.members))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let members = std::mem::take(&mut self.members);
        if members.is_empty() {
            return;
        }
        members.iter().for_each(Place::kill);
        // The dead take a moment to leave, and nobody can be made to wait here.
        let _ = std::thread::Builder::new()
            .name("sandbox-groups".to_owned())
            .spawn(move || {
                if let Err(error) = empty(&members) {
                    tracing::warn!(%error, "a control group is left; the next start removes it");
                }
            });
    }
}

/// Removes groups, killing who is inside, again and again until nobody is.
fn empty(members: &[Place]) -> io::Result<()> {
    let deadline = Instant::now() + EMPTY_TIME;
    loop {
        let left: Vec<io::Error> = members
            .iter()
            .filter_map(|member| member.remove().err())
            .collect();
        let Some(error) = left.into_iter().next() else {
            return Ok(());
        };
        if Instant::now() > deadline {
            return Err(error);
        }
        members.iter().for_each(Place::kill);
        std::thread::sleep(EMPTY_POLL);
    }
}

/// Kills and removes the groups of executors that are no more.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(place::is_left_over) {
            let group = Place {
                directory: entry.path(),
                version: Version::One,
                controllers: Vec::new(),
            };
            match empty(&[group]) {
                Ok(()) => tracing::info!(?name, "the control group of a dead executor is removed"),
                Err(error) => tracing::warn!(?name, %error, "a control group can't be removed"),
            }
        }
    }
}

/// A name that says whose group it is.
fn own_name() -> io::Result<String> {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{}-{number}", place::Maker::this()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_a_dead_executor_has_left_is_emptied_and_removed() {
        // On a host that lets us make no groups there is nothing to sweep.
        for place in Groups::find().places {
            let mut survivor = Command::new("sleep").arg("600").spawn().unwrap();
            let left = place.make(&place::left_over_name()).unwrap();
            let own = place.make(&own_name().unwrap()).unwrap();
            let members = left.directory.join("cgroup.procs");
            fs::write(members, survivor.id().to_string()).unwrap();
            sweep(&place.directory);
            assert!(!left.directory.exists(), "{left:?}");
            assert_eq!(survivor.wait().unwrap().signal(), Some(9));
            assert!(
                own.directory.exists(),
                "it removed the group of a living executor"
            );
            own.remove().unwrap();
        }
    }

    #[test]
    fn a_group_that_is_dropped_leaves_nobody() {
        let groups = Groups::find();
        if groups.places.is_empty() {
            return;
        }
        let mut member = Command::new("sleep").arg("600").spawn().unwrap();
        let limits = Limits {
            wall: Duration::ZERO,
            cpu_seconds: 1,
            memory_bytes: 64 << 20,
            processes: 4,
            open_files: 4,
            file_bytes: 1,
            tmp_bytes: 1,
            workspace: Caps::default(),
            output_bytes: 1,
        };
        let group = groups.enclose(member.id(), &limits).unwrap();
        let directories: Vec<PathBuf> = group
            .members
            .iter()
            .map(|member| member.directory.clone())
            .collect();
        drop(group);
        assert_eq!(member.wait().unwrap().signal(), Some(9));
        let deadline = Instant::now() + Duration::from_secs(60);
        while directories.iter().any(|directory| directory.exists()) {
            assert!(Instant::now() < deadline, "{directories:?}");
            std::thread::sleep(EMPTY_POLL);
        }
    }
}
