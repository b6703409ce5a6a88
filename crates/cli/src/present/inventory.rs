//! Adapters (`ioward host`) and virtual functions (`ioward vfs`).

use std::fmt;

use ioward_model::{
    Class, Holder, Inventory, Link, LinkState, Netdev, NvmeController, Owner, PhysicalFunction, Reason,
    VfSettings, VirtualFunction, Vlan, checks,
};

use super::{
    table::{Align, Table},
    text,
};

/// The placeholder for a value that is not there.
const NOTHING: &str = "-";
/// VFs in the hands of others that are listed with their adapter. 'ioward vfs' lists all.
const MAX_HELD: usize = 8;

/// The adapters of a host, each with what a person should know about it.
#[must_use]
pub fn host(inventory: &Inventory, width: usize) -> String {
    if inventory.physical_functions.is_empty() {
        let none = "no SR-IOV adapters: no PCI function of this host has the SR-IOV capability; 'ioward doctor' says what \
                    to do";
        return text::wrap(none, width, "", "");
    }
    let mut table = Table::new([
        ("ADDRESS", Align::Left),
        ("CLASS", Align::Left),
        ("DRIVER", Align::Left),
        ("NUMA", Align::Right),
        ("LINK", Align::Left),
        ("VFS", Align::Right),
        ("ENABLED", Align::Right),
        ("ASSIGNED", Align::Right),
        ("FREE", Align::Right),
    ]);
    for pf in &inventory.physical_functions {
        table.row([
            pf.address.to_string(),
            pf.class.to_string(),
            or_nothing(pf.driver.as_deref()),
            or_nothing(pf.numa_node),
            or_nothing(pf.link.as_ref().map(|link| link_words(link.speed_mts, link.width))),
            or_nothing(pf.sriov.as_ref().map(|sriov| sriov.total_vfs)),
            or_nothing(pf.sriov.as_ref().map(|sriov| sriov.num_vfs)),
            pf.vfs_assigned.to_string(),
            pf.vfs_available.to_string(),
        ]);
        for note in notes(inventory, pf) {
            table.note(&note);
        }
    }
    let mut out = table.render(width);
    if !inventory.iommu {
        let warning = "No IOMMU is on: VFs can be created, but not given to partitions. Turn on VT-d or AMD-Vi in the \
                       firmware; on Intel also boot with intel_iommu=on.";
        out += "\n";
        out += &text::wrap(warning, width, "", "");
    }
    out
}

fn notes(inventory: &Inventory, pf: &PhysicalFunction) -> Vec<String> {
    let group = pf.iommu_group.map(|group| format!(", IOMMU group {group}")).unwrap_or_default();
    let mut notes = vec![format!("{} [{}:{}]{group}", pf.name, pf.vendor_id, pf.device_id)];
    notes.extend(pf.link.as_ref().and_then(slow_link));
    notes.extend(pf.netdevs.iter().map(netdev));
    notes.extend(pf.nvme.as_ref().map(nvme));
    if !pf.in_use_by_host.is_empty() {
        let uses: Vec<_> = pf.in_use_by_host.iter().map(ToString::to_string).collect();
        notes.push(format!("in use by the host: {}", uses.join("; ")));
    }
    let held: Vec<_> = pf
        .virtual_functions
        .iter()
        .filter_map(|vf| Some((vf, vf.holder.as_ref().filter(|holder| holder.is_somebody())?)))
        .collect();
    let shown = held.iter().take(MAX_HELD);
    notes.extend(shown.map(|(vf, holder)| format!("VF {} ({}) is held by {holder}", vf.index, vf.address)));
    if let Some(more) = held.len().checked_sub(MAX_HELD).filter(|more| *more > 0) {
        notes.push(format!(
            "others hold {}, see 'ioward vfs {}'",
            text::counted(more, "more VF"),
            pf.address
        ));
    }
    // That it can't be read is among its notes.
    let is_noted = |reason: &Reason| pf.reasons.iter().any(|noted| noted.found == reason.found);
    let obstacle = checks::adapter(inventory, pf).into_iter().next();
    notes.extend(obstacle.filter(|obstacle| !is_noted(&obstacle.reason)).map(|obstacle| {
        let Reason { found, remedy, .. } = obstacle.reason;
        let cannot = if obstacle.blocks.giving() { "gives no VFs to partitions" } else { "makes no VFs" };
        format!("{cannot}: {}", if remedy.is_empty() { found } else { format!("{found}; {remedy}") })
    }));
    notes.extend(pf.reasons.iter().map(|reason| format!("note: {reason}")));
    for vf in &pf.virtual_functions {
        let out = vf.out_of_service.as_ref().map(|out| checks::vf_out_of_service(vf.address, out));
        notes.extend(
            out.map(|out| format!("VF {} ({}): {}; {}", vf.index, vf.address, out.found, out.remedy)),
        );
        notes.extend(vf.reasons.iter().map(|reason| format!("note: VF {}: {reason}", vf.index)));
    }
    notes
}

