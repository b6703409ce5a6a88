//! [`SimFabric`]: the simulated machine behind the same trait as the real one.

use std::io;

use async_trait::async_trait;
use ioward_model::{
    Inventory, Recovery, VfId, VfSettings, VfStatistics,
    doctor::{Check, Finding},
};
use ioward_pci::Bdf;
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::{
    binding::VFIO,
    device::Time,
    faults::Operation,
    kernel::{Host, Slot, VfState},
    machine::SimMachine,
    state::{Machine, Pf},
};
use crate::{
    Fabric, FabricError,
    binding::{self, Bindable},
    linux::doctor::{Facts, VfioPci, examine},
    vf_count::{self, LINK_BACK_WITHIN, VfCount},
};

/// The PCI side of a [`SimMachine`].
///
/// Every operation is done at once and returns; its duration is added to the machine's time. With
/// [`super::SimMachineBuilder::realtime`] the caller waits for a part of that.
#[derive(Clone, Debug)]
pub struct SimFabric {
    machine: SimMachine,
}

impl SimFabric {
    pub(super) fn new(machine: SimMachine) -> Self {
        Self { machine }
    }

    async fn run<T>(
        &self,
        operation: Operation,
        pf: Option<Bdf>,
        what: String,
        work: impl FnOnce(&mut Machine) -> Result<T, FabricError>,
    ) -> Result<T, FabricError> {
        let before = self.machine.now();
        let result = self.machine.lock().operate(operation, pf, what, work);
        let pause = self.machine.pause(self.machine.now().saturating_sub(before));
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        result
    }
}

#[async_trait]
impl Fabric for SimFabric {
    async fn identify(&self) -> Result<Inventory, FabricError> {
        self.run(Operation::Identify, None, "look at the host".to_owned(), |machine| Ok(machine.identify()))
            .await
    }

    async fn set_autoprobe(&self, pf: Bdf, on: bool) -> Result<(), FabricError> {
        let what = format!("turn driver autoprobe {} for {pf}", if on { "on" } else { "off" });
        self.run(Operation::SetAutoprobe, Some(pf), what, |machine| {
            let at = machine.pf(pf)?;
            machine.slots[at.slot].pfs[at.port].autoprobe = on;
            Ok(())
        })
        .await
    }

    async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
        self.run(Operation::SetVfCount, Some(pf), format!("set {count} VFs on {pf}"), |machine| {
            let at = machine.pf(pf)?;
            let Machine { slots, host, .. } = machine;
            let mut attribute = Numvfs { slot: &mut slots[at.slot], port: at.port, host, had_link: false };
            vf_count::set(pf, count, &mut attribute)
        })
        .await
    }

    async fn vf_address(&self, vf: VfId) -> Result<Bdf, FabricError> {
        self.run(Operation::VfAddress, Some(vf.pf), format!("look for {vf}"), |machine| {
            let (pf, index) = machine.vf(vf)?;
            Ok(machine.slots[pf.slot].pfs[pf.port].vfs[index].address)
        })
        .await
    }

    async fn driver(&self, vf: VfId) -> Result<Option<String>, FabricError> {
        self.run(Operation::Driver, Some(vf.pf), format!("look at the driver of {vf}"), |machine| {
            let (pf, index) = machine.vf(vf)?;
            Ok(machine.slots[pf.slot].pfs[pf.port].vfs[index].driver.clone())
        })
        .await
    }

    async fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        let what = match driver {
            Some(driver) => format!("bind {vf} to {driver}"),
            None => format!("take {vf} from its driver"),
        };
        self.run(Operation::Bind, Some(vf.pf), what, |machine| {
            let (pf, index) = machine.vf(vf)?;
            let mut function = Function { machine, pf, index };
            binding::bind(vf, function.vf().address, driver, &mut function)
        })
        .await
    }

    async fn reset(&self, vf: VfId) -> Result<(), FabricError> {
        self.run(Operation::Reset, Some(vf.pf), format!("reset {vf}"), |machine| {
            let (pf, index) = machine.vf(vf)?;
            machine.slots[pf.slot].reset_vf(pf.port, index, &mut machine.host);
            Ok(())
        })
        .await
    }

    async fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        let what = format!("read the settings of {vf}");
        self.run(Operation::Settings, Some(vf.pf), what, |machine| machine.settings(vf)).await
    }

    async fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        let what = format!("configure {vf}");
        self.run(Operation::Configure, Some(vf.pf), what, |machine| machine.configure(vf, change)).await
    }

    async fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError> {
        let what = format!("read the counters of {vf}");
        self.run(Operation::Statistics, Some(vf.pf), what, |machine| machine.statistics(vf)).await
    }

    async fn is_open(&self, vf: VfId) -> Result<bool, FabricError> {
        let what = format!("look who has {vf} open");
        self.run(Operation::Driver, Some(vf.pf), what, |machine| {
            let (pf, index) = machine.vf(vf)?;
            Ok(machine.slots[pf.slot].pfs[pf.port].vfs[index].held)
        })
        .await
    }

    async fn recover(&self, pf: Bdf, how: Recovery) -> Result<(), FabricError> {
        self.run(Operation::Recover, Some(pf), format!("{how} ({pf})"), |machine| {
            let at = machine.pf(pf)?;
            let Machine { slots, host, .. } = machine;
            let failed = |source: Errno| FabricError::Refused {
                what: format!("{how} ({pf})"),
                why: vf_count::why(&source.into()),
                source: source.into(),
            };
            let recovered = slots[at.slot].recover(at.port, how, host).map_err(failed);
            // A driver goes and comes, and VFs go.
            machine.tell_followers();
            recovered
        })
        .await
    }

    /// The checks that a machine of PCI functions alone can answer.
    async fn doctor(&self) -> Result<Vec<Finding>, FabricError> {
        let inventory = self.identify().await?;
        let vfio_pci = if inventory.vfio_pci == Some(true) { VfioPci::Loaded } else { VfioPci::Loadable };
        let facts = Facts { inventory, vfio_pci, iommu_is_known: true, ..Facts::default() };
        let is_of_functions =
            |check| matches!(check, Check::Iommu | Check::Adapter | Check::IommuGroups | Check::VfioPci);
        let findings = examine(&facts);
        Ok(findings.into_iter().filter(|finding| is_of_functions(finding.check)).collect())
    }

    /// A simulated machine never changes on its own.
    async fn changes(&self) -> mpsc::Receiver<()> {
        let (follower, changes) = mpsc::channel(1);
        self.machine.lock().followers.push(follower);
        changes
    }
}

