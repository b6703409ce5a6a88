//! Errors of adapters, and what becomes of VFs and their settings when a PF loses its link, its driver or its place: what a look finds.
//!
//! A fatal error is not among these: in level 1 it leaves the NIC's driver stuck for good (lab/README.md, Traps).

use std::time::Duration;

use ioward_model::{ErrorCounts, PhysicalFunction, Recovery, VfId, VfSettings, Vlan};
use ioward_pci::Bdf;
use tokio::{runtime::Runtime, sync::mpsc};

use super::{Machine, Severity};

/// Turns a hang into a failure. Nothing waits for it to pass.
const BOUND: Duration = Duration::from_secs(120);

impl Machine {
    /// Runs a body with 2 VFs of the NIC, of which the first has settings of its own.
    fn with_set_vfs(&self, body: impl FnOnce(&VfSettings)) {
        self.with_vfs(self.nic, 2, || {
            let set = VfSettings {
                mac: "52:54:00:c0:ff:ee".parse().ok(),
                vlan: Vlan::new(7),
                spoofchk: Some(false),
                ..VfSettings::default()
            };
            self.configure(self.first(), &set).expect("a NIC VF has these settings");
            body(&set);
        });
    }

    fn first(&self) -> VfId {
        VfId { pf: self.nic, index: 0 }
    }

    fn recover(&self, how: Recovery) {
        self.runtime.block_on(self.fabric.recover(self.nic, how)).expect("it can be done to this NIC");
    }

    /// Has the interface up again, with a link: whoever configures the host's interfaces does that.
    fn bring_up(&self) {
        self.shell.set_up(self.nic, true);
        self.shell.settle(self.nic);
    }

    /// Follows the host from now on. A management partition does that once.
    fn follow(&self) -> Follower<'_> {
        Follower { runtime: &self.runtime, changes: self.runtime.block_on(self.fabric.changes()) }
    }

    /// What there is of the NIC: its driver, and its VFs.
    fn has(&self) -> (Option<String>, Vec<Bdf>) {
        let pf = self.pf(self.nic);
        (pf.driver.clone(), pf.virtual_functions.iter().map(|vf| vf.address).collect())
    }
}

/// Whoever is told that something has changed on the host.
struct Follower<'m> {
    runtime: &'m Runtime,
    changes: mpsc::Receiver<()>,
}

impl Follower<'_> {
    /// Does something, and waits until it is told.
    fn hears(&mut self, happens: impl FnOnce()) {
        while self.changes.try_recv().is_ok() {}
        happens();
        let heard = self.runtime.block_on(async { tokio::time::timeout(BOUND, self.changes.recv()).await });
        assert_eq!(heard, Ok(Some(())), "the kernel tells of it");
    }
}

fn errors(pf: &PhysicalFunction) -> ErrorCounts {
    pf.errors.expect("its errors are counted")
}

/// Of VFs; `None` of one that is not to be a machine's, which is not asked.
fn of_vfs(pf: &PhysicalFunction) -> Vec<Option<ErrorCounts>> {
    pf.virtual_functions.iter().map(|vf| vf.errors).collect()
}

pub(super) fn a_pf_that_has_corrected_errors_counts_them_and_they_change_nothing(machine: &Machine) {
    machine.with_set_vfs(|set| {
        machine.bind(machine.first(), Some("vfio-pci")).expect("it is in an IOMMU group");
        let (before, vfs) = (machine.pf(machine.nic), machine.shell.virtfns(machine.nic));
        machine.shell.inject(machine.nic, Severity::Correctable);
        let counted = ErrorCounts { correctable: errors(&before).correctable + 1, ..errors(&before) };
        machine.shell.wait_until(&|| errors(&machine.pf(machine.nic)) == counted);
        machine.shell.inject(vfs[0], Severity::Correctable);
        machine.shell.wait_until(&|| {
            of_vfs(&machine.pf(machine.nic))[0].map(|counted| counted.correctable) == Some(1)
        });
        let after = machine.pf(machine.nic);
        assert_eq!(errors(&after), counted, "an error of a VF is not its PF's");
        assert_eq!(of_vfs(&after)[1], None, "nobody has asked its neighbour, which is to be no machine's");
        assert_eq!(machine.has(), (before.driver, vfs));
        assert!(set.missing_from(&machine.settings(machine.first())).is_empty());
    });
}

/// Recovery fails where a VF has no driver ("no error_detected callback"), and nothing is lost all the same (drivers/pci/pcie/err.c).
///
/// The model counted errors of VFs that are no machine's, too, which are not asked on the real kernel.
pub(super) fn a_pf_that_has_errors_that_are_not_fatal_tells_them_and_loses_nothing(machine: &Machine) {
    let mut follower = machine.follow();
    machine.with_set_vfs(|set| {
        machine.bind(machine.first(), Some("vfio-pci")).expect("it is in an IOMMU group");
        let (before, vfs) = (machine.pf(machine.nic), machine.shell.virtfns(machine.nic));
        follower.hears(|| machine.shell.inject(machine.nic, Severity::NonFatal));
        let counted = ErrorCounts { nonfatal: errors(&before).nonfatal + 1, ..errors(&before) };
        machine.shell.wait_until(&|| errors(&machine.pf(machine.nic)) == counted);
        follower.hears(|| machine.shell.inject(vfs[0], Severity::NonFatal));
        machine
            .shell
            .wait_until(&|| of_vfs(&machine.pf(machine.nic))[0].map(|counted| counted.nonfatal) == Some(1));
        machine.shell.settle(machine.nic);
        let after = machine.pf(machine.nic);
        assert_eq!(errors(&after), counted, "an error of a VF is not its PF's");
        assert_eq!(of_vfs(&after)[1], None, "nobody has asked its neighbour, which is to be no machine's");
        assert!(!after.conditions.no_answer);
        assert_eq!(machine.has(), (before.driver, vfs));
        assert!(set.missing_from(&machine.settings(machine.first())).is_empty());
    });
}

