//! Reduces the host's tables to what identify needs. The rest is private and may have megabytes: every mount, every
//! route, every PCI ID.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ioward_model::Inventory;

use super::recording::Recording;
use crate::linux::identify::{
    block_use::{Mount, swap},
    network_use::{Ipv4Route, ipv6_address, ipv6_default_route, local_ipv4},
    pci_ids::{PLACES, PciIds},
};

pub(super) const ROUTE: &str = "proc/net/route";
pub(super) const FIB_TRIE: &str = "proc/net/fib_trie";
pub(super) const IF_INET6: &str = "proc/net/if_inet6";
pub(super) const IPV6_ROUTE: &str = "proc/net/ipv6_route";
const MOUNTINFO: &str = "proc/self/mountinfo";
const SWAPS: &str = "proc/swaps";

/// Removes from each table what identify does not read.
pub(super) fn reduce(host: &mut Recording, inventory: &Inventory) {
    let local = host.table(FIB_TRIE).map(|table| local_ipv4(&table.lossy())).unwrap_or_default();
    let devices: Vec<String> = host
        .files
        .iter()
        .filter(|(path, _)| path.ends_with("/dev"))
        .map(|(_, number)| number.lossy().trim().to_owned())
        .collect();
    let names = PciIds::extract(inventory);

    let mut keep = |path, wanted: &dyn Fn(&str) -> Option<String>| {
        if let Some(table) = host.table(path) {
            let lines = table.lossy().lines().filter_map(wanted).collect::<String>();
            *table = lines.into();
        }
    };
    keep(ROUTE, &|line| {
        let route = Ipv4Route::parse(line)?;
        let needed = route.mask == 0 || local.iter().any(|address| route.is_around(*address));
        needed.then(|| route_line(&route))
    });
    keep(IF_INET6, &|line| ipv6_address(line).map(|_| format!("{line}\n")));
    keep(IPV6_ROUTE, &|line| ipv6_default_route(line).map(|name| ipv6_default_route_line(&name)));
    keep(MOUNTINFO, &|line| {
        let mount = Mount::parse(line)?;
        let needed = mount.source.starts_with("nvme") || devices.contains(&mount.number);
        needed.then(|| format!("{line}\n"))
    });
    keep(SWAPS, &|line| swap(line).filter(|name| name.starts_with("nvme")).map(|_| format!("{line}\n")));
    if let Some(table) = host.table(FIB_TRIE) {
        *table = fib_trie(&local).into();
    }
    for place in PLACES {
        if let Some(table) = host.table(place) {
            *table = names(&table.lossy()).into();
        }
    }
}

/// A line of `route` with the columns that are read.
pub(super) fn route_line(route: &Ipv4Route) -> String {
    let hex = |address: u32| format!("{:08X}", u32::from_ne_bytes(address.to_be_bytes()));
    let Ipv4Route { interface, destination, gateway, mask } = route;
    format!("{interface}\t{}\t{}\t0001\t0\t0\t0\t{}\n", hex(*destination), hex(*gateway), hex(*mask))
}

/// The part of `fib_trie` that lists these as local addresses.
pub(super) fn fib_trie(local: &BTreeSet<Ipv4Addr>) -> String {
    local.iter().map(|address| format!("|-- {address}\n   /32 host LOCAL\n")).collect()
}

fn ipv6_default_route_line(name: &str) -> String {
    let zero = "0".repeat(32);
    format!("{zero} 00 {zero} 00 {zero} 00000000 00000000 00000000 00000001 {name}\n")
}
