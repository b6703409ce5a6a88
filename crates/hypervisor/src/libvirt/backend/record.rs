//! A domain's partition on disk: which domain it is, what was last known of it, and what is being changed of it.
//!
//! The domain itself is libvirt's to keep. This is there for a daemon that comes while libvirt's does not run: it is not to take
//! a domain for stopped, or its VFs for free, because nobody answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use ioward_model::{DomainRef, Name};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use super::known::{Devices, Known};
use crate::{HypervisorError, file, libvirt::Uuid};

const VERSION: u32 = 1;

/// A partition that is a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// The partition.
    pub partition: Name,
    /// The domain, as the Spec names it.
    pub reference: DomainRef,
    /// The domain, which may have been given another name since.
    pub uuid: Uuid,
    /// What was seen of it last.
    pub known: Known,
    /// VFs on their way in or out. They count as its own until they are: what is done halfway, and what libvirt has not answered, may
    /// be done yet, and it is done again or undone.
    pub in_doubt: BTreeMap<Name, Bdf>,
    /// VFs that it had before it was a partition, under whichever alias: they are known by their functions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub adopted: BTreeMap<Name, Bdf>,
    /// Functions that it keeps when it is no partition any more: they are not its partition's, under whichever alias.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub released: BTreeSet<Bdf>,
}

impl Record {
    pub(super) fn new(partition: Name, reference: DomainRef, uuid: Uuid, known: Known) -> Self {
        let (in_doubt, adopted, released) = Default::default();
        Self { version: VERSION, partition, reference, uuid, known, in_doubt, adopted, released }
    }

    /// The same, and this is known.
    pub(super) fn with(self, known: Known) -> Self {
        Self { known, ..self }
    }

    /// The same, with these VFs known by their functions.
    pub(super) fn with_its_devices(self, adopted: BTreeMap<Name, Bdf>, released: BTreeSet<Bdf>) -> Self {
        Self { adopted, released, ..self }
    }

    /// Notes a VF that it has had.
    pub(super) fn adopt(&mut self, vf: &Name, function: Bdf) {
        self.released.remove(&function);
        self.adopted.insert(vf.clone(), function);
    }

    /// Forgets a VF that it keeps.
    pub(super) fn release(&mut self, vf: &Name) {
        let held = self.vfs().into_iter().find(|(name, _)| name == vf);
        self.released.extend(held.map(|(_, function)| function));
        self.adopted.remove(vf);
        self.in_doubt.remove(vf);
        for devices in [&mut self.known.live, &mut self.known.persistent] {
            devices.vfs.retain(|(name, _)| name != vf);
        }
    }

    /// The VFs that it holds, or may hold.
    pub(super) fn vfs(&self) -> Vec<(Name, Bdf)> {
        let mut vfs = self.known.devices().vfs.clone();
        for (vf, function) in &self.in_doubt {
            if vfs.iter().all(|(name, _)| name != vf) {
                vfs.push((vf.clone(), *function));
            }
        }
        vfs
    }

    /// What is known of it when libvirt has no such domain any more.
    pub(super) fn gone(&self) -> Known {
        let had = Devices { vfs: self.vfs(), channel: self.known.devices().channel.clone() };
        Known::gone(self.known.name.clone(), had)
    }

    /// Reads a record.
    pub(super) fn load(path: &Path) -> Result<Self, HypervisorError> {
        file::load(path, |record: &Self| match record.version {
            VERSION => Ok(()),
            other => Err(format!("version {other} of the form is not known")),
        })
    }

    /// Writes a record: afterwards the file holds the old one or this one, never a part.
    pub(super) fn save(&self, path: &Path) -> Result<(), HypervisorError> {
        file::save(path, self)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::known::Run, *};

    fn record() -> Record {
        let devices = |vf: &str| Devices {
            vfs: vec![(vf.parse().unwrap(), "0000:01:10.0".parse().unwrap())],
            channel: Some("/run/ioward/channels/web.sock".into()),
        };
        let known = Known {
            name: "web server".into(),
            there: true,
            run: Some(Run { id: 3, process: None, accelerator: None }),
            why_off: None,
            live: devices("net0"),
            persistent: devices("net1"),
        };
        let uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0".parse().unwrap();
        Record::new("web".parse().unwrap(), "web server".parse().unwrap(), uuid, known)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("domain.json");
        record().save(&path).unwrap();
        assert_eq!(Record::load(&path).unwrap(), record());
        let good = fs::read_to_string(&path).unwrap();
        for bad in ["", "{}", &good.replace("\"version\": 1", "\"version\": 2"), &good.replace("4dea", "4de")]
        {
            fs::write(&path, bad).unwrap();
            let error = Record::load(&path).unwrap_err();
            assert!(error.to_string().contains("domain.json"), "{error}");
        }
    }

    #[test]
    fn a_vf_on_its_way_counts_whichever_definition_has_it() {
        let mut record = record();
        let held =
            |record: &Record| record.vfs().into_iter().map(|(vf, _)| vf.to_string()).collect::<Vec<_>>();
        assert_eq!(held(&record), ["net0"]);
        let doubts =
            ["net0", "net1", "net2"].map(|vf| (vf.parse().unwrap(), "0000:01:10.0".parse().unwrap()));
        record.in_doubt = doubts.into();
        assert_eq!(held(&record), ["net0", "net1", "net2"]);
        record.known.run = None;
        assert_eq!(held(&record), ["net1", "net0", "net2"]);
        record.in_doubt.clear();
        assert_eq!(held(&record), ["net1"]);
    }
}
