//! Preferences among the VFs that suit a request: criteria as [`Cost`]s.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::{Criterion, IntoMap, PhysicalFunction};
use ioward_pci::Bdf;

use super::problem::{Cost, LEVELS, REDUNDANCY, add};
use crate::{compat::Need, ledger::Ledger};

/// The criterion of each level of a [`Cost`].
pub(crate) const CRITERIA: [Criterion; LEVELS] = [
    Criterion::Disruption,
    Criterion::HostUse,
    Criterion::Redundancy,
    Criterion::NumaNode,
    Criterion::VfCount,
    Criterion::FreeCapacity,
    Criterion::Address,
];

/// The SLIT distance of a node to itself.
const LOCAL: u32 = 10;
/// The distance that is assumed of nodes whose own is not known.
const REMOTE: u32 = 20;

/// Facts about the host from which all preferences are worked out.
pub(crate) struct Preferences {
    /// By link speed, the order of ports, the slowest first and those without a link last.
    speeds: BTreeMap<u32, u64>,
    ranks: BTreeMap<Bdf, u64>,
}

impl Preferences {
    pub(crate) fn new(ledger: &Ledger<'_>) -> Self {
        let pfs = &ledger.inventory.physical_functions;
        let speeds: BTreeSet<u32> = pfs.iter().filter_map(PhysicalFunction::speed_mbps).collect();
        let addresses: BTreeSet<Bdf> = pfs.iter().map(|pf| pf.address).collect();
        Self {
            speeds: speeds.into_iter().zip(0..).into_map(),
            ranks: addresses.into_iter().zip(0..).into_map(),
        }
    }

    /// The cost of a PF to a request, whichever of its VFs it gets.
    pub(crate) fn of_adapter(&self, ledger: &Ledger<'_>, pf: &PhysicalFunction, need: &Need<'_>) -> Cost {
        let last = self.speeds.len() as u64;
        let speed = pf.speed_mbps().map_or(last, |speed| self.speeds.get(&speed).copied().unwrap_or(last));
        let host = u64::from(!pf.in_use_by_host.is_empty());
        let numa = need.partition.numa_node.map_or(0, |node| distance(ledger, node, pf.numa_node));
        [0, host, 0, numa, 0, speed, self.ranks.get(&pf.address).copied().unwrap_or(0)]
    }

    /// The cost of making a VF of a PF.
    pub(crate) fn of_growth(ledger: &Ledger<'_>, pf: &PhysicalFunction) -> Cost {
        let disturbs = pf.num_vfs() > 0 && ledger.has_losers(pf);
        [disturbs.into(), 0, 0, 0, 1, 0, 0]
    }

    /// The cost of one VF to a request: the lower, the better.
    pub(crate) fn of_function(
        &self,
        ledger: &Ledger<'_>,
        pf: &PhysicalFunction,
        index: u16,
        need: &Need<'_>,
    ) -> Cost {
        let mut cost = self.of_adapter(ledger, pf, need);
        cost[REDUNDANCY] += wishes_broken(ledger, pf, need);
        if ledger.would_grow(pf, index) {
            add(&mut cost, &Self::of_growth(ledger, pf));
        }
        cost
    }
}

/// How many VFs on the PF's failure domains the request would rather be apart from.
pub(super) fn wishes_broken(ledger: &Ledger<'_>, pf: &PhysicalFunction, need: &Need<'_>) -> u64 {
    let owner = need.owner();
    let wishes = ledger.ties(&owner).iter().filter(|tie| tie.prefer);
    let broken = wishes
        .filter(|tie| ledger.held_by(&tie.other).is_some_and(|vf| ledger.share(tie.by, pf.address, vf.pf)));
    broken.count() as u64
}

/// How much farther than local a function is from a node.
fn distance(ledger: &Ledger<'_>, node: u32, function: Option<u32>) -> u64 {
    let Some(function) = function else { return (REMOTE - LOCAL).into() };
    let known = ledger.inventory.numa_nodes.iter().find(|known| known.id == node);
    let known = known.and_then(|known| known.distances.get(&function).copied());
    let assumed = if node == function { LOCAL } else { REMOTE };
    known.unwrap_or(assumed).saturating_sub(LOCAL).into()
}
