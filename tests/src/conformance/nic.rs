//! The settings of a NIC's VF, made by its PF's driver.

use ioward_fabric::FabricError;
use ioward_model::{BitRate, LinkState, VfId, VfSettings, Vlan};
use rustix::io::Errno;

use super::{Machine, errno};

/// igb: a MAC must be unicast, a rate within the link's and never guaranteed, and a VF has no link state.
pub(super) fn a_nic_refuses_invalid_settings_by_errno(machine: &Machine) {
    let rate = |megabits| Some(BitRate::from_megabits(megabits));
    machine.with_vfs(machine.nic, 1, || {
        let vf = VfId { pf: machine.nic, index: 0 };
        let before = machine.settings(vf);
        for change in [
            VfSettings { mac: "01:00:5e:00:00:01".parse().ok(), ..VfSettings::default() },
            VfSettings { max_tx_rate: rate(1_001), ..VfSettings::default() },
            VfSettings { min_tx_rate: rate(100), max_tx_rate: rate(500), ..VfSettings::default() },
        ] {
            assert_eq!(errno(machine.configure(vf, &change)), Some(Errno::INVAL), "{change:?}");
        }
        let service = VfSettings { vlan: "100,proto=802.1ad".parse().ok(), ..VfSettings::default() };
        assert_eq!(
            errno(machine.configure(vf, &service)),
            Some(Errno::PROTONOSUPPORT),
            "igb tags with 802.1Q"
        );
        let link_state = VfSettings { link_state: Some(LinkState::Disable), ..VfSettings::default() };
        let refused = machine.configure(vf, &link_state);
        assert!(matches!(refused, Err(FabricError::Unsupported { .. })), "{refused:?}");
        assert_eq!(machine.settings(vf), before);

        let within = VfSettings { max_tx_rate: rate(500), ..VfSettings::default() };
        machine.configure(vf, &within).expect("it is within the link's");
        assert_eq!(machine.settings(vf).max_tx_rate, rate(500));
    });
}

pub(super) fn nic_settings_read_back_as_they_were_set(machine: &Machine) {
    machine.with_vfs(machine.nic, 2, || {
        let (first, second) = (VfId { pf: machine.nic, index: 0 }, VfId { pf: machine.nic, index: 1 });
        let untouched = machine.settings(second);
        let change = VfSettings {
            mac: "52:54:00:c0:ff:ee".parse().ok(),
            vlan: "100,prio=3".parse().ok(),
            trust: Some(true),
            spoofchk: Some(false),
            ..VfSettings::default()
        };
        machine.configure(first, &change).expect("a NIC VF has these settings");
        assert!(change.missing_from(&machine.settings(first)).is_empty(), "{:?}", machine.settings(first));
        assert_eq!(machine.settings(second), untouched, "the VF beside it is left alone");
    });
}

pub(super) fn settings_made_by_the_pf_survive_a_reset_of_the_vf(machine: &Machine) {
    machine.with_vfs(machine.nic, 1, || {
        let vf = VfId { pf: machine.nic, index: 0 };
        let change =
            VfSettings { mac: "52:54:00:c0:ff:ee".parse().ok(), vlan: Vlan::new(7), ..VfSettings::default() };
        machine.configure(vf, &change).expect("a NIC VF has these settings");
        machine.reset(vf);
        assert!(change.missing_from(&machine.settings(vf)).is_empty(), "{:?}", machine.settings(vf));
    });
}

pub(super) fn a_failed_change_has_no_effect(machine: &Machine) {
    machine.with_vfs(machine.nic, 1, || {
        let vf = VfId { pf: machine.nic, index: 0 };
        let before = machine.settings(vf);
        let change = VfSettings { vlan: Vlan::new(9), queues: Some(2), ..VfSettings::default() };
        machine.configure(vf, &change).expect_err("a NIC VF has no NVMe queues");
        assert_eq!(machine.settings(vf), before);
    });
}

pub(super) fn new_vfs_have_none_of_the_settings_of_old_ones(machine: &Machine) {
    let vf = VfId { pf: machine.nic, index: 0 };
    machine.with_vfs(machine.nic, 1, || {
        let change = VfSettings { vlan: Vlan::new(100), ..VfSettings::default() };
        machine.configure(vf, &change).expect("a NIC VF has a VLAN");
    });
    machine.with_vfs(machine.nic, 1, || {
        assert_eq!(machine.settings(vf).vlan, Vlan::new(0));
    });
    let vf = VfId { pf: machine.nvme, index: 0 };
    let given =
        VfSettings { queues: Some(2), interrupts: Some(1), online: Some(true), ..VfSettings::default() };
    let mut fresh = None;
    for _ in 0..2 {
        machine.with_vfs(machine.nvme, 1, || {
            let found = machine.settings(vf);
            assert_eq!(fresh.get_or_insert(found.clone()), &found);
            machine.configure(vf, &given).expect("there are resources");
        });
    }
}
