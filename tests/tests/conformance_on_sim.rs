//! The conformance suite on the simulated machine; the lab runs the same bodies on the Linux kernel (on_linux.rs).

// Helpers of tests are tests too, which the lints do not see.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ioward_fabric::sim::{Errno, PfView, SimMachine, VfView};
use ioward_model::Class;
use ioward_pci::Bdf;
use ioward_tests::conformance::{Machine, SUITE, Shell};

fn machine() -> Machine {
    let simulated = SimMachine::standard(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fabric = Box::new(simulated.fabric());
    let inventory = runtime.block_on(ioward_fabric::Fabric::identify(&*fabric)).unwrap();
    let of_class = |class| inventory.physical_functions.iter().find(|pf| pf.class == class).unwrap().address;
    let (nic, nvme) = (of_class(Class::Network), of_class(Class::Nvme));
    Machine { nic, nvme, fabric, shell: Box::new(Simulated(simulated)), runtime }
}

/// The simulated machine past its fabric.
struct Simulated(SimMachine);

impl Simulated {
    fn pf(&self, pf: Bdf) -> PfView {
        self.0.snapshot().physical_functions.remove(&pf).unwrap()
    }

    fn vf(&self, vf: Bdf) -> VfView {
        let pfs = self.0.snapshot().physical_functions;
        pfs.into_values().flat_map(|pf| pf.vfs).find(|view| view.address == vf).unwrap()
    }
}

impl Shell for Simulated {
    fn write_numvfs(&self, pf: Bdf, count: u16) -> Result<(), Errno> {
        self.0.write_numvfs(pf, count)
    }

    fn numvfs(&self, pf: Bdf) -> u16 {
        self.pf(pf).num_vfs
    }

    fn virtfns(&self, pf: Bdf) -> Vec<Bdf> {
        self.pf(pf).vfs.iter().map(|vf| vf.address).collect()
    }

    fn driver(&self, vf: Bdf) -> Option<String> {
        self.vf(vf).driver
    }

    fn driver_override(&self, vf: Bdf) -> Option<String> {
        self.vf(vf).driver_override
    }

    fn write_driver_override(&self, vf: Bdf, driver: Option<&str>) {
        self.0.write_driver_override(vf, driver).unwrap();
    }

    fn bind(&self, vf: Bdf, driver: &str) -> Result<(), Errno> {
        self.0.write_bind(vf, driver)
    }

    fn unbind(&self, vf: Bdf, driver: &str) -> Result<(), Errno> {
        self.0.write_unbind(vf, driver)
    }

    fn config(&self, function: Bdf) -> Vec<u8> {
        (0..4096).step_by(4).flat_map(|offset| self.0.config_read::<4>(function, offset)).collect()
    }

    fn write_config(&self, function: Bdf, offset: usize, value: u16) {
        self.0.config_write(function, offset.try_into().unwrap(), value.to_le_bytes());
    }

    fn settle(&self, _pf: Bdf) {
        self.0.advance(Duration::from_secs(10));
    }

    fn wait_until(&self, is_so: &dyn Fn() -> bool) {
        self.0.advance(Duration::from_secs(10));
        assert!(is_so());
    }
}

/// One test for each body, so that each is seen by name.
macro_rules! suite {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            let (_, body) = SUITE.iter().find(|(name, _)| *name == stringify!($name)).unwrap();
            body(&machine());
        })*

        #[test]
        fn every_body_of_the_suite_runs_here() {
            let here = [$(stringify!($name)),*];
            assert_eq!(SUITE.iter().map(|(name, _)| *name).collect::<Vec<_>>(), here);
        }
    };
}

suite! {
    a_pf_without_vfs_says_so
    every_write_to_numvfs_is_answered_by_errno
    vfs_appear_at_first_offset_plus_stride
    the_same_count_again_is_nothing
    one_count_to_another_goes_through_zero_only
    more_than_total_vfs_is_refused
    what_is_not_there_is_said_not_to_be
    registers_follow_numvfs
    a_vf_is_a_function_of_its_own
    an_flr_resets_what_is_the_vfs_own_and_no_more
    a_reset_by_the_kernel_gives_configuration_space_back
    without_autoprobe_vfs_have_no_driver
    with_autoprobe_vfs_get_their_own_driver
    bind_and_unbind_answer_by_errno
    without_autoprobe_a_vfs_own_driver_needs_an_override
    binding_says_what_was_there_before
    a_driver_that_does_not_exist_leaves_all_as_it_was
    vfs_that_nobody_has_open_go_whatever_their_driver
    nic_settings_read_back_as_they_were_set
    what_a_nic_does_not_take_is_told_by_errno
    what_the_pf_set_survives_a_reset_of_the_vf
    a_change_that_fails_leaves_no_part_of_itself
    new_vfs_have_forgotten_the_settings_of_old_ones
    an_nvme_vf_needs_resources_before_it_goes_online
    an_nvme_vf_without_resources_ends_without_a_driver
    an_nvme_vf_keeps_what_a_change_does_not_name
    nvme_resources_are_counted
}
