//! The facts about PCI functions in the kernel's view of devices. All that is read here is a link or a number that the PCI core
//! itself keeps: no driver is asked, so nothing blocks, but for [`Sysfs::unbind`].

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use ioward_model::FunctionFacts;
use ioward_pci::Bdf;

/// Class code of PCI bridges, base class and subclass (PCI Code and ID Assignment §1.7). The kernel keeps them bound
/// to their own drivers within a group.
const PCI_BRIDGE: &str = "0x0604";

/// PCI devices in sysfs.
#[derive(Clone, Debug)]
pub(crate) struct Sysfs {
    devices: PathBuf,
}

impl Sysfs {
    /// The tree that is usually at `/sys`.
    pub(crate) fn new(root: &Path) -> Self {
        Self { devices: root.join("bus/pci/devices") }
    }

    /// The facts that decide whether a function may be handed out; `None` when there is no such function.
    pub(crate) fn facts(&self, function: Bdf) -> io::Result<Option<FunctionFacts>> {
        let device = self.devices.join(function.to_string());
        if !device.is_dir() {
            return Ok(None);
        }
        let class = fs::read_to_string(device.join("class"))?;
        let group = match fs::read_dir(device.join("iommu_group/devices")) {
            Ok(members) => {
                Some(members.map(|member| Ok(lossy(&member?.file_name()))).collect::<io::Result<_>>()?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Some(FunctionFacts {
            physical: link_name(&device.join("physfn"))?.map(|name| address(&name)).transpose()?,
            is_bridge: class.starts_with(PCI_BRIDGE),
            driver: self.driver(function)?,
            group,
        }))
    }

    /// A function's driver; `None` when it has none, or there is no such function.
    pub(crate) fn driver(&self, function: Bdf) -> io::Result<Option<String>> {
        Ok(link_name(&self.devices.join(function.to_string()).join("driver"))?.map(|name| lossy(&name)))
    }

    /// Takes a function from its driver. Waits for the driver, for which there is no bound.
    pub(crate) fn unbind(&self, function: Bdf) -> io::Result<()> {
        let address = function.to_string();
        fs::write(self.devices.join(&address).join("driver/unbind"), address)
    }

    /// Whether a function has a network interface in the namespace of this tree: that of whoever mounted it.
    pub(crate) fn has_interface(&self, function: Bdf) -> bool {
        let interfaces = fs::read_dir(self.devices.join(function.to_string()).join("net"));
        interfaces.is_ok_and(|mut interfaces| interfaces.next().is_some())
    }

    /// The number of a function's IOMMU group; `None` when it has none, or is gone.
    pub(crate) fn group(&self, function: Bdf) -> Option<OsString> {
        link_name(&self.devices.join(function.to_string()).join("iommu_group")).ok().flatten()
    }

    /// The name of a function's node of its own, below /dev/vfio/devices; `None` where the kernel makes none
    /// (Documentation/driver-api/vfio.rst, "VFIO device cdev").
    pub(crate) fn own_node(&self, function: Bdf) -> Option<OsString> {
        let folder = self.devices.join(function.to_string()).join("vfio-dev");
        fs::read_dir(folder).ok()?.next()?.ok().map(|entry| entry.file_name())
    }
}

fn lossy(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn address(name: &OsStr) -> io::Result<Bdf> {
    let parsed = name.to_str().and_then(|name| name.parse().ok());
    parsed.ok_or_else(|| io::Error::other(format!("{} is no PCI address", name.display())))
}

/// The last part of what a link points to; `None` when there is no link.
fn link_name(link: &Path) -> io::Result<Option<OsString>> {
    match fs::read_link(link) {
        Ok(target) => Ok(target.file_name().map(ToOwned::to_owned)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
