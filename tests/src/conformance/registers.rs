//! Configuration space: the effects of a VF count on the PF's registers, and a VF's own registers.

use ioward_model::{VfId, VfSettings, Vlan};
use ioward_pci::{Bdf, Capability, ConfigSpace, ExtendedCapability, MsixCapability, SriovCapability};

use super::Machine;

const COMMAND: usize = 0x04;
/// In the command register: the only bit that a VF has.
const BUS_MASTER: u16 = 1 << 2;
/// From the beginning of the PCI Express capability.
const DEVICE_CAPABILITIES: usize = 0x04;
const DEVICE_CONTROL: usize = 0x08;
const FLR_CAPABLE: u32 = 1 << 28;
const INITIATE_FLR: u16 = 1 << 15;

impl Machine {
    fn word(&self, function: Bdf, offset: usize) -> u16 {
        let bytes = self.shell.config(function);
        ConfigSpace::new(&bytes).and_then(|config| config.u16(offset)).expect("it is in configuration space")
    }

    fn device_control(&self, function: Bdf) -> usize {
        let bytes = self.shell.config(function);
        let config = ConfigSpace::new(&bytes).expect("there is configuration space");
        config.find(Capability::PCI_EXPRESS).expect("it is a PCI Express function") + DEVICE_CONTROL
    }
}

/// PCIe 6.0 §9.3.3: the kernel sets NumVFs, then VF Enable and VF MSE, and clears all three again; the page size and the VF
/// BARs it has set at boot.
pub(super) fn registers_follow_numvfs(machine: &Machine) {
    for pf in [machine.nic, machine.nvme] {
        let read = || {
            let bytes = machine.shell.config(pf);
            let config = ConfigSpace::new(&bytes).expect("there is configuration space");
            SriovCapability::find(&config).expect("it can be read").expect("it is an SR-IOV PF")
        };
        let state = |sriov: &SriovCapability| (sriov.num_vfs, sriov.vf_enable(), sriov.vf_memory_enable());
        machine.with_autoprobe(pf, false, || {
            let before = read();
            assert_eq!(state(&before), (0, false, false), "{pf}");
            assert_eq!((before.system_page_size, before.initial_vfs), (1, before.total_vfs), "{pf}");
            let bars = before.vf_bar_registers();
            assert!(bars.iter().any(|bar| bar.address != 0), "{pf}: {bars:?}");
            for count in [2, 1] {
                assert_eq!(machine.shell.write_numvfs(pf, count), Ok(()));
                let with_vfs = read();
                assert_eq!(state(&with_vfs), (count, true, true), "{pf}");
                assert_eq!(with_vfs.vf_bar_registers(), bars, "{pf}");
                assert_eq!(machine.shell.write_numvfs(pf, 0), Ok(()));
                assert_eq!(read(), before, "{pf}");
            }
        });
        machine.shell.settle(pf);
    }
}

/// PCIe 6.0 §9.3.4: IDs that read as ones, no BARs, the class of its PF, FLR, interrupts of its own, and no SR-IOV.
pub(super) fn a_vf_is_a_function_of_its_own(machine: &Machine) {
    for pf in [machine.nic, machine.nvme] {
        machine.with_vfs(pf, 2, || {
            let of_pf = machine.shell.config(pf);
            let class = ConfigSpace::new(&of_pf).expect("there is configuration space").class_code();
            let vfs = machine.shell.virtfns(pf);
            assert_eq!(vfs.len(), 2);
            for vf in vfs {
                let bytes = machine.shell.config(vf);
                let config = ConfigSpace::new(&bytes).expect("there is configuration space");
                assert_eq!((config.vendor_id(), config.device_id()), (0xffff, 0xffff), "{vf}");
                assert_eq!(config.class_code(), class, "{vf}");
                assert_eq!(bytes[0x10..0x28], [0; 0x18], "{vf} has BARs");
                let express = config.find(Capability::PCI_EXPRESS).expect("it is a PCI Express function");
                let capabilities = config.u32(express + DEVICE_CAPABILITIES).expect("it has capabilities");
                assert_ne!(capabilities & FLR_CAPABLE, 0, "{vf}");
                assert!(MsixCapability::find(&config).expect("it can be read").is_some(), "{vf}");
                assert!(config.find_extended(ExtendedCapability::ARI).is_some(), "{vf}");
                assert_eq!(config.find_extended(ExtendedCapability::SRIOV), None, "{vf}");
            }
        });
    }
}

/// PCIe 6.0 §9.2.2.2: a VF's own registers are reset, its PF's settings for it stay, and its neighbour is
/// unaffected.
pub(super) fn an_flr_resets_only_the_vfs_own_registers(machine: &Machine) {
    machine.with_vfs(machine.nic, 2, || {
        let first = VfId { pf: machine.nic, index: 0 };
        let change =
            VfSettings { mac: "52:54:00:c0:ff:ee".parse().ok(), vlan: Vlan::new(7), ..VfSettings::default() };
        machine.configure(first, &change).expect("a NIC VF has these settings");
        let vfs = machine.shell.virtfns(machine.nic);
        for vf in &vfs {
            machine.shell.write_config(*vf, COMMAND, BUS_MASTER);
            assert_eq!(machine.word(*vf, COMMAND), BUS_MASTER, "{vf}: it has this bit");
        }
        let control = machine.device_control(vfs[0]);
        machine.shell.write_config(vfs[0], control, machine.word(vfs[0], control) | INITIATE_FLR);
        machine.shell.settle(machine.nic);
        assert_eq!(machine.word(vfs[0], control) & INITIATE_FLR, 0, "it reads as zero");
        assert_eq!((machine.word(vfs[0], COMMAND), machine.word(vfs[1], COMMAND)), (0, BUS_MASTER));
        assert!(change.missing_from(&machine.settings(first)).is_empty(), "{:?}", machine.settings(first));
        assert_eq!(machine.shell.virtfns(machine.nic), vfs);
    });
}

/// `reset` in sysfs: configuration space is saved before and restored after (pci_reset_function).
pub(super) fn a_reset_by_the_kernel_restores_configuration_space(machine: &Machine) {
    for pf in [machine.nic, machine.nvme] {
        machine.with_vfs(pf, 1, || {
            let vf = machine.shell.virtfns(pf)[0];
            machine.shell.write_config(vf, COMMAND, BUS_MASTER);
            machine.reset(VfId { pf, index: 0 });
            assert_eq!(machine.word(vf, COMMAND), BUS_MASTER, "{vf}");
        });
    }
}
