//! Why not: every refusal a person sees is made of these.

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

/// Which rule said no. Stable: programs match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rule {
    /// What is asked for makes sense by itself, whatever the host.
    SpecValid,
    /// The function is there.
    FunctionExists,
    /// The function is an SR-IOV physical function.
    IsPhysicalFunction,
    /// The adapter is the one that is noted at its address.
    AdapterIdentity,
    /// What identify reads of a function can be read and makes sense.
    Readable,
    /// The function is of the wanted class.
    Class,
    /// The function is of the wanted kind of its class.
    Subclass,
    /// The port's link is fast enough.
    LinkSpeed,
    /// The port has a link.
    Carrier,
    /// The adapter's PCIe link carries enough.
    PcieBandwidth,
    /// The adapter is on the partition's NUMA node.
    NumaNode,
    /// The guest has a driver for the VF.
    GuestDriver,
    /// The adapter and its driver can do what is needed.
    Capability,
    /// The PF's driver would do it now, as the PF is.
    DriverReady,
    /// MSI-X vectors of the VF, and of the PF's budget, suffice.
    MsixVectors,
    /// The controller has enough namespaces.
    Namespaces,
    /// No more than all of a port's bandwidth is guaranteed.
    Bandwidth,
    /// The VF shares no failure domain with one that it must be apart from.
    Redundancy,
    /// No more VFs than TotalVFs.
    VfCapacity,
    /// The VF index is below the number of VFs.
    VfIndex,
    /// A VF has one owner.
    VfFree,
    /// An IOMMU translates what the function does.
    Iommu,
    /// The VF's IOMMU group holds nothing foreign.
    IommuGroup,
    /// The PF carries nothing the host itself needs.
    ManagementNic,
    /// Nothing that runs is disturbed.
    Disruption,
    /// A MAC address has one user.
    MacUnique,
    /// The setting is one that this class of adapter has.
    SettingSupported,
    /// NVMe queue and interrupt resources suffice.
    NvmeResources,
    /// All requests together find a place.
    Placement,
    /// The partition is there.
    PartitionExists,
    /// The partition has a VF of that name.
    VfExists,
    /// The partition has no VF of that name.
    VfNameFree,
    /// The partition is in the wanted phase (running, stopped).
    PartitionPhase,
    /// What is asked for can be changed while the partition runs.
    ChangeWhileRunning,
    /// The plan was made from the present inventory and state.
    PlanCurrent,
    /// The file that a partition boots from is there.
    BootFile,
}

impl fmt::Display for Rule {
    /// Its name as in JSON, as `link-speed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One thing that stands in the way: what was required, what was found, on which function, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The rule that is not met.
    pub rule: Rule,
    /// The function it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Bdf>,
    /// Whose request it is about: a partition (`web`), or a VF of one (`web/net0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The key of that request that asks for it, as `min_link_speed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the rule or the request asks for.
    pub required: String,
    /// What is there instead.
    pub found: String,
    /// What the person can do about it; empty when there is nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Reason {
    /// A reason on no particular function and for no particular request.
    #[must_use]
    pub fn new(rule: Rule, required: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            rule,
            function: None,
            request: None,
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

    /// The same, with what the person can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(request) = &self.request {
            write!(f, "{request}: ")?;
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
