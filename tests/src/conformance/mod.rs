//! One suite, two machines: the same bodies run against the Linux kernel in the lab and against the simulated machine.
//!
//! A difference between the two is a bug in the model; its story then stands at the test that found it. Each body
//! begins and ends with a machine whose adapters give no VFs.

use std::io;

use ioward_fabric::{Fabric, FabricError};
use ioward_model::{Inventory, PhysicalFunction, VfId, VfSettings, Vlan};
use ioward_pci::Bdf;
use tokio::runtime::Runtime;

/// A machine under test, with a NIC and an NVMe adapter that nothing uses.
pub struct Machine {
    /// Its PCI side.
    pub fabric: Box<dyn Fabric>,
    /// A NIC PF with at least 3 VFs, up.
    pub nic: Bdf,
    /// An NVMe PF with at least 2 VFs.
    pub nvme: Bdf,
    /// Where its asynchronous operations run.
    pub runtime: Runtime,
}

/// A body of the suite with its name.
pub type Body = (&'static str, fn(&Machine));

/// The suite.
pub const SUITE: &[Body] = &[
    ("a_pf_without_vfs_says_so", a_pf_without_vfs_says_so),
    ("vfs_appear_at_first_offset_plus_stride", vfs_appear_at_first_offset_plus_stride),
    ("the_same_count_again_is_nothing", the_same_count_again_is_nothing),
    ("one_count_to_another_goes_through_zero_only", one_count_to_another_goes_through_zero_only),
    ("more_than_total_vfs_is_refused", more_than_total_vfs_is_refused),
    ("what_is_not_there_is_said_not_to_be", what_is_not_there_is_said_not_to_be),
    ("without_autoprobe_vfs_have_no_driver", without_autoprobe_vfs_have_no_driver),
    ("binding_says_what_was_there_before", binding_says_what_was_there_before),
    ("a_driver_that_does_not_exist_leaves_all_as_it_was", a_driver_that_does_not_exist_leaves_all_as_it_was),
    ("nic_settings_read_back_as_they_were_set", nic_settings_read_back_as_they_were_set),
    ("what_the_pf_set_survives_a_reset_of_the_vf", what_the_pf_set_survives_a_reset_of_the_vf),
    ("a_change_that_fails_leaves_no_part_of_itself", a_change_that_fails_leaves_no_part_of_itself),
    ("new_vfs_have_forgotten_the_settings_of_old_ones", new_vfs_have_forgotten_the_settings_of_old_ones),
    ("an_nvme_vf_needs_resources_before_it_goes_online", an_nvme_vf_needs_resources_before_it_goes_online),
    ("nvme_resources_are_counted", nvme_resources_are_counted),
];

impl Machine {
    fn look(&self) -> Inventory {
        self.runtime.block_on(self.fabric.identify()).expect("the machine can be looked at")
    }

    fn pf(&self, address: Bdf) -> PhysicalFunction {
        let inventory = self.look();
        inventory.physical_function(address).expect("the PF is there").clone()
    }

    fn set_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
        self.runtime.block_on(self.fabric.set_vf_count(pf, count))
    }

    fn autoprobe(&self, pf: Bdf, on: bool) {
        self.runtime.block_on(self.fabric.set_autoprobe(pf, on)).expect("autoprobe can be set");
    }

    fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        self.runtime.block_on(self.fabric.bind(vf, driver))
    }

    fn settings(&self, vf: VfId) -> VfSettings {
        self.runtime.block_on(self.fabric.settings(vf)).expect("settings can be read")
    }

    fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        self.runtime.block_on(self.fabric.configure(vf, change))
    }

    /// Runs a body with `count` VFs of a PF, without drivers, and takes them away again.
    fn with_vfs(&self, pf: Bdf, count: u16, body: impl FnOnce()) {
        let before = self.pf(pf).drivers_autoprobe.expect("autoprobe can be read");
        self.autoprobe(pf, false);
        self.set_count(pf, count).expect("VFs can be made");
        body();
        self.set_count(pf, 0).expect("VFs can be taken away");
        self.autoprobe(pf, before);
    }
}

/// The errno of a refusal; other errors end the test.
fn errno(result: Result<(), FabricError>) -> Option<i32> {
    match result {
        Err(FabricError::Refused { source, .. }) => source.raw_os_error(),
        Err(other) => panic!("expected a refusal, got: {other}"),
        Ok(()) => panic!("expected a refusal; it was done"),
    }
}

fn os(code: rustix::io::Errno) -> Option<i32> {
    io::Error::from(code).raw_os_error()
}

