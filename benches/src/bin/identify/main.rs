//! Identify, measured: 32 PFs with 127 VFs each, in a sysfs of files, against the least that a program could do about them
//! and against `lspci -vv`. CPU time, for it hardly depends on who else uses the machine; each figure is a ratio within this run.
//!
//! The floor: of each function its configuration space is opened, read and closed, and two links are read, all by their whole paths.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

#[path = "../api/tree.rs"]
mod tree;

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use ioward_benches::goals::Goals;
use ioward_fabric::linux::{HostRoot, identify};
use rustix::time::{ClockId, clock_gettime};

/// VFs: 127 for each of 32 PFs.
const VFS: usize = 32 * 127;
/// How often each thing is done; the fastest counts, for it was disturbed least.
const ROUNDS: usize = 15;
/// What identify may take of the floor.
const OF_FLOOR: f64 = 2.0;
/// And of lspci.
const OF_LSPCI: f64 = 0.125;

fn main() -> ExitCode {
    let goals = Goals::default();
    let folder = tempfile::tempdir().unwrap();
    let functions = tree::make(folder.path(), VFS);
    let root = tree::root(folder.path());
    println!("{functions} functions, in CPU time; the fastest of {ROUNDS} times");
    let floor = fastest(|| read_all(&root));
    let found = fastest(|| {
        let inventory = identify(&HostRoot::open(&root).unwrap()).unwrap();
        assert_eq!(
            inventory.physical_functions.iter().map(|pf| 1 + pf.virtual_functions.len()).sum::<usize>(),
            functions
        );
    });
    let print = |what: &str, took: Duration| {
        let each = took.as_secs_f64() * 1e6 / functions as f64;
        println!("{what:<50} {:>8.1} ms {each:>7.1} us a function", took.as_secs_f64() * 1e3);
    };
    print("config opened, read, closed; two links read", floor);
    print("identify", found);
    let ratio = found.as_secs_f64() / floor.as_secs_f64();
    let met = goals.judge(ratio <= OF_FLOOR);
    println!("identify takes {ratio:.2} times the floor (at most {OF_FLOOR}): {met}");
    match lspci(&root) {
        Some(lspci) => {
            print("lspci -vv, its process included", lspci);
            let ratio = found.as_secs_f64() / lspci.as_secs_f64();
            let met = goals.judge(ratio <= OF_LSPCI);
            println!("identify takes {ratio:.3} of it (at most {OF_LSPCI}): {met}");
        }
        None => {
            goals.judge(false);
            println!("lspci is missing (apt install pciutils): nothing to hold it against");
        }
    }
    goals.status()
}

/// The least that a program could do.
fn read_all(root: &Path) {
    let devices = root.join("sys/bus/pci/devices");
    let mut bytes = [0; 4096];
    for function in fs::read_dir(&devices).unwrap() {
        let function = function.unwrap().path();
        let read = fs::File::open(function.join("config")).unwrap().read(&mut bytes).unwrap();
        assert_eq!(read, bytes.len());
        fs::read_link(function.join("driver")).unwrap();
        fs::read_link(function.join("iommu_group")).unwrap();
    }
}

fn fastest(mut work: impl FnMut()) -> Duration {
    let time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let once = || {
        let begin = time();
        work();
        time() - begin
    };
    std::iter::repeat_with(once).take(ROUNDS).min().unwrap()
}

/// `lspci -vv` over the tree; `None` where there is none. Once: it takes as long as many of the others.
fn lspci(root: &Path) -> Option<Duration> {
    Command::new("lspci").arg("--version").stdout(Stdio::null()).status().ok()?;
    let path = format!("sysfs.path={}", root.join("sys/bus/pci").display());
    let before = cpu_of_children();
    let mut lspci = Command::new("lspci");
    lspci.args(["-A", "linux-sysfs", "-O", &path, "-vv"]).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(lspci.status().unwrap().success());
    Some(cpu_of_children() - before)
}

/// User and system time of the children that have been waited for (proc_pid_stat(5), cutime and cstime), in hundredths of a second.
fn cpu_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The name may have spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = after_name.split(' ').skip(13).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}
