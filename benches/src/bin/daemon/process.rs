//! The daemon's process, seen from outside.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::daemon::Machines;

/// Before it is tried again whether anybody listens: little against what is measured.
const AGAIN: Duration = Duration::from_micros(500);
/// Longer than anything here takes.
const NEVER: Duration = Duration::from_secs(300);

/// A daemon. Killed when dropped.
pub struct Process {
    child: Child,
    output: Mutex<BufReader<ChildStdout>>,
    socket: PathBuf,
    /// When its process was started.
    pub started: Instant,
}

/// Has a daemon apply a Spec of so many partitions, and leave its state.
pub fn prepare(folder: &Path, partitions: usize) {
    fs::create_dir_all(folder).unwrap();
    let status = this().arg("prepare").arg(folder).arg(partitions.to_string()).status().unwrap();
    assert!(status.success(), "{partitions} partitions were applied");
}

/// A folder that is the same: each start is the first one over its state.
pub fn copy(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let status = Command::new("cp").arg("-a").arg(folder.join(".")).arg(copy.path()).status().unwrap();
    assert!(status.success());
    copy
}

fn this() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

impl Process {
    pub fn start(folder: &Path, machines: Machines, partitions: usize) -> Self {
        let started = Instant::now();
        let mut command = this();
        command.arg("serve").arg(folder).arg(machines.word()).arg(partitions.to_string());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = Mutex::new(BufReader::new(child.stdout.take().unwrap()));
        Self { child, output, socket: folder.join("api.sock"), started }
    }

    /// Waits until it has answered which partitions there are, and has named this many.
    pub fn ready(&self, partitions: usize) -> Duration {
        let mut stream = loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(self.started.elapsed() < NEVER, "nobody listens: {error}"),
            }
            std::thread::sleep(AGAIN);
        };
        stream
            .write_all(b"GET /v1/partitions HTTP/1.1\r\nhost: ioward\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let ready = self.started.elapsed();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(answer.matches("\"cpus\":").count(), partitions);
        ready
    }

    /// How long it took to make the simulated machine as it was.
    pub fn simulated(&self) -> Duration {
        let mut line = String::new();
        self.output.lock().unwrap().read_line(&mut line).unwrap();
        Duration::from_micros(line.trim().parse().unwrap())
    }

    /// Its memory now, in KiB (proc_pid_status(5), VmRSS).
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
