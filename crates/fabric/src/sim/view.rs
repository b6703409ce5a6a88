//! The machine as plain data, to check what the management partition has done, and what must never happen.

use std::collections::BTreeMap;

use ioward_model::{FunctionFacts, Holder, VfSettings};
use ioward_pci::Bdf;

use super::{kernel::Slot, machine::SimMachine, state::Machine};

/// All functions by address. Not made by [`crate::Fabric`], so that the two can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineView {
    /// Physical functions with their VFs.
    pub physical_functions: BTreeMap<Bdf, PfView>,
}

/// A physical function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfView {
    /// `sriov_numvfs`.
    pub num_vfs: u16,
    /// `sriov_drivers_autoprobe`.
    pub autoprobe: bool,
    /// Whether a write to it has not returned.
    pub stuck: bool,
    /// Device Serial Number.
    pub serial: u64,
    /// Its VFs, by index.
    pub vfs: Vec<VfView>,
}

/// A virtual function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfView {
    /// Its address.
    pub address: Bdf,
    /// Its driver.
    pub driver: Option<String>,
    /// `driver_override`.
    pub driver_override: Option<String>,
    /// IOMMU group.
    pub group: Option<u32>,
    /// Whether it is open through VFIO.
    pub held: bool,
    /// Whether its network interface is in another namespace than the host's.
    pub away: bool,
    /// Function-level resets since it was made.
    pub resets: u32,
    /// Whether it holds unreset state of its last user.
    pub used: bool,
    /// Its settings, if it has any.
    pub settings: VfSettings,
}

impl SimMachine {
    /// The facts that decide whether a function may be given to a partition; `None` when it does not exist.
    #[must_use]
    pub fn facts(&self, function: Bdf) -> Option<FunctionFacts> {
        let machine = self.lock();
        let mut pfs = machine.slots.iter().flat_map(|slot| &slot.pfs);
        let vfs = pfs.clone().flat_map(|pf| pf.vfs.iter().map(move |vf| (pf.address, vf)));
        let vf = { vfs }.find(|(_, vf)| vf.address == function);
        let (driver, group) = match vf {
            Some((_, vf)) => (vf.driver.clone(), vf.group),
            None => {
                let pf = pfs.find(|pf| pf.address == function)?;
                (pf.driver.map(str::to_owned), pf.group)
            }
        };
        let members = group.zip(machine.host.groups.as_ref()).map(|(group, groups)| groups.members(group));
        let names = |members: &[Bdf]| members.iter().map(ToString::to_string).collect();
        Some(FunctionFacts {
            physical: vf.map(|(pf, _)| pf),
            is_bridge: false,
            driver,
            group: members.map(names),
        })
    }

    /// The present state.
    #[must_use]
    pub fn snapshot(&self) -> MachineView {
        let machine = self.lock();
        let of_slot =
            |slot: &Slot| (0..slot.pfs.len()).map(|port| (slot.pfs[port].address, slot.view(port))).collect();
        let physical_functions = machine.slots.iter().flat_map(|slot| -> Vec<_> { of_slot(slot) }).collect();
        MachineView { physical_functions }
    }

    /// Violations of the rules of PCIe, NVMe or the kernel, whatever was requested of the machine. Anything here is
    /// a fault of the model.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let machine = self.lock();
        let mut found = machine.hardware_violations();
        found.extend(machine.slots.iter().flat_map(Slot::kernel_violations));
        found.extend(machine.groups_violation());
        found
    }

    /// The same for the hardware alone: these rules hold even when registers are written behind the kernel's back.
    #[must_use]
    pub fn hardware_violations(&self) -> Vec<String> {
        self.lock().hardware_violations()
    }
}

impl Machine {
    /// Every function must be in the IOMMU group that it names, and groups hold nothing else.
    fn groups_violation(&self) -> Option<String> {
        let known = self.host.groups.as_ref()?.all();
        let pfs = || self.slots.iter().flat_map(|slot| &slot.pfs);
        let vfs = pfs().flat_map(|pf| &pf.vfs).map(|vf| (vf.address, vf.group));
        let functions = pfs().map(|pf| (pf.address, pf.group)).chain(vfs);
        let mut said: Vec<_> = functions.filter_map(|(function, group)| Some((function, group?))).collect();
        said.sort_unstable();
        (said != known).then(|| format!("IOMMU groups hold {known:?}, and functions say {said:?}"))
    }

    fn hardware_violations(&self) -> Vec<String> {
        let mut found: Vec<_> = self.slots.iter().flat_map(|slot| slot.device.violations()).collect();
        for pair in self.slots.windows(2) {
            let (one, other) = (&pair[0].device, &pair[1].device);
            if one.address.domain() == other.address.domain() && one.last_bus >= other.address.bus() {
                found.push(format!("{} and {} have bus numbers in common", one.address, other.address));
            }
        }
        found
    }
}

impl Slot {
    fn view(&self, port: usize) -> PfView {
        let pf = &self.pfs[port];
        let vfs = pf.vfs.iter().enumerate().map(|(index, vf)| {
            let hardware = self.device.ports[port].vfs.get(index);
            VfView {
                address: vf.address,
                driver: vf.driver.clone(),
                driver_override: vf.driver_override.clone(),
                group: vf.group,
                held: vf.held,
                away: matches!(vf.holder, Some(Holder::NetworkNamespace { .. })),
                resets: hardware.map_or(0, |hardware| hardware.resets),
                used: hardware.is_some_and(|hardware| hardware.used),
                settings: self.settings(port, index).unwrap_or_default(),
            }
        });
        PfView {
            num_vfs: pf.num_vfs,
            autoprobe: pf.autoprobe,
            stuck: pf.stuck.is_some(),
            serial: self.device.serial,
            vfs: vfs.collect(),
        }
    }

    /// Differences between the kernel's view and the hardware, and states that the kernel never allows.
    fn kernel_violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (port, pf) in self.pfs.iter().enumerate() {
            let at = pf.address;
            let hardware = self.device.ports[port].vfs.len();
            if usize::from(pf.num_vfs) != pf.vfs.len() || pf.vfs.len() != hardware {
                found.push(format!(
                    "{at}: sriov_numvfs {}, {} VFs known, {hardware} in hardware",
                    pf.num_vfs,
                    pf.vfs.len()
                ));
            }
            if pf.num_vfs > pf.total_vfs {
                found.push(format!("{at}: {} VFs of {}", pf.num_vfs, pf.total_vfs));
            }
            for (index, vf) in (0..).zip(&pf.vfs) {
                if self.device.vf_address(port, index) != Some(vf.address)
                    || vf.address.bus() > self.device.last_bus
                {
                    found.push(format!("{at}: VF {index} is not at {}", vf.address));
                }
                if vf.held && vf.driver.as_deref() != Some(super::binding::VFIO) {
                    found.push(format!("{}: open through VFIO and not bound to vfio-pci", vf.address));
                }
            }
        }
        let vectors: u32 =
            self.pfs.iter().map(|pf| u32::from(pf.num_vfs) * u32::from(self.device.family.vectors.1)).sum();
        if vectors > self.adapter.vector_pool {
            found.push(format!(
                "{}: {vectors} MSI-X vectors of {}",
                self.device.address, self.adapter.vector_pool
            ));
        }
        found
    }
}