/// A PCIe generation is what is printed on cards and slots; the standard itself speaks of transfers per second.
fn link_words(speed_mts: u32, width: u8) -> String {
    let generation = match speed_mts {
        2_500 => 1,
        5_000 => 2,
        8_000 => 3,
        16_000 => 4,
        32_000 => 5,
        64_000 => 6,
        other => return format!("{other}MT x{width}"),
    };
    format!("Gen{generation} x{width}")
}

fn slow_link(link: &Link) -> Option<String> {
    let best = link_words(link.max_speed_mts, link.max_width);
    let slow = link.speed_mts < link.max_speed_mts || link.width < link.max_width;
    slow.then(|| format!("the link is below its best, which is {best}"))
}

fn netdev(netdev: &Netdev) -> String {
    let mac = netdev.mac.map(|mac| format!(" {mac},")).unwrap_or_default();
    let state = match (netdev.up, netdev.carrier, netdev.speed_mbps) {
        (false, ..) => "down".to_owned(),
        (true, Some(true), Some(speed)) => format!("up, {}", ioward_model::BitRate::from_megabits(speed)),
        (true, Some(true), None) => "up".to_owned(),
        (true, ..) => "up, no carrier".to_owned(),
    };
    format!("{}:{mac} {state}", netdev.name)
}

fn nvme(controller: &NvmeController) -> String {
    let model = controller.model.as_deref().unwrap_or("unknown model");
    let serial = controller.serial.as_deref().map(|serial| format!(", serial {serial}")).unwrap_or_default();
    let resources = controller.resources.map(|r| {
        let (queues, interrupts) =
            ((r.queues_assigned, r.queues_total), (r.interrupts_assigned, r.interrupts_total));
        format!(
            "; {} of {} queues, {} of {} interrupts assigned",
            queues.0, queues.1, interrupts.0, interrupts.1
        )
    });
    format!("{}: {model}{serial}{}", controller.name, resources.unwrap_or_default())
}

/// Virtual functions with their PFs.
#[must_use]
pub fn vfs<'a>(
    functions: impl Iterator<Item = (&'a PhysicalFunction, &'a VirtualFunction)>,
    width: usize,
) -> String {
    let mut table = Table::new([
        ("ADDRESS", Align::Left),
        ("PF", Align::Left),
        ("INDEX", Align::Right),
        ("DRIVER", Align::Left),
        ("OWNER", Align::Left),
        ("SETTINGS", Align::Left),
    ]);
    let mut none = true;
    for (pf, vf) in functions {
        none = false;
        table.row([
            vf.address.to_string(),
            pf.address.to_string(),
            vf.index.to_string(),
            or_nothing(vf.driver.as_deref()),
            or_nothing(vf.owner.as_ref()),
            settings(vf),
        ]);
        if let Some(whose) = whose(pf, vf).note(vf) {
            table.note(&whose);
        }
        if !vf.in_use_by_host.is_empty() {
            let uses: Vec<_> = vf.in_use_by_host.iter().map(ToString::to_string).collect();
            table.note(&format!("in use by the host: {}", uses.join("; ")));
        }
        for reason in &vf.reasons {
            table.note(&format!("note: {reason}"));
        }
    }
    if none {
        return "no VFs; a Spec creates them, see 'ioward apply'\n".to_owned();
    }
    table.render(width)
}

/// Whose a VF is.
pub enum Whose<'a> {
    /// A partition's.
    Partitions(&'a Owner),
    /// Somebody else's: a program's, or it is in another network namespace.
    Others(&'a Holder),
    /// A driver of the host has it.
    Hosts {
        /// The driver.
        driver: &'a str,
        /// Its interfaces in this network namespace; `None`: it is no network adapter's.
        netdevs: Option<&'a [String]>,
    },
    /// Nobody's.
    Nobodys,
    /// A program could have it open, and whether one has is not known.
    NotKnown,
}

/// Whose a VF is, from what is known of it.
#[must_use]
pub fn whose<'a>(pf: &PhysicalFunction, vf: &'a VirtualFunction) -> Whose<'a> {
    match (&vf.owner, &vf.holder, vf.driver.as_deref()) {
        (Some(owner), ..) => Whose::Partitions(owner),
        (_, Some(holder), _) if holder.is_somebody() => Whose::Others(holder),
        (_, Some(_), _) | (_, _, None) => Whose::Nobodys,
        (.., Some(_)) if vf.is_lent() => Whose::NotKnown,
        (.., Some(driver)) => {
            let netdevs = (pf.class == Class::Network).then_some(&vf.netdevs[..]);
            Whose::Hosts { driver, netdevs }
        }
    }
}

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partitions(owner) => write!(f, "partition {}", owner.partition),
            Self::Others(holder) => write!(f, "{holder}"),
            Self::Hosts { driver, netdevs: None } => write!(f, "the host ({driver})"),
            Self::Hosts { driver, netdevs: Some([]) } => {
                write!(f, "the host ({driver}, without an interface here)")
            }
            Self::Hosts { driver, netdevs: Some(netdevs) } => {
                write!(f, "the host ({driver}, {})", netdevs.join(", "))
            }
            Self::Nobodys => write!(f, "nobody"),
            Self::NotKnown => write!(f, "not known"),
        }
    }
}

