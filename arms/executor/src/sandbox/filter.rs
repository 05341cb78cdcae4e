//! The filter of system calls (seccomp): what the calls table lets through, and under which arguments.
//!
//! Everything that a kernel may learn later, and `clone3`, whose flags a filter can't read, is answered as if the
//! kernel did not know it (`ENOSYS`): programs then fall back to what they did before. What is known to be dangerous is
//! refused (`EPERM`). Only a call by the numbers of another architecture kills: there, no number means what it says.
//! Arguments are compared by their value alone, never through a pointer: the memory behind one can change after the look.
//!
//! Where the kernel can, refusals that tell of an attempt to get out go past the [`witness`](super::witness), which
//! answers the same and counts them.

use nix::libc;
use nix::libc::sock_filter;
use sha2::{Digest, Sha256};

use super::calls::{ALLOWED, AUDIT_ARCH, REFUSED, TELLING};

/// Offsets in `struct seccomp_data`: the number, the architecture, and the low halves of the 64-bit arguments.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(index: u32) -> u32 {
    let low_half = if cfg!(target_endian = "little") { 0 } else { 4 };
    16 + 8 * index + low_half
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const UNKNOWN: u32 = refuse(libc::ENOSYS);
const FORBIDDEN: u32 = refuse(libc::EPERM);
const NO_FAMILY: u32 = refuse(libc::EAFNOSUPPORT);
/// The witness answers; without one the kernel does (`ENOSYS`).
const TELL: u32 = libc::SECCOMP_RET_USER_NOTIF;
/// From here on, numbers of the x32 ABI: other entries to the same calls.
const X32: u32 = 0x4000_0000;

/// Every flag of `clone` that makes a namespace. (That of time namespaces is not among `clone`'s.)
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();
/// Put input into a terminal, paste into a console, change a terminal's line discipline.
const TERMINAL_REQUESTS: [u32; 3] = [0x5412, 0x541C, 0x5423];
/// The plain personality, and the question which one it is.
const PERSONALITIES: [u32; 2] = [0, u32::MAX];
/// What a program may ask of `prctl` about itself. Nothing here gives a right or opens it to other processes.
const PROCESS_OPTIONS: [libc::c_int; 17] = [
    libc::PR_SET_PDEATHSIG,
    libc::PR_GET_PDEATHSIG,
    libc::PR_GET_DUMPABLE,
    libc::PR_SET_DUMPABLE,
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_GET_SECCOMP,
    libc::PR_CAPBSET_READ,
    libc::PR_SET_TIMERSLACK,
    libc::PR_GET_TIMERSLACK,
    libc::PR_GET_SECUREBITS,
    libc::PR_SET_CHILD_SUBREAPER,
    libc::PR_GET_CHILD_SUBREAPER,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_THP_DISABLE,
    libc::PR_SET_VMA,
];
/// `memfd_create` must ask for a file that can never be executed, for it lies on no mount that forbids it.
const NEVER_EXECUTABLE: u32 = libc::MFD_NOEXEC_SEAL;

/// What becomes of a call whose number is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Always the same answer.
    Answer(u32),
    /// Allowed, or refused, by the value of an argument.
    Inspect(Inspection),
}

/// A look at the low half of one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inspection {
    argument: u32,
    question: Question,
    yes: u32,
    no: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Question {
    /// Is it one of these?
    IsAny(Vec<u32>),
    /// Does it have one of these bits?
    HasAny(u32),
}

impl Verdict {
    /// The same with every refusal made one that is told.
    fn told(self) -> Self {
        let told = |value| if value == ALLOW { ALLOW } else { TELL };
        match self {
            Self::Answer(value) => Self::Answer(told(value)),
            Self::Inspect(inspection) => Self::Inspect(Inspection {
                yes: told(inspection.yes),
                no: told(inspection.no),
                ..inspection
            }),
        }
    }
}

/// The error of a refused call, whatever its arguments.
pub(super) fn refusal(call: libc::c_long) -> libc::c_int {
    match call {
        libc::SYS_socket | libc::SYS_socketpair => libc::EAFNOSUPPORT,
        libc::SYS_clone | libc::SYS_ioctl => libc::EPERM,
        call if REFUSED.contains(&call) => libc::EPERM,
        _ => libc::ENOSYS,
    }
}

