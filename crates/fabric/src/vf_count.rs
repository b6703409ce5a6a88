//! Setting the number of VFs of a PF, whatever stands behind it: what the kernel allows is checked first, so that a no
//! says what to change, and a driver that made fewer than it was asked for is found out.
//!
//! Kernel side: drivers/pci/iov.c.

use std::{io, time::Duration};

use ioward_pci::Bdf;
use rustix::io::Errno;

use crate::FabricError;

/// How long a link that was up may take to come back once the number of VFs has changed.
pub(crate) const LINK_BACK_WITHIN: Duration = Duration::from_secs(10);

/// The number of VFs of one PF, as the kernel shows and takes it.
pub(crate) trait VfCount {
    /// `sriov_numvfs`.
    fn present(&self) -> Result<u16, FabricError>;

    /// `sriov_totalvfs`: TotalVFs, or fewer where the PF's driver says so.
    fn total(&self) -> Result<u16, FabricError>;

    /// A write to `sriov_numvfs`.
    fn write(&mut self, count: u16) -> io::Result<()>;

    /// Waits until VFs 0 to `count` - 1 are there, and no others.
    fn wait(&mut self, count: u16) -> io::Result<()>;

    /// Waits for a link that was up before the first write, at most [`LINK_BACK_WITHIN`]. One that stays away is no
    /// error.
    fn wait_for_link(&mut self) -> io::Result<()>;
}

/// Sets the number of VFs of a PF and waits until they are there, or gone.
pub(crate) fn set(pf: Bdf, count: u16, attribute: &mut impl VfCount) -> Result<(), FabricError> {
    let present = attribute.present()?;
    let refused = |why: String, source: io::Error| FabricError::Refused {
        what: format!("set {count} VFs on {pf}, which has {present}"),
        why,
        source,
    };
    if present == count {
        return attribute.wait(count).map_err(|source| refused(why(&source), source));
    }
    let total = attribute.total()?;
    if count > total {
        return Err(refused(format!("it gives {total} VFs at most"), Errno::RANGE.into()));
    }
    if present > 0 && count > 0 {
        return Err(refused("the number changes through 0 only: set 0 first".to_owned(), Errno::BUSY.into()));
    }
    attribute.write(count).map_err(|source| refused(why(&source), source))?;

    // A driver may give fewer than it was asked for; the kernel only notes that in its log.
    let given = attribute.present()?;
    if given == count {
        // igb renegotiates its link, and refuses rates until that is done.
        let settled = attribute.wait(count).and_then(|()| attribute.wait_for_link());
        return settled.map_err(|source| refused(why(&source), source));
    }
    let mut why =
        format!("its driver made {given}: it has resources for no more; ask for {given}, or see dmesg");
    if present == 0 && given > 0 {
        let taken_away =
            attribute.write(0).and_then(|()| attribute.wait(0)).and_then(|()| attribute.wait_for_link());
        why += match taken_away {
            Ok(()) => "; they were taken away again",
            Err(_) => "; they could not be taken away again",
        };
    }
    Err(refused(why, Errno::NOSPC.into()))
}

/// The meaning of an errno when the number of VFs is written.
pub(crate) fn why(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::BUSY) => "it has VFs already or they are in use; take them from who uses them and set 0 first",
        Some(Errno::NOSPC | Errno::NOMEM) => {
            "bus numbers, memory space or MSI-X vectors do not suffice for so many; ask for fewer, or give the slot \
             more in the firmware (SR-IOV, above 4G decoding, ARI)"
        }
        Some(Errno::INVAL) => {
            "its driver does not take that in its present state; bring the interface up and look whether SR-IOV is \
             turned on in the adapter's firmware"
        }
        Some(Errno::NOENT) => "it has no driver, or one without SR-IOV; bind it to its vendor's PF driver",
        Some(Errno::RANGE) => "it does not give so many",
        Some(Errno::ACCESS | Errno::ROFS) => "this needs root",
        // sysfs checks permissions at open (EACCES); EPERM comes from the driver.
        Some(Errno::PERM) => "its driver forbids it: VFs are assigned, or this needs root",
        Some(Errno::NODEV | Errno::NXIO) => "the device is gone or does not answer",
        Some(Errno::IO | Errno::TIMEDOUT) => "the device failed; see dmesg",
        Some(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOTTY) => "its driver cannot do it",
        _ => return format!("{error}; see dmesg"),
    }
    .to_owned()
}
