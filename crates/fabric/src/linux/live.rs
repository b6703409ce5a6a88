//! [`LinuxFabric`]: the machine this runs on.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use ioward_model::{
    HealthReporter, Inventory, Recovery, VfId, VfSettings, VfStatistics, checks, doctor::Finding,
};
use ioward_pci::Bdf;
use tokio::sync::mpsc;

use super::{
    adapters,
    details::{Details, unreadable},
    doctor, driver,
    health::{self, Reporters},
    holders::{self, Found, Wanted},
    identify::{self, pci_ids::Names},
    kernel_log::KernelLog,
    lanes::{Key, Lanes, Work},
    recovery,
    root::HostRoot,
    snapshot::Snapshot,
    sysfs::Sysfs,
    vf_count, vfio, watch,
};
use crate::{Fabric, FabricError};

/// Timeouts, after which an operation counts as stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    /// A change of the number of VFs, whatever the number.
    vf_count: Duration,
    /// Added to it for each VF that appears or disappears. Adapters were seen to take half a second, and more than
    /// one.
    each_vf: Duration,
    /// Answers that are immediate unless the number of VFs is being changed.
    locked: Duration,
    /// A look at all processes: some ten thousand take less than a second.
    processes: Duration,
    /// Everything else.
    other: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            vf_count: seconds(60),
            each_vf: seconds(2),
            locked: seconds(5),
            processes: seconds(10),
            other: seconds(30),
        }
    }
}

impl Bounds {
    /// From any number of VFs to none, or from none to `count`: at most `total` appear or disappear.
    fn for_vf_count(&self, count: u16, total: u16) -> Duration {
        let moving = if count == 0 { total } else { count };
        self.vf_count + self.each_vf * u32::from(moving)
    }
}

/// The PCI side of the machine this runs on: sysfs, rtnetlink and NVMe admin commands.
///
/// Every change requires root. Operations on one adapter run one after the other; after one that the kernel does
/// not answer, that adapter fails fast, and no other.
pub struct LinuxFabric {
    root: PathBuf,
    bounds: Bounds,
    lanes: Lanes,
    /// Held while the machine emulator is started to say its version: one at a time, whoever asks.
    emulator: tokio::sync::Mutex<()>,
    names: Arc<Names>,
    /// This kernel has no devlink.
    has_no_devlink: Arc<AtomicBool>,
}

impl Default for LinuxFabric {
    fn default() -> Self {
        Self::new()
    }
}

