//! A partition on disk: its namespace, the VFs it holds and whether it has a channel.

use std::{collections::BTreeSet, path::Path};

use ioward_model::{Name, NamespaceRef};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use super::find::Identity;
use crate::{HypervisorError, file};

const VERSION: u32 = 1;

/// A partition, as it is to be whenever its namespace is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    pub(super) name: Name,
    pub(super) namespace: NamespaceRef,
    /// Whether it has a channel.
    pub(super) channel: bool,
    /// The namespace that was last told of; `None`: that it was not there.
    pub(super) told: Option<Identity>,
    /// The VFs it holds.
    pub(super) vfs: Vec<HeldVf>,
}

/// A VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeldVf {
    /// Its name in the partition, and that of its interface in the namespace.
    pub(super) name: Name,
    /// Which it is.
    pub(super) function: Bdf,
    /// The name that its interface had at home; `None` before it was moved, or where that was no text.
    pub(super) before: Option<String>,
    /// Whether that has been moved into the namespace, as far as is known here.
    pub(super) inside: bool,
}

impl Record {
    pub(super) fn new(name: Name, namespace: NamespaceRef) -> Self {
        Self { version: VERSION, name, namespace, channel: false, told: None, vfs: Vec::new() }
    }

    /// The VF of this name.
    pub(super) fn vf(&self, name: &Name) -> Option<&HeldVf> {
        self.vfs.iter().find(|vf| vf.name == *name)
    }

    /// Reads a record.
    pub(super) fn load(path: &Path) -> Result<Self, HypervisorError> {
        file::load(path, |record: &Self| {
            if record.version != VERSION {
                return Err(format!("version {} of the form is not known", record.version));
            }
            let names: BTreeSet<_> = record.vfs.iter().map(|vf| &vf.name).collect();
            if names.len() < record.vfs.len() {
                return Err("it has two VFs of one name".into());
            }
            Ok(())
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

    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("partition.json");
        let web: Name = "web".parse().unwrap();
        let mut record = Record::new(web.clone(), NamespaceRef::Named("web".into()));
        record.told = Some(Identity::numbered(7));
        let function = "0000:01:10.0".parse().unwrap();
        record.vfs.push(HeldVf { name: web, function, before: Some("eth4".into()), inside: true });
        record.save(&path).unwrap();
        assert_eq!(Record::load(&path).unwrap(), record);

        let good = serde_json::to_string(&record).unwrap();
        let twice = Record { vfs: [record.vfs.clone(), record.vfs.clone()].concat(), ..record };
        for bad in [
            String::new(),
            "{}".into(),
            good[..good.len() - 2].into(),
            good.replace("\"version\":1", "\"version\":2"),
            good.replace("\"namespace\":\"web\"", "\"namespace\":\"../web\""),
            serde_json::to_string(&twice).unwrap(),
        ] {
            fs::write(&path, &bad).unwrap();
            let error = Record::load(&path).unwrap_err();
            assert!(error.to_string().contains("partition.json"), "{bad}: {error}");
        }
    }
}
