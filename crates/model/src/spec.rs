//! The wish of a person: declarative, so that applying it twice does nothing the second time.
//!
//! A Spec speaks for what it names. Partitions and adapters it does not name are left as they are.
//! The text form is TOML (see [`Spec::parse`]); the same values travel as JSON.

use std::path::PathBuf;

use ioward_pci::Bdf;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    Apart, BitRate, Capability, Class, Failover, Guarantee, Guest, GuestMay, LinkState, MacAddress, Machine,
    Name, NumaPolicy, PartitionKind, Setting, Subclass, VfSettings, Vlan, VlanProtocol, for_each_setting,
    partition_form::PartitionForm,
};

/// The choice of a person: how many VFs each adapter gives, and which partitions there are, with which VFs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AdapterSpec {
    /// The PF.
    pub pf: Bdf,
    /// Its number of VFs; left out: as many as are assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfs: Option<VfCount>,
    /// How many VFs it is to give beyond those that are assigned, so that the next one is there already; not with `vfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare: Option<u16>,
}

impl AdapterSpec {
    /// The number of VFs it asks for; `None`: as many as are assigned.
    #[must_use]
    pub fn count(&self) -> Option<VfCount> {
        self.vfs.or(self.spare.map(VfCount::Spare))
    }
}

/// A number of VFs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfCount {
    /// So many.
    Exactly(u16),
    /// TotalVFs: written `"max"`.
    Max,
    /// As many as are assigned and so many more, up to TotalVFs: written `{ spare = 2 }`, or with a key of its own in
    /// an [`AdapterSpec`]. It is a wish that nobody who runs is disturbed for.
    Spare(u16),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpareForm {
    spare: u16,
}

impl Serialize for VfCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exactly(count) => serializer.serialize_u16(*count),
            Self::Max => serializer.serialize_str("max"),
            Self::Spare(spare) => SpareForm { spare: *spare }.serialize(serializer),
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
            Spare(SpareForm),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(n) => u16::try_from(n).map(Self::Exactly).map_err(|_| {
                de::Error::custom(format!("{n} is no number of VFs; use 0 to 65535, or \"max\""))
            }),
            Form::Spare(SpareForm { spare }) => Ok(Self::Spare(spare)),
            Form::Word(word) if word == "max" => Ok(Self::Max),
            Form::Word(word) => {
                let word: String = word.chars().take(40).collect();
                Err(de::Error::custom(format!("'{word}' is no number of VFs; use 0 to 65535, or \"max\"")))
            }
        }
    }
}

/// A client partition: what it is, and the VFs it asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PartitionForm", into = "PartitionForm")]
pub struct PartitionSpec {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: PartitionKind,
    /// The host's NUMA node of its CPUs and memory. Those of a machine of ioward's own are placed there; left out: wherever the
    /// kernel puts them.
    pub numa_node: Option<u32>,
    /// The guest that runs in it, as far as it matters for VFs; left out: anything may.
    pub guest: Option<Guest>,
    /// The VFs it asks for.
    pub vfs: Vec<VfRequest>,
}

/// The files a machine starts from: a kernel, or a disk. Paths are absolute once a Spec has left the command line, which
/// reads relative ones from the Spec's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Linux kernel to start directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub initrd: Option<PathBuf>,
    /// Its command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// Disk image (raw or qcow2); the one to boot from where there is no kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub disk: Option<PathBuf>,
}

