//! The floor: what the kernel is told by hand, with nothing around it.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use ioward_tests::level1::{driver, sh};

use crate::Result;

/// How long a link may take to come back.
const LINK: Duration = Duration::from_secs(60);
/// The driver for machines.
pub const VFIO: &str = "vfio-pci";

fn attribute(function: &str, name: &str) -> PathBuf {
    PathBuf::from("/sys/bus/pci/devices").join(function).join(name)
}

/// Sets the number of VFs: one write.
pub fn set_count(pf: &str, count: u16) -> Result<()> {
    Ok(fs::write(attribute(pf, "sriov_numvfs"), count.to_string())?)
}

/// Waits until the interface of a PF has its link, which igb negotiates anew whenever the number of its VFs changes. A PF without an
/// interface has none to wait for.
pub fn wait_for_link(pf: &str) -> Result<()> {
    let begun = Instant::now();
    let Ok(links) = fs::read_dir(attribute(pf, "net")) else { return Ok(()) };
    for link in links {
        let carrier = link?.path().join("carrier");
        while fs::read_to_string(&carrier).ok().is_none_or(|carrier| carrier.trim() != "1") {
            if begun.elapsed() > LINK {
                return Err(format!("{} has no link after {} s", carrier.display(), LINK.as_secs()).into());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

/// Whether VFs that are made are probed for drivers.
pub fn set_autoprobe(pf: &str, probes: bool) -> Result<()> {
    Ok(fs::write(attribute(pf, "sriov_drivers_autoprobe"), if probes { "1" } else { "0" })?)
}

/// Binds a VF that has no driver to vfio-pci: two writes.
pub fn bind(vf: &str) -> Result<()> {
    fs::write(attribute(vf, "driver_override"), VFIO)?;
    Ok(fs::write("/sys/bus/pci/drivers_probe", vf)?)
}

/// Takes a VF off whatever driver it has, and its override away.
pub fn unbind(vf: &str) -> Result<()> {
    if driver(vf).is_some() {
        fs::write(attribute(vf, "driver/unbind"), vf)?;
    }
    Ok(fs::write(attribute(vf, "driver_override"), "\n")?)
}

/// An error unless all of these VFs are bound to vfio-pci, or none.
pub fn check_bound(vfs: &[String], bound: bool) -> Result<()> {
    for vf in vfs {
        let has = driver(vf);
        if (has.as_deref() == Some(VFIO)) != bound {
            return Err(format!("{vf} has the driver {has:?}").into());
        }
    }
    Ok(())
}

/// What a VF is to have.
#[derive(Clone, Copy)]
pub struct Settings {
    /// What its MAC ends with.
    pub mac: u8,
    /// Its VLAN; 0 for none.
    pub vlan: u16,
    /// Whether it is trusted.
    pub trust: bool,
}

impl Settings {
    /// The MAC of the VF of this index.
    pub fn mac_of(self, index: usize) -> String {
        format!("52:54:00:ab:{index:02x}:{:02x}", self.mac)
    }
}

/// Sets MAC, VLAN and trust of VFs, each named by its interface and index and known by its number in the list: one rtnetlink message each, by one process of `ip`.
pub fn configure<'a>(vfs: impl IntoIterator<Item = (&'a str, usize)>, settings: Settings) -> Result<()> {
    let Settings { vlan, trust, .. } = settings;
    let trust = if trust { "on" } else { "off" };
    let lines = vfs.into_iter().enumerate().map(|(number, (netdev, index))| {
        let mac = settings.mac_of(number);
        format!("link set {netdev} vf {index} mac {mac} vlan {vlan} trust {trust}\n")
    });
    sh(&format!("ip -batch - <<'END'\n{}END", lines.collect::<String>())).map(drop)
}
