//! The system calls that the management partition may make (seccomp(2)): those by which it computes, serves sockets that it has,
//! and keeps its state. Everything else fails with EPERM, and there is no way back.
//!
//! x86-64 only, as ioward's machines are: a filter for another architecture would have to be looked at anew.

use std::io;

use libc::{
    SYS_accept4, SYS_access, SYS_brk, SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone, SYS_clone3,
    SYS_close, SYS_dup, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_wait, SYS_eventfd2,
    SYS_exit, SYS_exit_group, SYS_fallocate, SYS_fchmod, SYS_fcntl, SYS_fdatasync, SYS_flock, SYS_fstat,
    SYS_fsync, SYS_ftruncate, SYS_futex, SYS_getdents64, SYS_getpeername, SYS_getpid, SYS_getrandom,
    SYS_getsockname, SYS_getsockopt, SYS_gettid, SYS_ioctl, SYS_lseek, SYS_lstat, SYS_madvise, SYS_mkdir,
    SYS_mmap, SYS_mprotect, SYS_mremap, SYS_munmap, SYS_nanosleep, SYS_newfstatat, SYS_open, SYS_openat,
    SYS_poll, SYS_ppoll, SYS_prctl, SYS_pread64, SYS_pwrite64, SYS_read, SYS_readv, SYS_recvfrom,
    SYS_recvmsg, SYS_rename, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigprocmask,
    SYS_rt_sigreturn, SYS_sched_getaffinity, SYS_sched_yield, SYS_sendmsg, SYS_sendto, SYS_set_robust_list,
    SYS_setsockopt, SYS_shutdown, SYS_sigaltstack, SYS_socketpair, SYS_stat, SYS_statx, SYS_tgkill,
    SYS_uname, SYS_unlink, SYS_write, SYS_writev,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Whatever the arguments are.
const ALLOWED: &[i64] = &[
    // Computing: memory, threads, time, chance, ends.
    SYS_brk,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_futex,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_getpid,
    SYS_gettid,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_getrandom,
    SYS_uname,
    SYS_exit,
    SYS_exit_group,
    SYS_restart_syscall,
    SYS_clone3,
    // Signals, to itself; abort(3) is one.
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_tgkill,
    // For descriptors that are open already.
    SYS_read,
    SYS_readv,
    SYS_pread64,
    SYS_write,
    SYS_writev,
    SYS_pwrite64,
    SYS_close,
    SYS_dup,
    SYS_fcntl,
    SYS_lseek,
    SYS_poll,
    SYS_ppoll,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_wait,
    SYS_epoll_pwait,
    SYS_eventfd2,
    // Sockets that it is given, and pairs of its own; none to anywhere (no socket(2), connect(2), bind(2)).
    SYS_accept4,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_sendto,
    SYS_sendmsg,
    SYS_shutdown,
    SYS_socketpair,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getsockname,
    SYS_getpeername,
    // Files of its state, which are all the files there are.
    SYS_open,
    SYS_openat,
    SYS_access,
    SYS_stat,
    SYS_lstat,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_getdents64,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    SYS_flock,
    SYS_rename,
    SYS_unlink,
    SYS_mkdir,
    SYS_fchmod,
];

/// Restricts this thread, and all that it starts.
pub(crate) fn restrict() -> io::Result<()> {
    let failed = |error: seccompiler::Error| io::Error::other(error);
    let backend = |error: seccompiler::BackendError| failed(error.into());
    // Of two filters the one that says no has its way. glibc takes ENOSYS for a kernel without clone3, whose flags no filter can
    // see, and goes on with clone.
    seccompiler::apply_filter(&no_clone3().map_err(backend)?).map_err(failed)?;
    seccompiler::apply_filter(&allowed().map_err(backend)?).map_err(failed)
}

fn allowed() -> Result<BpfProgram, seccompiler::BackendError> {
    let always = ALLOWED.iter().map(|call| (*call, Vec::new()));
    let number =
        |index, value| SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    let bits = |index, mask, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
    };
    let flag = |flag: i32| u64::from(flag.unsigned_abs());
    let one = |condition: SeccompCondition| SeccompRule::new(vec![condition]);
    let sometimes = [
        // Threads, and no processes.
        (SYS_clone, vec![one(bits(0, flag(libc::CLONE_THREAD), flag(libc::CLONE_THREAD))?)?]),
        // Nothing that can be executed but what it has already.
        (SYS_mmap, vec![one(bits(2, flag(libc::PROT_EXEC), 0)?)?]),
        (SYS_mprotect, vec![one(bits(2, flag(libc::PROT_EXEC), 0)?)?]),
        // The name of a thread.
        (SYS_prctl, vec![one(number(0, flag(libc::PR_SET_NAME))?)?]),
        // Whether a socket waits, and how much there is to read.
        (SYS_ioctl, vec![one(number(1, libc::FIONBIO)?)?, one(number(1, libc::FIONREAD)?)?]),
    ];
    let rules = always.chain(sometimes).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refused, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

fn no_clone3() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = [(SYS_clone3, Vec::new())].into();
    let unknown = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, unknown, TargetArch::x86_64)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own, whose end is the end of the filter.
    #[test]
    fn a_restricted_thread_computes_and_opens_and_makes_nothing_new() {
        let restricted = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            restrict().unwrap();
            std::thread::spawn(|| 6 * 7).join().unwrap();
            let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
            assert!(denied(std::net::UdpSocket::bind("127.0.0.1:0").unwrap_err()), "no socket");
            assert!(denied(std::process::Command::new("/bin/true").status().unwrap_err()), "no process");
            assert!(denied(std::fs::hard_link("/dev/null", "/dev/null2").unwrap_err()), "no link");
            std::fs::read("/proc/self/status").unwrap()
        });
        let status = String::from_utf8(restricted.join().unwrap()).unwrap();
        assert!(status.contains("Seccomp:"), "{status}");
    }
}