macro_rules! vf_request {
    ($(
        $setting:ident $number:tt $field:ident: $kind:ident($type:ty), asked [$($asked:ty)?],
        $class:ident needs [$($capability:ident)?], $description:literal;
    )*) => {
        /// One VF that a partition asks for: by need, or pinned by `pf` and `index`; with the settings it is to have.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(deny_unknown_fields)]
        pub struct VfRequest {
            /// Its name within the partition.
            pub name: Name,
            /// The class it is to be of.
            pub class: Class,
            /// The kind within the class.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub subclass: Option<Subclass>,
            /// The slowest link that will do.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub min_link_speed: Option<BitRate>,
            /// Whether the port must have a link when the VF is chosen.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            pub carrier: bool,
            /// The least that the adapter's PCIe link must carry in one direction.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub min_pcie_bandwidth: Option<BitRate>,
            /// How much the partition's NUMA node matters for it; needs `numa_node` in the partition.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub numa: Option<NumaPolicy>,
            /// Capabilities that its adapter must have; settings that are asked for count by themselves.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub needs: Vec<Capability>,
            /// The fewest MSI-X vectors that will do.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub min_msix_vectors: Option<u16>,
            /// The fewest NVMe namespaces that its controller must have.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub min_namespaces: Option<u16>,
            /// VFs that it must not share a failure domain with.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub apart_from: Vec<Apart>,
            /// What the partition falls back on when this VF carries nothing.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub failover: Option<Failover>,
            /// The PF it must come from.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub pf: Option<Bdf>,
            /// The VF index it must have; needs `pf`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub index: Option<u16>,
            $($(
                #[doc = $description]
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$asked>,
            )?)*
            /// Changes that the partition may make by itself.
            #[serde(default)]
            pub guest_may: GuestMay,
        }

        impl VfRequest {
            /// A request for any VF of a class, with nothing set.
            #[must_use]
            pub fn new(name: Name, class: Class) -> Self {
                Self {
                    name,
                    class,
                    subclass: None,
                    min_link_speed: None,
                    carrier: false,
                    min_pcie_bandwidth: None,
                    numa: None,
                    needs: Vec::new(),
                    min_msix_vectors: None,
                    min_namespaces: None,
                    apart_from: Vec::new(),
                    failover: None,
                    pf: None,
                    index: None,
                    $($($field: None::<$asked>,)?)*
                    guest_may: GuestMay::default(),
                }
            }

            /// Whether it asks for a setting by name.
            #[must_use]
            pub fn asks_for(&self, setting: Setting) -> bool {
                match setting { $(Setting::$setting => [$(Option::<$asked>::is_some(&self.$field))?].contains(&true)),* }
            }

            /// Has it no longer ask for a setting. False for one that a Spec does not speak of.
            pub fn leave_out(&mut self, setting: Setting) -> bool {
                match setting { $(Setting::$setting => [$(forget::<$asked>(&mut self.$field))?].contains(&true)),* }
            }

            /// The settings it asks for by name; what the planner adds is not in it, nor a guaranteed rate that is a part of a
            /// port yet to be chosen.
            #[must_use]
            pub fn settings(&self) -> VfSettings {
                let mut settings = VfSettings::default();
                $($(settings.$field = self.$field.and_then(<$asked as Asked<$type>>::setting);)?)*
                settings
            }
        }
    };
}

for_each_setting!(vf_request);

impl VfRequest {
    /// The VFs that it must not share a failure domain with, its standby among them.
    pub fn aparts(&self) -> impl Iterator<Item = Apart> + '_ {
        self.apart_from.iter().cloned().chain(self.failover.as_ref().and_then(Failover::apart))
    }

    /// The capabilities that its settings need of an adapter, each with the key that asks for it.
    pub fn needs_of_settings(&self) -> impl Iterator<Item = (Capability, &'static str)> {
        let asked = Setting::ALL.iter().filter(|setting| self.asks_for(**setting));
        let needed = asked.filter_map(|setting| Some((setting.capability()?, setting.as_str())));
        let service = self.vlan.filter(|vlan| vlan.protocol() == VlanProtocol::Dot1ad);
        needed.chain(service.map(|_| (Capability::Vlan8021ad, Setting::Vlan.as_str())))
    }
}

fn forget<T>(field: &mut Option<T>) -> bool {
    *field = None;
    true
}

/// A setting as a Spec has it.
trait Asked<T> {
    /// As a VF has it, where that does not depend on its port.
    fn setting(self) -> Option<T>;
}

impl<T> Asked<T> for T {
    fn setting(self) -> Option<T> {
        Some(self)
    }
}

impl Asked<BitRate> for Guarantee {
    fn setting(self) -> Option<BitRate> {
        self.on_link(None)
    }
}

impl PartitionSpec {
    /// What a Spec makes of its name and one of `boot`, `libvirt` and `netns` alone.
    #[must_use]
    pub fn new(name: Name, kind: impl Into<PartitionKind>) -> Self {
        Self { name, kind: kind.into(), numa_node: None, guest: None, vfs: Vec::new() }
    }

    /// What the machine is made of; `None` where the partition is none of ioward's own machines.
    #[must_use]
    pub fn machine(&self) -> Option<&Machine> {
        match &self.kind {
            PartitionKind::Machine(machine) => Some(machine),
            PartitionKind::Domain(_) | PartitionKind::Namespace(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn machine_mut(&mut self) -> Option<&mut Machine> {
        match &mut self.kind {
            PartitionKind::Machine(machine) => Some(machine),
            PartitionKind::Domain(_) | PartitionKind::Namespace(_) => None,
        }
    }

    /// Whether ioward starts it when the host has booted.
    #[must_use]
    pub fn autostart(&self) -> bool {
        self.machine().is_some_and(|machine| machine.autostart)
    }

    /// Has it no longer ask for a VF; one that fell back on it has no standby then.
    pub fn leave_out(&mut self, vf: &Name) {
        self.vfs.retain(|request| request.name != *vf);
        for request in &mut self.vfs {
            request.failover = request.failover.take().filter(|failover| failover.standby.vf() != Some(vf));
        }
    }

    /// The VF request of this name.
    #[must_use]
    pub fn vf(&self, name: &Name) -> Option<&VfRequest> {
        self.vfs.iter().find(|vf| vf.name == *name)
    }
}
