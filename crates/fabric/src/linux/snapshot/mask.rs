//! Stand-ins for whatever identifies the host: MAC and IP addresses, serial numbers of devices.
//!
//! Equal values stay equal and different ones stay different, so a snapshot with stand-ins shows the same
//! relations: which VF has whose address, which interface is in which network. Stand-ins are numbered in the order
//! of discovery; no key exists that could be lost or guessed.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ioward_model::{Holder, IntoMap, Label, MacAddress, Process, Runs};
use ioward_pci::{Bdf, ConfigSpace, ExtendedCapability};

use super::{
    content::Content,
    recording::Recording,
    tables::{self, FIB_TRIE, IF_INET6, ROUTE},
};
use crate::linux::{
    details::Details,
    identify::network_use::{Ipv4Route, local_ipv4},
};

/// The stand-ins given so far.
#[derive(Default)]
pub(super) struct Mask {
    macs: BTreeMap<[u8; 6], u64>,
    serials: BTreeMap<Vec<u8>, u64>,
    device_serials: BTreeMap<[u8; 8], u64>,
    /// By kind.
    labels: BTreeMap<&'static str, BTreeMap<Label, u64>>,
    ipv4: Prefixes,
    ipv6: Prefixes,
}

impl Mask {
    /// Replaces everything that identifies the host.
    pub(super) fn apply(
        mut self,
        host: &mut Recording,
        drivers: &mut BTreeMap<Bdf, Details>,
        holders: &mut BTreeMap<Bdf, Holder>,
    ) {
        for (path, content) in &mut host.files {
            match path.rsplit_once('/') {
                Some((_, "config")) => *content = self.config(content.bytes()),
                Some((_, "address")) => *content = self.address(content),
                Some((_, "serial")) => *content = self.serial(content),
                _ => {}
            }
        }
        for details in drivers.values_mut() {
            details.permanent_macs.values_mut().for_each(|mac| *mac = self.mac(*mac));
            details.settings.values_mut().for_each(|vf| vf.mac = vf.mac.map(|mac| self.mac(mac)));
        }
        holders.values_mut().for_each(|holder| self.holder(holder));
        self.tables(host);
        self.names(host);
    }

    /// Names of machines, containers, programs and namespaces, and of the interfaces there: all of them were chosen by
    /// somebody, and may be a customer's.
    fn holder(&mut self, holder: &mut Holder) {
        match holder {
            Holder::Nobody => {}
            Holder::Process(process) => self.process(process),
            Holder::NetworkNamespace { name, netdevs, process } => {
                name.iter_mut().for_each(|name| self.label("namespace", name));
                netdevs.iter_mut().for_each(|netdev| self.label("netdev", netdev));
                process.iter_mut().for_each(|process| self.process(process));
            }
        }
    }

    fn process(&mut self, process: &mut Process) {
        self.label("program", &mut process.command);
        match &mut process.runs {
            Runs::LibvirtDomain { name } => self.label("machine", name),
            Runs::ProxmoxVm { id, name } => {
                self.label("number", id);
                name.iter_mut().for_each(|name| self.label("machine", name));
            }
            Runs::Qemu { name } => name.iter_mut().for_each(|name| self.label("machine", name)),
            Runs::Pod { uid, container, machine } => {
                self.label("pod", uid);
                container.iter_mut().for_each(|container| self.label("container", container));
                machine.iter_mut().for_each(|machine| self.label("machine", machine));
            }
            Runs::Container { name } => self.label("container", name),
            Runs::Program => {}
        }
    }

    fn label(&mut self, kind: &'static str, label: &mut Label) {
        let number = stand_in(self.labels.entry(kind).or_default(), label.clone());
        *label = Label::new(&format!("{kind}-{number}"));
    }

    /// Locally administered. A group address stays one, and so does the address of unset interfaces.
    fn mac(&mut self, mac: MacAddress) -> MacAddress {
        let bytes = mac.bytes();
        if bytes == [0; 6] || bytes == [0xff; 6] {
            return mac;
        }
        let [.., a, b, c, d] = stand_in(&mut self.macs, bytes).to_be_bytes();
        MacAddress::new([0x02 | bytes[0] & 1, 0, a, b, c, d])
    }

