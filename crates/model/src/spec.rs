//! What a person wants: declarative, so that applying it twice does nothing the second time.
//!
//! A Spec speaks for what it names. Partitions and adapters it does not name are left as they are.
//! The text form is TOML (see [`Spec::parse`]); the same values travel as JSON.

use std::path::PathBuf;

use ioward_pci::Bdf;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{BitRate, Class, GuestMay, LinkState, MacAddress, MemorySize, Name, VfSettings, Vlan};

/// The choice of a person: how many VFs each adapter gives, and which partitions there are, with which VFs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Version of the form; 1.
    pub version: u32,
    /// Adapters whose number of VFs is to be set.
    #[serde(default, rename = "adapter", skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<AdapterSpec>,
    /// Client partitions.
    #[serde(default, rename = "partition", skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PartitionSpec>,
}

/// How many VFs one PF is to give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterSpec {
    /// The PF.
    pub pf: Bdf,
    /// Its number of VFs; left out: as many as are assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfs: Option<VfCount>,
}

/// A number of VFs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfCount {
    /// So many.
    Exactly(u16),
    /// TotalVFs: written `"max"`.
    Max,
}

impl Serialize for VfCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exactly(count) => serializer.serialize_u16(*count),
            Self::Max => serializer.serialize_str("max"),
        }
    }
}

impl<'de> Deserialize<'de> for VfCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of VFs, or \"max\"")]
        enum Form {
            Number(i64),
            Word(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(n) => u16::try_from(n).map(Self::Exactly).map_err(|_| {
                de::Error::custom(format!("{n} is no number of VFs; use 0 to 65535, or \"max\""))
            }),
            Form::Word(word) if word == "max" => Ok(Self::Max),
            Form::Word(word) => {
                let word: String = word.chars().take(40).collect();
                Err(de::Error::custom(format!("'{word}' is no number of VFs; use 0 to 65535, or \"max\"")))
            }
        }
    }
}

/// A client partition: its resources and the VFs it asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionSpec {
    /// Its name.
    pub name: Name,
    /// Virtual CPUs, 1 to 288 (the most that QEMU's q35 machine takes).
    #[serde(default = "one")]
    pub cpus: u16,
    /// Memory.
    #[serde(default = "default_memory")]
    pub memory: MemorySize,
    /// What it starts from.
    pub boot: Boot,
    /// The VFs it asks for.
    #[serde(default, rename = "vf", skip_serializing_if = "Vec::is_empty")]
    pub vfs: Vec<VfRequest>,
}

fn one() -> u16 {
    1
}

fn default_memory() -> MemorySize {
    MemorySize::from_mebibytes(512).unwrap_or_else(|| unreachable!("512 MiB is within bounds"))
}

/// What a partition starts from: a kernel, or a disk. Paths are absolute once a Spec has left the command line, which
/// reads relative ones from the Spec's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Linux kernel to start directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// Its command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// Disk image (raw or qcow2); the one to boot from where there is no kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<PathBuf>,
}

/// One VF that a partition asks for: by need, or pinned by `pf` and `index`; with the settings it is to have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VfRequest {
    /// Its name within the partition.
    pub name: Name,
    /// What it is to be.
    pub class: Class,
    /// The slowest link that will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_link_speed: Option<BitRate>,
    /// The PF it must come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pf: Option<Bdf>,
    /// The VF index it must have; needs `pf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u16>,
    /// MAC address; left out: one derived from the names, the same at each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// Trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<bool>,
    /// Spoof checking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoofchk: Option<bool>,
    /// Guaranteed rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tx_rate: Option<BitRate>,
    /// Greatest rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tx_rate: Option<BitRate>,
    /// Link state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_state: Option<LinkState>,
    /// NVMe queue resources; left out: an even share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// NVMe interrupt resources; left out: an even share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupts: Option<u16>,
    /// What the partition may change by itself.
    #[serde(default)]
    pub guest_may: GuestMay,
}

impl VfRequest {
    /// The settings it asks for by name; what the planner adds is not in it.
    #[must_use]
    pub fn settings(&self) -> VfSettings {
        VfSettings {
            mac: self.mac,
            vlan: self.vlan,
            trust: self.trust,
            spoofchk: self.spoofchk,
            min_tx_rate: self.min_tx_rate,
            max_tx_rate: self.max_tx_rate,
            link_state: self.link_state,
            queues: self.queues,
            interrupts: self.interrupts,
            online: None,
        }
    }
}

impl PartitionSpec {
    /// The VF request of this name.
    #[must_use]
    pub fn vf(&self, name: &Name) -> Option<&VfRequest> {
        self.vfs.iter().find(|vf| vf.name == *name)
    }
}
