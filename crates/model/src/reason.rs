//! Reasons: every refusal that a user sees consists of these.

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

/// The rule violated. Stable: programs match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rule {
    /// The request is valid by itself, on any host.
    SpecValid,
    /// The function exists.
    FunctionExists,
    /// The function is an SR-IOV physical function.
    IsPhysicalFunction,
    /// The adapter is the one recorded for its address.
    AdapterIdentity,
    /// The adapter is in service: nobody has taken it out, and it has no fault that it is not recovered from.
    InService,
    /// Everything that identify reads of the function is readable and valid.
    Readable,
    /// The function is of the requested class.
    Class,
    /// The function is of the requested kind of its class.
    Subclass,
    /// The port's link is fast enough.
    LinkSpeed,
    /// The port has a link.
    Carrier,
    /// The adapter's PCIe link has enough bandwidth.
    PcieBandwidth,
    /// The adapter is on the partition's NUMA node.
    NumaNode,
    /// The guest has a driver for the VF.
    GuestDriver,
    /// The adapter and its driver have the required capabilities.
    Capability,
    /// The PF's driver can do it in the PF's present state.
    DriverReady,
    /// The VF's MSI-X vectors, and the PF's budget of them, suffice.
    MsixVectors,
    /// The controller has enough namespaces.
    Namespaces,
    /// The guarantees on a port do not exceed its bandwidth.
    Bandwidth,
    /// The VF shares no failure domain with the VF that it must be apart from.
    Redundancy,
    /// No more VFs than TotalVFs.
    VfCapacity,
    /// The VF index is below the number of VFs.
    VfIndex,
    /// A VF has one owner.
    VfFree,
    /// An IOMMU translates the function's DMA.
    Iommu,
    /// The VF's IOMMU group holds nothing of the host's or another owner's.
    IommuGroup,
    /// The driver that passes VFs to partitions is loaded.
    VfioPci,
    /// The kernel has address space for the VFs.
    AddressSpace,
    /// The PF carries nothing the host itself needs.
    ManagementNic,
    /// Nothing that is running is disturbed.
    Disruption,
    /// A MAC address is used once.
    MacUnique,
    /// Adapters of this class have the setting.
    SettingSupported,
    /// NVMe queue and interrupt resources suffice.
    NvmeResources,
    /// There is a VF for every request at once.
    Placement,
    /// The partition exists.
    PartitionExists,
    /// The partition has a VF of that name.
    VfExists,
    /// The partition has no VF of that name.
    VfNameFree,
    /// The partition is in the required phase (running, stopped).
    PartitionPhase,
    /// The change is possible while the partition runs.
    ChangeWhileRunning,
    /// The plan was made from the current inventory and state.
    PlanCurrent,
    /// A partition stays of its kind.
    PartitionKind,
    /// The partition's boot file exists.
    BootFile,
    /// The partition's domain is there, and libvirt can be asked for it.
    Domain,
    /// The partition's network namespace is there.
    Namespace,
    /// The VFs of a domain that libvirt is about to start are there, and as they are to be.
    VfReady,
}

impl fmt::Display for Rule {
    /// Its name as in JSON, as `link-speed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One obstacle: the requirement, the finding, the function, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// The rule violated.
    pub rule: Rule,
    /// The function concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Bdf>,
    /// The request concerned: a partition (`web`), or a VF of one (`web/net0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The number of other requests with the same reason.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub and_more: u32,
    /// The key of that request that requires it, as `min_link_speed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The requirement of the rule or the request.
    pub required: String,
    /// The actual finding.
    pub found: String,
    /// The user's remedy; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Reason {
    /// A reason that concerns no particular function or request.
    #[must_use]
    pub fn new(rule: Rule, required: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            rule,
            function: None,
            request: None,
            and_more: 0,
            key: None,
            required: required.into(),
            found: found.into(),
            remedy: String::new(),
        }
    }

    /// The same, on this function.
    #[must_use]
    pub fn on(mut self, function: Bdf) -> Self {
        self.function = Some(function);
        self
    }

    /// The same, for this partition or VF request.
    #[must_use]
    pub fn for_request(mut self, request: impl fmt::Display) -> Self {
        self.request = Some(request.to_string());
        self
    }

    /// The same, asked for by this key of a Spec.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same, with a remedy for the user.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(request) = &self.request {
            write!(f, "{request}")?;
            if self.and_more > 0 {
                write!(f, " and {} more", self.and_more)?;
            }
            write!(f, ": ")?;
        }
        if let Some(function) = self.function {
            write!(f, "{function}: ")?;
        }
        write!(f, "required {}; found {}", self.required, self.found)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}
