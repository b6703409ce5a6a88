//! libvirt for level 1: downloaded and unpacked into the cache, never installed. Installing it would start daemons on the
//! developer's machine, and enable them for good.

use std::path::{Path, PathBuf};

use crate::apt::Apt;
use crate::error::{Error, Result};
use crate::{packages, unpacked};

/// The daemon, its driver for QEMU, virsh.
const PACKAGES: [&str; 3] = ["libvirt-daemon-driver-qemu", "libvirt-daemon", "libvirt-clients"];
/// The first libvirt that is as new as the emulator of the lab; as a Debian version.
const VERSION: &str = "10";

/// The folder that has libvirt's packages and the libraries that this machine lacks for them, unpacked; downloaded first when there
/// is none.
pub fn prepare(cache: &Path, apt: &mut Apt) -> Result<PathBuf> {
    unpacked::prepare(&cache.join("libvirt"), "libvirt", apt, |apt| named(apt, &PACKAGES))
}

/// Packages of libvirt's, as `package` or `package/suite`: of the release, or of its backports where that is too old.
pub fn named(apt: &mut Apt, packages: &[&str]) -> Result<Vec<String>> {
    let first = PACKAGES[0];
    let candidate = apt.policy(first)?.candidate;
    let candidate = candidate.ok_or_else(|| {
        Error::Other(format!("no apt source here has {first}: the lab needs Debian or Ubuntu"))
    })?;
    if !packages::is_older(&candidate, VERSION)? {
        return Ok(packages.iter().map(|&package| package.to_owned()).collect());
    }
    eprintln!("lab: {first} {candidate} is older than the emulator: taking libvirt from backports");
    let suite = apt.add_backports(first)?;
    apt.update()?;
    Ok(packages.iter().map(|package| format!("{package}/{suite}")).collect())
}