impl LinuxFabric {
    /// The machine this runs on. Does not access it yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            root: PathBuf::from("/"),
            bounds: Bounds::default(),
            lanes: Lanes::default(),
            names: Arc::default(),
            has_no_devlink: Arc::default(),
            emulator: tokio::sync::Mutex::default(),
        }
    }

    /// Changes an adapter or its VFs.
    async fn change<T: Send + 'static>(
        &self,
        pf: Bdf,
        what: String,
        bound: Duration,
        work: impl FnOnce(&Sysfs<'_>) -> Result<T, FabricError> + Send + 'static,
    ) -> Result<T, FabricError> {
        let with_log = move |sysfs: &Sysfs<'_>| {
            let log = KernelLog::from_now(&sysfs.root);
            work(sysfs).map_err(|error| explain(error, || log.about(&sysfs.addresses(pf))))
        };
        self.run(Key::Change(pf), what, bound, with_log).await
    }

    /// Reads from an adapter, without waiting for a change to end.
    async fn read<T: Send + 'static>(
        &self,
        pf: Bdf,
        what: String,
        work: impl FnOnce(&Sysfs<'_>) -> Result<T, FabricError> + Send + 'static,
    ) -> Result<T, FabricError> {
        self.run(Key::Read(pf), what, self.bounds.other, work).await
    }

    /// How many VFs a PF can have.
    async fn total(&self, pf: Bdf) -> Result<u16, FabricError> {
        let what = format!("reading sriov_totalvfs of {pf}");
        self.read(pf, what, move |sysfs| vf_count::total(sysfs, pf)).await
    }

    /// Records what [`Fabric::identify`] reads; nothing is masked yet.
    ///
    /// # Errors
    /// As [`Fabric::identify`].
    pub async fn record(&self) -> Result<Snapshot, FabricError> {
        let (mut snapshot, mut inventory, wanted) = self
            .look(|| {
                let (snapshot, inventory) = Snapshot::record(HostRoot::live()?)?;
                let wanted = Wanted::of(&HostRoot::live()?, &inventory);
                Ok((snapshot, inventory, wanted))
            })
            .await?;
        let mut health = self.health(&inventory).await;
        for pf in &inventory.physical_functions {
            let of_pf = take(&mut health, pf.address);
            let details = Details { health: of_pf, ..self.details(pf.address).await };
            snapshot.add_details(pf.address, details);
        }
        self.holders(wanted).await.add_to(&mut inventory);
        snapshot.add_holders(&inventory);
        Ok(snapshot)
    }

    /// Reads the files of the whole host.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> Result<T, FabricError> + Send + 'static,
    ) -> Result<T, FabricError> {
        self.run(Key::Host, "looking at the host".to_owned(), self.bounds.other, |_| look()).await
    }

    /// Who has the VFs in doubt.
    async fn holders(&self, wanted: Wanted) -> Found {
        if wanted.is_empty() {
            return Found::default();
        }
        let asked = wanted.clone();
        let look = move |_: &Sysfs<'_>| Ok(holders::look(&HostRoot::live()?, &asked));
        let what = "looking at the processes of the host".to_owned();
        let found = self.run(Key::Processes, what, self.bounds.processes, look).await;
        found.unwrap_or_else(|error| Found::none(&wanted, error.to_string()))
    }

    /// The health reporters of all adapters, by one question, where there is an adapter; `None` where the kernel does not tell.
    async fn health(&self, inventory: &Inventory) -> Option<Reporters> {
        // Another machine's files say nothing of this kernel.
        if inventory.physical_functions.is_empty() || self.root != Path::new("/") {
            return None;
        }
        let is_absent = Arc::clone(&self.has_no_devlink);
        let ask = move |_: &Sysfs<'_>| health::read(&is_absent);
        let what = "asking devlink for health reporters".to_owned();
        let told = self.run(Key::Devlink, what, self.bounds.locked, ask).await;
        // Nothing follows from that but that their state is not known, and it may be so for as long as a driver recovers.
        told.unwrap_or_else(|error| {
            tracing::debug!("health reporters are not known: {error}");
            None
        })
    }

    /// The facts from a PF's driver.
    async fn details(&self, pf: Bdf) -> Details {
        let what = format!("asking {pf} about its VFs");
        let details = self.read(pf, what, move |sysfs| Ok(Details::read(sysfs, pf))).await;
        let mut details = details.unwrap_or_else(|error| Details::none(pf, &error));
        let what = format!("reading sriov_vf_total_msix of {pf}");
        let total = move |sysfs: &Sysfs<'_>| vf_count::msix_total(sysfs, pf);
        match self.run(Key::Locked(pf), what, self.bounds.locked, total).await {
            Ok(total) => details.vf_msix_total = total,
            Err(error) => details.reasons.push(unreadable(pf, &error)),
        }
        details
    }

    async fn run<T: Send + 'static>(
        &self,
        key: Key,
        what: String,
        bound: Duration,
        work: impl FnOnce(&Sysfs<'_>) -> Result<T, FabricError> + Send + 'static,
    ) -> Result<T, FabricError> {
        let root = self.root.clone();
        if let Key::Read(pf) | Key::Locked(pf) | Key::Change(pf) = key {
            // The address may be invented. Looking up its folder involves no driver, so it does not block.
            let work = Work::default();
            Sysfs { root: root.clone(), work: &work }.exists(pf)?;
        }
        self.lanes.run(key, what, bound, move |its: &Work| work(&Sysfs { root, work: its })).await
    }
}

#[async_trait]
impl Fabric for LinuxFabric {
    async fn identify(&self) -> Result<Inventory, FabricError> {
        let names = Arc::clone(&self.names);
        let (mut inventory, wanted) = self
            .look(move || {
                let root = HostRoot::live()?;
                let inventory = identify::functions(&root, &names)?;
                let wanted = Wanted::of(&root, &inventory);
                Ok((inventory, wanted))
            })
            .await?;
        self.holders(wanted).await.add_to(&mut inventory);
        checks::note_available(&mut inventory);
        let mut health = self.health(&inventory).await;
        for pf in &mut inventory.physical_functions {
            let of_pf = take(&mut health, pf.address);
            Details { health: of_pf, ..self.details(pf.address).await }.add_to(pf);
        }
        inventory.name_adapters();
        Ok(inventory)
    }

