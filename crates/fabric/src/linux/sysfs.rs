//! The attributes of PCI functions in sysfs: reads and writes them, under a root folder that tests can replace.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use ioward_model::VfId;
use ioward_pci::Bdf;

use super::lanes::Work;
use crate::FabricError;

/// An attribute is a page at most (Documentation/filesystems/sysfs.rst).
const PAGE: u64 = 4096;

/// A host's sysfs for one operation.
pub(super) struct Sysfs<'w> {
    pub(super) root: PathBuf,
    pub(super) work: &'w Work,
}

impl Sysfs<'_> {
    /// The folder of a PCI function, which may not exist.
    pub(super) fn function(&self, address: Bdf) -> PathBuf {
        self.root.join("sys/bus/pci/devices").join(address.to_string())
    }

    /// The folder of a PCI driver, which may not exist.
    pub(super) fn driver(&self, name: &str) -> PathBuf {
        self.root.join("sys/bus/pci/drivers").join(name)
    }

    /// The folder of an existing function.
    pub(super) fn exists(&self, address: Bdf) -> Result<PathBuf, FabricError> {
        let folder = self.function(address);
        match folder.exists() {
            true => Ok(folder),
            false => Err(FabricError::NoSuchFunction { address, what: "is not there".into() }),
        }
    }

    /// The folder of a PF.
    pub(super) fn pf(&self, address: Bdf) -> Result<PathBuf, FabricError> {
        let folder = self.exists(address)?;
        match folder.join("sriov_totalvfs").exists() {
            true => Ok(folder),
            false => Err(FabricError::NoSuchFunction { address, what: "has no SR-IOV capability".into() }),
        }
    }

    /// The address of a VF, from its PF's `virtfnN` link.
    pub(super) fn vf_address(&self, vf: VfId) -> Result<Bdf, FabricError> {
        let pf = self.pf(vf.pf)?;
        let missing = || FabricError::NoSuchVf { vf, num_vfs: number(&pf.join("sriov_numvfs")).unwrap_or(0) };
        let target = pf.join(format!("virtfn{}", vf.index)).read_link().map_err(|_| missing())?;
        link_name(&target).and_then(|name| name.parse().ok()).ok_or_else(missing)
    }

    /// The folder of a VF, if its own link confirms that it is a VF of that PF: no other function is ever changed.
    pub(super) fn vf(&self, vf: VfId) -> Result<(Bdf, PathBuf), FabricError> {
        let address = self.vf_address(vf)?;
        let folder = self.function(address);
        let owner = folder.join("physfn").read_link().ok();
        match owner.as_deref().and_then(link_name) {
            Some(pf) if pf.parse() == Ok(vf.pf) => Ok((address, folder)),
            _ => {
                let what = "is not a virtual function of that PF".into();
                Err(FabricError::NoSuchFunction { address, what })
            }
        }
    }

    /// The addresses of a PF and of its present VFs, in the kernel's form.
    pub(super) fn addresses(&self, pf: Bdf) -> Vec<String> {
        let folder = self.function(pf);
        let vfs = names(&folder).into_iter().filter(|name| name.starts_with("virtfn"));
        let targets =
            vfs.filter_map(|name| Some(link_name(&folder.join(name).read_link().ok()?)?.to_owned()));
        targets.chain([pf.to_string()]).collect()
    }

    /// Writes an attribute in a single write, unless the caller has given up.
    pub(super) fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        self.work.check()?;
        OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
    }

    /// Waits for a condition, checking ever less often; an error ends the wait once the caller has given up.
    pub(super) fn wait_until(&self, mut is_so: impl FnMut() -> bool) -> io::Result<()> {
        let mut pause = Duration::from_millis(1);
        while !is_so() {
            self.work.check()?;
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(250));
        }
        Ok(())
    }
}

/// The text of an attribute, without surrounding white space.
pub(super) fn text(path: &Path) -> Result<String, FabricError> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(PAGE).read_to_string(&mut text)?;
        Ok(text.trim().to_owned())
    };
    read().map_err(|source| FabricError::Read { path: path.to_owned(), source })
}

/// The decimal number in an attribute.
pub(super) fn number<N: std::str::FromStr>(path: &Path) -> Result<N, FabricError> {
    let found = text(path)?;
    let wrong = || {
        io::Error::new(io::ErrorKind::InvalidData, format!("'{found:.40}' is no number of the wanted size"))
    };
    found.parse().map_err(|_| FabricError::Read { path: path.to_owned(), source: wrong() })
}

/// The driver a function is bound to.
pub(super) fn driver_of(folder: &Path) -> Option<String> {
    let target = folder.join("driver").read_link().ok()?;
    link_name(&target).map(str::to_owned)
}

/// The last part of a link's target.
pub(super) fn link_name(target: &Path) -> Option<&str> {
    target.file_name()?.to_str()
}

/// The names in a folder, sorted; empty if there is no such folder.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}
