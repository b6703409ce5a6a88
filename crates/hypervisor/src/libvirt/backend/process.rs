//! The QEMU of a domain, as the host shows it. libvirt writes its number down, also for whoever comes when no daemon runs.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{task::spawn_blocking, time::timeout};

use crate::libvirt::Uuid;

/// How long a look at a process may take. One that is stuck in the kernel keeps a reader of its command line waiting.
const BOUND: Duration = Duration::from_secs(5);
/// More than a number and a line end.
const MAX_PID_FILE: u64 = 32;
/// A QEMU with hundreds of devices has some 100 KiB of arguments.
const MAX_CMDLINE: u64 = 1 << 20;
/// proc_pid_stat(5): 52 numbers and a name.
const MAX_STAT: u64 = 4096;

/// A process that cannot be mistaken for another that has its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the boot.
    pub started: u64,
}

/// The processes of this host.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    /// `/proc`.
    pub proc: PathBuf,
    /// Where libvirt writes down which process a domain is: `NAME.pid` (`virPidFileBuildPath` in libvirt's `virpidfile.c`).
    pub pid_files: PathBuf,
}

impl Processes {
    /// The QEMU of a domain. The file alone is not believed: QEMU itself may write to it. libvirt starts it with the UUID of its
    /// domain as an argument.
    pub(super) async fn of(&self, domain: &str, uuid: Uuid) -> Option<Process> {
        if domain.contains('/') {
            return None;
        }
        let (proc, file) = (self.proc.clone(), self.pid_files.join(format!("{domain}.pid")));
        let uuid = uuid.to_string();
        let found = spawn_blocking(move || {
            let text = String::from_utf8(read(&file, MAX_PID_FILE).ok()?).ok()?;
            let process = found(&proc, text.trim().parse().ok()?)?;
            let line = read(&folder(&proc, process.pid).join("cmdline"), MAX_CMDLINE).ok()?;
            let is_its = line.split(|byte| *byte == 0).any(|argument| argument == uuid.as_bytes());
            is_its.then_some(process)
        });
        timeout(BOUND, found).await.ok()?.ok()?
    }

    /// Whether a process still runs.
    pub(super) fn runs(&self, process: Process) -> bool {
        found(&self.proc, process.pid) == Some(process)
    }

    /// Whether a process has one of these files open. One that is gone has none.
    pub(super) async fn has_open(&self, process: Process, files: Vec<PathBuf>) -> bool {
        let (proc, this) = (self.proc.clone(), self.clone());
        let look = spawn_blocking(move || {
            let Ok(entries) = fs::read_dir(folder(&proc, process.pid).join("fd")) else { return false };
            let is_one = |entry: io::Result<fs::DirEntry>| {
                let target = entry.and_then(|entry| fs::read_link(entry.path()));
                target.is_ok_and(|target| files.contains(&target))
            };
            entries.into_iter().any(is_one) && this.runs(process)
        });
        // What can't be seen may be.
        matches!(timeout(BOUND, look).await, Ok(Ok(true)) | Err(_))
    }
}

fn folder(proc: &Path, pid: u32) -> PathBuf {
    proc.join(pid.to_string())
}

/// The process of this number, if it runs. Reading its state waits for nothing that the process does.
fn found(proc: &Path, pid: u32) -> Option<Process> {
    let stat = read(&folder(proc, pid).join("stat"), MAX_STAT).ok()?;
    let started = start_time(&String::from_utf8_lossy(&stat))?;
    Some(Process { pid, started })
}

/// Field 22 of proc_pid_stat(5); `None` for a process that has ended and that nobody has waited for. The name in the second field
/// may contain anything, and ends with the last parenthesis.
fn start_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    fields.next().filter(|state| !matches!(*state, "Z" | "X"))?;
    fields.nth(18)?.parse().ok()
}

fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";

    fn stat(state: &str, started: u64) -> String {
        format!("7 (a) S) b) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 {started} 1 2 3\n")
    }

    #[test]
    fn a_process_is_known_by_its_start_and_a_dead_one_is_none() {
        assert_eq!(start_time(&stat("S", 4711)), Some(4711));
        assert_eq!(start_time(&stat("Z", 4711)), None);
        for bad in ["", "7 (x", "7 (x) S 1", "7 (x) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 late"] {
            assert_eq!(start_time(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_domain_is_found_by_its_file_only_where_its_uuid_is_among_the_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let (proc, pid_files) = (folder.path().join("proc"), folder.path().join("qemu"));
        fs::create_dir_all(proc.join("7/fd")).unwrap();
        fs::create_dir_all(&pid_files).unwrap();
        fs::write(proc.join("7/stat"), stat("S", 4711)).unwrap();
        fs::write(proc.join("7/cmdline"), format!("qemu\0-uuid\0{UUID}\0")).unwrap();
        let processes = Processes { proc: proc.clone(), pid_files: pid_files.clone() };
        let uuid = UUID.parse().unwrap();
        assert_eq!(processes.of("web", uuid).await, None);
        fs::write(pid_files.join("web.pid"), "7").unwrap();
        let process = Process { pid: 7, started: 4711 };
        assert_eq!(processes.of("web", uuid).await, Some(process));
        assert_eq!(processes.of("../qemu/web", uuid).await, None);
        let other = "00000000-0000-0000-0000-000000000000".parse().unwrap();
        assert_eq!(processes.of("web", other).await, None);

        std::os::unix::fs::symlink("/dev/vfio/11", proc.join("7/fd/15")).unwrap();
        let open = |path: &str| processes.has_open(process, vec![path.into()]);
        assert!(open("/dev/vfio/11").await && !open("/dev/vfio/12").await);
        assert!(processes.runs(process));
        // Another process gets the number.
        fs::write(proc.join("7/stat"), stat("S", 9999)).unwrap();
        assert!(!processes.runs(process) && !open("/dev/vfio/11").await);
    }
}
