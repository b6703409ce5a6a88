//! The number of VFs of a PF, and whether the kernel binds new ones: `sriov_numvfs`, `sriov_drivers_autoprobe`.
//!
//! Kernel side: drivers/pci/iov.c, Documentation/ABI/testing/sysfs-bus-pci.

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use ioward_pci::Bdf;

use super::sysfs::{Sysfs, names, number, text};
use crate::{
    FabricError,
    vf_count::{self, VfCount, why},
};

/// TotalVFs, or the driver's lower limit.
pub(super) fn total(sysfs: &Sysfs<'_>, pf: Bdf) -> Result<u16, FabricError> {
    number(&sysfs.pf(pf)?.join("sriov_totalvfs"))
}

/// MSI-X vectors that the PF's driver can distribute among its VFs, if it does. Unknown before Linux 5.13.
pub(super) fn msix_total(sysfs: &Sysfs<'_>, pf: Bdf) -> Result<Option<u32>, FabricError> {
    let attribute = sysfs.function(pf).join("sriov_vf_total_msix");
    let total = attribute.exists().then(|| number(&attribute)).transpose()?;
    Ok(total.filter(|total| *total > 0))
}

pub(super) fn set_autoprobe(sysfs: &Sysfs<'_>, pf: Bdf, on: bool) -> Result<(), FabricError> {
    let attribute = sysfs.pf(pf)?.join("sriov_drivers_autoprobe");
    let wanted = if on { "1" } else { "0" };
    if text(&attribute)? == wanted {
        return Ok(());
    }
    sysfs.write(&attribute, wanted).map_err(|source| FabricError::Refused {
        what: format!("turn driver autoprobe {} for {pf}", if on { "on" } else { "off" }),
        why: why(&source),
        source,
    })
}

pub(super) fn set_vf_count(sysfs: &Sysfs<'_>, pf: Bdf, count: u16) -> Result<(), FabricError> {
    vf_count::set(pf, count, &mut Attribute { sysfs, folder: sysfs.pf(pf)?, links: Vec::new() })
}

/// `sriov_numvfs` of one PF.
struct Attribute<'w> {
    sysfs: &'w Sysfs<'w>,
    folder: PathBuf,
    /// Links that were up before the change.
    links: Vec<PathBuf>,
}

impl VfCount for Attribute<'_> {
    fn present(&self) -> Result<u16, FabricError> {
        number(&self.folder.join("sriov_numvfs"))
    }

    fn total(&self) -> Result<u16, FabricError> {
        number(&self.folder.join("sriov_totalvfs"))
    }

    fn write(&mut self, count: u16) -> io::Result<()> {
        self.links.extend(links_up(&self.folder));
        self.sysfs.write(&self.folder.join("sriov_numvfs"), &count.to_string())
    }

    fn wait(&mut self, count: u16) -> io::Result<()> {
        self.sysfs.wait_until(|| are_there(&self.folder, count))
    }

    fn wait_for_link(&mut self) -> io::Result<()> {
        let until = Instant::now() + vf_count::LINK_BACK_WITHIN;
        self.sysfs.wait_until(|| Instant::now() >= until || self.links.iter().all(|link| is_up(link)))
    }
}

/// The `carrier` attributes of the interfaces of a PF that have a link.
fn links_up(folder: &Path) -> Vec<PathBuf> {
    let net = folder.join("net");
    let carriers = names(&net).into_iter().map(|name| net.join(name).join("carrier"));
    carriers.filter(|carrier| is_up(carrier)).collect()
}

fn is_up(carrier: &Path) -> bool {
    text(carrier).is_ok_and(|carrier| carrier == "1")
}

/// Whether a PF's VFs in sysfs are exactly 0 to `count` - 1.
fn are_there(folder: &Path, count: u16) -> bool {
    let links = names(folder).into_iter().filter(|name| name.starts_with("virtfn")).count();
    // `virtfnN` may exist a moment before its target.
    links == usize::from(count)
        && (0..count).all(|index| folder.join(format!("virtfn{index}/config")).exists())
}