/// The verdict on each number up to the last known one, were its architecture right.
fn verdicts(is_told: bool) -> Vec<Verdict> {
    let one_of = |values: &[u32]| Question::IsAny(values.to_vec());
    let family = || one_of(&[libc::AF_UNIX.cast_unsigned()]);
    let options = PROCESS_OPTIONS.map(i32::cast_unsigned);
    let inspected = [
        (
            libc::SYS_clone,
            0,
            Question::HasAny(NAMESPACES),
            FORBIDDEN,
            ALLOW,
        ),
        (libc::SYS_socket, 0, family(), ALLOW, NO_FAMILY),
        (libc::SYS_socketpair, 0, family(), ALLOW, NO_FAMILY),
        (
            libc::SYS_ioctl,
            1,
            one_of(&TERMINAL_REQUESTS),
            FORBIDDEN,
            ALLOW,
        ),
        (
            libc::SYS_personality,
            0,
            one_of(&PERSONALITIES),
            ALLOW,
            FORBIDDEN,
        ),
        (libc::SYS_prctl, 0, one_of(&options), ALLOW, FORBIDDEN),
        // One's own limits only: the first process is of the same user.
        (libc::SYS_prlimit64, 0, one_of(&[0]), ALLOW, FORBIDDEN),
        (
            libc::SYS_memfd_create,
            1,
            Question::HasAny(NEVER_EXECUTABLE),
            ALLOW,
            UNKNOWN,
        ),
    ];
    let mut verdicts = Vec::new();
    let mut set = |call: libc::c_long, verdict| {
        let number = usize::try_from(call).expect("numbers of calls are not negative");
        if verdicts.len() <= number {
            verdicts.resize(number + 1, Verdict::Answer(UNKNOWN));
        }
        verdicts[number] = verdict;
    };
    for call in ALLOWED {
        set(*call, Verdict::Answer(ALLOW));
    }
    for call in REFUSED {
        set(*call, Verdict::Answer(FORBIDDEN));
    }
    for (call, argument, question, yes, no) in inspected {
        let inspection = Inspection {
            argument,
            question,
            yes,
            no,
        };
        set(call, Verdict::Inspect(inspection));
    }
    let telling = TELLING.iter().filter(|_| is_told);
    for (call, _) in telling {
        let number = usize::try_from(*call).expect("numbers of calls are not negative");
        if verdicts.len() <= number {
            verdicts.resize(number + 1, Verdict::Answer(UNKNOWN));
        }
        verdicts[number] = verdicts[number].clone().told();
    }
    verdicts
}

/// The filter, as the kernel takes it; `is_told`: there will be a witness.
///
/// After the checks of the architecture the numbers come in ascending runs of the same verdict, each behind one
/// comparison; the kernel remembers what it always allows, so the length costs nothing.
pub(super) fn program(is_told: bool) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE),
        equal(AUDIT_ARCH, 1, 0),
        answer(KILL),
        load(NUMBER),
        at_least(X32, 0, 1),
        answer(KILL),
    ];
    let mut next = 0;
    for run in verdicts(is_told).chunk_by(|one, other| one == other) {
        next += u32::try_from(run.len()).expect("a run of calls is short");
        let block = block(&run[0]);
        let length = u8::try_from(block.len()).expect("a verdict takes some instructions");
        program.push(at_least(next, length, 0));
        program.extend(block);
    }
    program.push(answer(UNKNOWN));
    program
}

/// SHA-256 of a filter as the kernel gets it, lower-case hex.
pub(super) fn digest(program: &[sock_filter]) -> String {
    let mut digest = Sha256::new();
    for instruction in program {
        digest.update(instruction.code.to_ne_bytes());
        digest.update([instruction.jt, instruction.jf]);
        digest.update(instruction.k.to_ne_bytes());
    }
    hex::encode(digest.finalize())
}

