//! An alarm for when a step has used up its memory, or asks again and again for processes that it may not have.
//!
//! Version 2 of the kernel's interface kills a whole group that has used up its memory (`memory.oom.group`); version 1
//! kills one process, and tells who asked to be told (`cgroup.event_control`).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::place::Version;
use super::{Controller, Place};
use crate::sandbox::syscall::watched;

/// Processes refused after which a step is taken for one that will never end: who can do without has by then.
const REFUSALS: u64 = 100;

/// How often they are counted: in version 1 the kernel tells nobody of a change in `pids.events`.
const LOOK: Duration = Duration::from_millis(50);

/// What was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Exhausted {
    /// The memory.
    Memory,
    /// The processes, many times over.
    Processes,
}

/// Rings once; never where the host tells of nothing.
#[derive(Debug)]
pub(in crate::sandbox) struct Alarm {
    memory: Option<AsyncFd<File>>,
    processes: Option<File>,
}

impl Alarm {
    pub(super) fn of(members: &[Place]) -> Self {
        let holder = |controller| {
            let mut members = members.iter();
            members.find(|member| member.controllers.contains(&controller))
        };
        let memory = holder(Controller::Memory).filter(|member| member.version == Version::One);
        let told = |what, error: io::Error| tracing::debug!(%error, what, "no alarm");
        Self {
            memory: memory.and_then(|member| {
                let asked = ask_for_memory(member);
                asked.map_err(|error| told("memory", error)).ok()
            }),
            processes: holder(Controller::Pids).and_then(|member| {
                let events = File::open(member.directory.join("pids.events"));
                events.map_err(|error| told("processes", error)).ok()
            }),
        }
    }

    /// Waits until something is used up.
    pub(in crate::sandbox) async fn rings(&self) -> Exhausted {
        let memory = async {
            match &self.memory {
                Some(memory) if memory.readable().await.is_ok() => Exhausted::Memory,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            exhausted = memory => exhausted,
            exhausted = self.refused_often() => exhausted,
        }
    }

    async fn refused_often(&self) -> Exhausted {
        let Some(events) = &self.processes else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(LOOK).await;
            if refusals(events).is_some_and(|count| count >= REFUSALS) {
                return Exhausted::Processes;
            }
        }
    }
}

fn ask_for_memory(member: &Place) -> io::Result<AsyncFd<File>> {
    let told = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let told = File::from(OwnedFd::from(told));
    let control = File::open(member.directory.join("memory.oom_control"))?;
    let request = format!("{} {}", told.as_raw_fd(), control.as_raw_fd());
    fs::write(member.directory.join("cgroup.event_control"), request)?;
    watched(told, Interest::READABLE)
}

fn refusals(events: &File) -> Option<u64> {
    let mut text = [0; 256];
    let length = events.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("max "));
    line?.trim().parse().ok()
}
