//! A partition on disk: its definition, the VFs and standbys it holds and whether it has a channel.

use std::path::Path;

use ioward_model::{InterfaceName, Machine, Name, PartitionKind, PartitionSpec, StandbyNic};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{HypervisorError, file};

/// PCIe slots of a machine for VFs and standbys, and with that the most of both that it can hold.
pub(super) const SLOTS: u8 = 8;

const VERSION: u32 = 1;

/// A partition, as it is to be when it starts next, or is while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// What it is made of.
    pub spec: Definition,
    /// The user that its machine runs as; left out: the daemon's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// Whether it has a channel.
    pub channel: bool,
    /// The VFs it holds.
    pub vfs: Vec<HeldVf>,
    /// Its standbys. Records from before there were any have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standbys: Vec<HeldStandby>,
}

/// What a machine is made of. On disk it is a partition of a Spec, without VFs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PartitionSpec", into = "PartitionSpec")]
pub(super) struct Definition {
    pub name: Name,
    pub numa_node: Option<u32>,
    pub machine: Machine,
}

impl TryFrom<PartitionSpec> for Definition {
    type Error = HypervisorError;

    fn try_from(spec: PartitionSpec) -> Result<Self, HypervisorError> {
        match spec.kind {
            PartitionKind::Machine(machine) => {
                Ok(Self { name: spec.name, numa_node: spec.numa_node, machine })
            }
            kind => Err(HypervisorError::NoBackend { partition: spec.name, kind: kind.to_string() }),
        }
    }
}

impl From<Definition> for PartitionSpec {
    fn from(definition: Definition) -> Self {
        Self { numa_node: definition.numa_node, ..Self::new(definition.name, definition.machine) }
    }
}

/// A VF in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeldVf {
    /// Its name in the partition.
    pub name: Name,
    /// Which it is.
    pub function: Bdf,
    /// In which slot of the machine, 1 to [`SLOTS`].
    pub slot: u8,
}

/// The standby of a VF, in a slot of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeldStandby {
    /// The name of its VF in the partition.
    pub name: Name,
    /// What it is.
    pub nic: StandbyNic,
    /// In which slot of the machine, 1 to [`SLOTS`].
    pub slot: u8,
    /// The host's end of it.
    pub tap: InterfaceName,
    /// The function that the running QEMU takes for its primary. QEMU keeps the first that it was told of, whatever comes after it
    /// (`failover_hide_primary_device` in hw/net/virtio-net.c), and plugs that in when a guest negotiates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<Bdf>,
}

impl Record {
    pub(super) fn new(spec: Definition, user: Option<u32>) -> Self {
        Self { version: VERSION, spec, user, channel: false, vfs: Vec::new(), standbys: Vec::new() }
    }

    /// The VF of this name.
    pub(super) fn vf(&self, name: &Name) -> Option<&HeldVf> {
        self.vfs.iter().find(|vf| vf.name == *name)
    }

    /// The standby of the VF of this name.
    pub(super) fn standby(&self, name: &Name) -> Option<&HeldStandby> {
        self.standbys.iter().find(|standby| standby.name == *name)
    }

    /// Notes which function QEMU takes for the primary of the standby of this name, if there is one.
    pub(super) fn note_primary(&mut self, name: &Name, primary: Option<Bdf>) {
        for standby in self.standbys.iter_mut().filter(|standby| standby.name == *name) {
            standby.primary = primary;
        }
    }

    fn slots(&self) -> impl Iterator<Item = u8> {
        let of_standbys = self.standbys.iter().map(|standby| standby.slot);
        self.vfs.iter().map(|vf| vf.slot).chain(of_standbys)
    }

    /// The lowest slot that holds nothing.
    pub(super) fn free_slot(&self) -> Option<u8> {
        (1..=SLOTS).find(|slot| self.slots().all(|taken| taken != *slot))
    }

    /// Reads a record.
    pub(super) fn load(path: &Path) -> Result<Self, HypervisorError> {
        file::load(path, Self::check)
    }

    fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("version {} of the form is not known", self.version));
        }
        let mut slots: Vec<u8> = self.slots().collect();
        slots.sort_unstable();
        slots.dedup();
        if slots.len() != self.vfs.len() + self.standbys.len()
            || slots.iter().any(|slot| !(1..=SLOTS).contains(slot))
        {
            return Err("its slots make no sense".into());
        }
        Ok(())
    }

    /// Writes a record: afterwards the file holds the old one or this one, never a part.
    pub(super) fn save(&self, path: &Path) -> Result<(), HypervisorError> {
        file::save(path, self)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use ioward_model::Spec;

    use super::*;

    /// A partition `web` with whatever else the TOML says.
    pub(crate) fn record(toml: &str) -> Record {
        let text = format!("version = 1\n[[partition]]\nname = \"web\"\n{toml}");
        let spec = Spec::parse(text.as_bytes()).unwrap().partitions.remove(0);
        Record::new(spec.try_into().unwrap(), Some(1_879_048_193))
    }

    pub(crate) fn held(name: &str, function: &str, slot: u8) -> HeldVf {
        HeldVf { name: name.parse().unwrap(), function: function.parse().unwrap(), slot }
    }

    pub(crate) fn standby(name: &str, slot: u8) -> HeldStandby {
        let nic = StandbyNic { bridge: "br0".parse().unwrap(), mac: "52:54:00:aa:00:01".parse().unwrap() };
        let tap = format!("iow-{name}").parse().unwrap();
        HeldStandby { name: name.parse().unwrap(), nic, slot, tap, primary: None }
    }

    /// A daemon of this version finds what the one before it has left.
    #[test]
    fn a_record_from_before_there_were_standbys_is_read_and_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("partition.json");
        let text = serde_json::to_string(&record("boot = { kernel = \"/k\" }")).unwrap();
        assert!(!text.contains("standbys"), "{text}");
        fs::write(&path, &text).unwrap();
        assert_eq!(Record::load(&path).unwrap().standbys, []);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("partition.json");
        let mut record = record("boot = { kernel = \"/k\" }");
        record.vfs.push(held("net0", "0000:01:10.0", 3));
        record.standbys.push(standby("net0", 1));
        record.note_primary(&"net0".parse().unwrap(), Some("0000:01:10.0".parse().unwrap()));
        record.save(&path).unwrap();
        assert_eq!(Record::load(&path).unwrap(), record);
    }

    #[test]
    fn what_is_no_record_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("partition.json");
        let mut good = record("boot = { kernel = \"/k\" }");
        good.vfs.push(held("net0", "0000:01:10.0", 1));
        good.standbys.push(standby("net0", 2));
        let good = serde_json::to_string(&good).unwrap();
        for bad in [
            String::new(),
            "{}".into(),
            good[..good.len() - 2].into(),
            good.replace("\"version\":1", "\"version\":2"),
            good.replace("\"slot\":1", "\"slot\":9"),
            good.replace("\"slot\":1", "\"slot\":0"),
            good.replace("\"slot\":2", "\"slot\":1"),
            good.replace("iow-net0", "../iow"),
            good.replace("web", "../web"),
        ] {
            fs::write(&path, &bad).unwrap();
            let error = Record::load(&path).unwrap_err();
            assert!(error.to_string().contains("partition.json"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_slot_that_was_given_back_is_used_again() {
        let mut record = record("boot = { kernel = \"/k\" }");
        record.vfs = vec![held("a", "0000:01:10.0", 1), held("c", "0000:01:10.4", 3)];
        assert_eq!(record.free_slot(), Some(2));
        record.standbys = vec![standby("a", 2)];
        assert_eq!(record.free_slot(), Some(4), "a standby has a slot of its own");
        record.vfs = (1..=SLOTS).map(|slot| held("x", "0000:01:10.0", slot)).collect();
        assert_eq!(record.free_slot(), None);
    }
}
