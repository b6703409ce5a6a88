//! What ioward is measured against in level 1 (`cargo xtask bench lab`): downloaded and unpacked into the cache beside libvirt, never
//! installed. What is installed for the lab anyway (pciutils, nvme-cli, iproute2) is not among it.

use std::path::{Path, PathBuf};

use crate::apt::Apt;
use crate::error::{Error, Result};
use crate::{libvirt, unpacked};

/// libvirt's driver for `virsh nodedev-detach`; as old or new as the rest of libvirt.
const OF_LIBVIRT: [&str; 1] = ["libvirt-daemon-driver-nodedev"];
/// Others, of the machine's own release. The agent runs in guests.
const OTHERS: [&str; 2] = ["driverctl", AGENT];
const AGENT: &str = "qemu-guest-agent";
/// Where the agent is in its package; Debian has moved what was in sbin.
const AGENT_AT: [&str; 2] = ["usr/sbin/qemu-ga", "usr/bin/qemu-ga"];

/// The folder that has the peers and the libraries that this machine lacks for them, unpacked; downloaded first when there is none.
pub fn prepare(cache: &Path, apt: &mut Apt) -> Result<PathBuf> {
    unpacked::prepare(&cache.join("peers"), "libvirt", apt, |apt| {
        let mut wanted = libvirt::named(apt, &OF_LIBVIRT)?;
        wanted.extend(OTHERS.map(str::to_owned));
        Ok(wanted)
    })
}

/// The agent that runs in guests.
pub fn agent(peers: &Path) -> Result<PathBuf> {
    let found = AGENT_AT.map(|at| peers.join(at)).into_iter().find(|path| path.exists());
    found.ok_or_else(|| {
        Error::Other(format!(
            "{AGENT} is not in {}: remove that folder, and it is downloaded anew",
            peers.display()
        ))
    })
}
