//! Risks: what a single failure would take from partitions, and whom it would cut off. Pure.
//!
//! A failure is of a port (its link, its driver, the function itself), or of an adapter: all PFs of one device. A partition is cut off where all its VFs of a class go with one failure; one that has another elsewhere only loses some.

use std::collections::{BTreeMap, BTreeSet};

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{Class, FailureDomain, Inventory, Name, Owner, PhysicalFunction, Plan, Step, VfId};

/// VFs that partitions hold.
pub type Holdings = BTreeMap<Owner, VfId>;

/// A failure, and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Risk {
    /// What fails: a port, or an adapter with several of them.
    pub fails: FailureDomain,
    /// Its PFs.
    pub pfs: Vec<Bdf>,
    /// VFs that go with it.
    pub loses: Vec<Owner>,
    /// Partitions that have nothing of a class then, and had.
    pub cuts_off: Vec<CutOff>,
}

/// A partition that loses all VFs of a class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CutOff {
    /// Which partition.
    pub partition: Name,
    /// From what.
    pub class: Class,
}

/// What partitions hold now.
#[must_use]
pub fn holdings(inventory: &Inventory) -> Holdings {
    let of = |pf: &PhysicalFunction| {
        let address = pf.address;
        let owned = pf.virtual_functions.iter().filter_map(|vf| Some((vf.owner.clone()?, vf.index)));
        owned.map(move |(owner, index)| (owner, VfId { pf: address, index })).collect::<Vec<_>>()
    };
    inventory.physical_functions.iter().flat_map(of).collect()
}

/// What they hold once a plan is carried out.
#[must_use]
pub fn holdings_after(mut before: Holdings, plan: &Plan) -> Holdings {
    for step in &plan.steps {
        match step {
            Step::Assign { owner, to } => _ = before.insert(owner.clone(), to.vf),
            Step::Unassign { owner, .. } => _ = before.remove(owner),
            _ => {}
        }
    }
    before
}

/// What each single failure would do, by address, an adapter after its ports. Those that take nothing from anybody are left out, and so is
/// that of an adapter of which only one port is used.
#[must_use]
pub fn risks(inventory: &Inventory, held: &Holdings) -> Vec<Risk> {
    let used: BTreeSet<Bdf> = held.values().map(|vf| vf.pf).collect();
    let mut risks = Vec::new();
    for pf in &used {
        risks.push(risk(inventory, held, FailureDomain::Port, vec![*pf]));
        let ports: Vec<Bdf> =
            ports_beside(inventory, *pf).into_iter().filter(|it| used.contains(it)).collect();
        if ports.len() > 1 && ports.last() == Some(pf) {
            risks.push(risk(inventory, held, FailureDomain::Adapter, ports));
        }
    }
    risks
}

/// What the failure of one port would do, and of its adapter where that has more.
#[must_use]
pub fn risks_of(inventory: &Inventory, held: &Holdings, pf: Bdf) -> Vec<Risk> {
    let ports = ports_beside(inventory, pf);
    let mut risks = vec![risk(inventory, held, FailureDomain::Port, vec![pf])];
    if ports.len() > 1 {
        risks.push(risk(inventory, held, FailureDomain::Adapter, ports));
    }
    risks
}

/// All PFs of the adapter that this one is of, by address.
fn ports_beside(inventory: &Inventory, pf: Bdf) -> Vec<Bdf> {
    let Some(one) = inventory.physical_function(pf) else { return vec![pf] };
    let same = inventory.physical_functions.iter().filter(|other| one.is_same_adapter(other));
    let same: BTreeSet<Bdf> = same.map(|other| other.address).chain([pf]).collect();
    same.into_iter().collect()
}

