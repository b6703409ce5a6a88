//! Bonds of Linux: a VF and its standby become one interface, in mode active-backup, that sends by the one which is active.
//! Documentation/networking/bonding.rst of the kernel: all of it is done by files of /sys/class/net.
//!
//! ```text
//!   VFs as the management partition tells them ─┐
//!   interfaces of this partition (sysfs) ───────┴─> writes to sysfs (pure: `Interfaces::writes`)
//! ```
//!
//! Each VF keeps its own MAC (`fail_over_mac=active`): a guest may not change it unless its VF is trusted. A member that loses its link is
//! left by the kernel at once; which one is gone back to, and when, is the management partition's to say, so no primary is set.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ioward_model::{LONGEST_INTERFACE, PairRole, VfView};

/// `IFF_UP` (netdevice(7)).
const UP: u32 = 1;

/// A folder like /sys/class/net.
pub(crate) struct Bonds {
    root: PathBuf,
}

/// Why a pair is not bonded as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BondError {
    /// The kernel's module is missing.
    #[error("the kernel has no bonding here; load it with 'modprobe bonding'")]
    NoBonding,
    /// The bond is called as the VF, and an interface can't be.
    #[error(
        "{name} is too long a name for an interface, which has {LONGEST_INTERFACE} characters at most; rename the VF in the Spec"
    )]
    NameTooLong {
        /// The VF.
        name: String,
    },
    /// Something else is called as the VF.
    #[error("there is an interface {name} that is no bond; rename it, or the VF in the Spec")]
    NotABond {
        /// The interface.
        name: String,
    },
    /// Somebody else uses the interface of a VF.
    #[error("{interface}, the interface of {vf}, belongs to {master} already")]
    InUse {
        /// The interface.
        interface: String,
        /// The VF.
        vf: String,
        /// Whose it is.
        master: String,
    },
    /// The kernel refuses.
    #[error("cannot write {value} to {file}: {error}; it takes root")]
    Write {
        /// The file.
        file: String,
        /// The value.
        value: String,
        /// The kernel's answer.
        error: String,
    },
}

/// A value for a file below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    file: String,
    value: String,
}

/// An interface, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Interface {
    name: String,
    /// Lower case, with colons.
    mac: String,
    /// It is a device, and not made of others.
    is_device: bool,
    master: Option<String>,
    flags: u32,
    /// Of a bond, its active member, if it has one.
    bond: Option<String>,
}

#[derive(Debug, Default)]
struct Interfaces(Vec<Interface>);

impl Bonds {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes bonds of all pairs among a partition's VFs, and has each send by the VF that is active. What is so already is left
    /// alone; a VF whose interface is not there yet is left out. What was done, and what could not be.
    pub(crate) fn keep(&self, views: &[VfView]) -> (Vec<String>, Vec<BondError>) {
        let (mut told, mut errors) = (Vec::new(), Vec::new());
        for primary in views {
            let Some(pair) = primary.failover.as_ref().filter(|pair| pair.role == PairRole::Primary) else {
                continue;
            };
            let members: Vec<_> =
                views.iter().filter(|vf| vf.name == primary.name || vf.name == pair.partner).collect();
            // Each turn does what the one before made possible: make the bond, add members, choose the active one.
            for _ in 0..3 {
                match self.turn(primary, &members) {
                    Ok(done) if done.is_empty() => break,
                    Ok(done) => told.extend(done),
                    Err(error) => {
                        errors.push(error);
                        break;
                    }
                }
            }
        }
        (told, errors)
    }

    fn turn(&self, primary: &VfView, members: &[&VfView]) -> Result<Vec<String>, BondError> {
        if !self.root.join("bonding_masters").exists() {
            return Err(BondError::NoBonding);
        }
        let writes = self.interfaces().writes(primary, members)?;
        for Write { file, value } in &writes {
            let failed = |error: io::Error| BondError::Write {
                file: self.root.join(file).display().to_string(),
                value: value.clone(),
                error: error.to_string(),
            };
            fs::write(self.root.join(file), value).map_err(failed)?;
        }
        Ok(writes.iter().filter_map(Write::told).collect())
    }