fn block(verdict: &Verdict) -> Vec<sock_filter> {
    let Inspection {
        argument: index,
        question,
        yes,
        no,
    } = match verdict {
        Verdict::Answer(value) => return vec![answer(*value)],
        Verdict::Inspect(inspection) => inspection,
    };
    let mut block = vec![load(argument(*index))];
    match question {
        Question::HasAny(bits) => block.push(has_any(*bits, 1, 0)),
        Question::IsAny(values) => {
            for (left, value) in (1_u8..=u8::MAX).zip(values.iter().rev()) {
                block.insert(1, equal(*value, left, 0));
            }
        }
    }
    block.extend([answer(*no), answer(*yes)]);
    block
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

const fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

const fn equal(value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value)
}

const fn at_least(value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, yes, no, value)
}

const fn has_any(bits: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, yes, no, bits)
}

const fn answer(value: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

const fn refuse(errno: libc::c_int) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ;
    const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE;
    const HAS_ANY: u32 = libc::BPF_JMP | libc::BPF_JSET;
    const RETURN: u32 = libc::BPF_RET;

    /// Runs the filter as the kernel would.
    fn simulate(
        program: &[sock_filter],
        architecture: u32,
        number: u32,
        arguments: [u64; 6],
    ) -> u32 {
        let (mut accumulator, mut counter) = (0_u32, 0);
        loop {
            let at = program[counter];
            counter += 1;
            let jump = |yes: bool| usize::from(if yes { at.jt } else { at.jf });
            match u32::from(at.code) {
                LOAD => {
                    accumulator = match at.k {
                        0 => number,
                        4 => architecture,
                        offset => {
                            assert_eq!(offset % 8, 0, "the high half of an argument");
                            arguments[(offset as usize - 16) / 8] as u32
                        }
                    }
                }
                EQUAL => counter += jump(accumulator == at.k),
                AT_LEAST => counter += jump(accumulator >= at.k),
                HAS_ANY => counter += jump(accumulator & at.k != 0),
                RETURN => return at.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    fn answer_to(number: libc::c_long, arguments: [u64; 6]) -> u32 {
        let number = u32::try_from(number).unwrap();
        simulate(&program(false), AUDIT_ARCH, number, arguments)
    }

    fn first(value: u64) -> [u64; 6] {
        [value, 0, 0, 0, 0, 0]
    }

    fn second(value: u64) -> [u64; 6] {
        [0, value, 0, 0, 0, 0]
    }

    #[test]
    fn every_number_has_the_answer_of_the_table() {
        let program = program(false);
        assert!(program.len() < 4096, "{} instructions", program.len());
        let mut allowed = 0;
        for number in 0..600 {
            let seen = simulate(&program, AUDIT_ARCH, number, [0; 6]);
            let call = libc::c_long::from(number);
            let expected = match call {
                libc::SYS_socket | libc::SYS_socketpair => NO_FAMILY,
                libc::SYS_prctl => FORBIDDEN,
                libc::SYS_memfd_create => UNKNOWN,
                libc::SYS_clone | libc::SYS_ioctl | libc::SYS_personality => ALLOW,
                _ if REFUSED.contains(&call) => FORBIDDEN,
                _ if ALLOWED.contains(&call) => ALLOW,
                _ => UNKNOWN,
            };
            assert_eq!(seen, expected, "call {number}");
            allowed += u32::from(seen == ALLOW);
        }
        assert!((150..260).contains(&allowed), "{allowed} calls are allowed");
    }

    #[test]
    fn with_a_witness_the_same_is_allowed_and_what_tells_is_told() {
        let (silent, told) = (program(false), program(true));
        let is_telling = |call| TELLING.iter().any(|(telling, _)| *telling == call);
        let mut seen = 0;
        for number in 0..600 {
            for value in [0, 1, 16, 0x5412, u64::MAX] {
                let at = |program| simulate(program, AUDIT_ARCH, number, [value; 6]);
                let (silent, told) = (at(&silent), at(&told));
                if silent != ALLOW && is_telling(libc::c_long::from(number)) {
                    assert_eq!(told, TELL, "call {number}");
                    let errno = refuse(refusal(libc::c_long::from(number)));
                    assert_eq!(errno, silent, "call {number}");
                    seen += 1;
                } else {
                    assert_eq!(told, silent, "call {number}");
                }
            }
        }
        assert!(seen >= TELLING.len(), "{seen}");
        for architecture in [0x4000_0003, 0] {
            assert_eq!(simulate(&told, architecture, 101, [0; 6]), KILL);
        }
    }

    #[test]
    fn nothing_is_both_allowed_and_refused() {
        for call in ALLOWED {
            assert!(!REFUSED.contains(call), "{call}");
        }
    }

    #[test]
    fn no_dangerous_call_is_allowed_whatever_its_arguments() {
        for call in [
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_bpf,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_name_to_handle_at,
            libc::SYS_open_by_handle_at,
            libc::SYS_mknodat,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_vmsplice,
            libc::SYS_syslog,
            libc::SYS_clock_settime,
            libc::SYS_clock_adjtime,
            libc::SYS_settimeofday,
            libc::SYS_adjtimex,
            libc::SYS_clone3,
            libc::SYS_execveat,
            libc::SYS_seccomp,
        ] {
            for value in [0, 1, u64::MAX] {
                assert_ne!(answer_to(call, [value; 6]), ALLOW, "call {call}");
            }
        }
    }

    #[test]
    fn another_architecture_is_killed() {
        // i386 and 32-bit Arm: their numbers mean other calls.
        for architecture in [0x4000_0003, 0x4000_0028, 0] {
            for number in 0..600 {
                assert_eq!(
                    simulate(&program(false), architecture, number, [0; 6]),
                    KILL
                );
            }
        }
        for number in [X32, X32 | 1, X32 | 59, u32::MAX] {
            assert_eq!(simulate(&program(false), AUDIT_ARCH, number, [0; 6]), KILL);
        }
    }

    #[test]
    fn clone_makes_processes_and_threads_but_no_namespace() {
        for flags in [0x11, 0x003d_0f00, 0x0120_0011] {
            assert_eq!(answer_to(libc::SYS_clone, first(flags)), ALLOW);
        }
        for bit in 0..32 {
            let refused = NAMESPACES & (1 << bit) != 0;
            let seen = answer_to(libc::SYS_clone, first(0x11 | 1 << bit));
            assert_eq!(seen == FORBIDDEN, refused, "bit {bit}");
        }
        assert_eq!(NAMESPACES, 0x7E02_0000);
    }

    #[test]
    fn sockets_are_local() {
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            for family in 0..64 {
                let expected = if family == 1 { ALLOW } else { NO_FAMILY };
                assert_eq!(answer_to(call, first(family)), expected, "family {family}");
            }
        }
    }

    #[test]
    fn the_low_half_of_an_ioctl_decides() {
        for request in [0x5401, 0x5413, 0x541B] {
            assert_eq!(answer_to(libc::SYS_ioctl, second(request)), ALLOW);
        }
        for request in [0x5412, 0x541C, 0x5423] {
            // The kernel looks at 32 bits, so bits above them must not hide a request.
            for high in [0, 1 << 32, u64::MAX << 32] {
                assert_eq!(
                    answer_to(libc::SYS_ioctl, second(high | request)),
                    FORBIDDEN
                );
            }
        }
    }

    #[test]
    fn personalities_and_process_options() {
        for (personality, expected) in [
            (0, ALLOW),
            (0xffff_ffff, ALLOW),
            (0x0004_0000, FORBIDDEN),
            (8, FORBIDDEN),
        ] {
            assert_eq!(
                answer_to(libc::SYS_personality, first(personality)),
                expected
            );
        }
        assert_eq!(answer_to(libc::SYS_prctl, first(15)), ALLOW);
        // PR_SET_MM, PR_SET_PTRACER, PR_SET_SECCOMP, PR_CAP_AMBIENT
        for option in [35, 0x5961_6d61, 22, 47] {
            assert_eq!(answer_to(libc::SYS_prctl, first(option)), FORBIDDEN);
        }
    }

    #[test]
    fn limits_are_one_s_own() {
        for (pid, expected) in [(0, ALLOW), (1, FORBIDDEN), (u64::MAX, FORBIDDEN)] {
            assert_eq!(answer_to(libc::SYS_prlimit64, first(pid)), expected);
        }
    }

    #[test]
    fn a_file_in_memory_can_not_be_executed() {
        for (flags, expected) in [
            (8, ALLOW),
            (9, ALLOW),
            (0, UNKNOWN),
            (1, UNKNOWN),
            (0x10, UNKNOWN),
        ] {
            assert_eq!(answer_to(libc::SYS_memfd_create, second(flags)), expected);
        }
    }
}
