//! A look at trees that have the /proc of some host, intact, hostile and vanishing.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;

/// A tree in the folder for temporary files, removed at the end.
struct Host(PathBuf);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Host {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ioward-holders-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("proc")).unwrap();
        Self(path)
    }

    fn process(&self, pid: u32, command: &str, line: &[&str], group: &str, open: &[&str]) -> &Self {
        let folder = self.0.join(format!("proc/{pid}"));
        fs::create_dir_all(folder.join("fd")).unwrap();
        fs::write(folder.join("comm"), format!("{command}\n")).unwrap();
        let line: Vec<u8> = line.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect();
        fs::write(folder.join("cmdline"), line).unwrap();
        fs::write(folder.join("cgroup"), format!("0::{group}\n")).unwrap();
        for (number, target) in open.iter().enumerate() {
            symlink(target, folder.join(format!("fd/{number}"))).unwrap();
        }
        self
    }

    fn root(&self) -> HostRoot {
        HostRoot::open(&self.0).unwrap()
    }

    fn look(&self) -> Found {
        look(&self.root(), &wanted())
    }
}

fn vf(index: u8) -> Bdf {
    format!("0000:01:10.{index}").parse().unwrap()
}

/// VF 0 of group 10 with a node of its own, VFs 1 and 2 of group 11, VF 3 of UIO.
fn wanted() -> Wanted {
    let nodes = [
        ("/dev/vfio/10", vec![vf(0)]),
        ("/dev/vfio/devices/vfio0", vec![vf(0)]),
        ("/dev/vfio/11", vec![vf(1), vf(2)]),
        ("/dev/uio0", vec![vf(3)]),
    ];
    let nodes = nodes.map(|(node, vfs)| (node.to_owned(), vfs));
    Wanted { nodes: nodes.into(), without_interface: BTreeSet::new() }
}

fn words(found: &Found, index: u8) -> Option<String> {
    found.holders.get(&vf(index)).map(ToString::to_string)
}

#[test]
fn who_has_a_device_node_open_has_the_vfs_that_it_opens() {
    let host = Host::new();
    host.process(1, "systemd", &["/sbin/init"], "/init.scope", &["/dev/null"]);
    host.process(
        812,
        "qemu-system-x86",
        &["qemu-system-x86_64", "-name", "guest=web"],
        "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope",
        &["socket:[1]", "/dev/vfio/vfio", "/dev/vfio/devices/vfio0"],
    );
    host.process(900, "vpp_main", &["vpp"], "/system.slice/vpp.service", &["/dev/vfio/11"]);
    let found = host.look();
    let all = [0, 1, 2, 3].map(|index| words(&found, index));
    let vpp = Some("vpp_main (pid 900)".to_owned());
    let expected = ["libvirt domain web (qemu pid 812)", "nobody"].map(|words| Some(words.to_owned()));
    assert_eq!(all, [expected[0].clone(), vpp.clone(), vpp, expected[1].clone()]);
    assert_eq!((found.gap, found.left.len()), (None, 0));
}

/// `/tmp/dev/vfio/10` and `/dev/vfio/100` are other files, and a target that is cut off is none that is looked for.
#[test]
fn only_the_whole_path_of_a_node_counts() {
    let host = Host::new();
    let long = format!("/dev/vfio/10{}", "0".repeat(200));
    host.process(
        5,
        "x",
        &[],
        "/",
        &["/tmp/dev/vfio/10", "/dev/vfio/100", "dev/vfio/10", &long, "/dev/vfio/10 (deleted)"],
    );
    assert_eq!(words(&host.look(), 0).as_deref(), Some("nobody"));
}

#[test]
fn of_several_processes_the_first_by_number_is_named() {
    let host = Host::new();
    for pid in [1000, 99, 100] {
        host.process(pid, "spdk_tgt", &[], "/", &["/dev/uio0"]);
    }
    assert_eq!(words(&host.look(), 3).as_deref(), Some("spdk_tgt (pid 99)"));
}

/// A process ends at any moment: with its folder empty, or gone between the look at its files and at its name.
#[test]
fn a_process_that_vanishes_has_nothing_and_proves_nothing() {
    let host = Host::new();
    fs::create_dir_all(host.0.join("proc/7")).unwrap();
    fs::create_dir_all(host.0.join("proc/8/fd")).unwrap();
    symlink("/dev/vfio/10", host.0.join("proc/8/fd/3")).unwrap();
    symlink("/dev/null", host.0.join("proc/9")).unwrap();
    fs::write(host.0.join("proc/10"), "").unwrap();
    let found = host.look();
    assert_eq!(words(&found, 0), None, "somebody had it a moment ago");
    assert_eq!(found.left, BTreeSet::from([vf(0)]));
    assert_eq!(words(&found, 1).as_deref(), Some("nobody"));
}

