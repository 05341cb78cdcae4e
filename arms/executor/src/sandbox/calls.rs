//! The table of system calls, by what they are for. Names and not numbers: the numbers are the architecture's.

use nix::libc::{self, c_long};

/// `AUDIT_ARCH_*` of this architecture: the number of its ELF machine, 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
pub(super) const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
pub(super) const AUDIT_ARCH: u32 = 0xC000_00B7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the sandbox has a table of system calls for x86_64 and aarch64 only");

macro_rules! calls {
    ($($name:ident)*) => { [$(libc::$name),*] };
}

macro_rules! named {
    ($($name:ident)*) => { [$((libc::$name, stringify!($name).split_at(4).1)),*] };
}

/// Joins tables at compile time.
const fn join<const N: usize>(tables: &[&[c_long]]) -> [c_long; N] {
    let mut joined = [0; N];
    let (mut table, mut at) = (0, 0);
    while table < tables.len() {
        let mut index = 0;
        while index < tables[table].len() {
            joined[at] = tables[table][index];
            (index, at) = (index + 1, at + 1);
        }
        table += 1;
    }
    assert!(at == N);
    joined
}

/// What generic tools need, on every architecture.
const EVERYWHERE_ALLOWED: [c_long; 211] = calls![
    // Files and directories.
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev SYS_preadv2
    SYS_pwritev2 SYS_lseek SYS_openat SYS_openat2 SYS_close SYS_close_range SYS_fstat SYS_newfstatat SYS_statx
    SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2 SYS_readlinkat SYS_getdents64 SYS_getcwd SYS_chdir
    SYS_fchdir SYS_umask SYS_mkdirat SYS_unlinkat SYS_linkat SYS_symlinkat SYS_renameat2 SYS_truncate
    SYS_ftruncate SYS_fallocate SYS_fadvise64 SYS_readahead SYS_fsync SYS_fdatasync SYS_syncfs SYS_sync
    SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_utimensat SYS_dup SYS_dup3 SYS_fcntl SYS_ioctl
    SYS_flock SYS_copy_file_range SYS_sendfile SYS_splice SYS_tee SYS_pipe2 SYS_getxattr SYS_lgetxattr
    SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_setxattr SYS_lsetxattr SYS_fsetxattr
    SYS_removexattr SYS_lremovexattr SYS_fremovexattr SYS_memfd_create SYS_inotify_init1 SYS_inotify_add_watch
    SYS_inotify_rm_watch
    // Memory.
    SYS_brk SYS_mmap SYS_munmap SYS_mprotect SYS_mremap SYS_madvise SYS_msync SYS_mincore SYS_mlock SYS_mlock2
    SYS_munlock SYS_mlockall SYS_munlockall SYS_membarrier SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect
    // Processes and threads.
    SYS_clone SYS_execve SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_getpid SYS_getppid SYS_gettid
    SYS_set_tid_address SYS_set_robust_list SYS_get_robust_list SYS_futex SYS_futex_waitv SYS_rseq SYS_getpgid
    SYS_setpgid SYS_getsid SYS_setsid SYS_prctl SYS_personality SYS_kill SYS_tkill SYS_tgkill SYS_pidfd_open
    SYS_pidfd_send_signal SYS_sched_yield SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_getparam
    SYS_sched_setparam SYS_sched_getscheduler SYS_sched_setscheduler SYS_sched_getattr SYS_sched_setattr
    SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_rr_get_interval SYS_getpriority
    SYS_setpriority SYS_ioprio_get SYS_ioprio_set SYS_getrusage SYS_prlimit64 SYS_times SYS_getcpu
    SYS_restart_syscall SYS_uname SYS_sysinfo SYS_getrandom
    // Users: what they may become is up to the capabilities, and there are none.
    SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups SYS_setuid
    SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setgroups SYS_setfsuid SYS_setfsgid
    SYS_capget SYS_capset
    // Signals.
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending SYS_rt_sigtimedwait
    SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_rt_sigsuspend SYS_sigaltstack SYS_signalfd4
    // Time.
    SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday SYS_getitimer
    SYS_setitimer SYS_timer_create SYS_timer_settime SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete
    SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime
    // Waiting.
    SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2
    // Sockets of the local family.
    SYS_socket SYS_socketpair SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname
    SYS_getpeername SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown
    SYS_setsockopt SYS_getsockopt
    // A program may confine itself further.
    SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self
];

