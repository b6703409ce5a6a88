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
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use ioward_benches::{
    cpu::{milliseconds, of_children, timed},
    growth::LINEAR,
    row::{Role, Row},
    run::Run,
};
use ioward_fabric::linux::{HostRoot, identify};
use tempfile::TempDir;

/// PFs with 127 VFs each: 256, 1,024 and 4,096 functions.
const PFS: [usize; 3] = [2, 8, 32];
/// Rounds.
const ROUNDS: usize = 15;
/// The same for lspci, which takes as long as many of the others.
const OF_LSPCI_ROUNDS: usize = 3;
/// What identify may take of the floor.
const OF_FLOOR: f64 = 2.0;
/// And of lspci.
const OF_LSPCI: f64 = 0.125;

fn main() -> ExitCode {
    let mut run = match Run::asked_for("identify", &["identify"]) {
        Ok(run) => run,
        Err(status) => return status,
    };
    let hosts = PFS.map(Host::of);
    let mut row = Row::new("identify", "functions of a host looked at, in CPU time", "ms");
    for (role, what) in [(Role::Ours, "identify"), (Role::Floor, "config, two links")] {
        for host in &hosts {
            row = row.with(role, format!("{what}, {} functions", host.functions));
        }
    }
    let sizes =
        |from: usize| (from..).zip(&hosts).map(|(place, host)| (host.functions as f64, place)).collect();
    let row = row.ratio(2, 5, OF_FLOOR).grows("identify", "functions", sizes(0), LINEAR).grows(
        "config, two links",
        "functions",
        sizes(3),
        None,
    );
    let row = row.take_turns(ROUNDS, |_, place| {
        let host = &hosts[place % PFS.len()];
        Ok::<_, String>(if place < PFS.len() { host.identify() } else { host.read_all() })
    });
    let mut row = row.unwrap();
    row.notes.extend([2, 5].map(|place| {
        let all = ioward_benches::spread::Spread::of(&row.contenders[place].samples).unwrap().median;
        let each = all * 1000.0 / hosts[2].functions as f64;
        format!("{}: {each:.1} us each", row.contenders[place].name)
    }));
    run.row(match lspci(&hosts[2].root) {
        Some(samples) => {
            row.with_samples(Role::Peer, "lspci -vv, its process included", samples).ratio(2, 6, OF_LSPCI)
        }
        None => Row { failure: Some("lspci is missing (apt install pciutils)".to_owned()), ..row },
    });
    run.end()
}

/// A host's files.
struct Host {
    root: PathBuf,
    functions: usize,
    _folder: TempDir,
}

impl Host {
    fn of(pfs: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let functions = tree::make(folder.path(), pfs * 127);
        Self { root: tree::root(folder.path()), functions, _folder: folder }
    }

    fn identify(&self) -> f64 {
        let (took, inventory) = timed(|| identify(&HostRoot::open(&self.root).unwrap()).unwrap());
        let found: usize = inventory.physical_functions.iter().map(|pf| 1 + pf.virtual_functions.len()).sum();
        assert_eq!(found, self.functions);
        took
    }

    /// The least that a program could do.
    fn read_all(&self) -> f64 {
        let devices = self.root.join("sys/bus/pci/devices");
        let mut bytes = [0; 4096];
        let read = || {
            for function in fs::read_dir(&devices).unwrap() {
                let function = function.unwrap().path();
                let read = fs::File::open(function.join("config")).unwrap().read(&mut bytes).unwrap();
                assert_eq!(read, bytes.len());
                fs::read_link(function.join("driver")).unwrap();
                fs::read_link(function.join("iommu_group")).unwrap();
            }
        };
        timed(read).0
    }
}

/// `lspci -vv` over the tree, a few times; `None` where there is none.
fn lspci(root: &Path) -> Option<Vec<f64>> {
    Command::new("lspci").arg("--version").stdout(Stdio::null()).status().ok()?;
    let path = format!("sysfs.path={}", root.join("sys/bus/pci").display());
    let once = |_| {
        let before = of_children();
        let mut lspci = Command::new("lspci");
        lspci.args(["-A", "linux-sysfs", "-O", &path, "-vv"]).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(lspci.status().unwrap().success());
        milliseconds(of_children() - before)
    };
    Some((0..OF_LSPCI_ROUNDS).map(once).collect())
}