fn risk(inventory: &Inventory, held: &Holdings, fails: FailureDomain, pfs: Vec<Bdf>) -> Risk {
    let class = |vf: &VfId| inventory.physical_function(vf.pf).map_or(Class::Other, |pf| pf.class);
    let (lost, kept): (Vec<_>, Vec<_>) = held.iter().partition(|(_, vf)| pfs.contains(&vf.pf));
    let of_class =
        |(owner, vf): &(&Owner, &VfId)| CutOff { partition: owner.partition.clone(), class: class(vf) };
    let kept: BTreeSet<CutOff> = kept.iter().map(of_class).collect();
    let cuts_off: BTreeSet<CutOff> = lost.iter().map(of_class).filter(|cut| !kept.contains(cut)).collect();
    let loses = lost.into_iter().map(|(owner, _)| owner.clone()).collect();
    Risk { fails, pfs, loses, cuts_off: cuts_off.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(text: &str) -> Owner {
        let (partition, vf) = text.split_once('/').unwrap();
        Owner { partition: partition.parse().unwrap(), vf: vf.parse().unwrap() }
    }

    fn held(all: &[(&str, &str)]) -> Holdings {
        let vf = |(index, (name, pf)): (usize, &(&str, &str))| {
            let index = u16::try_from(index).unwrap();
            (owner(name), VfId { pf: pf.parse().unwrap(), index })
        };
        all.iter().enumerate().map(vf).collect()
    }

    fn inventory() -> Inventory {
        let function = |address: &str, class: &str| {
            format!(
                r#"{{"address": "{address}", "vendor_id": "8086", "device_id": "1521", "name": "x", "class": "{class}",
                "driver": null, "numa_node": null, "iommu_group": null, "serial_number": null, "link": null,
                "msix_vectors": null, "sriov": null, "drivers_autoprobe": null, "in_use_by_host": [], "vfs_assigned": 0,
                "vfs_available": 0, "virtual_functions": []}}"#
            )
        };
        let all = [
            function("0000:01:00.0", "network"),
            function("0000:01:00.1", "network"),
            function("0000:02:00.0", "network"),
            function("0000:03:00.0", "nvme"),
        ];
        let text = format!(
            r#"{{"generation": 1, "iommu": true, "vfio_pci": true, "numa_nodes": [], "physical_functions": [{}]}}"#,
            all.join(",")
        );
        serde_json::from_str(&text).unwrap()
    }

    fn told(held: &Holdings) -> Vec<String> {
        let word = |risk: Risk| {
            let pf = risk.pfs[0];
            let fails =
                if risk.fails == FailureDomain::Port { pf.to_string() } else { format!("adapter of {pf}") };
            let cuts: Vec<_> =
                risk.cuts_off.iter().map(|cut| format!("{} {:?}", cut.partition, cut.class)).collect();
            let loses: Vec<_> = risk.loses.iter().map(ToString::to_string).collect();
            format!("{fails}: {}; cuts off {}", loses.join(" "), cuts.join(", "))
        };
        risks(&inventory(), held).into_iter().map(word).collect()
    }

    #[test]
    fn a_partition_with_one_adapter_of_a_class_is_cut_off_by_its_failure() {
        let held = held(&[("web/net0", "0000:01:00.0"), ("web/disk0", "0000:03:00.0")]);
        let expected =
            ["0000:01:00.0: web/net0; cuts off web Network", "0000:03:00.0: web/disk0; cuts off web Nvme"];
        assert_eq!(told(&held), expected);
    }

    #[test]
    fn two_ports_help_against_the_failure_of_one_and_not_of_their_adapter() {
        let held = held(&[("web/net0", "0000:01:00.0"), ("web/net1", "0000:01:00.1")]);
        let expected = [
            "0000:01:00.0: web/net0; cuts off ",
            "0000:01:00.1: web/net1; cuts off ",
            "adapter of 0000:01:00.0: web/net0 web/net1; cuts off web Network",
        ];
        assert_eq!(told(&held), expected);
    }

    #[test]
    fn two_adapters_help_against_all_of_it_and_two_vfs_of_one_port_against_nothing() {
        let apart = held(&[("web/net0", "0000:01:00.0"), ("web/net1", "0000:02:00.0")]);
        assert!(told(&apart).iter().all(|line| line.ends_with("cuts off ")), "{:?}", told(&apart));
        let together = held(&[("web/net0", "0000:02:00.0"), ("web/net1", "0000:02:00.0")]);
        assert_eq!(told(&together), ["0000:02:00.0: web/net0 web/net1; cuts off web Network"]);
        assert_eq!(risks(&inventory(), &Holdings::new()), []);
    }
}