    /// The `address` of an interface.
    fn address(&mut self, content: &Content) -> Content {
        let text = content.lossy();
        match text.trim().parse::<MacAddress>() {
            Ok(mac) => format!("{}\n", self.mac(mac)).into(),
            // InfiniBand has 20 bytes, including a GUID; nothing reads them beyond their presence.
            Err(_) => text.replace(|c: char| c.is_ascii_hexdigit(), "0").into(),
        }
    }

    fn serial(&mut self, content: &Content) -> Content {
        let serial = content.bytes().trim_ascii().to_vec();
        if serial.is_empty() {
            return content.clone();
        }
        format!("serial-{}\n", stand_in(&mut self.serials, serial)).into()
    }

    /// Every Device Serial Number in configuration space.
    fn config(&mut self, mut bytes: Vec<u8>) -> Content {
        let found = ConfigSpace::new(&bytes).map(|config| {
            let serials = config.extended_capabilities().flatten();
            let serials = serials.filter(|found| found.id == ExtendedCapability::SERIAL_NUMBER);
            serials.map(|found| found.offset + 4).collect::<Vec<_>>()
        });
        for offset in found.unwrap_or_default() {
            let Some(rest) = bytes.get_mut(offset..) else { continue };
            match rest.first_chunk_mut::<8>() {
                Some(serial) if *serial != [0; 8] && *serial != [0xff; 8] => {
                    *serial = stand_in(&mut self.device_serials, *serial).to_le_bytes();
                }
                Some(_) => {}
                // Half a serial number is useless, and may be the half that identifies the device.
                None => rest.fill(0),
            }
        }
        Content::of(&bytes)
    }

    fn tables(&mut self, host: &mut Recording) {
        if let Some(table) = host.table(ROUTE) {
            let routes: String = table.lossy().lines().filter_map(|line| self.route(line)).collect();
            *table = routes.into();
        }
        if let Some(table) = host.table(FIB_TRIE) {
            let local = local_ipv4(&table.lossy()).into_iter().map(|address| self.ipv4(address)).collect();
            *table = tables::fib_trie(&local).into();
        }
        if let Some(table) = host.table(IF_INET6) {
            let lines = table.lossy();
            let lines = lines.lines().filter_map(|line| {
                let (address, rest) = line.split_once(' ')?;
                let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
                Some(format!("{:032x} {rest}\n", u128::from(self.ipv6(address))))
            });
            *table = lines.collect::<String>().into();
        }
    }

    fn route(&mut self, line: &str) -> Option<String> {
        let mut route = Ipv4Route::parse(line)?;
        if route.mask != 0 {
            route.destination = u32::from(self.ipv4(route.destination.into())) & route.mask;
        }
        // Only the presence of a gateway matters.
        route.gateway = if route.gateway == 0 { 0 } else { u32::MAX };
        Some(tables::route_line(&route))
    }

    /// Within 10.0.0.0/8 for the first network, and those near it.
    fn ipv4(&mut self, address: Ipv4Addr) -> Ipv4Addr {
        let [.., a, b, c, d] = self.ipv4.stand_in(u32::from(address).into(), 32).to_be_bytes();
        (u32::from_be_bytes([a, b, c, d]) ^ u32::from(Ipv4Addr::new(10, 0, 0, 0))).into()
    }

    /// Within fd00::/8 for the first network, and those near it.
    fn ipv6(&mut self, address: Ipv6Addr) -> Ipv6Addr {
        (self.ipv6.stand_in(address.into(), 128) ^ 0xfd00 << 112).into()
    }

    /// Interfaces named after their MAC address, as `enx525400111111`, in paths and in lists.
    fn names(&mut self, host: &mut Recording) {
        let mut rename = |text: &str| rename_all(text, |mac| self.mac(mac));
        rename_keys(&mut host.folders, &mut rename);
        rename_keys(&mut host.links, &mut rename);
        rename_keys(&mut host.files, &mut rename);
        rename_keys(&mut host.errors, &mut rename);
        for names in host.folders.values_mut() {
            names.iter_mut().for_each(|name| *name = rename(name));
            names.sort_unstable();
            names.dedup();
        }
        host.links.values_mut().for_each(|name| *name = rename(name));
        for table in [ROUTE, IF_INET6, tables::IPV6_ROUTE] {
            if let Some(table) = host.table(table) {
                *table = rename(&table.lossy()).into();
            }
        }
    }
}

