//! Rules on a PF: whether its VFs are what a request needs.

use ioward_model::{
    BitRate, Capability, FailureDomain, NumaPolicy, Owner, PartitionSpec, PhysicalFunction, Reason, Rule,
    VfRequest,
};

use super::Need;
use crate::{
    drivers::{self, PfDriver, VfDrivers},
    ledger::Ledger,
};

pub(super) fn class(pf: &PhysicalFunction, request: &VfRequest) -> Option<Reason> {
    let wrong = !request.class.takes(pf);
    let found = format!("class {}", pf.class);
    wrong.then(|| Reason::new(Rule::Class, format!("class {}", request.class), found).key("class"))
}

pub(super) fn subclass(pf: &PhysicalFunction, request: &VfRequest) -> Option<Reason> {
    let wanted = request.subclass.filter(|wanted| pf.subclass != Some(*wanted))?;
    let found = pf.subclass.map_or_else(|| "another kind".to_owned(), |found| found.to_string());
    Some(Reason::new(Rule::Subclass, wanted.as_str(), found).key("subclass"))
}

/// The port's link is as fast as the request wants it; a link that is down has no speed.
pub(super) fn link_speed(pf: &PhysicalFunction, request: &VfRequest) -> Option<Reason> {
    let wanted = request.min_link_speed?;
    let reason = |found: String| {
        Reason::new(Rule::LinkSpeed, format!("a link of {wanted} or faster"), found).key("min_link_speed")
    };
    match pf.speed_mbps() {
        Some(speed) if speed >= wanted.megabits() => None,
        Some(speed) => Some(reason(format!("one of {}", BitRate::from_megabits(speed)))),
        None => Some(
            reason("no link: its speed is not known".to_owned())
                .remedy("bring the link up, or leave min_link_speed out"),
        ),
    }
}

pub(super) fn carrier(pf: &PhysicalFunction, request: &VfRequest) -> Option<Reason> {
    (request.carrier && !pf.has_carrier()).then(|| {
        Reason::new(Rule::Carrier, "a port with a link", "it has none")
            .key("carrier")
            .remedy("bring the interface up and plug the cable in, or leave carrier out")
    })
}

pub(super) fn pcie_bandwidth(pf: &PhysicalFunction, request: &VfRequest) -> Option<Reason> {
    let wanted = request.min_pcie_bandwidth?;
    let found = match pf.pcie_mbps() {
        Some(found) if found >= wanted.megabits() => return None,
        Some(found) => format!("one of {}", BitRate::from_megabits(found)),
        None => "its width and speed are not known".to_owned(),
    };
    let required = format!("a PCIe link of {wanted} or more");
    let reason = Reason::new(Rule::PcieBandwidth, required, found).key("min_pcie_bandwidth");
    let could = pf
        .link
        .as_ref()
        .is_some_and(|link| (link.speed_mts, link.width) != (link.max_speed_mts, link.max_width));
    Some(if could { reason.remedy("its link is below its best: use a faster or wider slot") } else { reason })
}

/// The node that a partition is to be placed on is one of the host's.
pub(crate) fn numa_node_exists(ledger: &Ledger<'_>, partition: &PartitionSpec) -> Option<Reason> {
    let nodes = &ledger.inventory.numa_nodes;
    let node = partition.numa_node.filter(|node| nodes.iter().all(|known| known.id != *node))?;
    let found = match &nodes[..] {
        [] => "the kernel of this host tells of none".to_owned(),
        nodes => {
            let ids: Vec<_> = nodes.iter().take(16).map(|node| node.id.to_string()).collect();
            format!("this host has {}", ids.join(", "))
        }
    };
    let reason = Reason::new(Rule::NumaNode, format!("NUMA node {node}"), found).key("numa_node");
    Some(reason.for_request(&partition.name).remedy("choose one of them, or leave numa_node out"))
}

/// On the partition's node, where that is a rule and not a wish.
pub(super) fn numa_node(pf: &PhysicalFunction, need: &Need<'_>) -> Option<Reason> {
    let node = need.partition.numa_node.filter(|_| need.request.numa == Some(NumaPolicy::Require))?;
    let found = match pf.numa_node {
        Some(found) if found == node => return None,
        Some(found) => format!("one on node {found}"),
        None => "one on no node that the firmware names".to_owned(),
    };
    Some(Reason::new(Rule::NumaNode, format!("an adapter on NUMA node {node}"), found).key("numa"))
}

pub(super) fn guest_driver(pf: &PhysicalFunction, need: &Need<'_>) -> Option<Reason> {
    let guest = need.partition.guest.as_ref()?;
    let device = pf.sriov.as_ref()?.vf_device_id;
    let id = format!("{}:{device}", pf.vendor_id);
    let known = VfDrivers::of(pf.class, pf.vendor_id, device);
    let has = |name: &str| guest.drivers.iter().any(|driver| driver == name);
    let (required, found) = match (known, guest.os) {
        // Nobody knows better than who names them.
        (None, _) if !guest.drivers.is_empty() => return None,
        (None, _) => {
            ("a VF that guests are known to have a driver for".to_owned(), format!("none is known for {id}"))
        }
        (Some(known), _) if !guest.drivers.is_empty() => {
            if known.names().any(has) {
                return None;
            }
            let names: Vec<_> = known.names().collect();
            (format!("a guest with {} for a VF {id}", names.join(" or ")), guest.drivers.join(", "))
        }
        (Some(known), Some(os)) => {
            if known.in_os(os).is_some() {
                return None;
            }
            let os = os.as_str();
            (format!("a VF that {os} has a driver for"), format!("{os} has none for {id}"))
        }
        (Some(_), None) => return None,
    };
    let remedy = if guest.drivers.is_empty() {
        "name the guest's drivers in guest.drivers, or leave guest out"
    } else {
        "use another adapter, or leave guest out"
    };
    Some(Reason::new(Rule::GuestDriver, required, found).remedy(remedy))
}

