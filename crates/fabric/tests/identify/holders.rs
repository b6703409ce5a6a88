//! Who has the VFs of a host, as its processes tell.

use ioward_model::Holder;

use crate::{hosts::igb, tree::Tree};

/// A process with one file open.
pub fn process(tree: &Tree, pid: u32, line: &str, group: &str, open: &str) {
    tree.file(&format!("proc/{pid}/comm"), "qemu-system-x86\n");
    tree.file(&format!("proc/{pid}/cmdline"), line.replace(' ', "\0"));
    tree.file(&format!("proc/{pid}/cgroup"), format!("0::{group}\n"));
    tree.link(&format!("proc/{pid}/fd/7"), open);
}

const LIBVIRT: &str = "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt";
const QEMU: &str = "/usr/bin/qemu-system-x86_64 -name guest=web,debug-threads=on -S";

#[test]
fn a_vf_that_a_machine_has_open_is_that_machines_and_not_available() {
    let tree = igb();
    process(&tree, 812, QEMU, LIBVIRT, "/dev/vfio/10");
    let inventory = tree.identify();
    let pf = &inventory.physical_functions[0];
    let [first, second] = &pf.virtual_functions[..] else { panic!("{pf:#?}") };
    let words = first.holder.as_ref().map(ToString::to_string);
    assert_eq!(words.as_deref(), Some("libvirt domain web (qemu pid 812)"));
    assert_eq!(second.holder, None, "a driver of the host has it");
    assert_eq!((first.reasons.len(), pf.vfs_available), (0, 6));
}

/// By its own device node, as QEMU with iommufd does.
#[test]
fn a_vf_that_is_open_by_a_node_of_its_own_is_found_too() {
    let tree = igb();
    tree.folder(&tree.device("0000:01:10.0/vfio-dev/vfio3"));
    process(&tree, 812, QEMU, "/user.slice", "/dev/vfio/devices/vfio3");
    let holder = tree.identify().physical_functions[0].virtual_functions[0].holder.clone();
    assert_eq!(holder.unwrap().to_string(), "QEMU machine web (pid 812)");
}

#[test]
fn a_vf_on_vfio_pci_that_no_process_has_is_nobodys() {
    let tree = igb();
    process(&tree, 1, "/sbin/init", "/init.scope", "/dev/null");
    let inventory = tree.identify();
    let pf = &inventory.physical_functions[0];
    assert_eq!(pf.virtual_functions[0].holder, Some(Holder::Nobody));
    assert_eq!(pf.vfs_available, 7, "ioward can take it");
}

#[test]
fn a_copied_tree_without_processes_says_of_no_vf_whose_it_is() {
    let tree = igb();
    let inventory = tree.identify();
    let pf = &inventory.physical_functions[0];
    assert!(pf.virtual_functions.iter().all(|vf| vf.holder.is_none() && vf.reasons.is_empty()), "{pf:#?}");
    tree.remove("proc");
    assert_eq!(tree.identify().physical_functions[0].virtual_functions[0].holder, None);
}
