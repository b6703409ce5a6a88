//! Taps: the host's ends of standbys. Each is made here, as a port of its bridge, and QEMU is given it open: it needs no right to
//! /dev/net/tun, and none to the host's network.
//!
//! A tap is made for one run of a machine, or when its standby is plugged in, and is not persistent: the kernel removes it with the last
//! descriptor of it (Documentation/networking/tuntap.rst), which is QEMU's. So it goes with its machine, however that ends and whether
//! a daemon runs then or not. A QEMU that is its guest's can make its tap persistent (TUNSETPERSIST asks for no right): so one that is
//! left is removed all the same, after its machine has ended and before the tap is made again.
//!
//! Its name is `iow` and 12 digits of a hash of whose it is, as an interface's name has 15 bytes at most; its alias says it in words.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use ioward_model::{InterfaceName, MacAddress, Owner, PartitionSpec};
use ioward_netlink::Socket;
use rustix::{
    fs::OFlags,
    ioctl::{self, IntegerSetter, Opcode, Updater, opcode},
};
use tokio::time::timeout;

use super::{QemuConfig, record::HeldStandby};
use crate::{HypervisorError, Obstacle};

/// `TUNSETIFF` and `TUNSETOWNER` (include/uapi/linux/if_tun.h).
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETOWNER: Opcode = opcode::write::<i32>(b'T', 204);
/// Ethernet frames.
const IFF_TAP: u16 = 0x0002;
/// With nothing before them…
const IFF_NO_PI: u16 = 0x1000;
/// …but the header of virtio-net, by which checksums and segmentation are left to who can do them.
const IFF_VNET_HDR: u16 = 0x4000;
/// None is taken over that is there already.
const IFF_TUN_EXCL: u16 = 0x8000;

/// `struct ifreq` (include/uapi/linux/if.h), as far as `TUNSETIFF` reads and writes it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40, "the kernel's struct has 40 bytes");

/// How to see which there are.
const BRIDGES: &str = "'ip link show type bridge' lists them";

/// Makes and removes taps.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    /// The kernel's view of interfaces.
    interfaces: PathBuf,
    /// What taps are made by.
    node: PathBuf,
    /// How long the kernel may take: it waits for the lock of its network configuration.
    bound: Duration,
}

impl Taps {
    pub(super) fn new(config: &QemuConfig) -> Self {
        Self {
            interfaces: config.sysfs.join("class/net"),
            node: config.devices.join("net/tun"),
            bound: config.bounds.command,
        }
    }

    /// The bridges that a partition is to have standbys on and that are none.
    pub(super) fn missing_bridges(&self, spec: &PartitionSpec) -> Vec<Obstacle> {
        let standbys = spec.vfs.iter().filter_map(|vf| vf.failover.as_ref()?.standby.bridge());
        let missing = |bridge: &InterfaceName| Obstacle {
            required: format!("a bridge {bridge} for a standby"),
            found: self.instead_of(bridge).unwrap_or_default().to_owned(),
            remedy: BRIDGES.to_owned(),
        };
        standbys.filter(|bridge| self.instead_of(bridge).is_some()).map(missing).collect()
    }