/// `sriov_numvfs` of one PF.
struct Numvfs<'m> {
    slot: &'m mut Slot,
    port: usize,
    host: &'m mut Host,
    /// Whether there was a link before the number was changed.
    had_link: bool,
}

impl VfCount for Numvfs<'_> {
    fn present(&self) -> Result<u16, FabricError> {
        Ok(self.slot.pfs[self.port].num_vfs)
    }

    fn total(&self) -> Result<u16, FabricError> {
        Ok(self.slot.pfs[self.port].total_vfs)
    }

    fn write(&mut self, count: u16) -> io::Result<()> {
        let interface = self.slot.pfs[self.port].interface.as_ref();
        self.had_link |= interface.is_some_and(|interface| interface.has_link(self.host.now));
        Ok(self.slot.numvfs_store(self.port, count, self.host)?)
    }

    fn wait(&mut self, _count: u16) -> io::Result<()> {
        // They are there, or gone, when the write returns.
        Ok(())
    }

    fn wait_for_link(&mut self) -> io::Result<()> {
        let interface = self.slot.pfs[self.port].interface.as_ref();
        if let Some(interface) = interface.filter(|interface| self.had_link && interface.up) {
            let bound = Time::try_from(LINK_BACK_WITHIN.as_nanos()).unwrap_or(Time::MAX);
            let until = self.host.now.saturating_add(bound);
            self.host.now = self.host.now.max(interface.link_back_at.min(until));
        }
        Ok(())
    }
}

/// A VF, with the available drivers.
struct Function<'m> {
    machine: &'m mut Machine,
    pf: Pf,
    index: usize,
}

impl Function<'_> {
    fn vf(&self) -> &VfState {
        &self.machine.slots[self.pf.slot].pfs[self.pf.port].vfs[self.index]
    }
}

impl Bindable for Function<'_> {
    fn driver(&self) -> Option<String> {
        self.vf().driver.clone()
    }

    fn driver_override(&self) -> Option<String> {
        self.vf().driver_override.clone()
    }

    fn is_loaded(&self, driver: &str) -> bool {
        self.machine.has_driver(driver)
    }

    fn unbind(&mut self) -> io::Result<()> {
        if self.vf().driver.is_none() {
            return Ok(());
        }
        let Machine { slots, host, .. } = &mut *self.machine;
        Ok(slots[self.pf.slot].unbind_vf(self.pf.port, self.index, host.now)?)
    }

    fn set_override(&mut self, driver: Option<&str>) -> io::Result<()> {
        self.machine.slots[self.pf.slot].set_override(self.pf.port, self.index, driver);
        Ok(())
    }

    fn bind_to(&mut self, driver: &str) -> io::Result<()> {
        let Machine { slots, host, .. } = &mut *self.machine;
        Ok(slots[self.pf.slot].bind_vf(self.pf.port, self.index, driver, host)?)
    }

    fn why(&self, error: &io::Error, driver: &str) -> String {
        match Errno::from_io_error(error) {
            Some(Errno::INVAL) if driver == VFIO => {
                "the VF is in no IOMMU group; turn the IOMMU on".to_owned()
            }
            Some(Errno::NODEV) => {
                format!("{driver} does not take this device, or the device does not answer")
            }
            _ => error.to_string(),
        }
    }
}