/// What the younger architectures have left out.
#[cfg(target_arch = "x86_64")]
const OLD_ALLOWED: [c_long; 40] = calls![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_wait
    SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_getrlimit SYS_inotify_init SYS_lchown
    SYS_link SYS_lstat SYS_mkdir SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_renameat
    SYS_rmdir SYS_select SYS_setrlimit SYS_signalfd SYS_stat SYS_symlink SYS_sync_file_range SYS_time
    SYS_unlink SYS_utime SYS_utimes SYS_vfork SYS_fchmodat2
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_ALLOWED: [c_long; 0] = [];

/// What is known to be dangerous, or is nobody's business inside, on every architecture.
const EVERYWHERE_REFUSED: [c_long; 57] = calls![
    // Other processes.
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_pidfd_getfd SYS_kcmp
    // Mounts, roots, namespaces.
    SYS_mount SYS_umount2 SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
    SYS_mount_setattr SYS_unshare SYS_setns SYS_pivot_root SYS_chroot
    // Files past their paths, devices.
    SYS_name_to_handle_at SYS_open_by_handle_at SYS_mknodat SYS_fanotify_init SYS_fanotify_mark
    // Keys.
    SYS_keyctl SYS_add_key SYS_request_key
    // The kernel.
    SYS_bpf SYS_userfaultfd SYS_perf_event_open SYS_init_module SYS_finit_module SYS_delete_module
    SYS_kexec_load SYS_kexec_file_load SYS_reboot SYS_swapon SYS_swapoff SYS_acct SYS_quotactl SYS_syslog
    SYS_vhangup SYS_sethostname SYS_setdomainname SYS_nfsservctl SYS_lookup_dcookie SYS_vmsplice
    SYS_remap_file_pages
    // Where memory lies.
    SYS_mbind SYS_set_mempolicy SYS_get_mempolicy SYS_migrate_pages SYS_move_pages
    // The clock.
    SYS_clock_settime SYS_clock_adjtime SYS_settimeofday SYS_adjtimex
];

/// The same, where only the older architecture has it.
#[cfg(target_arch = "x86_64")]
const OLD_REFUSED: [c_long; 8] = calls![
    SYS_mknod SYS_iopl SYS_ioperm SYS_modify_ldt SYS_uselib SYS_ustat SYS_sysfs SYS__sysctl
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_REFUSED: [c_long; 0] = [];

/// Calls that are allowed; [`filter`](super::filter) looks at the arguments of some.
pub(super) const ALLOWED: &[c_long] =
    &join::<{ EVERYWHERE_ALLOWED.len() + OLD_ALLOWED.len() }>(&[&EVERYWHERE_ALLOWED, &OLD_ALLOWED]);

/// Calls that are refused with `EPERM`; what stands in neither table is unknown (`ENOSYS`).
pub(super) const REFUSED: &[c_long] =
    &join::<{ EVERYWHERE_REFUSED.len() + OLD_REFUSED.len() }>(&[&EVERYWHERE_REFUSED, &OLD_REFUSED]);

/// Calls whose refusal tells of an attempt to get out, with their names: no ordinary program makes them. Each stands in
/// [`REFUSED`], in neither table, or among the allowed with arguments that are refused.
pub(super) const TELLING: [(c_long, &str); 46] = named![
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_getfd SYS_kcmp
    SYS_mount SYS_umount2 SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
    SYS_mount_setattr SYS_unshare SYS_setns SYS_pivot_root SYS_chroot
    SYS_open_by_handle_at SYS_fanotify_init
    SYS_keyctl SYS_add_key SYS_request_key
    SYS_bpf SYS_userfaultfd SYS_perf_event_open SYS_init_module SYS_finit_module SYS_delete_module
    SYS_kexec_load SYS_kexec_file_load SYS_reboot SYS_swapon SYS_swapoff SYS_acct SYS_quotactl SYS_sethostname
    SYS_setdomainname SYS_clock_settime
    SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    SYS_clone SYS_socket SYS_socketpair SYS_ioctl
];