    /// What is there in place of a bridge; `None`: it is one.
    fn instead_of(&self, bridge: &InterfaceName) -> Option<&'static str> {
        let interface = self.interfaces.join(bridge.as_str());
        if interface.join("bridge").is_dir() {
            return None;
        }
        Some(match interface.symlink_metadata() {
            Ok(_) => "there is an interface of that name, which is no bridge",
            Err(_) => "the host has no interface of that name",
        })
    }

    /// What is wrong with a bridge, in words: what is needed, and what is there.
    pub(super) fn check_bridge(&self, bridge: &InterfaceName) -> Result<(), String> {
        let Some(found) = self.instead_of(bridge) else { return Ok(()) };
        Err(format!("its bridge {bridge} is needed, and {found}; {BRIDGES}"))
    }

    /// The name for a standby's tap: always the same, unless that is taken.
    pub(super) fn name_for(&self, owner: &Owner, is_taken: impl Fn(&str) -> bool) -> Option<InterfaceName> {
        let names = (0..=u8::MAX).map(|attempt| name(owner, attempt));
        names.into_iter().find(|name| !is_taken(name) && !self.has(name))?.parse().ok()
    }

    fn has(&self, name: &str) -> bool {
        self.interfaces.join(name).symlink_metadata().is_ok()
    }

    /// Makes the tap of a standby, as a port of its bridge, for a machine that runs as this user.
    pub(super) async fn make(
        &self,
        owner: &Owner,
        standby: &HeldStandby,
        user: Option<u32>,
    ) -> Result<OwnedFd, HypervisorError> {
        let refuse = |why| HypervisorError::NoStandby { owner: owner.clone(), why };
        self.check_bridge(&standby.nic.bridge).map_err(refuse)?;
        let (taps, alias, its) = (self.clone(), format!("ioward {owner}"), standby.clone());
        let made = self.in_time(move || taps.make_now(&its, &alias, user)).await;
        made.map_err(|error| refuse(format!("its tap {} can't be made: {error}", standby.tap)))
    }

    /// Removes what may be left of a tap whose machine is gone.
    pub(super) async fn remove(&self, standby: &HeldStandby) {
        if !self.has(standby.tap.as_str()) {
            return;
        }
        let (taps, tap) = (self.clone(), standby.tap.clone());
        if let Err(error) = self.in_time(move || taps.remove_now(&Socket::open()?, &tap)).await {
            tracing::warn!("the tap {} is left: {error}", standby.tap);
        }
    }

    async fn in_time<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let done = timeout(self.bound, tokio::task::spawn_blocking(work)).await;
        let silent = |_| {
            let why = format!("no answer from the kernel within {} s", self.bound.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, why)
        };
        done.map_err(silent)?.map_err(io::Error::other)?
    }

    fn make_now(&self, standby: &HeldStandby, alias: &str, user: Option<u32>) -> io::Result<OwnedFd> {
        let socket = Socket::open()?;
        self.remove_now(&socket, &standby.tap)?;
        let tap = open(&self.node, &standby.tap, user)?;
        let gone = |name: &InterfaceName| io::Error::other(format!("{name} has just gone"));
        let index =
            |name: &InterfaceName| socket.index_of(name.as_str().as_bytes())?.ok_or_else(|| gone(name));
        let (port, bridge) = (index(&standby.tap)?, index(&standby.nic.bridge)?);
        socket.join_bridge(port, bridge, mac_of_tap(standby.nic.mac), alias.as_bytes())?;
        Ok(tap)
    }

    /// Whoever else's interface has got the name meanwhile keeps it.
    fn remove_now(&self, socket: &Socket, tap: &InterfaceName) -> io::Result<()> {
        if !self.has(tap.as_str()) {
            return Ok(());
        }
        // The kernel shows it for what /dev/net/tun has made, and for nothing else.
        if !self.interfaces.join(tap.as_str()).join("tun_flags").exists() {
            return Err(io::Error::other("there is an interface of that name, which is no tap"));
        }
        match socket.index_of(tap.as_str().as_bytes())? {
            Some(index) => socket.remove_link(index),
            None => Ok(()),
        }
    }
}

/// The host's end has a MAC above all that adapters have: a bridge without one of its own takes the lowest of its ports.
fn mac_of_tap(mac: MacAddress) -> [u8; 6] {
    let [_, rest @ ..] = mac.bytes();
    let [b, c, d, e, f] = rest;
    [0xfe, b, c, d, e, f]
}

