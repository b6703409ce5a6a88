//! Drift: differences between the host and the state, and the partitions that they break.

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{Identity, Name, Owner, VfId, VfSettings};

/// A difference between the host and the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drift {
    /// The difference.
    #[serde(flatten)]
    pub what: Difference,
    /// The partitions' VFs that it breaks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<Owner>,
    /// Why ioward does not repair it by itself; absent when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_because: Option<String>,
}

/// A kind of difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "drift", rename_all = "kebab-case")]
pub enum Difference {
    /// A PF that ioward holds is missing, is unreadable, or has been replaced by another.
    AdapterMissing {
        /// The PF.
        pf: Bdf,
        /// The replacement.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<Identity>,
    },
    /// A PF has fewer VFs than it must have.
    VfCount {
        /// The PF.
        pf: Bdf,
        /// The minimum it must have.
        noted: u16,
        /// NumVFs.
        found: u16,
    },
    /// A partition's VF is not bound to the driver by which that has it.
    Driver {
        /// The VF.
        vf: VfId,
        /// The driver that it is to have: vfio-pci for a machine or a domain, its own for a namespace.
        #[serde(default = "vfio_pci")]
        noted: String,
        /// Its driver.
        found: Option<String>,
    },
    /// A partition's VF has other settings.
    Settings {
        /// The VF.
        vf: VfId,
        /// The recorded values of the settings that differ.
        noted: VfSettings,
        /// Their actual values.
        found: VfSettings,
    },
    /// The hypervisor does not know a partition.
    PartitionMissing {
        /// The partition.
        partition: Name,
    },
    /// A partition's channel is gone.
    ChannelMissing {
        /// The partition.
        partition: Name,
    },
    /// The hypervisor does not have a VF for its partition, or has it at another address.
    NotAttached {
        /// The VF.
        vf: VfId,
        /// The address that the hypervisor has.
        found: Option<Bdf>,
    },
    /// The hypervisor has a VF for its partition that is to be out of its machine, as its standby is active.
    StillAttached {
        /// The VF.
        vf: VfId,
    },
    /// The hypervisor does not have the standby of a VF.
    StandbyMissing {
        /// Whose.
        owner: Owner,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what.fmt(f)?;
        if !self.breaks.is_empty() {
            let broken: Vec<_> = self.breaks.iter().map(ToString::to_string).collect();
            write!(f, "; broken: {}", broken.join(", "))?;
        }
        match &self.left_because {
            Some(why) => write!(f, "; left as it is: {why}"),
            None => Ok(()),
        }
    }
}

impl Difference {
    /// The adapter that it is about, or whose VF.
    #[must_use]
    pub fn adapter(&self) -> Option<Bdf> {
        match self {
            Self::AdapterMissing { pf, .. } | Self::VfCount { pf, .. } => Some(*pf),
            Self::Driver { vf, .. }
            | Self::Settings { vf, .. }
            | Self::NotAttached { vf, .. }
            | Self::StillAttached { vf } => Some(vf.pf),
            Self::PartitionMissing { .. } | Self::ChannelMissing { .. } | Self::StandbyMissing { .. } => None,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdapterMissing { pf, found: None } => write!(f, "{pf} is not there"),
            Self::AdapterMissing { pf, found: Some(found) } => {
                write!(f, "{pf} is not known to be the adapter that is noted there: it is {found}")
            }
            Self::VfCount { pf, noted, found } => write!(f, "{pf} has {found} VFs and is to have {noted}"),
            Self::Driver { vf, noted, found: Some(found) } => {
                write!(f, "{vf} is bound to {found} and is to be bound to {noted}")
            }
            Self::Driver { vf, noted, found: None } => {
                write!(f, "{vf} has no driver and is to be bound to {noted}")
            }
            Self::Settings { vf, noted, found } => {
                write!(f, "{vf} has {} and is to have {}", words(found), words(noted))
            }
            Self::PartitionMissing { partition } => {
                write!(f, "the hypervisor has no partition {partition}")
            }
            Self::ChannelMissing { partition } => write!(f, "{partition} has lost its channel"),
            Self::NotAttached { vf, found: None } => write!(f, "{vf} is not attached to its partition"),
            Self::NotAttached { vf, found: Some(found) } => {
                write!(f, "the partition of {vf} has {found} in its place")
            }
            Self::StillAttached { vf } => write!(f, "{vf} is in its machine, and its standby is active"),
            Self::StandbyMissing { owner } => write!(f, "{owner} has lost its standby"),
        }
    }
}

/// As it was before there were namespaces, and it was not said.
fn vfio_pci() -> String {
    "vfio-pci".to_owned()
}

fn words(settings: &VfSettings) -> String {
    let words: Vec<_> =
        settings.describe().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    words.join(" ")
}

/// A VF that is bound to vfio-pci, belongs to no partition, and is not open in any process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Orphan {
    /// The VF.
    #[serde(flatten)]
    pub vf: VfId,
    /// Its address.
    pub address: Bdf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drift_is_one_flat_object_and_a_sentence() {
        let pf: Bdf = "0000:01:00.0".parse().unwrap();
        let drift = Drift {
            what: Difference::VfCount { pf, noted: 3, found: 0 },
            breaks: vec!["web/net0".parse().unwrap()],
            left_because: Some("somebody has changed it by hand".to_owned()),
        };
        let json = serde_json::to_value(&drift).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"drift": "vf-count", "pf": "0000:01:00.0", "noted": 3, "found": 0,
                "breaks": ["web/net0"], "left_because": "somebody has changed it by hand"})
        );
        assert_eq!(serde_json::from_value::<Drift>(json).unwrap(), drift);
        assert_eq!(
            drift.to_string(),
            "0000:01:00.0 has 0 VFs and is to have 3; broken: web/net0; left as it is: somebody has changed it by hand"
        );
    }

    #[test]
    fn the_replacement_of_an_adapter_is_named() {
        let missing = serde_json::json!({"drift": "adapter-missing", "pf": "0000:01:00.0"});
        let read = |json: &serde_json::Value| serde_json::from_value::<Drift>(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(read(&missing)).unwrap(), missing);
        assert_eq!(read(&missing).to_string(), "0000:01:00.0 is not there");
        let mut other = missing;
        other["found"] = serde_json::json!({"vendor_id": "8086", "device_id": "10c9", "function": 0,
            "serial_number": "00-1b-21-ff-ff-12-34-56", "macs": ["00:1b:21:12:34:56"]});
        assert_eq!(serde_json::to_value(read(&other)).unwrap(), other);
        assert_eq!(
            read(&other).to_string(),
            "0000:01:00.0 is not known to be the adapter that is noted there: it is function 0 of a 8086:10c9 with serial \
             number 00-1b-21-ff-ff-12-34-56, MAC 00:1b:21:12:34:56"
        );
    }
}
