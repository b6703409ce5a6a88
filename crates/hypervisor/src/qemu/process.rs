//! A machine's process: started so that it outlives the daemon, found again, waited for and killed through a pidfd.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{FdFlags, fcntl_setfd},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::users::User;

/// The kernel's bound on one process's arguments is far above this; ours have a few KiB.
const MAX_CMDLINE: u64 = 256 << 10;

/// Milliseconds that a program may take from `execve` to its first instruction.
const MAX_EXEC_POLLS: u32 = 10_000;

/// A process that cannot be mistaken for another: a pidfd keeps meaning the same one after its number is used again.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Starts a program that is on its own from then on: in its own process group, so that a terminal's Ctrl-C does not
    /// reach it, and with no pipe to this process. It runs as `user`, in no other group, and has what is in `inherited` under
    /// the numbers that it has here.
    pub(super) fn spawn(
        program: &Path,
        arguments: &[OsString],
        log: File,
        user: Option<User>,
        inherited: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(User { uid, gid }) = user {
            command.uid(uid).gid(gid);
        }
        let pass_on_only_these = move || {
            close_others_with_exec();
            inherited.iter().try_for_each(|fd| Ok(fcntl_setfd(fd, FdFlags::empty())?))
        };
        #[expect(unsafe_code, reason = "no other way has a child, and no other child, inherit a descriptor")]
        // SAFETY: between fork and exec only what is async-signal-safe may be done: this is close_range(2), and fcntl(2) for
        // descriptors that the closure itself keeps open; nothing is allocated and no lock is taken.
        unsafe {
            command.pre_exec(pass_on_only_these)
        };
        let child = command.spawn()?;
        Self::take_charge(child, Self::open)
    }

    /// Of a child that was just started. One that can't be managed does not run on.
    fn take_charge(child: Child, open: impl FnOnce(Pid) -> io::Result<Self>) -> io::Result<Self> {
        // Nobody has waited for the child, so its number is its own.
        let managed = open(Pid::from_child(&child)).and_then(|process| {
            process.wait_for_command_line()?;
            Ok(process)
        });
        managed.inspect_err(|_| end(child))
    }

    /// Waits until [`Self::find`] can find it. The kernel lets the parent go on in the middle of an `execve`, when the
    /// old memory is gone and the new arguments are not yet in place (fs/exec.c `exec_mmap`, fs/binfmt_elf.c
    /// `create_elf_tables`): until then the command line is empty.
    fn wait_for_command_line(&self) -> io::Result<()> {
        let folder = format!("/proc/{}", self.pid());
        let pause = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        for _ in 0..MAX_EXEC_POLLS {
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            let has_ended = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&pause)))? > 0;
            if has_ended || !command_line(Path::new(&folder))?.is_empty() {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the program did not begin to run"))
    }

    /// The process of one of these users that has `mark` among its arguments, if there is one; one that is there and can't be
    /// managed is an error, and must not be started a second time. A process may write over its
    /// arguments: what those of other users say is not believed.
    pub(super) fn find(mark: &OsStr, is_user: impl Fn(u32) -> bool) -> io::Result<Option<Self>> {
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw) else {
                continue;
            };
            let folder = Path::new("/proc").join(&name);
            let is_marked = || {
                folder.metadata().is_ok_and(|it| is_user(it.uid()))
                    && command_line(&folder).is_ok_and(|line| has_argument(&line, mark))
            };
            if !is_marked() {
                continue;
            }
            match Self::open(pid) {
                // Looked at again once the pidfd holds it: the number may have passed to another process in between.
                Ok(process) if is_marked() => return Ok(Some(process)),
                Err(error) if is_marked() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(None)
    }

    fn open(pid: Pid) -> io::Result<Self> {
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        #[expect(
            unsafe_code,
            reason = "tokio has no safe way to wait for a file descriptor that it does not know"
        )]
        // SAFETY: an `OwnedFd` holds a valid, open descriptor, always the same, and closes it when it is dropped, which
        // the `AsyncFd` that owns it does with its own registration gone.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(Self { pid, pidfd })
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whom it runs as, while it does.
    pub(super) fn user(&self) -> io::Result<u32> {
        Ok(fs::metadata(format!("/proc/{}", self.pid()))?.uid())
    }

    /// Whether it has a file open.
    pub(super) fn has_open(&self, path: &Path) -> io::Result<bool> {
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid()))? {
            // One that was closed in between is not open.
            if fs::read_link(entry?.path()).is_ok_and(|target| target == path) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        // An error means that the runtime is shutting down, and with it whoever waits here.
        if self.pidfd.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// How it ended, in words; `None` when that is for another process to know, whose child it was. To be called once,
    /// after [`Self::ended`].
    pub(super) fn exit(&self) -> Option<String> {
        let status =
            rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED).ok()??;
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(format!("exit status {code}")),
            (None, Some(signal)) => Some(format!("killed by signal {signal}")),
            (None, None) => None,
        }
    }

    /// Kills it. One that is gone already stays gone.
    pub(super) fn kill(&self) {
        if let Err(error) = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!("cannot kill process {}: {error}", self.pid());
        }
    }
}