    async fn set_autoprobe(&self, pf: Bdf, on: bool) -> Result<(), FabricError> {
        let what = format!("setting sriov_drivers_autoprobe of {pf}");
        self.change(pf, what, self.bounds.other, move |sysfs| vf_count::set_autoprobe(sysfs, pf, on)).await
    }

    async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
        let what = format!("setting {count} VFs on {pf}");
        let bound = self.bounds.for_vf_count(count, self.total(pf).await?);
        self.change(pf, what, bound, move |sysfs| vf_count::set_vf_count(sysfs, pf, count)).await
    }

    async fn vf_address(&self, vf: VfId) -> Result<Bdf, FabricError> {
        self.read(vf.pf, format!("looking for {vf}"), move |sysfs| sysfs.vf_address(vf)).await
    }

    async fn driver(&self, vf: VfId) -> Result<Option<String>, FabricError> {
        self.read(vf.pf, format!("looking at the driver of {vf}"), move |sysfs| {
            Ok(super::sysfs::driver_of(&sysfs.vf(vf)?.1))
        })
        .await
    }

    async fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        let driver = driver.map(str::to_owned);
        let what = format!("binding {vf} to {}", driver.as_deref().unwrap_or("no driver"));
        self.change(vf.pf, what, self.bounds.other, move |sysfs| driver::bind(sysfs, vf, driver.as_deref()))
            .await
    }

    async fn reset(&self, vf: VfId) -> Result<(), FabricError> {
        self.change(vf.pf, format!("resetting {vf}"), self.bounds.other, move |sysfs| {
            driver::reset(sysfs, vf)
        })
        .await
    }

    async fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        let what = format!("reading the settings of {vf}");
        self.read(vf.pf, what, move |sysfs| adapters::open(sysfs, vf)?.settings(vf)).await
    }

    async fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        let (what, change) = (format!("configuring {vf}"), change.clone());
        self.change(vf.pf, what, self.bounds.other, move |sysfs| {
            adapters::open(sysfs, vf)?.configure(vf, &change)
        })
        .await
    }

    async fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError> {
        let what = format!("reading the counters of {vf}");
        self.read(vf.pf, what, move |sysfs| adapters::open(sysfs, vf)?.statistics(vf)).await
    }

    async fn is_open(&self, vf: VfId) -> Result<bool, FabricError> {
        self.read(vf.pf, format!("looking who has {vf} open"), move |sysfs| vfio::is_open(sysfs, vf)).await
    }

    async fn doctor(&self) -> Result<Vec<Finding>, FabricError> {
        let emulator = {
            let _turn = self.emulator.lock().await;
            doctor::ask_emulator().await
        };
        let facts = self.look(|| doctor::Facts::read(&HostRoot::live()?, emulator)).await?;
        Ok(doctor::examine(&facts))
    }

    async fn recover(&self, pf: Bdf, how: Recovery) -> Result<(), FabricError> {
        let what = format!("recovering {pf}: {how}");
        let bound = match how {
            // A driver that has to wait for its firmware takes up to a minute.
            Recovery::Health => self.bounds.vf_count,
            Recovery::Reset => self.bounds.other,
            // Its VFs go with its driver, and it makes none.
            Recovery::Rebind => self.bounds.for_vf_count(0, self.total(pf).await?),
        };
        self.change(pf, what, bound, move |sysfs| recovery::recover(sysfs, pf, how)).await
    }

    async fn changes(&self) -> mpsc::Receiver<()> {
        watch::changes()
    }
}

/// Those of one function; none where the kernel tells and has none of it.
fn take(reporters: &mut Option<Reporters>, pf: Bdf) -> Option<Vec<HealthReporter>> {
    reporters.as_mut().map(|reporters| reporters.remove(&pf).unwrap_or_default())
}

/// Adds the kernel's log entries to a refusal.
fn explain(error: FabricError, logged: impl FnOnce() -> Vec<String>) -> FabricError {
    match error {
        FabricError::Refused { what, mut why, source } => {
            for line in logged() {
                why += &format!("; the kernel log says '{line}'");
            }
            FabricError::Refused { what, why, source }
        }
        other => other,
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
