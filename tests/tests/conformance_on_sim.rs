//! The conformance suite on the simulated machine; the lab runs the same bodies on the Linux kernel (on_linux.rs).

// Helpers of tests are tests too, which the lints do not see.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use ioward_fabric::{
    Fabric,
    sim::{Errno, PfView, Severity, SimMachine, VfView},
};
use ioward_hypervisor::{
    Guard,
    qemu::{QemuConfig, QemuHypervisor},
};
use ioward_model::{Class, VfId};
use ioward_pci::Bdf;
use ioward_privsep::{Server, connect};
use ioward_tests::conformance::{Machine, SUITE, Shell};
use tokio::{net::UnixStream, runtime::Runtime, sync::mpsc};

/// A way to the simulated machine's PCI side.
type Way = fn(SimMachine, &Runtime) -> Box<dyn Fabric>;

fn directly(machine: SimMachine, _: &Runtime) -> Box<dyn Fabric> {
    Box::new(machine.fabric())
}

/// As a management partition in a process of its own has it. No machine is started, so the hypervisor has nothing to do.
fn over_the_socket(machine: SimMachine, runtime: &Runtime) -> Box<dyn Fabric> {
    let _in_runtime = runtime.enter();
    let (host, imp) = UnixStream::pair().unwrap();
    let fabric = machine.fabric();
    let folder = tempfile::tempdir().unwrap();
    let config = QemuConfig { runtime_dir: folder.path().to_owned(), ..QemuConfig::default() };
    let hypervisor = Arc::new(runtime.block_on(QemuHypervisor::open(config)).unwrap());
    let guard = Guard::new(hypervisor, move |function| Ok(machine.facts(function)));
    let server = Server::new(Arc::new(fabric), Arc::new(guard));
    let (words, stop) = (mpsc::unbounded_channel().0, mpsc::channel(1).1);
    runtime.spawn(async move {
        // The folder goes with it.
        let _folder = folder;
        server.serve(host, words, stop).await
    });
    let (remote, _told) = connect(imp);
    Box::new(remote)
}

fn machine(way: Way) -> Machine {
    let simulated = SimMachine::standard(1);
    let runtime = Runtime::new().unwrap();
    let fabric = way(simulated.clone(), &runtime);
    let inventory = runtime.block_on(fabric.identify()).unwrap();
    assert_eq!(
        inventory,
        runtime.block_on(simulated.fabric().identify()).unwrap(),
        "nothing is lost on the way"
    );
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

    fn inject(&self, function: Bdf, severity: Severity) {
        let pfs = self.0.snapshot().physical_functions;
        let vfs = pfs.iter().flat_map(|(pf, view)| (0..).zip(&view.vfs).map(|(index, vf)| (*pf, index, vf)));
        let vf = { vfs }.find(|(.., vf)| vf.address == function);
        let told = match vf {
            Some((pf, index, _)) => self.0.report_vf_error(VfId { pf, index }, severity),
            None => self.0.report_error(function, severity, None),
        };
        assert_eq!(told, Ok(Vec::new()), "nobody has a VF open");
    }

    fn set_up(&self, pf: Bdf, up: bool) {
        self.0.set_up(pf, up).unwrap();
    }

    fn take_out(&self, pf: Bdf) {
        assert!(self.0.unplug(pf));
    }

    fn put_back(&self, pf: Bdf) {
        assert_eq!(self.0.replug(pf), Some(pf));
    }

    fn settle(&self, _pf: Bdf) {
        self.0.advance(Duration::from_secs(10));
    }

    fn wait_until(&self, is_so: &dyn Fn() -> bool) {
        self.0.advance(Duration::from_secs(10));
        assert!(is_so());
    }
}

fn body(wanted: &str) -> fn(&Machine) {
    SUITE.iter().find(|(name, _)| *name == wanted).unwrap().1
}

/// One test for each body, so that each is seen by name.
macro_rules! suite {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            body(stringify!($name))(&machine(directly));
        })*

        /// The same from the other side of the socket between the two sides of a daemon: it changes no answer and no error.
        mod from_a_process_of_its_own {
            use super::*;

            $(#[test]
            fn $name() {
                body(stringify!($name))(&machine(over_the_socket));
            })*
        }

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
    the_same_count_again_changes_nothing
    one_count_to_another_goes_through_zero_only
    more_than_total_vfs_is_refused
    a_missing_function_is_reported_as_missing
    registers_follow_numvfs
    a_vf_is_a_function_of_its_own
    an_flr_resets_only_the_vfs_own_registers
    a_reset_by_the_kernel_restores_configuration_space
    without_autoprobe_vfs_have_no_driver
    with_autoprobe_vfs_get_their_own_driver
    bind_and_unbind_answer_by_errno
    without_autoprobe_a_vfs_own_driver_needs_an_override
    binding_returns_the_previous_driver
    binding_to_a_missing_driver_changes_nothing
    vfs_that_are_not_open_are_removed_whatever_their_driver
    nic_settings_read_back_as_they_were_set
    a_nic_refuses_invalid_settings_by_errno
    settings_made_by_the_pf_survive_a_reset_of_the_vf
    a_failed_change_has_no_effect
    new_vfs_have_none_of_the_settings_of_old_ones
    an_nvme_vf_needs_resources_before_it_goes_online
    an_nvme_vf_without_resources_ends_up_without_a_driver
    an_nvme_vf_keeps_the_settings_that_a_change_omits
    nvme_resources_are_counted
    a_pf_that_has_corrected_errors_counts_them_and_they_change_nothing
    a_pf_that_has_errors_that_are_not_fatal_tells_them_and_loses_nothing
    a_pf_that_goes_down_and_up_keeps_its_vfs_and_their_settings
    a_pf_that_is_reset_keeps_its_vfs_and_their_settings
    a_pf_that_is_bound_anew_has_lost_its_vfs_and_nothing_else
    a_pf_that_is_taken_out_is_gone_with_its_vfs_and_comes_back_without
}