pub(super) fn a_pf_that_goes_down_and_up_keeps_its_vfs_and_their_settings(machine: &Machine) {
    let mut follower = machine.follow();
    machine.with_set_vfs(|set| {
        machine.shell.settle(machine.nic);
        let before = machine.has();
        let carrier = || {
            let netdevs = machine.pf(machine.nic).netdevs;
            netdevs.first().map(|netdev| (netdev.up, netdev.carrier))
        };
        assert_eq!(carrier(), Some((true, Some(true))));
        follower.hears(|| machine.shell.set_up(machine.nic, false));
        assert_eq!(carrier(), Some((false, None)), "nobody knows whether it has one");
        assert_eq!(machine.has(), before);
        assert!(set.missing_from(&machine.settings(machine.first())).is_empty());
        follower.hears(|| machine.shell.set_up(machine.nic, true));
        machine.shell.settle(machine.nic);
        assert_eq!(carrier(), Some((true, Some(true))));
        assert_eq!(machine.has(), before);
        assert!(set.missing_from(&machine.settings(machine.first())).is_empty());
    });
}

/// `reset` of sysfs, the first attempt to recover an adapter: the kernel saves its configuration, with its VFs, and restores it
/// (pci_reset_function, pci_restore_iov_state).
pub(super) fn a_pf_that_is_reset_keeps_its_vfs_and_their_settings(machine: &Machine) {
    machine.with_set_vfs(|set| {
        let (before, vfs) = (machine.has(), machine.shell.virtfns(machine.nic));
        machine.recover(Recovery::Reset);
        machine.shell.settle(machine.nic);
        assert_eq!(machine.has(), before);
        assert!(!machine.pf(machine.nic).conditions.no_answer);
        for vf in vfs {
            assert_ne!(machine.shell.config(vf)[8..12], [0xff; 4], "{vf} answers");
        }
        assert!(set.missing_from(&machine.settings(machine.first())).is_empty());
    });
    // What its driver had set up is gone with the reset.
    machine.recover(Recovery::Rebind);
    machine.bring_up();
}

/// The second attempt.
pub(super) fn a_pf_that_is_bound_anew_has_lost_its_vfs_and_nothing_else(machine: &Machine) {
    let mut follower = machine.follow();
    let before = machine.pf(machine.nic);
    machine.with_set_vfs(|_| {
        follower.hears(|| machine.recover(Recovery::Rebind));
        let after = machine.pf(machine.nic);
        assert_eq!((machine.shell.numvfs(machine.nic), after.virtual_functions.len()), (0, 0));
        assert_eq!((&after.driver, &after.sriov), (&before.driver, &before.sriov));
        assert_eq!(after.drivers_autoprobe, Some(false), "it was off, and is");
        assert_eq!(errors(&after), errors(&before));
        assert_eq!(permanent_macs(&after), permanent_macs(&before));
        machine.bring_up();
        machine.set_count(machine.nic, 1).expect("VFs can be made again");
        let fresh = machine.settings(machine.first());
        assert_eq!(
            (fresh.vlan, fresh.spoofchk),
            (Vlan::new(0), Some(true)),
            "nothing of the old one is left: {fresh:?}"
        );
    });
    machine.bring_up();
}

pub(super) fn a_pf_that_is_taken_out_is_gone_with_its_vfs_and_comes_back_without(machine: &Machine) {
    let mut follower = machine.follow();
    let before = machine.pf(machine.nic);
    machine.with_autoprobe(machine.nic, true, || {});
    machine.set_count(machine.nic, 2).expect("VFs can be made");
    follower.hears(|| machine.shell.take_out(machine.nic));
    let found = machine.look();
    assert!(found.physical_function(machine.nic).is_none());
    assert!(found.physical_function(machine.nvme).is_some(), "the others are as they were");
    machine.shell.put_back(machine.nic);
    machine
        .shell
        .wait_until(&|| machine.look().physical_function(machine.nic).is_some_and(|pf| pf.driver.is_some()));
    let after = machine.pf(machine.nic);
    assert_eq!((machine.shell.numvfs(machine.nic), after.virtual_functions.len()), (0, 0));
    assert_eq!((&after.driver, &after.sriov), (&before.driver, &before.sriov));
    assert_eq!(
        (after.drivers_autoprobe, errors(&after)),
        (Some(true), ErrorCounts::default()),
        "all counts begin anew"
    );
    assert_eq!(
        (permanent_macs(&after), &after.serial_number),
        (permanent_macs(&before), &before.serial_number)
    );
    machine.bring_up();
}

fn permanent_macs(pf: &PhysicalFunction) -> Vec<Option<ioward_model::MacAddress>> {
    pf.netdevs.iter().map(|netdev| netdev.permanent_mac).collect()
}