fn a_pf_without_vfs_says_so(machine: &Machine) {
    for address in [machine.nic, machine.nvme] {
        let pf = machine.pf(address);
        let sriov = pf.sriov.expect("the SR-IOV capability can be read");
        assert!(sriov.total_vfs >= 2 && sriov.initial_vfs == sriov.total_vfs);
        assert_eq!((sriov.num_vfs, sriov.vf_enable), (0, false));
        assert!(pf.virtual_functions.is_empty());
        assert!(pf.reasons.is_empty(), "{:?}", pf.reasons);
    }
}

fn vfs_appear_at_first_offset_plus_stride(machine: &Machine) {
    machine.with_vfs(machine.nic, 3, || {
        let pf = machine.pf(machine.nic);
        let sriov = pf.sriov.clone().expect("the SR-IOV capability can be read");
        assert_eq!((sriov.num_vfs, sriov.vf_enable), (3, true));
        assert_eq!(pf.virtual_functions.len(), 3);
        for (index, vf) in (0..).zip(&pf.virtual_functions) {
            let expected = pf.address.virtual_function(sriov.first_vf_offset, sriov.vf_stride, index);
            assert_eq!((vf.index, Some(vf.address)), (index, expected));
            let id = VfId { pf: machine.nic, index };
            assert_eq!(
                machine.runtime.block_on(machine.fabric.vf_address(id)).expect("it is there"),
                vf.address
            );
            assert!(vf.iommu_group.is_some() && vf.iommu_group_shared_with.is_empty());
        }
    });
    assert!(machine.pf(machine.nic).virtual_functions.is_empty());
}

fn the_same_count_again_is_nothing(machine: &Machine) {
    machine.set_count(machine.nic, 0).expect("zero of zero is fine");
    machine.with_vfs(machine.nic, 2, || {
        machine.set_count(machine.nic, 2).expect("two of two is fine");
        assert_eq!(machine.pf(machine.nic).num_vfs(), 2);
    });
}

fn one_count_to_another_goes_through_zero_only(machine: &Machine) {
    machine.with_vfs(machine.nic, 2, || {
        for other in [1, 3] {
            assert_eq!(errno(machine.set_count(machine.nic, other)), os(rustix::io::Errno::BUSY));
            assert_eq!(machine.pf(machine.nic).num_vfs(), 2);
        }
    });
}

fn more_than_total_vfs_is_refused(machine: &Machine) {
    for pf in [machine.nic, machine.nvme] {
        let total = machine.pf(pf).total_vfs();
        assert_eq!(errno(machine.set_count(pf, total + 1)), os(rustix::io::Errno::RANGE));
        assert_eq!(machine.pf(pf).num_vfs(), 0);
    }
}

fn what_is_not_there_is_said_not_to_be(machine: &Machine) {
    let nowhere: Bdf = "0000:fe:1f.7".parse().expect("an address");
    let error = machine.set_count(nowhere, 1).expect_err("there is no such PF");
    assert!(matches!(error, FabricError::NoSuchFunction { .. }), "{error}");
    machine.with_vfs(machine.nic, 1, || {
        let second = VfId { pf: machine.nic, index: 1 };
        let error = machine.runtime.block_on(machine.fabric.vf_address(second)).expect_err("there is one VF");
        assert!(matches!(error, FabricError::NoSuchVf { num_vfs: 1, .. }), "{error}");
        let error = machine.bind(second, Some("vfio-pci")).expect_err("there is one VF");
        assert!(matches!(error, FabricError::NoSuchVf { .. }), "{error}");
    });
}

fn without_autoprobe_vfs_have_no_driver(machine: &Machine) {
    machine.with_vfs(machine.nic, 2, || {
        let pf = machine.pf(machine.nic);
        assert_eq!(pf.drivers_autoprobe, Some(false));
        assert!(pf.virtual_functions.iter().all(|vf| vf.driver.is_none()));
    });
}

fn binding_says_what_was_there_before(machine: &Machine) {
    machine.with_vfs(machine.nic, 1, || {
        let vf = VfId { pf: machine.nic, index: 0 };
        let driver = || machine.pf(machine.nic).virtual_functions[0].driver.clone();
        assert_eq!(machine.bind(vf, Some("vfio-pci")).expect("vfio-pci takes a VF"), None);
        assert_eq!(driver().as_deref(), Some("vfio-pci"));
        assert_eq!(machine.bind(vf, Some("vfio-pci")).expect("again is fine").as_deref(), Some("vfio-pci"));
        assert_eq!(machine.bind(vf, None).expect("it lets go").as_deref(), Some("vfio-pci"));
        assert_eq!(driver(), None);
        assert_eq!(machine.bind(vf, None).expect("again is fine"), None);
    });
}

fn a_driver_that_does_not_exist_leaves_all_as_it_was(machine: &Machine) {
    machine.with_vfs(machine.nic, 1, || {
        let vf = VfId { pf: machine.nic, index: 0 };
        machine.bind(vf, Some("vfio-pci")).expect("vfio-pci takes a VF");
        machine.bind(vf, Some("no-such-driver")).expect_err("there is no such driver");
        assert_eq!(machine.pf(machine.nic).virtual_functions[0].driver.as_deref(), Some("vfio-pci"));
        machine.bind(vf, None).expect("it lets go");
    });
}