impl Whose<'_> {
    /// What the row of the VF does not say already.
    fn note(&self, vf: &VirtualFunction) -> Option<String> {
        match self {
            // It is noted for a partition, and yet elsewhere.
            Self::Partitions(_) => vf.holder.as_ref().map(|holder| format!("held by {holder}")),
            Self::Others(holder) => Some(format!("held by {holder}")),
            Self::Hosts { netdevs: None, .. } => None,
            Self::Hosts { netdevs: Some([]), driver } => {
                Some(format!("{driver} has it, and there is no interface of it here"))
            }
            Self::Hosts { netdevs: Some(netdevs), .. } => {
                Some(format!("the host has it as {}", netdevs.join(", ")))
            }
            Self::Nobodys => vf.holder.as_ref().map(|_| "nobody has it open".to_owned()),
            Self::NotKnown => Some("whether a program has it open is not known".to_owned()),
        }
    }
}

/// All that is set. Where nobody has the VF, what is as it comes says nothing.
fn settings(vf: &VirtualFunction) -> String {
    let VfSettings { mac, vlan, trust, spoofchk, min_tx_rate, max_tx_rate, link_state, .. } = &vf.settings;
    let is_owned = vf.owner.is_some();
    let shown = VfSettings {
        mac: *mac,
        vlan: vlan.filter(|vlan| *vlan != Vlan::NONE),
        trust: trust.filter(|on| is_owned || *on),
        spoofchk: spoofchk.filter(|on| is_owned || !on),
        min_tx_rate: min_tx_rate.filter(|rate| rate.megabits() > 0),
        max_tx_rate: max_tx_rate.filter(|rate| rate.megabits() > 0),
        link_state: link_state.filter(|state| *state != LinkState::Auto),
        ..vf.settings.clone()
    };
    let words: Vec<_> = shown.describe().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    if words.is_empty() { NOTHING.to_owned() } else { words.join(" ") }
}

fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two igb-like PFs, one with a VF in a partition, one that carries the host's address; an NVMe PF that could not
    /// be read in full.
    pub(crate) const INVENTORY: &str = include_str!("../../tests/data/inventory.json");

    fn inventory() -> Inventory {
        serde_json::from_str(INVENTORY).unwrap()
    }

    #[test]
    fn a_host_at_80_columns() {
        let expected = "\
ADDRESS       CLASS    DRIVER  NUMA  LINK     VFS  ENABLED  ASSIGNED  FREE
0000:01:00.0  network  igb        -  Gen1 x4    7        2         1     6
  Intel Corporation 82576 Gigabit Network Connection [8086:10c9], IOMMU group 5
  the link is below its best, which is Gen2 x4
  eth1: 52:54:00:12:34:56, up, 1Gbit
0000:02:00.0  network  igb        0  Gen2 x4    7        0         0     7
  Intel Corporation 82576 Gigabit Network Connection [8086:10c9], IOMMU group 6
  eth2: 52:54:00:12:34:57, up, no carrier
  in use by the host: eth2 has address 192.0.2.7/24; the default route leaves
    through eth2
0000:03:00.0  nvme     nvme       -  -          -        -         0     0
  QEMU NVM Express Controller [1b36:0010]
  nvme0: QEMU NVMe Ctrl, serial demo; 2 of 10 queues, 1 of 5 interrupts assigned
  note: 0000:03:00.0: required a readable SR-IOV capability; found 64 bytes of
    config space; run as root
";
        assert_eq!(host(&inventory(), 80), expected);
    }

    #[test]
    fn without_an_iommu_the_host_is_told_what_to_do() {
        let text = host(&Inventory { iommu: false, ..inventory() }, 80);
        assert!(text.ends_with("firmware; on Intel also boot with intel_iommu=on.\n"), "{text}");
    }

    #[test]
    fn vfs_at_80_columns() {
        let inventory = inventory();
        let pf = &inventory.physical_functions[0];
        let expected = "\
ADDRESS       PF            INDEX  DRIVER    OWNER     SETTINGS
0000:01:10.0  0000:01:00.0      0  vfio-pci  web/net0  mac=52:54:00:aa:00:01
                                                       vlan=100 trust=off
                                                       spoofchk=on
0000:01:10.2  0000:01:00.0      1  -         -         -
";
        assert_eq!(vfs(pf.virtual_functions.iter().map(|vf| (pf, vf)), 80), expected);
        assert!(vfs(std::iter::empty(), 80).starts_with("no VFs;"));
    }

    /// One VF of everybody who can have one.
    fn held() -> PhysicalFunction {
        let mut inventory = inventory();
        let mut pf = inventory.physical_functions.remove(0);
        let free = VirtualFunction { owner: None, ..pf.virtual_functions[1].clone() };
        let process = |pid, command: &str, runs| {
            let command = ioward_model::Label::new(command);
            Some(Holder::Process(ioward_model::Process { pid, command, runs }))
        };
        let name = ioward_model::Label::new("web");
        let of = |driver: &str, holder| VirtualFunction {
            driver: Some(driver.to_owned()),
            holder,
            ..free.clone()
        };
        let blue = Holder::NetworkNamespace {
            name: Some(ioward_model::Label::new("blue")),
            netdevs: vec![ioward_model::Label::new("eth1")],
            process: None,
        };
        let used = ioward_model::HostUse::Address { netdev: "eth3".into(), address: "10.0.0.1/24".into() };
        pf.virtual_functions = vec![
            pf.virtual_functions[0].clone(),
            of("vfio-pci", process(812, "qemu", ioward_model::Runs::LibvirtDomain { name })),
            of("vfio-pci", process(9, "\x1b[2J\u{202e}vpp", ioward_model::Runs::Program)),
            of("vfio-pci", Some(Holder::Nobody)),
            of("vfio-pci", None),
            of("igbvf", Some(blue)),
            of("igbvf", None),
            VirtualFunction { netdevs: vec!["eth3".into()], in_use_by_host: vec![used], ..of("igbvf", None) },
        ];
        for (index, vf) in (0..).zip(&mut pf.virtual_functions) {
            (vf.index, vf.address) = (index, format!("0000:01:10.{index}").parse().unwrap());
        }
        pf
    }

    #[test]
    fn whose_each_vf_is_at_80_columns() {
        let pf = held();
        let expected = "\
ADDRESS       PF            INDEX  DRIVER    OWNER     SETTINGS
0000:01:10.0  0000:01:00.0      0  vfio-pci  web/net0  mac=52:54:00:aa:00:01
                                                       vlan=100 trust=off
                                                       spoofchk=on
0000:01:10.1  0000:01:00.0      1  vfio-pci  -         -
  held by libvirt domain web (qemu pid 812)
0000:01:10.2  0000:01:00.0      2  vfio-pci  -         -
  held by \u{fffd}[2J\u{fffd}vpp (pid 9)
0000:01:10.3  0000:01:00.0      3  vfio-pci  -         -
  nobody has it open
0000:01:10.4  0000:01:00.0      4  vfio-pci  -         -
  whether a program has it open is not known
0000:01:10.5  0000:01:00.0      5  igbvf     -         -
  held by network namespace blue, as eth1
0000:01:10.6  0000:01:00.0      6  igbvf     -         -
  igbvf has it, and there is no interface of it here
0000:01:10.7  0000:01:00.0      7  igbvf     -         -
  the host has it as eth3
  in use by the host: eth3 has address 10.0.0.1/24
";
        assert_eq!(vfs(pf.virtual_functions.iter().map(|vf| (&pf, vf)), 80), expected);
        let words: Vec<_> = pf.virtual_functions.iter().map(|vf| whose(&pf, vf).to_string()).collect();
        let expected = [
            "partition web",
            "libvirt domain web (qemu pid 812)",
            "\u{fffd}[2J\u{fffd}vpp (pid 9)",
            "nobody",
            "not known",
            "network namespace blue, as eth1",
            "the host (igbvf, without an interface here)",
            "the host (igbvf, eth3)",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_host_tells_of_some_vfs_in_other_hands() {
        let mut inventory = inventory();
        let mut pf = held();
        let held = pf.virtual_functions[1].clone();
        inventory.physical_functions = vec![pf.clone()];
        let text = host(&inventory, 80);
        assert!(
            text.contains("  VF 1 (0000:01:10.1) is held by libvirt domain web (qemu pid 812)\n"),
            "{text}"
        );
        assert!(!text.contains("VF 3"), "{text}");
        pf.virtual_functions = (0..10).map(|index| VirtualFunction { index, ..held.clone() }).collect();
        inventory.physical_functions = vec![pf];
        let text = host(&inventory, 80);
        assert!(text.contains("VF 7 (") && !text.contains("VF 8 ("), "{text}");
        assert!(text.contains("  others hold 2 more VFs, see 'ioward vfs 0000:01:00.0'\n"), "{text}");
    }
}
