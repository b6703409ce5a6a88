//! Network interfaces of a function, and the host's uses of them.

use ioward_model::{HostUse, Netdev};

use super::{Host, probe::Probe};

/// Administratively up: IFF_UP of netdevice(7).
const IFF_UP: u32 = 1;

/// The interfaces of a PF.
pub(super) fn read(probe: &mut Probe<'_>, names: &[String]) -> Vec<Netdev> {
    names.iter().map(|name| read_one(probe, name)).collect()
}

fn read_one(probe: &mut Probe<'_>, name: &str) -> Netdev {
    let attribute = |attribute: &str| format!("net/{name}/{attribute}");
    let flags = probe
        .expect(&attribute("flags"), "flags", |text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    // The kernel answers EINVAL for these two while the interface is down, and a speed of -1 without a link.
    let quiet = |probe: &Probe<'_>, name: &str| probe.text(&attribute(name)).ok();
    let speed = quiet(probe, "speed").and_then(|speed| speed.parse().ok());
    let carrier = quiet(probe, "carrier").and_then(|carrier| match carrier.as_str() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    });
    Netdev {
        name: name.to_owned(),
        ifindex: probe.expect(&attribute("ifindex"), "a number", |text| text.parse().ok()).unwrap_or(0),
        // InfiniBand has 20 bytes: not an Ethernet address, but not a fault.
        mac: probe.expect(&attribute("address"), "an address", |text| Some(text.parse().ok())).flatten(),
        permanent_mac: None,
        speed_mbps: speed.filter(|speed| !matches!(*speed, 0 | u32::MAX)),
        carrier,
        up: flags.is_some_and(|flags| flags & IFF_UP != 0),
        mtu: probe.expect(&attribute("mtu"), "a number", |text| text.parse().ok()),
    }
}

/// The host's uses of these interfaces.
pub(super) fn used_by_host(host: &Host<'_>, probe: &mut Probe<'_>, names: &[String]) -> Vec<HostUse> {
    let mut uses = Vec::new();
    for netdev in names {
        uses.extend(host.network.of_netdev(netdev));
        uses.extend(
            uppers(probe, netdev).into_iter().map(|upper| HostUse::Stacked { netdev: netdev.clone(), upper }),
        );
    }
    if !names.is_empty() {
        host.network.problems.iter().for_each(|(required, found)| probe.note(required, found));
    }
    uses
}

/// The interfaces stacked on this one: bridge, bond, VLAN, macvlan, team, VRF.
fn uppers(probe: &mut Probe<'_>, netdev: &str) -> Vec<String> {
    let folder = format!("net/{netdev}");
    let names = probe.list(&folder);
    let mut uppers: Vec<String> =
        names.iter().filter_map(|name| name.strip_prefix("upper_")).map(str::to_owned).collect();
    // `master` repeats one of them, but older kernels have only `master`.
    if names.iter().any(|name| name == "master") {
        uppers.extend(probe.link(&format!("{folder}/master")));
    }
    if names.iter().any(|name| name == "brport") {
        uppers.extend(probe.link(&format!("{folder}/brport/bridge")));
    }
    uppers.sort_unstable();
    uppers.dedup();
    uppers
}