/// The number of a value: counted from 1.
fn stand_in<T: Ord>(given: &mut BTreeMap<T, u64>, value: T) -> u64 {
    let next = given.len() as u64 + 1;
    *given.entry(value).or_insert(next)
}

/// Stand-ins for addresses: two share their first bits exactly if the originals do.
#[derive(Default)]
struct Prefixes {
    /// The bit first seen after a prefix of this length and value; it becomes 0.
    first: BTreeMap<(u32, u128), u128>,
}

impl Prefixes {
    fn stand_in(&mut self, address: u128, bits: u32) -> u128 {
        (0..bits).fold(0, |out, length| {
            let prefix = address.checked_shr(bits - length).unwrap_or(0);
            let bit = address >> (bits - length - 1) & 1;
            let first = *self.first.entry((length, prefix)).or_insert(bit);
            out << 1 | (bit ^ first)
        })
    }
}

fn rename_keys<T>(map: &mut BTreeMap<String, T>, rename: &mut impl FnMut(&str) -> String) {
    *map = std::mem::take(map).into_iter().map(|(path, value)| (rename(&path), value)).into_map();
}

/// Replaces the address in every `enx525400111111` (systemd.net-naming-scheme(7)).
fn rename_all(text: &str, mut mask: impl FnMut(MacAddress) -> MacAddress) -> String {
    const PREFIX: &str = "enx";
    let mut parts = text.split(PREFIX);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(12).unwrap_or(("", part));
        let all_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(digits, 16).ok().filter(|_| all_hex);
        out += PREFIX;
        match number.map(u64::to_be_bytes) {
            Some([_, _, mac @ ..]) => {
                out += &mask(MacAddress::new(mac)).to_string().replace(':', "");
                out += rest;
            }
            None => out += part,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_address_stays_in_its_own_network() {
        let mut mask = Mask::default();
        let mut masked = |text: &str| u32::from(mask.ipv4(text.parse().unwrap()));
        let (network, inside, outside) = (masked("192.0.2.0"), masked("192.0.2.77"), masked("198.51.100.1"));
        assert_eq!(Ipv4Addr::from(network), Ipv4Addr::new(10, 0, 0, 0));
        assert_eq!(network & 0xffff_ff00, inside & 0xffff_ff00);
        assert_ne!(network & 0xffff_ff00, outside & 0xffff_ff00);
        assert_ne!(network, inside);
        assert_eq!(masked("192.0.2.77"), inside);
        assert_eq!(mask.ipv6("2001:db8::1".parse().unwrap()).to_string(), "fd00::");
        assert_eq!(mask.ipv6("2001:db8::2".parse().unwrap()).to_string(), "fd00::2");
    }

    #[test]
    fn a_masked_mac_is_valid_for_a_station() {
        let mut mask = Mask::default();
        let mut masked = |text: &str| mask.mac(text.parse().unwrap());
        let first = masked("52:54:00:11:11:11");
        assert_eq!(first.to_string(), "02:00:00:00:00:01");
        assert!(first.is_unicast());
        assert_eq!(masked("00:1b:21:22:22:22").to_string(), "02:00:00:00:00:02");
        assert_eq!(masked("52:54:00:11:11:11"), first);
        assert_eq!(masked("01:00:5e:00:00:01").to_string(), "03:00:00:00:00:03", "a group's stays a group's");
        assert_eq!(masked("00:00:00:00:00:00"), MacAddress::ZERO, "what nobody has set stays so");
    }

    #[test]
    fn an_interface_named_after_its_address_is_renamed() {
        let mut mask = Mask::default();
        let mut renamed = |text: &str| rename_all(text, |mac| mask.mac(mac));
        assert_eq!(renamed("a/enx525400111111/mtu"), "a/enx020000000001/mtu");
        assert_eq!(
            renamed("upper_enx525400111111.7 enx525400222222"),
            "upper_enx020000000001.7 enx020000000002"
        );
        for other in ["enx", "enx5254001111", "enx+25400111111", "enp1s0", "enxééééééééé"] {
            assert_eq!(renamed(other), other);
        }
    }
}