/// FNV-1a: the name of a tap is the same in every version of ioward.
fn name(owner: &Owner, attempt: u8) -> String {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    const DIGITS: u64 = (1 << 48) - 1;
    let text = owner.to_string();
    let hash =
        text.bytes().chain([attempt]).fold(START, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    format!("iow{:012x}", hash & DIGITS)
}

/// A new tap. It belongs to its machine's user: whose it is not, but for root, can't open it once more (tun_not_capable() in
/// drivers/net/tun.c); who has it open needs no right to it.
fn open(node: &Path, name: &InterfaceName, user: Option<u32>) -> io::Result<OwnedFd> {
    let flags = i32::try_from((OFlags::CLOEXEC | OFlags::NONBLOCK).bits()).map_err(io::Error::other)?;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(node);
    let tap = OwnedFd::from(opened.map_err(|error| {
        let why = format!("{}: {error}; 'modprobe tun' makes it", node.display());
        io::Error::new(error.kind(), why)
    })?);
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL,
        rest: [0; 22],
    };
    // 15 bytes at most, and a zero behind them.
    let bytes = name.as_str().as_bytes();
    request.name[..bytes.len()].copy_from_slice(bytes);
    let user = user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let user = usize::try_from(user).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "rustix has no call for what taps are made by")]
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq` and nothing else (tun_chr_ioctl() in drivers/net/tun.c), which
    // `InterfaceRequest` is, and which is borrowed for the whole call; any bytes written there are valid. TUNSETOWNER takes a number and
    // no pointer.
    unsafe {
        ioctl::ioctl(tap.as_fd(), Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request))?;
        ioctl::ioctl(tap.as_fd(), IntegerSetter::<TUNSETOWNER>::new_usize(user))?;
    }
    Ok(tap)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn taps(folder: &Path) -> Taps {
        Taps::new(&QemuConfig {
            sysfs: folder.to_owned(),
            devices: folder.to_owned(),
            ..QemuConfig::default()
        })
    }

    fn owner(text: &str) -> Owner {
        text.parse().unwrap()
    }

    #[test]
    fn a_tap_is_named_by_whose_it_is_and_a_taken_name_is_not_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let taps = taps(folder.path());
        let longest = "x".repeat(40);
        for one in ["web/net0", "web/net1", "db/net0", &format!("{longest}/{longest}")] {
            let name = taps.name_for(&owner(one), |_| false).unwrap();
            assert!(name.as_str().len() == 15 && name.as_str().starts_with("iow"), "{name}");
        }
        let first = taps.name_for(&owner("web/net0"), |_| false).unwrap();
        assert_eq!(first.as_str(), "iow514ada030b95", "it is the same in every version");
        let second = taps.name_for(&owner("web/net0"), |name| name == first.as_str()).unwrap();
        assert_ne!(first, second);
        fs::create_dir_all(folder.path().join("class/net").join(first.as_str())).unwrap();
        assert_eq!(taps.name_for(&owner("web/net0"), |_| false), Some(second), "nor one of the host's");
        assert_eq!(taps.name_for(&owner("web/net0"), |_| true), None);
    }

    #[test]
    fn what_is_no_bridge_is_refused_with_what_was_needed_and_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let taps = taps(folder.path());
        let check = |name: &str| taps.check_bridge(&name.parse().unwrap());
        let missing = check("br0").unwrap_err();
        assert!(
            missing.contains("br0 is needed") && missing.contains("no interface of that name"),
            "{missing}"
        );
        fs::create_dir_all(folder.path().join("class/net/eth0")).unwrap();
        assert!(check("eth0").unwrap_err().contains("which is no bridge"));
        fs::create_dir_all(folder.path().join("class/net/br0/bridge")).unwrap();
        assert_eq!(check("br0"), Ok(()));
    }

    /// A bridge without a MAC of its own would take the guest's for it.
    #[test]
    fn the_hosts_end_has_another_mac_than_the_guests() {
        let mac: MacAddress = "52:54:00:aa:00:01".parse().unwrap();
        assert_eq!(mac_of_tap(mac), [0xfe, 0x54, 0, 0xaa, 0, 1]);
    }

    #[test]
    fn an_interface_that_is_no_tap_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let taps = taps(folder.path());
        fs::create_dir_all(folder.path().join("class/net/lo")).unwrap();
        let error = taps.remove_now(&Socket::open().unwrap(), &"lo".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("no tap"), "{error}");
    }
}
