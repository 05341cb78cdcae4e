//! The witness: hears of refused calls that tell of an attempt to get out, answers each with the error that the filter
//! would have given, and counts them (seccomp_unotify(2)).
//!
//! It looks at numbers and at arguments by value, which the kernel has copied; it allows nothing and reads no memory of
//! the caller, so nothing can change between its look and its answer. It lives in the sandbox's first process. After
//! [`MAX_TOLD`] calls it hangs up, and from then on, as if it died, the kernel answers `ENOSYS`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;

use super::calls::TELLING;
use super::{Denial, DenialKind, filter, syscall};

/// Calls that are told in one step, at most.
const MAX_TOLD: u64 = 64;

/// What was seen until now.
pub(super) struct Witness {
    listener: Option<OwnedFd>,
    told: u64,
    seen: BTreeMap<String, u64>,
}

impl Witness {
    /// A witness behind this end of a filter; none: it never hears of anything.
    pub(super) fn new(listener: Option<OwnedFd>) -> Self {
        Self {
            listener,
            told: 0,
            seen: BTreeMap::new(),
        }
    }

    /// Readable when a call waits for its answer.
    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Answers one call. Does nothing where the caller was killed meanwhile.
    pub(super) fn answer(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        let Ok(call) = syscall::receive_notification(listener) else {
            return;
        };
        let number = libc::c_long::from(call.data.nr);
        *self
            .seen
            .entry(describe(number, call.data.args))
            .or_default() += 1;
        self.told += 1;
        // Nobody waits any more where this fails.
        let _ = syscall::refuse_notification(listener, call.id, filter::refusal(number));
        if self.told == MAX_TOLD {
            self.listener = None;
        }
    }

    /// What it has seen.
    pub(super) fn denials(self) -> Vec<Denial> {
        let denials = self.seen.into_iter();
        denials
            .map(|(detail, count)| Denial {
                kind: DenialKind::Seccomp,
                detail,
                count,
            })
            .collect()
    }
}

fn describe(number: libc::c_long, arguments: [u64; 6]) -> String {
    let name = TELLING.iter().find(|(call, _)| *call == number);
    let name = name.map_or("unknown", |(_, name)| name);
    match number {
        libc::SYS_socket | libc::SYS_socketpair => {
            format!("{name} of family {}", arguments[0] as u32)
        }
        libc::SYS_ioctl => format!("{name} {:#x}", arguments[1] as u32),
        libc::SYS_clone => format!("{name} of a namespace"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named() {
        for (number, arguments, name) in [
            (libc::SYS_ptrace, [0; 6], "ptrace"),
            (libc::SYS_socket, [16, 3, 0, 0, 0, 0], "socket of family 16"),
            (libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0], "ioctl 0x5412"),
            (libc::SYS_clone, [0; 6], "clone of a namespace"),
        ] {
            assert_eq!(describe(number, arguments), name);
        }
    }
}
