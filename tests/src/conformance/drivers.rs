//! The driver of a VF: autoprobe, `driver_override`, `bind` and `unbind`.

use ioward_model::VfId;
use rustix::io::Errno;

use super::{Machine, errno};

const VFIO: &str = "vfio-pci";
/// The NIC's VF driver.
const OWN: &str = "igbvf";

/// bind_store and unbind_store: a driver without an ID or override for the device does not match, a VF has one
/// driver, and only that one can be unbound.
pub(super) fn bind_and_unbind_answer_by_errno(machine: &Machine) {
    machine.with_vfs(machine.nic, 1, || {
        let (shell, vf) = (&machine.shell, machine.shell.virtfns(machine.nic)[0]);
        assert_eq!((shell.driver(vf), shell.driver_override(vf)), (None, None));
        assert_eq!(shell.bind(vf, "no-such-driver"), Err(Errno::NOENT));
        assert_eq!(shell.unbind(vf, VFIO), Err(Errno::NODEV), "it does not have it");
        assert_eq!(shell.bind(vf, VFIO), Err(Errno::NODEV), "it does not know it");

        shell.write_driver_override(vf, Some(VFIO));
        assert_eq!(shell.driver_override(vf).as_deref(), Some(VFIO));
        assert_eq!(shell.bind(vf, "nvme"), Err(Errno::NODEV), "another is named");
        assert_eq!(shell.bind(vf, VFIO), Ok(()));
        assert_eq!(shell.driver(vf).as_deref(), Some(VFIO));
        assert_eq!(shell.bind(vf, VFIO), Err(Errno::BUSY), "it has one");
        assert_eq!(shell.unbind(vf, "nvme"), Err(Errno::NODEV), "it has another");
        shell.write_driver_override(vf, None);
        assert_eq!(shell.driver(vf).as_deref(), Some(VFIO), "that binds nothing and lets go of nothing");
        assert_eq!(shell.unbind(vf, VFIO), Ok(()));
        assert_eq!((shell.driver(vf), shell.driver_override(vf)), (None, None));
    });
}

pub(super) fn with_autoprobe_vfs_get_their_own_driver(machine: &Machine) {
    machine.with_autoprobe(machine.nic, true, || {
        machine.set_count(machine.nic, 2).expect("VFs can be made");
        let vfs = machine.pf(machine.nic).virtual_functions;
        assert_eq!(vfs.len(), 2);
        for vf in vfs {
            assert_eq!((vf.driver.as_deref(), vf.netdevs.len()), (Some(OWN), 1), "{vf:?}");
            assert_eq!(machine.shell.driver_override(vf.address), None);
        }
        machine.set_count(machine.nic, 0).expect("VFs can be taken away");
    });
}

/// pci_device_can_probe: with `sriov_drivers_autoprobe` off, even a bind by hand fails for a VF's own driver,
/// unless an override names it.
pub(super) fn without_autoprobe_a_vfs_own_driver_needs_an_override(machine: &Machine) {
    machine.with_vfs(machine.nic, 1, || {
        let (shell, vf) = (&machine.shell, machine.shell.virtfns(machine.nic)[0]);
        assert_eq!(shell.bind(vf, OWN), Err(Errno::NODEV));
        shell.write_driver_override(vf, Some(OWN));
        assert_eq!((shell.bind(vf, OWN), shell.unbind(vf, OWN)), (Ok(()), Ok(())));
        shell.write_driver_override(vf, None);
        // The fabric uses an override, and leaves none behind.
        let id = VfId { pf: machine.nic, index: 0 };
        assert_eq!(machine.bind(id, Some(OWN)).expect("its own driver takes it"), None);
        assert_eq!((shell.driver(vf).as_deref(), shell.driver_override(vf)), (Some(OWN), None));
        assert_eq!(machine.bind(id, None).expect("it lets go").as_deref(), Some(OWN));
    });
}

/// Only an open VF keeps its PF from removing it.
pub(super) fn vfs_that_are_not_open_are_removed_whatever_their_driver(machine: &Machine) {
    for pf in [machine.nic, machine.nvme] {
        machine.with_vfs(pf, 2, || {
            for index in [0, 1] {
                machine.bind(VfId { pf, index }, Some(VFIO)).expect("vfio-pci takes a VF");
            }
            assert_eq!(machine.shell.write_numvfs(pf, 0), Ok(()));
            assert_eq!(machine.shell.virtfns(pf), []);
        });
        machine.shell.settle(pf);
    }
}

pub(super) fn without_autoprobe_vfs_have_no_driver(machine: &Machine) {
    machine.with_vfs(machine.nic, 2, || {
        let pf = machine.pf(machine.nic);
        assert_eq!(pf.drivers_autoprobe, Some(false));
        assert!(pf.virtual_functions.iter().all(|vf| vf.driver.is_none()));
    });
}

pub(super) fn binding_returns_the_previous_driver(machine: &Machine) {
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

pub(super) fn binding_to_a_missing_driver_changes_nothing(machine: &Machine) {
    machine.with_vfs(machine.nic, 1, || {
        let vf = VfId { pf: machine.nic, index: 0 };
        machine.bind(vf, Some("vfio-pci")).expect("vfio-pci takes a VF");
        assert_eq!(errno(machine.bind(vf, Some("no-such-driver"))), Some(Errno::NOENT));
        assert_eq!(machine.pf(machine.nic).virtual_functions[0].driver.as_deref(), Some("vfio-pci"));
        machine.bind(vf, None).expect("it lets go");
    });
}
