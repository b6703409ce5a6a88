//! Processes, seen from outside: their time and memory.

use std::{
    fs,
    io::Read,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ioward_benches::cpu::{of_children, of_process};

use crate::http::SOCKET;

/// Longer than anything here takes.
pub const NEVER: Duration = Duration::from_secs(300);
/// Before it is tried again whether anybody listens.
const AGAIN: Duration = Duration::from_millis(1);
/// This program, with room for a file descriptor for each subscriber.
pub fn this(arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 4096 2> /dev/null; exec \"$0\" \"$@\""]);
    command.arg(std::env::current_exe().unwrap()).args(arguments);
    command
}

/// A daemon. Killed when dropped.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// One that listens.
    pub fn start(folder: &Path) -> Self {
        let begun = Instant::now();
        let child = this(&["serve", folder.to_str().unwrap()]).stdin(Stdio::null()).spawn().unwrap();
        while let Err(error) = UnixStream::connect(folder.join(SOCKET)) {
            assert!(begun.elapsed() < NEVER, "nobody listens: {error}");
            std::thread::sleep(AGAIN);
        }
        Self { child }
    }

    /// The CPU time that it has used.
    pub fn cpu(&self) -> Duration {
        of_process(self.child.id()).unwrap()
    }

    /// Its memory now, in KiB (proc_pid_status(5), VmRSS).
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that was run to its end.
pub struct Took {
    /// Until the last byte of its output.
    pub all: Duration,
    /// Its CPU time.
    pub cpu: Duration,
}

impl Took {
    pub fn by(command: &mut Command) -> Self {
        let before = of_children();
        let begun = Instant::now();
        // lspci has remarks on a host without modules.
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = piped.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).unwrap();
        assert!(!output.is_empty(), "{command:?}");
        assert!(child.wait().unwrap().success(), "{command:?}");
        let all = begun.elapsed();
        Self { all, cpu: of_children() - before }
    }
}
