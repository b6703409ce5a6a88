//! Rules on what a PF has for all its VFs together: NVMe resources, guaranteed bandwidth, interrupt vectors.

use ioward_model::{BitRate, Owner, PhysicalFunction, Reason, Rule, VfRequest};

use super::Need;
use crate::{ledger::Ledger, placement::problem::Amounts};

/// The fewest queues with which an NVMe controller works: the admin queue and one for I/O.
pub(crate) const LEAST_QUEUES: u16 = 2;
/// The fewest interrupts with which an NVMe controller works.
pub(crate) const LEAST_INTERRUPTS: u16 = 1;

/// A request's share of its PF's budgets: bandwidth in Mbit/s, NVMe queues, NVMe interrupts, MSI-X vectors.
pub(crate) fn demand(pf: &PhysicalFunction, request: &VfRequest) -> Amounts {
    let rate = request.min_tx_rate.and_then(|rate| rate.on_link(pf.speed_mbps()));
    let (queues, interrupts) = nvme_demand(pf, request);
    let vectors = request.min_msix_vectors.filter(|_| pf.vf_msix_total.is_some()).unwrap_or(0);
    [rate.map_or(0, BitRate::megabits).into(), queues.into(), interrupts.into(), vectors.into()]
}

/// The budgets that a PF has left for requests, `first` being the first of its VFs that one would get.
pub(crate) fn left_of(ledger: &Ledger<'_>, pf: &PhysicalFunction, first: Option<u16>) -> Amounts {
    let bandwidth = pf.speed_mbps().unwrap_or(0).saturating_sub(ledger.guaranteed(pf.address, None));
    let nvme = pf.nvme.as_ref().and_then(|nvme| nvme.resources);
    let (queues, interrupts) = nvme.map_or((u64::MAX, u64::MAX), |resources| {
        let (queues, interrupts) = ledger.nvme_left(pf, &resources, first.unwrap_or(u16::MAX));
        (queues.into(), interrupts.into())
    });
    let vectors = pf
        .vf_msix_total
        .map_or(u64::MAX, |total| u64::from(total).saturating_sub(ledger.vectors(pf.address, None).into()));
    [bandwidth.into(), queues, interrupts, vectors]
}

/// Why a PF has too little left for a request: the VF at `index` is what it gets or has.
pub(super) fn budgets(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    index: u16,
    need: &Need<'_>,
) -> Vec<Reason> {
    let rules = [
        nvme_resources(ledger, pf, index, need.request),
        bandwidth(ledger, pf, &need.owner(), need.request),
        msix_budget(ledger, pf, &need.owner(), need.request),
    ];
    rules.into_iter().flatten().collect()
}

/// No more than all of a port is guaranteed, over all VFs of it.
pub(super) fn bandwidth(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    owner: &Owner,
    request: &VfRequest,
) -> Option<Reason> {
    let wanted = request.min_tx_rate?;
    let reason =
        |required, found: String| Some(Reason::new(Rule::Bandwidth, required, found).key("min_tx_rate"));
    let Some(speed) = pf.speed_mbps() else {
        let required = format!("a port that can guarantee {wanted}");
        let found = "no link: what it carries is not known".to_owned();
        return reason(required, found)
            .map(|reason| reason.remedy("bring the link up, or leave min_tx_rate out"));
    };
    let rate = wanted.on_link(Some(speed)).map_or(0, BitRate::megabits);
    let others = ledger.guaranteed(pf.address, Some(owner));
    if rate.checked_add(others).is_some_and(|sum| sum <= speed) {
        return None;
    }
    let [speed, others] = [speed, others].map(BitRate::from_megabits);
    let found = format!("{others} of its {speed} are guaranteed to others");
    reason(format!("{wanted} of the port's bandwidth"), found)
        .map(|reason| reason.remedy("ask for less, here or for other VFs of this port, or use another port"))
}

fn msix_budget(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    owner: &Owner,
    request: &VfRequest,
) -> Option<Reason> {
    let (wanted, total) = request.min_msix_vectors.zip(pf.vf_msix_total)?;
    let others = ledger.vectors(pf.address, Some(owner));
    let left = total.saturating_sub(others);
    (u32::from(wanted) > left).then(|| {
        let found = format!("{left} of the {total} that the PF can share out are left");
        Reason::new(Rule::MsixVectors, format!("{wanted} MSI-X vectors"), found)
            .key("min_msix_vectors")
            .remedy("ask for fewer, here or for other VFs of this PF")
    })
}

fn nvme_demand(pf: &PhysicalFunction, request: &VfRequest) -> (u16, u16) {
    let Some(resources) = pf.nvme.as_ref().and_then(|nvme| nvme.resources) else { return (0, 0) };
    // A controller without flexible resources has its VFs' queues fixed: nothing to give, nothing to run out of.
    let least = |total: u32, least: u16| if total == 0 { 0 } else { least };
    (
        request.queues.unwrap_or(least(resources.queues_total, LEAST_QUEUES)),
        request.interrupts.unwrap_or(least(resources.interrupts_total, LEAST_INTERRUPTS)),
    )
}

pub(super) fn nvme_resources(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    index: u16,
    request: &VfRequest,
) -> Option<Reason> {
    let resources = pf.nvme.as_ref()?.resources?;
    let (queues_left, interrupts_left) = ledger.nvme_left(pf, &resources, index);
    let (queues, interrupts) = nvme_demand(pf, request);
    let needs = [
        ("queues", queues, queues_left, resources.queues_max_per_vf),
        ("interrupts", interrupts, interrupts_left, resources.interrupts_max_per_vf),
    ];
    let (name, wanted, left, most) =
        needs.into_iter().find(|(_, wanted, left, most)| wanted > left || wanted > most)?;
    let found = format!("{left} left, at most {most} for one VF");
    let reason = Reason::new(Rule::NvmeResources, format!("{wanted} flexible {name}"), found);
    Some(reason.key(name).remedy(format!("ask for fewer {name}, here or for other VFs of this controller")))
}
