//! The secondary controllers of an NVMe adapter, by Virtualization Management (NVMe Base 2.0 §5.28, §8.26).

use ioward_model::{VfId, VfSettings};

use super::{Machine, cause};

/// Invalid Secondary Controller State.
const INVALID_STATE: &str = "NVMe status 120h";
/// Invalid Number of Controller Resources.
const INVALID_NUMBER: &str = "NVMe status 121h";

/// A permanent difference: the model's driver refuses an offline controller, as Linux does since 6.2. Linux 6.1
/// binds it, tries to start it, and unbinds it moments later. On both it has no driver in the end.
pub(super) fn an_nvme_vf_without_resources_ends_up_without_a_driver(machine: &Machine) {
    machine.with_autoprobe(machine.nvme, true, || {
        assert_eq!(machine.shell.write_numvfs(machine.nvme, 1), Ok(()));
        let vf = machine.shell.virtfns(machine.nvme)[0];
        machine.shell.wait_until(&|| machine.shell.driver(vf).is_none());
        assert_eq!(machine.shell.write_numvfs(machine.nvme, 0), Ok(()));
    });
}

pub(super) fn an_nvme_vf_needs_resources_before_it_goes_online(machine: &Machine) {
    machine.with_vfs(machine.nvme, 1, || {
        let vf = VfId { pf: machine.nvme, index: 0 };
        let fresh = machine.settings(vf);
        assert_eq!((fresh.queues, fresh.interrupts, fresh.online), (Some(0), Some(0), Some(false)));
        let online = VfSettings { online: Some(true), ..VfSettings::default() };
        assert_eq!(cause(machine.configure(vf, &online)).to_string(), INVALID_STATE);
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

pub(super) fn nvme_resources_are_counted(machine: &Machine) {
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
        assert_eq!(cause(machine.configure(vf, &change)).to_string(), INVALID_NUMBER);
        let back = VfSettings { queues: Some(0), interrupts: Some(0), ..VfSettings::default() };
        machine.configure(vf, &back).expect("they can be given back");
        assert_eq!(resources().queues_assigned, assigned);
    });
}

/// The controller loses all its resources when it goes offline, as it must for every change; so a change of the
/// queues took the interrupts away. The model let it keep them.
pub(super) fn an_nvme_vf_keeps_the_settings_that_a_change_omits(machine: &Machine) {
    machine.with_vfs(machine.nvme, 1, || {
        let vf = VfId { pf: machine.nvme, index: 0 };
        let none = VfSettings::default;
        let given = VfSettings { queues: Some(2), interrupts: Some(1), online: Some(true), ..none() };
        machine.configure(vf, &given).expect("there are resources");
        for change in [
            VfSettings { queues: Some(3), ..none() },
            VfSettings { interrupts: Some(2), ..none() },
            VfSettings { online: Some(false), ..none() },
            VfSettings { online: Some(true), ..none() },
        ] {
            let expected = change.or(&machine.settings(vf));
            machine.configure(vf, &change).expect("it is a setting of its own");
            assert_eq!(machine.settings(vf), expected, "after {:?}", change.describe());
        }
    });
}