fn nic_settings_read_back_as_they_were_set(machine: &Machine) {
    machine.with_vfs(machine.nic, 2, || {
        let (first, second) = (VfId { pf: machine.nic, index: 0 }, VfId { pf: machine.nic, index: 1 });
        let untouched = machine.settings(second);
        let change = VfSettings {
            mac: "52:54:00:c0:ff:ee".parse().ok(),
            vlan: Vlan::new(100),
            trust: Some(true),
            spoofchk: Some(false),
            ..VfSettings::default()
        };
        machine.configure(first, &change).expect("a NIC VF has these settings");
        assert!(change.missing_from(&machine.settings(first)).is_empty(), "{:?}", machine.settings(first));
        assert_eq!(machine.settings(second), untouched, "the VF beside it is left alone");
    });
}

fn what_the_pf_set_survives_a_reset_of_the_vf(machine: &Machine) {
    machine.with_vfs(machine.nic, 1, || {
        let vf = VfId { pf: machine.nic, index: 0 };
        let change =
            VfSettings { mac: "52:54:00:c0:ff:ee".parse().ok(), vlan: Vlan::new(7), ..VfSettings::default() };
        machine.configure(vf, &change).expect("a NIC VF has these settings");
        machine.runtime.block_on(machine.fabric.reset(vf)).expect("a VF has a function-level reset");
        assert!(change.missing_from(&machine.settings(vf)).is_empty(), "{:?}", machine.settings(vf));
    });
}

fn a_change_that_fails_leaves_no_part_of_itself(machine: &Machine) {
    machine.with_vfs(machine.nic, 1, || {
        let vf = VfId { pf: machine.nic, index: 0 };
        let before = machine.settings(vf);
        let change = VfSettings { vlan: Vlan::new(9), queues: Some(2), ..VfSettings::default() };
        machine.configure(vf, &change).expect_err("a NIC VF has no NVMe queues");
        assert_eq!(machine.settings(vf), before);
    });
}

fn new_vfs_have_forgotten_the_settings_of_old_ones(machine: &Machine) {
    let vf = VfId { pf: machine.nic, index: 0 };
    machine.with_vfs(machine.nic, 1, || {
        let change = VfSettings { vlan: Vlan::new(100), ..VfSettings::default() };
        machine.configure(vf, &change).expect("a NIC VF has a VLAN");
    });
    machine.with_vfs(machine.nic, 1, || {
        assert_eq!(machine.settings(vf).vlan, Vlan::new(0));
    });
}

fn an_nvme_vf_needs_resources_before_it_goes_online(machine: &Machine) {
    machine.with_vfs(machine.nvme, 1, || {
        let vf = VfId { pf: machine.nvme, index: 0 };
        let fresh = machine.settings(vf);
        assert_eq!((fresh.queues, fresh.interrupts, fresh.online), (Some(0), Some(0), Some(false)));
        let online = VfSettings { online: Some(true), ..VfSettings::default() };
        machine.configure(vf, &online).expect_err("a controller without queues does not go online");
        let resources =
            VfSettings { queues: Some(2), interrupts: Some(1), online: Some(true), ..VfSettings::default() };
        machine.configure(vf, &resources).expect("with queues and an interrupt it does");
        assert!(resources.missing_from(&machine.settings(vf)).is_empty());
        let back =
            VfSettings { queues: Some(0), interrupts: Some(0), online: Some(false), ..VfSettings::default() };
        machine.configure(vf, &back).expect("and back again");
        assert!(back.missing_from(&machine.settings(vf)).is_empty());
    });
}

fn nvme_resources_are_counted(machine: &Machine) {
    machine.with_vfs(machine.nvme, 1, || {
        let vf = VfId { pf: machine.nvme, index: 0 };
        let resources =
            || machine.pf(machine.nvme).nvme.and_then(|nvme| nvme.resources).expect("they can be read");
        let (total, assigned) = (resources().queues_total, resources().queues_assigned);
        let change = VfSettings { queues: Some(2), interrupts: Some(1), ..VfSettings::default() };
        machine.configure(vf, &change).expect("there are resources");
        assert_eq!((resources().queues_total, resources().queues_assigned), (total, assigned + 2));
        let too_many = u16::try_from(total + 1).expect("not that many");
        let change = VfSettings { queues: Some(too_many), ..VfSettings::default() };
        machine.configure(vf, &change).expect_err("there are not so many");
        let back = VfSettings { queues: Some(0), interrupts: Some(0), ..VfSettings::default() };
        machine.configure(vf, &back).expect("they can be given back");
        assert_eq!(resources().queues_assigned, assigned);
    });
}