#[test]
fn a_tree_without_processes_says_nothing() {
    let host = Host::new();
    for name in ["self", "net", "1a", "99999999999999999999", "-1"] {
        fs::create_dir_all(host.0.join(format!("proc/{name}/fd"))).unwrap();
        symlink("/dev/vfio/10", host.0.join(format!("proc/{name}/fd/0"))).unwrap();
    }
    assert_eq!(host.look(), Found::default());
    fs::remove_dir_all(host.0.join("proc")).unwrap();
    assert_eq!(host.look(), Found::default());
}

#[test]
fn names_and_files_of_a_hostile_process_harm_nobody() {
    let host = Host::new();
    host.process(
        66,
        "\x1b]0;owned\x07",
        &["qemu-system-x86_64", "-name", "\u{202e}bew\r\n"],
        "/\x1b[2J",
        &["\x1b[2J/dev/vfio/10", "/dev/vfio/11"],
    );
    // A command line of a gigabyte, a FIFO in place of a name, and a link that leads out of the tree.
    let folder = host.0.join("proc/66");
    fs::File::options().write(true).open(folder.join("cmdline")).unwrap().set_len(1 << 30).unwrap();
    host.process(67, "x", &[], "/", &["/dev/uio0"]);
    fs::remove_file(host.0.join("proc/67/comm")).unwrap();
    symlink("../../../../../../etc/hostname", host.0.join("proc/67/comm")).unwrap();
    let found = host.look();
    assert_eq!(words(&found, 0).as_deref(), Some("nobody"));
    assert_eq!(words(&found, 1).as_deref(), Some("QEMU machine \u{fffd}bew (pid 66)"));
    assert_eq!(words(&found, 3), None, "nothing outside the tree is read");
}

/// A host with 50,000 processes is looked at as a whole, and one with more than the bound says that it was not.
#[test]
fn fifty_thousand_processes_are_looked_at_and_no_more_than_the_bound() {
    let host = Host::new();
    fs::create_dir_all(host.0.join("idle/fd")).unwrap();
    symlink("/dev/null", host.0.join("idle/fd/0")).unwrap();
    for pid in 1..50_000 {
        symlink("../idle", host.0.join(format!("proc/{pid}"))).unwrap();
    }
    host.process(50_000, "dpdk-testpmd", &[], "/", &["/dev/vfio/10"]);
    let found = host.look();
    assert_eq!(words(&found, 0).as_deref(), Some("dpdk-testpmd (pid 50000)"));
    assert_eq!((words(&found, 1).as_deref(), &found.gap), (Some("nobody"), &None));

    let bounds = Bounds { processes: 1000, ..Bounds::default() };
    let found = look_within(&host.root(), &wanted(), bounds);
    assert_eq!(found.gap.as_deref(), Some("there are more than 1000 processes"));
    assert!(!found.holders.values().any(|holder| *holder == Holder::Nobody), "not all were seen");
}

#[test]
fn too_many_files_are_said_to_be_too_many() {
    let host = Host::new();
    host.process(1, "a", &[], "/", &["/dev/null"; 20]);
    host.process(2, "b", &[], "/", &["/dev/vfio/10"]);
    let within = |bounds: Bounds| look_within(&host.root(), &wanted(), bounds);
    let found = within(Bounds { files_each: 10, ..Bounds::default() });
    assert_eq!(found.gap.as_deref(), Some("process 1 has more than 10 files open"));
    assert_eq!(words(&found, 0).as_deref(), Some("b (pid 2)"), "the next one is looked at all the same");
    assert_eq!(words(&found, 1), None);
    let found = within(Bounds { files: 20, ..Bounds::default() });
    assert_eq!(words(&found, 0), None);
    let mut inventory = Inventory::default();
    found.add_to(&mut inventory);
    assert_eq!(inventory, Inventory::default());
}

/// What this test itself has open is found on the running kernel.
#[test]
fn the_running_kernel_tells_what_is_open() {
    let path = std::env::current_exe().unwrap();
    let _open = fs::File::open(&path).unwrap();
    // Longer than what is compared: a shorter name for the same.
    let short = std::env::temp_dir().join(format!("ioward-open-{}", std::process::id()));
    fs::write(&short, "").unwrap();
    let _open = fs::File::open(&short).unwrap();
    let node = short.to_str().unwrap().to_owned();
    let wanted = Wanted { nodes: [(node, vec![vf(0)])].into(), without_interface: BTreeSet::new() };
    let found = look(&HostRoot::live().unwrap(), &wanted);
    fs::remove_file(&short).unwrap();
    let Some(Holder::Process(process)) = found.holders.get(&vf(0)) else { panic!("{found:?}") };
    assert_eq!(process.pid, std::process::id());
}
