//! Details of a PF that only its driver knows: settings of its VFs, NVMe resources, permanent MACs. Added to those
//! from sysfs; each missing fact becomes a Reason and affects nothing else.

use std::collections::BTreeMap;

use ioward_model::{
    HealthReporter, MacAddress, NvmeResources, NvmeSecondary, PhysicalFunction, Reason, Rule, VfSettings,
};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use super::{adapters, nvme, sysfs::Sysfs};
use crate::FabricError;

/// The facts from the driver of one PF.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Details {
    /// Settings of the VFs, by index.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) settings: BTreeMap<u32, VfSettings>,
    /// Permanent addresses, by interface index.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) permanent_macs: BTreeMap<u32, MacAddress>,
    /// NVMe: the flexible resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resources: Option<NvmeResources>,
    /// NVMe: the controllers of the VFs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) secondaries: Vec<NvmeSecondary>,
    /// MSI-X vectors to distribute among VFs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vf_msix_total: Option<u32>,
    /// The health reporters; `None` where the kernel does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) health: Option<Vec<HealthReporter>>,
    /// The facts that are missing, with the cause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) reasons: Vec<Reason>,
}

impl Details {
    /// No facts, because of `error`.
    pub(super) fn none(pf: Bdf, error: &FabricError) -> Self {
        Self { reasons: vec![unreadable(pf, error)], ..Self::default() }
    }

    /// Reads all facts from the PF's driver.
    pub(super) fn read(sysfs: &Sysfs<'_>, pf: Bdf) -> Self {
        let mut details = Self::default();
        let errors = adapters::describe(sysfs, pf, &mut details);
        details.reasons = errors.iter().map(|error| unreadable(pf, error)).collect();
        details
    }

    /// Adds the details to the inventory.
    pub(super) fn add_to(self, pf: &mut PhysicalFunction) {
        for netdev in &mut pf.netdevs {
            let told = self.permanent_macs.get(&netdev.ifindex);
            netdev.permanent_mac = told.copied().or(netdev.permanent_mac);
        }
        for vf in &mut pf.virtual_functions {
            let secondary = self.secondaries.iter().find(|secondary| secondary.index == vf.index);
            let told = self.settings.get(&u32::from(vf.index));
            vf.settings = told.cloned().or(secondary.map(nvme::settings)).unwrap_or_default();
        }
        if let Some(nvme) = &mut pf.nvme {
            nvme.resources = self.resources;
            nvme.secondaries = self.secondaries;
        }
        pf.vf_msix_total = self.vf_msix_total.or(pf.vf_msix_total);
        pf.health = self.health.or(pf.health.take());
        pf.reasons.extend(self.reasons);
    }
}

pub(super) fn unreadable(pf: Bdf, error: &FabricError) -> Reason {
    let mut found = match error {
        // Leaves out the duration: otherwise every look would find the host changed, and make every plan stale.
        FabricError::Stuck { what, .. } => {
            format!("{what} has not returned; it is stuck in the kernel (see dmesg)")
        }
        other => other.to_string(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        found += &format!(": {cause}");
        source = cause.source();
    }
    Reason::new(Rule::Readable, "what the PF's driver knows of its VFs", found).on(pf)
}
