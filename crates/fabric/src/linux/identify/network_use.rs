//! The interfaces with addresses of the host, and with its default route, from the files of /proc/net.
//!
//! No file of /proc names the interface of an IPv4 address. The local addresses are in `fib_trie`, and each is taken
//! to be on the interface with the narrowest directly connected network around it (`route`); on all of them when two
//! interfaces are in the same network, which errs on the side of not cutting the host off.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use ioward_model::HostUse;

use super::MAX_USES;
use crate::linux::root::HostRoot;

/// A host with a million routes has tables of about this size.
const MAX_TABLE: usize = 128 << 20;
/// Maximum number of interfaces that one address is attributed to.
const MAX_INTERFACES: usize = 16;
// Route flags: include/uapi/linux/route.h and ipv6_route.h.
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

/// The content of the host's network tables.
pub(super) struct NetworkUse {
    /// Interface and address with prefix length.
    addresses: BTreeSet<(String, String)>,
    /// Interfaces that carry a default route.
    default_routes: BTreeSet<String>,
    /// Unreadable tables: the requirement and the finding.
    pub(super) problems: Vec<(String, String)>,
}

impl NetworkUse {
    pub(super) fn read(root: &HostRoot) -> Self {
        let mut problems = Vec::new();
        let mut table = |name, required| table(root, name, required, &mut problems);
        // With IPv6 off, its two tables do not exist.
        let (route, trie) = (table("route", true), table("fib_trie", true));
        let (ipv6_addresses, ipv6_routes) = (table("if_inet6", false), table("ipv6_route", false));

        let routes: Vec<Ipv4Route> = route.lines().filter_map(Ipv4Route::parse).collect();
        let addresses = local_ipv4(&trie).into_iter().flat_map(|address| interfaces_of(address, &routes));
        let addresses = addresses.chain(ipv6_addresses.lines().filter_map(ipv6_address)).collect();
        let default_routes =
            routes.iter().filter(|route| route.mask == 0).map(|route| route.interface.clone());
        let default_routes =
            default_routes.chain(ipv6_routes.lines().filter_map(ipv6_default_route)).collect();
        Self { addresses, default_routes, problems }
    }

    /// The host's uses of an interface.
    pub(super) fn of_netdev(&self, name: &str) -> Vec<HostUse> {
        let own = self.addresses.range((name.to_owned(), String::new())..);
        let own = own.take_while(|(netdev, _)| netdev == name).take(MAX_USES);
        let addresses = own
            .map(|(netdev, address)| HostUse::Address { netdev: netdev.clone(), address: address.clone() });
        let route =
            self.default_routes.get(name).map(|netdev| HostUse::DefaultRoute { netdev: netdev.clone() });
        addresses.chain(route).collect()
    }
}

/// A file of /proc/net; empty if unreadable, which is a problem if the file is required.
fn table(root: &HostRoot, name: &str, required: bool, problems: &mut Vec<(String, String)>) -> String {
    let path = format!("proc/net/{name}");
    match root.read(&path, MAX_TABLE) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            if required || error.kind() != io::ErrorKind::NotFound {
                let needed = format!("the addresses and routes of the host in /{path}");
                problems.push((needed, format!("{error}; whether the host uses the interface is not known")));
            }
            String::new()
        }
    }
}

/// An IPv4 route; the first bit of an address is the highest.
pub(in crate::linux) struct Ipv4Route {
    pub(in crate::linux) interface: String,
    pub(in crate::linux) destination: u32,
    pub(in crate::linux) gateway: u32,
    pub(in crate::linux) mask: u32,
}

impl Ipv4Route {
    /// A line of `route`: interface, destination, gateway, flags, reference count, use, metric, mask, …. `None` for
    /// routes that are down or that reject.
    pub(in crate::linux) fn parse(line: &str) -> Option<Self> {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let hex = |column: usize| u32::from_str_radix(columns.get(column)?, 16).ok();
        // Addresses are numbers in the byte order of the host that wrote them, assumed to be this host's.
        let address = |column| hex(column).map(|number| u32::from_be_bytes(number.to_ne_bytes()));
        let flags = hex(3)?;
        (flags & RTF_UP != 0 && flags & RTF_REJECT == 0).then_some(())?;
        let interface = (*columns.first()?).to_owned();
        Some(Self { interface, destination: address(1)?, gateway: address(2)?, mask: address(7)? })
    }

