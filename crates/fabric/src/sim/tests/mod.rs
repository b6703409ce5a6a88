//! Tests of the simulated machine, by subject. Register tests name the section of PCIe 6.0 that they check; kernel
//! tests the function of drivers/pci/iov.c.

mod drivers;
mod faults;
mod kernel;
mod properties;
mod registers;

use ioward_model::{Holder, Inventory, Label, Process, Runs, VfId, VfSettings};
use ioward_pci::Bdf;

use super::{Adapter, Errno, SimFabric, SimMachine};
use crate::{Fabric, FabricError};

/// A machine with one adapter, the fabric on it, and its first PF.
fn machine(adapter: Adapter) -> (SimMachine, SimFabric, Bdf) {
    let machine = SimMachine::builder(1).adapter(adapter).build();
    let (fabric, pf) = (machine.fabric(), machine.physical_functions()[0]);
    (machine, fabric, pf)
}

fn vf(pf: Bdf, index: u16) -> VfId {
    VfId { pf, index }
}

fn at(text: &str) -> Bdf {
    text.parse().unwrap()
}

/// The errno of an operation's error.
fn errno<T: std::fmt::Debug>(result: Result<T, FabricError>) -> Errno {
    match result.unwrap_err() {
        FabricError::Refused { source, .. } | FabricError::Read { source, .. } => {
            Errno::from_io_error(&source).unwrap_or_else(|| panic!("{source} is no errno"))
        }
        other => panic!("{other}"),
    }
}

/// The text of an error, and of its cause.
fn words<T: std::fmt::Debug>(result: Result<T, FabricError>) -> String {
    result.unwrap_err().to_string()
}

fn change() -> VfSettings {
    VfSettings::default()
}

/// The findings of identify, compared with the machine.
async fn identified(machine: &SimMachine) -> Inventory {
    let inventory = machine.fabric().identify().await.unwrap();
    let view = machine.snapshot();
    assert_eq!(inventory.physical_functions.len(), view.physical_functions.len());
    for (pf, seen) in inventory.physical_functions.iter().zip(view.physical_functions.values()) {
        assert_eq!(pf.reasons, []);
        assert_eq!(pf.num_vfs(), seen.num_vfs);
        assert_eq!(pf.virtual_functions.len(), seen.vfs.len());
        for (vf, seen) in pf.virtual_functions.iter().zip(&seen.vfs) {
            assert_eq!(vf.reasons, []);
            assert_eq!((vf.address, &vf.driver, vf.iommu_group), (seen.address, &seen.driver, seen.group));
            let sriov = pf.sriov.as_ref().unwrap();
            let expected = pf.address.virtual_function(sriov.first_vf_offset, sriov.vf_stride, vf.index);
            assert_eq!(Some(vf.address), expected, "routing ID of {} {}", pf.address, vf.index);
        }
    }
    inventory
}
