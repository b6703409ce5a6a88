//! One suite, two machines: the same bodies run against the Linux kernel in the lab and against the simulated machine.
//!
//! A difference between the two is a bug in the model; its story then heads the test that found it. Each body
//! begins and ends with a machine whose adapters have no VFs.
//!
//! A machine is examined through [`Fabric`], as the management partition does, and through [`Shell`], which
//! bypasses it: otherwise a [`Fabric`]'s own checks would be compared with themselves.

mod counts;
mod drivers;
mod errors;
mod nic;
mod nvme;
mod registers;

use ioward_fabric::{Fabric, FabricError, sim::Severity};
use ioward_model::{Inventory, PhysicalFunction, VfId, VfSettings};
use ioward_pci::Bdf;
use rustix::io::Errno;
use tokio::runtime::Runtime;

/// A machine under test, with a NIC and an NVMe adapter that nothing uses.
pub struct Machine {
    /// Its PCI side.
    pub fabric: Box<dyn Fabric>,
    /// The same side, without any of ioward's code.
    pub shell: Box<dyn Shell>,
    /// A PF of an 82576 with at least 3 VFs, up.
    pub nic: Bdf,
    /// An NVMe PF with at least 2 VFs.
    pub nvme: Bdf,
    /// Runs its asynchronous operations.
    pub runtime: Runtime,
}

/// The actions of a person at the machine's shell, with `echo`, `ls` and `setpci`. Errors are the kernel's.
pub trait Shell {
    /// Writes `sriov_numvfs`.
    fn write_numvfs(&self, pf: Bdf, count: u16) -> Result<(), Errno>;
    /// Reads `sriov_numvfs`.
    fn numvfs(&self, pf: Bdf) -> u16;
    /// The targets of `virtfn0` and the others, in order.
    fn virtfns(&self, pf: Bdf) -> Vec<Bdf>;
    /// The target of a VF's `driver`.
    fn driver(&self, vf: Bdf) -> Option<String>;
    /// Reads `driver_override`.
    fn driver_override(&self, vf: Bdf) -> Option<String>;
    /// Writes `driver_override`.
    fn write_driver_override(&self, vf: Bdf, driver: Option<&str>);
    /// Writes a VF's address to a driver's `bind`.
    fn bind(&self, vf: Bdf, driver: &str) -> Result<(), Errno>;
    /// Writes a VF's address to a driver's `unbind`.
    fn unbind(&self, vf: Bdf, driver: &str) -> Result<(), Errno>;
    /// A function's whole configuration space; all ones where there is no function.
    fn config(&self, function: Bdf) -> Vec<u8>;
    /// Writes a word of configuration space.
    fn write_config(&self, function: Bdf, offset: usize, value: u16);
    /// A function reports an error, as far as the kernel can tell.
    fn inject(&self, function: Bdf, severity: Severity);
    /// Brings the interface of a PF up, or down.
    fn set_up(&self, pf: Bdf, up: bool);
    /// Takes an adapter out, with whatever it has.
    fn take_out(&self, pf: Bdf);
    /// Puts it back.
    fn put_back(&self, pf: Bdf);
    /// Waits as long as a function needs after a reset, and for a link to come back.
    fn settle(&self, pf: Bdf);
    /// Waits until the kernel has made something true; ends the test if it does not.
    fn wait_until(&self, is_so: &dyn Fn() -> bool);
}

/// A body of the suite with its name.
pub type Body = (&'static str, fn(&Machine));

macro_rules! bodies {
    ($($module:ident::$name:ident),* $(,)?) => { &[$((stringify!($name), $module::$name)),*] };
}

/// The suite.
pub const SUITE: &[Body] = bodies![
    counts::a_pf_without_vfs_says_so,
    counts::every_write_to_numvfs_is_answered_by_errno,
    counts::vfs_appear_at_first_offset_plus_stride,
    counts::the_same_count_again_changes_nothing,
    counts::one_count_to_another_goes_through_zero_only,
    counts::more_than_total_vfs_is_refused,
    counts::a_missing_function_is_reported_as_missing,
    registers::registers_follow_numvfs,
    registers::a_vf_is_a_function_of_its_own,
    registers::an_flr_resets_only_the_vfs_own_registers,
    registers::a_reset_by_the_kernel_restores_configuration_space,
    drivers::without_autoprobe_vfs_have_no_driver,
    drivers::with_autoprobe_vfs_get_their_own_driver,
    drivers::bind_and_unbind_answer_by_errno,
    drivers::without_autoprobe_a_vfs_own_driver_needs_an_override,
    drivers::binding_returns_the_previous_driver,
    drivers::binding_to_a_missing_driver_changes_nothing,
    drivers::vfs_that_are_not_open_are_removed_whatever_their_driver,
    nic::nic_settings_read_back_as_they_were_set,
    nic::a_nic_refuses_invalid_settings_by_errno,
    nic::settings_made_by_the_pf_survive_a_reset_of_the_vf,
    nic::a_failed_change_has_no_effect,
    nic::new_vfs_have_none_of_the_settings_of_old_ones,
    nvme::an_nvme_vf_needs_resources_before_it_goes_online,
    nvme::an_nvme_vf_without_resources_ends_up_without_a_driver,
    nvme::an_nvme_vf_keeps_the_settings_that_a_change_omits,
    nvme::nvme_resources_are_counted,
    errors::a_pf_that_has_corrected_errors_counts_them_and_they_change_nothing,
    errors::a_pf_that_has_errors_that_are_not_fatal_tells_them_and_loses_nothing,
    errors::a_pf_that_goes_down_and_up_keeps_its_vfs_and_their_settings,
    errors::a_pf_that_is_reset_keeps_its_vfs_and_their_settings,
    errors::a_pf_that_is_bound_anew_has_lost_its_vfs_and_nothing_else,
    errors::a_pf_that_is_taken_out_is_gone_with_its_vfs_and_comes_back_without,
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

    fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        self.runtime.block_on(self.fabric.bind(vf, driver))
    }

    fn reset(&self, vf: VfId) {
        self.runtime.block_on(self.fabric.reset(vf)).expect("a VF has a function-level reset");
    }

    fn settings(&self, vf: VfId) -> VfSettings {
        self.runtime.block_on(self.fabric.settings(vf)).expect("settings can be read")
    }

    fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        self.runtime.block_on(self.fabric.configure(vf, change))
    }

    /// Runs a body with driver autoprobe on or off.
    fn with_autoprobe(&self, pf: Bdf, on: bool, body: impl FnOnce()) {
        let set = |on| {
            self.runtime.block_on(self.fabric.set_autoprobe(pf, on)).expect("autoprobe can be set");
        };
        let before = self.pf(pf).drivers_autoprobe.expect("autoprobe can be read");
        set(on);
        body();
        set(before);
    }

    /// Runs a body with `count` VFs of a PF, without drivers, and removes them.
    fn with_vfs(&self, pf: Bdf, count: u16, body: impl FnOnce()) {
        self.with_autoprobe(pf, false, || {
            self.set_count(pf, count).expect("VFs can be made");
            body();
            self.set_count(pf, 0).expect("VFs can be taken away");
        });
    }
}

/// The cause of a refusal; other errors end the test.
fn cause<T: std::fmt::Debug>(result: Result<T, FabricError>) -> std::io::Error {
    match result {
        Err(FabricError::Refused { source, .. }) => source,
        other => panic!("expected a refusal, got: {other:?}"),
    }
}

/// The errno of a refusal.
fn errno<T: std::fmt::Debug>(result: Result<T, FabricError>) -> Option<Errno> {
    Errno::from_io_error(&cause(result))
}