    /// Whether it is the route of the directly connected network that contains an address.
    pub(in crate::linux) fn is_around(&self, address: Ipv4Addr) -> bool {
        self.gateway == 0 && self.mask != 0 && u32::from(address) & self.mask == self.destination
    }
}

/// The local addresses in `fib_trie`: `|-- ADDRESS` followed by `/32 host LOCAL`.
pub(in crate::linux) fn local_ipv4(trie: &str) -> BTreeSet<Ipv4Addr> {
    let mut addresses = BTreeSet::new();
    let mut leaf: Option<Ipv4Addr> = None;
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            addresses.extend(leaf);
        }
    }
    addresses.retain(|address| !address.is_loopback());
    addresses
}

/// The interfaces that an address is on, each with the address and its prefix length.
fn interfaces_of(address: Ipv4Addr, routes: &[Ipv4Route]) -> Vec<(String, String)> {
    let around = |route: &&Ipv4Route| route.is_around(address);
    let narrowest = routes.iter().filter(around).map(|route| route.mask.count_ones()).max();
    let nearest = routes.iter().filter(around).filter(|route| Some(route.mask.count_ones()) == narrowest);
    // Nobody configures an address in more networks than that.
    nearest
        .take(MAX_INTERFACES)
        .map(|route| (route.interface.clone(), format!("{address}/{}", route.mask.count_ones())))
        .collect()
}

/// A line of `if_inet6`: address, interface index, prefix length, scope, flags, name. Every interface that is up
/// has a link-local address, which does not count as use.
pub(in crate::linux) fn ipv6_address(line: &str) -> Option<(String, String)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [address, _, prefix, _, _, name] = columns[..] else { return None };
    let address =
        ipv6(address).filter(|address| !address.is_unicast_link_local() && !address.is_loopback())?;
    let prefix = u8::from_str_radix(prefix, 16).ok()?;
    Some((name.to_owned(), format!("{address}/{prefix}")))
}

/// The interface of a line of `ipv6_route` that is a default route: destination, its prefix length, source, its prefix
/// length, next hop, metric, reference count, use, flags, name.
pub(in crate::linux) fn ipv6_default_route(line: &str) -> Option<String> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [destination, "00", _, _, _, _, _, _, flags, name] = columns[..] else { return None };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let is_default = ipv6(destination)?.is_unspecified() && flags & RTF_UP != 0 && flags & RTF_REJECT == 0;
    is_default.then(|| name.to_owned())
}

fn ipv6(digits: &str) -> Option<Ipv6Addr> {
    (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        eth1\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
        eth2\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        *\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n";

    #[test]
    fn an_ipv4_address_is_on_the_interface_with_the_narrowest_network_around_it() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.0.0.7\n        \
            /32 host LOCAL\n     |-- 10.9.9.9\n        /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n     \
            |-- 192.0.2.255\n        /32 link BROADCAST\n";
        let routes: Vec<Ipv4Route> = ROUTE.lines().filter_map(Ipv4Route::parse).collect();
        let found: Vec<_> =
            local_ipv4(trie).into_iter().flat_map(|address| interfaces_of(address, &routes)).collect();
        let expected = [("eth2", "10.0.0.7/24"), ("eth1", "10.9.9.9/8")];
        assert_eq!(found, expected.map(|(netdev, address)| (netdev.to_owned(), address.to_owned())));
    }

    #[test]
    fn a_reject_route_is_not_a_default_route() {
        let zero = "0".repeat(32);
        let line = |flags, name| {
            format!("{zero} 00 {zero} 00 fe80{:028} 00000400 00000002 00000000 {flags} {name}", 1)
        };
        assert_eq!(ipv6_default_route(&line("00000003", "eth0")).as_deref(), Some("eth0"));
        assert_eq!(ipv6_default_route(&line("00200200", "lo")), None);
        assert_eq!(ipv6_default_route("garbage"), None);
    }

    #[test]
    fn a_link_local_address_does_not_count_as_use() {
        let local = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0";
        let global = "fd000000000000000000000000000002 04 40 00 82     eth0";
        assert_eq!(ipv6_address(local), None);
        assert_eq!(ipv6_address(global), Some(("eth0".to_owned(), "fd00::2/64".to_owned())));
    }
}
