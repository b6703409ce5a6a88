//! Processes, seen from outside: their time and memory.

use std::{
    fs,
    io::Read,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::http::SOCKET;

/// Longer than anything here takes.
pub const NEVER: Duration = Duration::from_secs(300);
/// Before it is tried again whether anybody listens.
const AGAIN: Duration = Duration::from_millis(1);
/// CPU time in /proc is counted in hundredths of a second (proc_pid_stat(5), USER_HZ).
const TICK: Duration = Duration::from_millis(10);

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
        // utime and stime.
        cpu(&format!("/proc/{}/stat", self.child.id()), 11)
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
    /// Until the first byte of its output.
    pub first: Duration,
    /// Until the last.
    pub all: Duration,
    pub cpu: Duration,
    pub output: Vec<u8>,
}

impl Took {
    pub fn by(command: &mut Command) -> Self {
        // cutime and cstime: of children that have been waited for.
        let before = cpu("/proc/self/stat", 13);
        let begun = Instant::now();
        // lspci has remarks on a host without modules.
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = piped.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut output = vec![0; 1];
        stdout.read_exact(&mut output).unwrap();
        let first = begun.elapsed();
        stdout.read_to_end(&mut output).unwrap();
        assert!(child.wait().unwrap().success(), "{command:?}");
        let all = begun.elapsed();
        Self { first, all, cpu: cpu("/proc/self/stat", 13) - before, output }
    }
}

/// Two neighbouring fields of a process's stat, counted from the one after its state.
fn cpu(path: &str, field: usize) -> Duration {
    let stat = fs::read_to_string(path).unwrap();
    // The name may have spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let ticks: u32 =
        after_name.split(' ').skip(field).take(2).map(|field| field.parse::<u32>().unwrap()).sum();
    TICK * ticks
}
