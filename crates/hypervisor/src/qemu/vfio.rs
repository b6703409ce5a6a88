//! The device nodes of VFIO.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// The node through which a machine has the functions of an IOMMU group (Documentation/driver-api/vfio.rst).
pub(super) fn node(devices: &Path, group: &OsStr) -> PathBuf {
    devices.join("vfio").join(group)
}
