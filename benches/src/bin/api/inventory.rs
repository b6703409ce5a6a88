//! Ways to an inventory.

use std::{
    fs,
    io::{Write, stdout},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ioward_benches::{
    cpu::{self, milliseconds},
    growth::LINEAR,
    row::{Role, Row},
    run::Run,
};
use ioward_fabric::linux::{HostRoot, identify};
use ioward_model::Inventory;
use tempfile::TempDir;

use crate::{
    http,
    process::{Daemon, Took, this},
    tree,
};

/// VFs of the inventories.
const VFS: [usize; 3] = [256, 1_024, 4_096];
/// Rounds.
const ROUNDS: usize = 7;
/// Times that something is done for one figure of CPU time, which is counted in hundredths of a second.
const TIMES: u32 = 10;
/// The same for one function alone.
const TIMES_OF_ONE: u32 = 5_000;
/// What an inventory through the API may take of what lspci takes.
const OF_LSPCI: f64 = 0.1;
/// What `host --json` may take through the daemon of what it takes to make it.
const OF_MAKING: f64 = 1.5;
/// What a look may take when one VF has changed, of reading that VF's attributes.
const OF_ONE: f64 = 3.0;

/// Prints the inventory that the daemon tells, as the command does.
pub fn ask(folder: &Path) {
    // As the command does.
    let answer = http::ask_with(folder, "GET /v1/host", http::ANEW, "");
    let inventory: Inventory = serde_json::from_slice(&answer.body).unwrap();
    print(&inventory);
}

/// Prints the inventory of the tree, without a daemon.
pub fn look(folder: &Path) {
    print(&identify(&HostRoot::open(&tree::root(folder)).unwrap()).unwrap());
}

fn print(inventory: &Inventory) {
    let mut text = serde_json::to_vec_pretty(inventory).unwrap();
    text.push(b'\n');
    stdout().write_all(&text).unwrap();
}

/// A tree, and a daemon that serves it.
struct Host {
    vfs: usize,
    daemon: Daemon,
    folder: TempDir,
}

impl Host {
    fn with(vfs: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        tree::make(folder.path(), vfs);
        let daemon = Daemon::start(folder.path());
        // What a first look has to do is in no figure: the files are in the page cache for all.
        http::ask(folder.path(), "GET /v1/host", "");
        Self { vfs, daemon, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// CPU time of the daemon for one answer, in milliseconds.
    fn cpu_of(&self, headers: &str) -> f64 {
        let before = self.daemon.cpu();
        for _ in 0..TIMES {
            http::ask_with(self.path(), "GET /v1/host", headers, "");
        }
        milliseconds((self.daemon.cpu() - before) / TIMES)
    }

    /// A process of this program, which prints the inventory.
    fn printed(&self, how: &str) -> Took {
        Took::by(&mut this(&[how, self.path().to_str().unwrap()]))
    }

    fn lspci(&self) -> Took {
        let path = format!("sysfs.path={}", tree::root(self.path()).join("sys/bus/pci").display());
        Took::by(Command::new("lspci").args(["-A", "linux-sysfs", "-O", &path, "-vv"]))
    }
}

/// All rows.
pub fn measure(run: &mut Run) {
    let hosts = VFS.map(Host::with);
    if Command::new("lspci").arg("--version").output().is_err() {
        run.row(Row::failed(
            "inventory",
            "could not be run",
            "lspci is missing (apt install pciutils)".into(),
        ));
        return;
    }
    let largest = &hosts[2];
    let mut cpu = Row::new("inventory-cpu", "the same, in CPU time of all who take part", "ms");
    let mut row = Row::new("inventory", "until the first byte of it; processes: until the last", "ms");
    for host in &hosts {
        row = row.with(Role::Ours, format!("looked at anew, {} VFs", host.vfs));
        cpu = cpu.with(Role::Ours, format!("looked at anew, {} VFs", host.vfs));
    }
    let sizes = || VFS.iter().enumerate().map(|(place, vfs)| (*vfs as f64, place)).collect::<Vec<_>>();
    let others = |row: Row| {
        row.with(Role::Ours, "GET /v1/host")
            .with(Role::Ours, "host --json by the daemon")
            .with(Role::Floor, "host --json --root, without")
            .with(Role::Peer, "lspci -vv")
            .ratio(3, 6, OF_LSPCI)
            .ratio(2, 6, None)
            .grows("looked at anew", "VFs", sizes(), LINEAR)
    };
    let mut cpu = others(cpu).ratio(4, 5, None);
    let row = others(row).ratio(4, 5, OF_MAKING);
    let row = row.take_turns(ROUNDS, |_, place| {
        let (took, used) = match place {
            0..3 => {
                let host = &hosts[place];
                let answer = http::ask_with(host.path(), "GET /v1/host", http::ANEW, "");
                (answer.first, host.cpu_of(http::ANEW))
            }
            3 => {
                // What it knows: whether that has grown old meanwhile is another matter.
                http::ask(largest.path(), "GET /v1/host", "");
                (http::ask(largest.path(), "GET /v1/host", "").first, largest.cpu_of(""))
            }
            4 => {
                let before = largest.daemon.cpu();
                let took = largest.printed("ask");
                (took.all, milliseconds(took.cpu + (largest.daemon.cpu() - before)))
            }
            5 => {
                let took = largest.printed("look");
                (took.all, milliseconds(took.cpu))
            }
            _ => {
                let took = largest.lspci();
                (took.all, milliseconds(took.cpu))
            }
        };
        cpu.contenders[place].samples.push(used);
        Ok::<_, String>(milliseconds(took))
    });
    run.row(row.unwrap());
    run.row(cpu);
    run.row(one_changed(&hosts));
}

/// A look through the daemon when one VF's driver has changed, against reading that VF alone: its configuration space, its links, and
/// each of its attributes.
fn one_changed(hosts: &[Host]) -> Row {
    let mut row = Row::new("one-changed", "CPU time of the daemon for a look when one VF has changed", "ms");
    for host in hosts {
        row = row.with(Role::Ours, format!("of {} VFs", host.vfs));
    }
    let sizes = hosts.iter().enumerate().map(|(place, host)| (host.vfs as f64, place)).collect();
    let row = row
        .with(Role::Floor, "all files of one function read")
        .ratio(2, 3, OF_ONE)
        .grows("a look", "VFs", sizes, None);
    let row = row.take_turns(ROUNDS, |_, place| {
        let Some(host) = hosts.get(place) else {
            let vf = a_vf(&hosts[2]);
            let (took, ()) = cpu::timed(|| (0..TIMES_OF_ONE).for_each(|_| read_all_of(&vf)));
            return Ok(took / f64::from(TIMES_OF_ONE));
        };
        let vf = a_vf(host);
        let mut used = Duration::ZERO;
        for number in 0..TIMES {
            let driver = if number.is_multiple_of(2) { "iavf" } else { "vfio-pci" };
            bind(&vf, driver);
            let before = host.daemon.cpu();
            let told = http::ask_with(host.path(), "GET /v1/host", http::ANEW, "");
            used += host.daemon.cpu() - before;
            let told = String::from_utf8_lossy(&told.body).matches("\"iavf\"").count();
            if (told == 1) != (driver == "iavf") {
                return Err(format!("{told} functions have the driver iavf"));
            }
        }
        Ok::<_, String>(milliseconds(used / TIMES))
    });
    row.unwrap_or_else(|why| Row::failed("one-changed", "could not be run", why))
}

/// The folder of one of its VFs.
fn a_vf(host: &Host) -> PathBuf {
    let devices = fs::read_dir(tree::root(host.path()).join("sys/bus/pci/devices")).unwrap();
    let mut vfs: Vec<PathBuf> = devices
        .map(|function| fs::canonicalize(function.unwrap().path()).unwrap())
        .filter(|function| function.join("physfn").exists())
        .collect();
    vfs.sort();
    vfs.swap_remove(vfs.len() / 2)
}

/// As the kernel has it once another driver is bound.
fn bind(vf: &Path, driver: &str) {
    fs::create_dir_all(vf.join("../../../bus/pci/drivers").join(driver)).unwrap();
    fs::remove_file(vf.join("driver")).unwrap();
    symlink(format!("../../../bus/pci/drivers/{driver}"), vf.join("driver")).unwrap();
}

fn read_all_of(function: &Path) {
    for entry in fs::read_dir(function).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_symlink() {
            fs::read_link(entry.path()).unwrap();
        } else {
            fs::read(entry.path()).unwrap();
        }
    }
}
