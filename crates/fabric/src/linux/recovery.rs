//! Attempts to recover a PF after a fault: devlink, and the attributes of sysfs.
//!
//! Kernel side: drivers/pci/pci-sysfs.c (`reset`), drivers/base/bus.c (`unbind`, `bind`, `drivers_probe`).

use ioward_model::{Recovery, VfId};
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{
    health,
    sysfs::{Sysfs, driver_of, names},
    vfio,
};
use crate::FabricError;

pub(super) fn recover(sysfs: &Sysfs<'_>, pf: Bdf, how: Recovery) -> Result<(), FabricError> {
    match how {
        Recovery::Health => health::recover(pf),
        Recovery::Reset => reset(sysfs, pf),
        Recovery::Rebind => rebind(sysfs, pf),
    }
}

fn reset(sysfs: &Sysfs<'_>, pf: Bdf) -> Result<(), FabricError> {
    let attribute = sysfs.pf(pf)?.join("reset");
    if !attribute.exists() {
        let driver = driver_of(&sysfs.function(pf)).unwrap_or_else(|| "the function".to_owned());
        return Err(FabricError::Unsupported { function: pf, driver, what: "be reset by itself".to_owned() });
    }
    sysfs.write(&attribute, "1").map_err(|source| refused(pf, Recovery::Reset, source))
}

fn rebind(sysfs: &Sysfs<'_>, pf: Bdf) -> Result<(), FabricError> {
    let folder = sysfs.pf(pf)?;
    // The kernel would wait for whoever has a VF open, and hold its locks meanwhile.
    let indices = names(&folder).into_iter().filter_map(|name| name.strip_prefix("virtfn")?.parse().ok());
    for index in indices {
        if vfio::is_open(sysfs, VfId { pf, index })? {
            return Err(FabricError::Refused {
                what: format!("{} ({pf})", Recovery::Rebind),
                why: format!("a program has its VF {index} open, which would go with it"),
                source: Errno::BUSY.into(),
            });
        }
    }
    let failed = |source| refused(pf, Recovery::Rebind, source);
    match driver_of(&folder) {
        Some(driver) => {
            let driver = sysfs.driver(&driver);
            sysfs.write(&driver.join("unbind"), &pf.to_string()).map_err(failed)?;
            sysfs.write(&driver.join("bind"), &pf.to_string()).map_err(failed)
        }
        None => sysfs.write(&sysfs.root.join("sys/bus/pci/drivers_probe"), &pf.to_string()).map_err(failed),
    }
}

fn refused(pf: Bdf, how: Recovery, source: std::io::Error) -> FabricError {
    let why = match Errno::from_io_error(&source) {
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => "this needs root".to_owned(),
        Some(Errno::NODEV | Errno::NXIO) => "the device does not answer; see dmesg".to_owned(),
        Some(Errno::NOTTY | Errno::OPNOTSUPP) => "the function cannot do it".to_owned(),
        _ => format!("{source}; see dmesg"),
    };
    FabricError::Refused { what: format!("{how} ({pf})"), why, source }
}
