//! The conformance suite on the simulated machine; the lab runs the same bodies on the Linux kernel (on_linux.rs).

// Helpers of tests are tests too, which the lints do not see.
#![allow(clippy::unwrap_used)]

use ioward_fabric::sim::SimMachine;
use ioward_model::Class;
use ioward_tests::conformance::{Machine, SUITE};

fn machine() -> Machine {
    let simulated = SimMachine::standard(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fabric = Box::new(simulated.fabric());
    let inventory = runtime.block_on(ioward_fabric::Fabric::identify(&*fabric)).unwrap();
    let of_class = |class| inventory.physical_functions.iter().find(|pf| pf.class == class).unwrap().address;
    Machine { nic: of_class(Class::Network), nvme: of_class(Class::Nvme), fabric, runtime }
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
    vfs_appear_at_first_offset_plus_stride
    the_same_count_again_is_nothing
    one_count_to_another_goes_through_zero_only
    more_than_total_vfs_is_refused
    what_is_not_there_is_said_not_to_be
    without_autoprobe_vfs_have_no_driver
    binding_says_what_was_there_before
    a_driver_that_does_not_exist_leaves_all_as_it_was
    nic_settings_read_back_as_they_were_set
    what_the_pf_set_survives_a_reset_of_the_vf
    a_change_that_fails_leaves_no_part_of_itself
    new_vfs_have_forgotten_the_settings_of_old_ones
    an_nvme_vf_needs_resources_before_it_goes_online
    an_nvme_vf_keeps_what_a_change_does_not_name
    nvme_resources_are_counted
}
