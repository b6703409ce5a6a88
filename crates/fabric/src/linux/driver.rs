//! The driver of a VF, and its reset: the attributes of sysfs. crate::binding uses them.
//!
//! Kernel side: drivers/base/bus.c (bind, unbind), drivers/pci/pci-sysfs.c (driver_override, reset).

use std::{
    io,
    path::{Path, PathBuf},
};

use ioward_model::VfId;
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::sysfs::{Sysfs, driver_of, text};
use crate::{
    FabricError,
    binding::{self, Bindable},
};

/// The kernel's text for an unset override.
const NO_OVERRIDE: &str = "(null)";

pub(super) fn bind(sysfs: &Sysfs<'_>, vf: VfId, wanted: Option<&str>) -> Result<Option<String>, FabricError> {
    let (address, folder) = sysfs.vf(vf)?;
    binding::bind(vf, address, wanted, &mut Function { sysfs, address, folder })
}

pub(super) fn reset(sysfs: &Sysfs<'_>, vf: VfId) -> Result<(), FabricError> {
    let (address, folder) = sysfs.vf(vf)?;
    let attribute = folder.join("reset");
    // Without FLR the kernel may use methods that reset more than this function (reset_method: since Linux 5.15).
    let methods = text(&folder.join("reset_method")).unwrap_or_else(|_| "flr".to_owned());
    if !attribute.exists() || !methods.split_whitespace().any(|method| method.ends_with("flr")) {
        let driver = driver_of(&folder).unwrap_or_else(|| "the function".to_owned());
        return Err(FabricError::Unsupported {
            function: address,
            driver,
            what: "do a function-level reset".to_owned(),
        });
    }
    sysfs.write(&attribute, "1").map_err(|source| FabricError::Refused {
        what: format!("reset {vf} ({address})"),
        why: why(&source, "", &folder),
        source,
    })
}

struct Function<'w> {
    sysfs: &'w Sysfs<'w>,
    address: Bdf,
    folder: PathBuf,
}

impl Bindable for Function<'_> {
    fn driver(&self) -> Option<String> {
        driver_of(&self.folder)
    }

    fn driver_override(&self) -> Option<String> {
        let name = text(&self.folder.join("driver_override")).ok();
        name.filter(|name| !name.is_empty() && name != NO_OVERRIDE)
    }

    fn is_loaded(&self, driver: &str) -> bool {
        self.sysfs.driver(driver).is_dir()
    }

    fn unbind(&mut self) -> io::Result<()> {
        match driver_of(&self.folder) {
            Some(driver) => {
                self.sysfs.write(&self.sysfs.driver(&driver).join("unbind"), &self.address.to_string())
            }
            None => Ok(()),
        }
    }

    fn set_override(&mut self, driver: Option<&str>) -> io::Result<()> {
        // A lone newline clears it: an empty write does not reach the kernel's code.
        self.sysfs.write(&self.folder.join("driver_override"), driver.unwrap_or("\n"))
    }

    fn bind_to(&mut self, driver: &str) -> io::Result<()> {
        self.sysfs.write(&self.sysfs.driver(driver).join("bind"), &self.address.to_string())
    }

    fn why(&self, error: &io::Error, driver: &str) -> String {
        why(error, driver, &self.folder)
    }
}

/// The meaning of an errno from binding or resetting a VF.
fn why(error: &io::Error, driver: &str, folder: &Path) -> String {
    let vfio = driver.contains("vfio");
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => "this needs root".to_owned(),
        _ if vfio && !folder.join("iommu_group").exists() => {
            "the VF is in no IOMMU group; turn the IOMMU on in the firmware and on the kernel's command line \
             (intel_iommu=on, or amd_iommu=on)"
                .to_owned()
        }
        Some(Errno::NODEV | Errno::NXIO) => format!("{driver} does not take this device, or the device does not answer; see dmesg"),
        Some(Errno::INVAL) if vfio => {
            "vfio-pci does not take it: its IOMMU group is not viable, or another device of the group is in use".to_owned()
        }
        Some(Errno::BUSY) => "it is in use".to_owned(),
        Some(Errno::NOTTY | Errno::OPNOTSUPP) => "the function cannot do it".to_owned(),
        Some(Errno::TIMEDOUT | Errno::AGAIN) => "the device did not answer in time".to_owned(),
        _ => format!("{error}; see dmesg"),
    }
}