/// Has all descriptors but the standard streams end with this process's program, also those that whoever started the daemon left
/// open for its children. On kernels before 5.9, which have no close_range(2), those stay.
fn close_others_with_exec() {
    const FIRST: u32 = 3;
    #[expect(unsafe_code, reason = "a descriptor that was inherited has no owner but its number")]
    // SAFETY: nothing is closed now; what owns a descriptor keeps it until the process becomes another program.
    unsafe {
        libc::close_range(FIRST, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed())
    };
}

/// Kills a child, and has a thread wait for its end, which may take the kernel long.
fn end(mut child: Child) {
    if let Err(error) = child.kill() {
        tracing::error!("process {} runs on and is not managed: {error}", child.id());
    }
    std::thread::spawn(move || child.wait());
}

fn command_line(process: &Path) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    File::open(process.join("cmdline"))?.take(MAX_CMDLINE).read_to_end(&mut line)?;
    Ok(line)
}

/// Whether a command line, as `/proc/PID/cmdline` gives it, has exactly this argument. A zombie's is empty.
fn has_argument(command_line: &[u8], argument: &OsStr) -> bool {
    command_line.split(|&byte| byte == 0).any(|it| it == argument.as_bytes())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    /// A shell that was told to talk to a machine names its socket too, and so may whoever gets a dead machine's number.
    #[test]
    fn only_the_exact_argument_marks_a_machine() {
        let mark = OsStr::new("unix:/run/ioward/partitions/web/qmp.sock,server=on,wait=off");
        let ours = b"qemu\0-qmp\0unix:/run/ioward/partitions/web/qmp.sock,server=on,wait=off\0-m\0";
        assert!(has_argument(ours, mark));
        assert!(!has_argument(b"", mark), "a zombie");
        assert!(!has_argument(
            b"qemu\0-qmp\0unix:/run/ioward/partitions/web2/qmp.sock,server=on,wait=off\0",
            mark
        ));
        assert!(!has_argument(
            b"sh\0-c\0echo unix:/run/ioward/partitions/web/qmp.sock,server=on,wait=off\0",
            mark
        ));
    }

    /// The program waits for a writer of a FIFO, which takes no further process: a child of its own would carry the
    /// mark too until it runs another program.
    #[tokio::test]
    async fn a_process_is_found_by_its_mark_and_its_end_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let ours = |user| user == rustix::process::geteuid().as_raw();
        assert!(Process::find(fifo.as_os_str(), ours).unwrap().is_none());
        let arguments = ["-c".into(), r#"read x < "$1""#.into(), "sh".into(), OsString::from(&fifo)];
        let log = tempfile::tempfile().unwrap();
        let started = Process::spawn(Path::new("/bin/sh"), &arguments, log, None, Vec::new()).unwrap();
        assert!(
            Process::find(fifo.as_os_str(), |user| user == 1_879_048_193).unwrap().is_none(),
            "it is not that user's"
        );
        let found = Process::find(fifo.as_os_str(), ours).unwrap().unwrap();
        assert!(ours(found.user().unwrap()));
        assert_eq!(found.pid(), started.pid());
        assert!(found.has_open(Path::new("/dev/null")).unwrap());
        assert!(!found.has_open(Path::new("/dev/zero")).unwrap());
        found.kill();
        found.ended().await;
        started.ended().await;
        assert_eq!(started.exit().unwrap(), "killed by signal 9");
        assert!(Process::find(fifo.as_os_str(), ours).unwrap().is_none());
        started.kill();
    }

    /// A machine ran on and nobody knew of it, as the daemon had no descriptor left for its pidfd.
    #[test]
    fn a_process_that_cannot_be_managed_does_not_run_on() {
        let child = Command::new("/bin/sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap();
        let folder = format!("/proc/{}", child.id());
        let no_descriptor = |_| Err(rustix::io::Errno::MFILE.into());
        let error = Process::take_charge(child, no_descriptor).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
        let begun = std::time::Instant::now();
        while fs::exists(&folder).unwrap() {
            assert!(begun.elapsed().as_secs() < 60, "it is there still, running or unreaped");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// A machine that was just started was not found: its command line was still empty, for `spawn` returns in the middle
    /// of an `execve`. Rarely seen on a quiet computer, so it is tried often.
    #[tokio::test]
    async fn a_process_can_be_found_as_soon_as_it_is_started() {
        let log = tempfile::tempfile().unwrap();
        for round in 0..200 {
            // One that does not end by itself: a command line is empty at the end of a process, too.
            let arguments = [OsString::from("1000")];
            let log = log.try_clone().unwrap();
            let started = Process::spawn(Path::new("/bin/sleep"), &arguments, log, None, Vec::new()).unwrap();
            let line = command_line(Path::new(&format!("/proc/{}", started.pid()))).unwrap();
            started.kill();
            started.ended().await;
            started.exit();
            assert!(has_argument(&line, OsStr::new("1000")), "round {round}");
        }
    }
}
