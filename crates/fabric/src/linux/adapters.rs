//! The drivers of adapters: a file for each family, and the list of the families.
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

/// Adapters that are driven alike.
pub(super) trait Family: Sync {
    /// Whether a function is one of these.
    fn claims(&self, pf: &PhysicalFunction) -> bool;

    /// The settings and features of VFs that the driver of such a function can do.
    fn capabilities(&self, pf: &PhysicalFunction, driver: &str) -> BTreeSet<Capability>;

    /// The driver of a PF; `None` when it is none of these, or has no driver that could be asked.
    ///
    /// # Errors
    /// When it can't be asked.
    fn open(&self, sysfs: &Sysfs<'_>, pf: Bdf) -> Result<Option<Box<dyn PfDriver>>, FabricError>;
}

/// The driver of one PF, through which VFs are set and counted.
pub(super) trait PfDriver {
    /// Adds what it knows of the PF and its VFs.
    fn describe(&self, details: &mut Details) -> Result<(), FabricError>;

    /// A VF's settings.
    fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError>;

    /// Changes settings of a VF; those already made when one fails are put back.
    fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError>;

    /// A VF's traffic counters.
    fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError>;
}

/// All families. The first that opens a PF drives it.
const FAMILIES: [&dyn Family; 2] = [&Nics, &NvmeControllers];

/// The settings and features that a PF's driver can do; `None` without a driver, or when no family claims the function.
pub(crate) fn capabilities(pf: &PhysicalFunction) -> Option<BTreeSet<Capability>> {
    let driver = pf.driver.as_deref()?;
    let family = FAMILIES.into_iter().find(|family| family.claims(pf))?;
    Some(family.capabilities(pf, driver))
}

/// All that the drivers of a PF tell; the errors of those that did not.
pub(super) fn describe(sysfs: &Sysfs<'_>, pf: Bdf, details: &mut Details) -> Vec<FabricError> {
    let mut ask = |family: &dyn Family| match family.open(sysfs, pf)? {
        Some(driver) => driver.describe(details),
        None => Ok(()),
    };
    FAMILIES.into_iter().filter_map(|family| ask(family).err()).collect()
}

/// The driver of a VF's PF. The VF exists.
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