    /// Interfaces that can't be read are left out: they come and go at any time.
    fn interfaces(&self) -> Interfaces {
        let names = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        Interfaces(names.filter_map(|name| self.interface(name)).collect())
    }

    fn interface(&self, name: String) -> Option<Interface> {
        let folder = self.root.join(&name);
        let read = |file: &str| Some(fs::read_to_string(folder.join(file)).ok()?.trim().to_owned());
        let flags = read("flags")?;
        let flags = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
        let mac = read("address")?.to_lowercase();
        let master = fs::read_link(folder.join("master")).ok();
        let master = master.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let bond = folder.join("bonding").exists().then(|| read("bonding/active_slave").unwrap_or_default());
        Some(Interface { is_device: folder.join("device").exists(), name, mac, master, flags, bond })
    }
}

impl Write {
    fn to(interface: &str, file: &str, value: impl Into<String>) -> Self {
        Self { file: format!("{interface}/{file}"), value: value.into() }
    }

    /// What it does, where that is worth a line.
    fn told(&self) -> Option<String> {
        let (bond, file) = self.file.split_once('/')?;
        match file {
            "bonding/slaves" => {
                Some(format!("{bond}: {} is a member now", self.value.trim_start_matches('+')))
            }
            "bonding/active_slave" => Some(format!("{bond}: sends by {} now", self.value)),
            _ => None,
        }
    }
}

impl Interfaces {
    /// The next writes that bring a pair nearer to how it should be; none: it is.
    fn writes(&self, primary: &VfView, members: &[&VfView]) -> Result<Vec<Write>, BondError> {
        let bond = primary.name.as_str();
        if bond.len() > LONGEST_INTERFACE {
            return Err(BondError::NameTooLong { name: bond.to_owned() });
        }
        let active = match self.0.iter().find(|known| known.name == bond) {
            Some(Interface { bond: Some(active), .. }) => active,
            Some(_) => return Err(BondError::NotABond { name: bond.to_owned() }),
            None => return Ok(made(bond)),
        };
        let mut writes = Vec::new();
        for vf in members {
            let Some(interface) = self.of(vf) else { continue };
            match interface.master.as_deref() {
                Some(master) if master == bond => {}
                Some(master) => {
                    return Err(BondError::InUse {
                        interface: interface.name.clone(),
                        vf: vf.name.to_string(),
                        master: master.to_owned(),
                    });
                }
                None => {
                    // Only an interface that is down can become a member, which takes it up again.
                    if interface.flags & UP != 0 {
                        writes.push(Write::to(&interface.name, "flags", hex(interface.flags & !UP)));
                    }
                    writes.push(Write::to(bond, "bonding/slaves", format!("+{}", interface.name)));
                }
            }
        }
        if !writes.is_empty() {
            return Ok(writes);
        }
        let is_active = |vf: &&&VfView| vf.failover.as_ref().is_some_and(|pair| pair.active);
        let wanted = members.iter().find(is_active).and_then(|vf| self.of(vf));
        let wanted = wanted.filter(|wanted| wanted.name != *active);
        Ok(wanted
            .map(|wanted| Write::to(bond, "bonding/active_slave", wanted.name.clone()))
            .into_iter()
            .collect())
    }

    /// The interface of a VF: the device with its MAC.
    fn of(&self, vf: &VfView) -> Option<&Interface> {
        let mac = vf.settings.mac?.to_string().to_lowercase();
        self.0.iter().find(|known| known.is_device && known.mac == mac)
    }
}

/// Makes a bond without members.
fn made(bond: &str) -> Vec<Write> {
    let option = |file: &str, value: &str| Write::to(bond, &format!("bonding/{file}"), value);
    vec![
        Write { file: "bonding_masters".to_owned(), value: format!("+{bond}") },
        option("mode", "active-backup"),
        // How often the kernel looks at the links of members, in milliseconds.
        option("miimon", "100"),
        option("fail_over_mac", "active"),
        // IFF_MULTICAST, IFF_MASTER and IFF_BROADCAST are the kernel's to keep.
        Write::to(bond, "flags", hex(0x1402 | UP)),
    ]
}

fn hex(flags: u32) -> String {
    format!("{flags:#x}")
}

