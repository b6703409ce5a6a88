//! The drivers of adapters: one file for each family, and the list of families.
//!
//! ```text
//! claims ─> capabilities           from what identify has read: into the inventory, where the planner takes them from
//!   └────> open ─> describe         live: what only the PF's driver can tell
//!               └> settings, configure, statistics
//! ```
//! A new family is a file with a [`Family`] and a [`PfDriver`], and an entry in [`FAMILIES`].

use std::collections::BTreeSet;

use ioward_model::{Capability, PhysicalFunction, VfId, VfSettings, VfStatistics};
use ioward_pci::Bdf;

use super::{
    details::Details,
    nic::Nics,
    nvme::NvmeControllers,
    sysfs::{Sysfs, driver_of},
};
use crate::FabricError;

/// A family of adapters with the same driver.
pub(super) trait Family: Sync {
    /// Whether a function belongs to the family.
    fn claims(&self, pf: &PhysicalFunction) -> bool;

    /// The settings and features of VFs that the driver of such a function can do.
    fn capabilities(&self, pf: &PhysicalFunction, driver: &str) -> BTreeSet<Capability>;

    /// The driver of a PF; `None` when it is not of this family, or has no driver that could answer.
    ///
    /// # Errors
    /// When the driver can't be queried.
    fn open(&self, sysfs: &Sysfs<'_>, pf: Bdf) -> Result<Option<Box<dyn PfDriver>>, FabricError>;
}

/// The driver of one PF, for the settings and counters of its VFs.
pub(super) trait PfDriver {
    /// Adds what it knows of the PF and its VFs.
    fn describe(&self, details: &mut Details) -> Result<(), FabricError>;

    /// A VF's settings.
    fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError>;

    /// Changes settings of a VF; if one fails, rolls back those already made.
    fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError>;

    /// A VF's traffic counters.
    fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError>;
}

/// All families. The first one that opens a PF drives it.
const FAMILIES: [&dyn Family; 2] = [&Nics, &NvmeControllers];

/// The settings and features that a PF's driver can do; `None` without a driver, or when no family claims the function.
pub(crate) fn capabilities(pf: &PhysicalFunction) -> Option<BTreeSet<Capability>> {
    let driver = pf.driver.as_deref()?;
    let family = FAMILIES.into_iter().find(|family| family.claims(pf))?;
    Some(family.capabilities(pf, driver))
}

/// The facts from the drivers of a PF, and the errors of drivers that failed.
pub(super) fn describe(sysfs: &Sysfs<'_>, pf: Bdf, details: &mut Details) -> Vec<FabricError> {
    let mut ask = |family: &dyn Family| match family.open(sysfs, pf)? {
        Some(driver) => driver.describe(details),
        None => Ok(()),
    };
    FAMILIES.into_iter().filter_map(|family| ask(family).err()).collect()
}

/// The driver of an existing VF's PF.
pub(super) fn open(sysfs: &Sysfs<'_>, vf: VfId) -> Result<Box<dyn PfDriver>, FabricError> {
    sysfs.vf(vf)?;
    for family in FAMILIES {
        if let Some(driver) = family.open(sysfs, vf.pf)? {
            return Ok(driver);
        }
    }
    let driver = driver_of(&sysfs.pf(vf.pf)?).unwrap_or_else(|| "without a driver it".to_owned());
    let what = "set or read its VFs: it has neither a network interface here nor an NVMe controller";
    Err(FabricError::Unsupported { function: vf.pf, driver, what: what.to_owned() })
}