/// A namespace has its VF by the host's driver for it.
pub(super) fn host_driver(pf: &PhysicalFunction, need: &Need<'_>) -> Option<Reason> {
    let device = pf.sriov.as_ref()?.vf_device_id;
    if drivers::of_vf(need.partition.kind.name(), pf).is_some() {
        return None;
    }
    let required = "a VF that Linux is known to have a driver for";
    let reason =
        Reason::new(Rule::GuestDriver, required, format!("none is known for {}:{device}", pf.vendor_id));
    Some(reason.remedy("use another adapter for a namespace"))
}

/// Capabilities that are needed by name, or by the settings asked for.
pub(super) fn capabilities(pf: &PhysicalFunction, request: &VfRequest) -> Vec<Reason> {
    let by_name = request.needs.iter().map(|needed| (*needed, "needs"));
    let needed = by_name.chain(request.needs_of_settings());
    needed.filter_map(|(needed, key)| capability(pf, needed, key)).collect()
}

fn capability(pf: &PhysicalFunction, needed: Capability, key: &str) -> Option<Reason> {
    let driver = pf.driver.as_deref()?;
    let has = match &pf.capabilities {
        Some(all) => all.contains(&needed),
        // Nobody has told: the kernel has the last word.
        None => needed != Capability::Rdma || !pf.rdma_devices.is_empty(),
    };
    let found = match needed {
        _ if has => return None,
        Capability::Rdma => "its PF has no RDMA device".to_owned(),
        _ => format!("its driver {driver} cannot do that"),
    };
    let reason = Reason::new(Rule::Capability, needed.as_str(), found).key(key);
    Some(reason.remedy(format!("use another adapter, or leave {key} out")))
}

/// Settings that the PF's driver takes only in some state of its interface.
pub(super) fn driver_ready(pf: &PhysicalFunction, request: &VfRequest) -> Option<Reason> {
    let name = pf.driver.as_deref()?;
    let driver = PfDriver::named(name)?;
    let interface = pf.netdevs.first().map_or("its interface", |netdev| &netdev.name);
    let rate = request.max_tx_rate.is_some_and(|rate| rate.megabits() > 0);
    (driver.rate_needs_link && rate && !pf.has_carrier()).then(|| {
        let found = format!("{name} sets no rate while {interface} has none");
        Reason::new(Rule::DriverReady, "a port with a link", found)
            .key("max_tx_rate")
            .remedy(format!("ip link set {interface} up, or leave max_tx_rate out"))
    })
}

pub(super) fn namespaces(pf: &PhysicalFunction, request: &VfRequest) -> Option<Reason> {
    let wanted = usize::from(request.min_namespaces?);
    let found = pf.nvme.as_ref().map_or(0, |nvme| nvme.namespaces.len());
    (found < wanted).then(|| {
        Reason::new(Rule::Namespaces, format!("a controller with {wanted} namespaces"), found.to_string())
            .key("min_namespaces")
    })
}

/// The vectors of each VF: as many as one that is there has, for a PF's VFs are alike; or what the PF can share out.
pub(super) fn msix_vectors(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    request: &VfRequest,
) -> Option<Reason> {
    let wanted = request.min_msix_vectors?;
    if pf.vf_msix_total.is_some() {
        return None;
    }
    let required = format!("a VF with {wanted} MSI-X vectors");
    let reason = |found: String| Reason::new(Rule::MsixVectors, required, found).key("min_msix_vectors");
    let known = pf.virtual_functions.iter().filter_map(|vf| vf.msix_vectors).max();
    match known {
        Some(found) if found >= wanted => None,
        Some(found) => Some(reason(format!("{found}"))),
        None => {
            let least = ledger.count_asked(pf.address).unwrap_or(1).max(1);
            let remedy = format!("make VFs first: [[adapter]] pf = \"{}\", vfs = {least}", pf.address);
            Some(reason("not known before there are VFs".to_owned()).remedy(remedy))
        }
    }
}

/// A PF that the host itself needs is left alone, unless a person allows it.
pub(crate) fn management_nic(ledger: &Ledger<'_>, pf: &PhysicalFunction) -> Option<Reason> {
    if ledger.options.allow_management_nic || pf.in_use_by_host.is_empty() {
        return None;
    }
    let uses: Vec<_> = pf.in_use_by_host.iter().take(8).map(ToString::to_string).collect();
    let reason = Reason::new(Rule::ManagementNic, "a PF that the host does not use", uses.join(", "));
    Some(reason.on(pf.address).remedy("use another adapter, or allow it with --allow-management-nic"))
}

/// A VF that must not share a failure domain with another one, wherever that is by now.
pub(crate) fn apart(ledger: &Ledger<'_>, pf: &PhysicalFunction, owner: &Owner) -> Option<Reason> {
    let broken =
        ledger.ties(owner).iter().filter(|tie| !tie.prefer).find(|tie| {
            ledger.held_by(&tie.other).is_some_and(|vf| ledger.share(tie.by, pf.address, vf.pf))
        })?;
    let vf = ledger.held_by(&broken.other)?;
    let domain = match broken.by {
        FailureDomain::Port => "port",
        FailureDomain::Adapter => "adapter",
        FailureDomain::NumaNode => "NUMA node",
    };
    let required = format!("another {domain} than that of {}", broken.other);
    let found = format!("{} has {vf}, on the same {domain}", broken.other);
    Some(Reason::new(Rule::Redundancy, required, found).key("apart_from"))
}