#[cfg(test)]
mod tests {
    use ioward_model::{Class, PairView, VfSettings};

    use super::*;

    const MACS: [&str; 2] = ["52:54:00:aa:00:01", "52:54:00:aa:00:02"];

    fn view(name: &str, role: PairRole, active: bool) -> VfView {
        let (partner, mac) = match role {
            PairRole::Primary => ("net0-b", MACS[0]),
            PairRole::Standby => ("net0", MACS[1]),
        };
        VfView {
            name: name.parse().unwrap(),
            class: Class::Network,
            host_address: "0000:01:10.0".parse().unwrap(),
            settings: VfSettings { mac: mac.parse().ok(), ..VfSettings::default() },
            may: Vec::new(),
            failover: Some(PairView { role, partner: partner.parse().unwrap(), active }),
            fault: None,
        }
    }

    fn device(name: &str, mac: &str, master: Option<&str>) -> Interface {
        let (name, mac) = (name.to_owned(), mac.to_owned());
        Interface { name, mac, is_device: true, master: master.map(str::to_owned), flags: 0x1003, bond: None }
    }

    fn bond(active: &str) -> Interface {
        Interface {
            name: "net0".to_owned(),
            mac: MACS[0].to_owned(),
            bond: Some(active.to_owned()),
            ..Interface::default()
        }
    }

    fn writes(found: &[Interface], standby_is_active: bool) -> Result<Vec<String>, BondError> {
        let primary = view("net0", PairRole::Primary, !standby_is_active);
        let standby = view("net0-b", PairRole::Standby, standby_is_active);
        let writes = Interfaces(found.to_vec()).writes(&primary, &[&primary, &standby])?;
        Ok(writes.into_iter().map(|Write { file, value }| format!("{file}={value}")).collect())
    }

    #[test]
    fn a_pair_becomes_a_bond_step_by_step_and_then_nothing_is_left_to_do() {
        let [a, b] = [device("eth0", MACS[0], None), device("eth1", MACS[1], None)];
        let made = writes(&[a.clone(), b.clone()], false).unwrap();
        assert_eq!(
            made,
            [
                "bonding_masters=+net0",
                "net0/bonding/mode=active-backup",
                "net0/bonding/miimon=100",
                "net0/bonding/fail_over_mac=active",
                "net0/flags=0x1403"
            ]
        );
        let joined = writes(&[a, b, bond("")], false).unwrap();
        assert_eq!(
            joined,
            [
                "eth0/flags=0x1002",
                "net0/bonding/slaves=+eth0",
                "eth1/flags=0x1002",
                "net0/bonding/slaves=+eth1"
            ]
        );
        let members = [device("eth0", MACS[0], Some("net0")), device("eth1", MACS[1], Some("net0"))];
        let with = |active| [&members[..], &[bond(active)]].concat();
        assert_eq!(writes(&with("eth0"), false).unwrap(), [""; 0]);
        assert_eq!(writes(&with("eth0"), true).unwrap(), ["net0/bonding/active_slave=eth1"]);
        assert_eq!(writes(&with(""), true).unwrap(), ["net0/bonding/active_slave=eth1"]);
    }

    #[test]
    fn a_vf_that_is_not_there_is_waited_for_and_joins_when_it_comes() {
        let a = device("eth0", MACS[0], Some("net0"));
        assert_eq!(writes(&[a.clone(), bond("eth0")], true).unwrap(), [""; 0]);
        let down = Interface { flags: 0x1002, ..device("eth1", MACS[1], None) };
        assert_eq!(writes(&[a, down, bond("eth0")], true).unwrap(), ["net0/bonding/slaves=+eth1"]);
    }

    #[test]
    fn what_belongs_to_others_is_left_alone() {
        let bridged = device("eth0", MACS[0], Some("br0"));
        let error = writes(&[bridged, bond("")], false).unwrap_err();
        assert_eq!(error.to_string(), "eth0, the interface of net0, belongs to br0 already");
        let taken = device("net0", "52:54:00:00:00:09", None);
        assert!(matches!(writes(&[taken], false), Err(BondError::NotABond { .. })));
    }
}
