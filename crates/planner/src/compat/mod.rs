//! Whether a function suits a request: one small function a rule, each with its Reason.
//!
//! A new rule is a new function in the file of its subject, and a line in [`of_adapter`] (what holds for all VFs of a PF),
//! [`of_function`] (what holds for one VF) or [`budget`] (what all VFs of a PF share).

mod adapter;
mod budget;
mod function;

pub(crate) use adapter::{apart, management_nic, numa_node_exists};
pub(crate) use budget::{LEAST_INTERRUPTS, LEAST_QUEUES, demand, left_of};
pub(crate) use function::disruption;

use ioward_model::{
    Class, KindName, Name, Owner, PartitionSpec, PhysicalFunction, Reason, Rule, VfId, VfRequest, VfSettings,
    checks,
};
use ioward_pci::Bdf;

use crate::ledger::Ledger;

/// A request, and the partition that it is of.
#[derive(Clone, Copy)]
pub(crate) struct Need<'a> {
    pub partition: &'a PartitionSpec,
    pub request: &'a VfRequest,
}

impl Need<'_> {
    /// Whose the VF is to be.
    pub(crate) fn owner(&self) -> Owner {
        Owner { partition: self.partition.name.clone(), vf: self.request.name.clone() }
    }

    fn name(&self) -> &Name {
        &self.partition.name
    }
}

/// Why no VF of this PF suits the request, whoever else gets one; empty: some may.
pub(crate) fn of_adapter(ledger: &Ledger<'_>, pf: &PhysicalFunction, need: &Need<'_>) -> Vec<Reason> {
    let mut reasons: Vec<_> = adapter::class(pf, need.request).into_iter().collect();
    let kind = need.partition.kind.name();
    if kind.uses_vfio() {
        reasons.extend(checks::host(ledger.inventory));
    }
    let obstacles = ledger.obstacles(pf.address).iter();
    let obstacles = obstacles.filter(|obstacle| obstacle.blocks.giving_to(kind));
    reasons.extend(obstacles.map(|obstacle| obstacle.reason.clone()));
    // Of an adapter of another class nothing more is worth saying.
    if need.request.class.takes(pf) {
        reasons.extend(abilities(ledger, pf, need));
        reasons.extend(adapter::driver_ready(pf, need.request));
    }
    reasons.extend(management_nic(ledger, pf));
    reasons.into_iter().map(|reason| at(pf.address, reason)).collect()
}

/// Why an adapter can't be read, or is another one than is noted at its address.
pub(crate) fn readable(ledger: &Ledger<'_>, pf: &PhysicalFunction) -> Option<Reason> {
    let unreadable = |reason: &&Reason| matches!(reason.rule, Rule::Readable | Rule::AdapterIdentity);
    ledger.obstacles(pf.address).iter().map(|obstacle| &obstacle.reason).find(unreadable).cloned()
}

/// Why no VFs of this PF can be made.
pub(crate) fn making(ledger: &Ledger<'_>, pf: &PhysicalFunction) -> Vec<Reason> {
    let obstacles = ledger.obstacles(pf.address).iter().filter(|obstacle| obstacle.blocks.making());
    obstacles.map(|obstacle| obstacle.reason.clone()).collect()
}

/// Why a PF cannot be what the request needs, the present state of the host aside.
pub(crate) fn abilities(ledger: &Ledger<'_>, pf: &PhysicalFunction, need: &Need<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    reasons.extend(adapter::subclass(pf, need.request));
    reasons.extend(adapter::link_speed(pf, need.request));
    reasons.extend(adapter::carrier(pf, need.request));
    reasons.extend(adapter::pcie_bandwidth(pf, need.request));
    reasons.extend(adapter::numa_node(pf, need));
    reasons.extend(adapter::guest_driver(pf, need));
    reasons.extend(adapter::host_driver(pf, need));
    reasons.extend(adapter::capabilities(pf, need.request));
    reasons.extend(adapter::namespaces(pf, need.request));
    reasons.extend(adapter::msix_vectors(ledger, pf, need.request));
    reasons
}

/// Why this VF can't be had, its PF aside; empty: it can.
pub(crate) fn of_function(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    index: u16,
    owner: &Owner,
) -> Vec<Reason> {
    let vf = VfId { pf: pf.address, index };
    let rules = [
        function::vf_index(ledger, pf, index),
        function::vf_free(ledger, pf, vf, owner),
        function::in_service(ledger, vf, owner),
        function::vf_readable(ledger, pf, vf),
        function::iommu_group(ledger, vf, owner),
        function::reset(ledger, vf),
        function::to_be_made(ledger, pf, index),
        function::growth(ledger, pf, index),
    ];
    rules.into_iter().flatten().map(|reason| at_vf(ledger, pf, vf, reason)).collect()
}

/// Why what the VFs of this PF share is not enough for the request, or why it would not be apart from who it must be
/// apart from; empty: it fits in.
pub(crate) fn of_company(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    index: u16,
    need: &Need<'_>,
) -> Vec<Reason> {
    let mut reasons = budget::budgets(ledger, pf, index, need);
    reasons.extend(apart(ledger, pf, &need.owner()));
    let vf = VfId { pf: pf.address, index };
    reasons.into_iter().map(|reason| at_vf(ledger, pf, vf, reason)).collect()
}

/// Whether what the VFs of this PF share is enough for the request.
pub(crate) fn fits_budgets(ledger: &Ledger<'_>, pf: &PhysicalFunction, index: u16, need: &Need<'_>) -> bool {
    budget::budgets(ledger, pf, index, need).is_empty()
}

/// Why a VF cannot stay with its owner with these of its settings changed; empty: it can.
pub(crate) fn of_kept(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    vf: VfId,
    need: &Need<'_>,
    change: &VfSettings,
) -> Vec<Reason> {
    let owner = need.owner();
    let resources = change.queues.is_some() || change.interrupts.is_some();
    let rules = [
        readable(ledger, pf),
        function::vf_readable(ledger, pf, vf),
        function::vf_free(ledger, pf, vf, &owner),
        (!change.is_empty()).then(|| management_nic(ledger, pf)).flatten(),
        resources.then(|| budget::nvme_resources(ledger, pf, vf.index, need.request)).flatten(),
        change.min_tx_rate.and_then(|_| budget::bandwidth(ledger, pf, &owner, need.request)),
        (resources && ledger.runs(&owner)).then(|| resources_while_running(need.name())),
    ];
    rules.into_iter().flatten().map(|reason| at_vf(ledger, pf, vf, reason)).collect()
}

/// What no VF can be for a partition of this kind, whatever the host.
pub(crate) fn possible(kind: KindName, request: &VfRequest) -> Vec<Reason> {
    let mut reasons = settings_supported(request);
    if kind == KindName::Namespace && request.class != Class::Network {
        let required = "a VF of class network: a namespace has network interfaces and nothing else";
        let reason = Reason::new(Rule::Class, required, format!("one of class {}", request.class));
        reasons.push(reason.key("class").remedy("ask for it for a machine or a domain"));
    }
    reasons
}

/// Settings that the class of the request does not have.
fn settings_supported(request: &VfRequest) -> Vec<Reason> {
    let named = request.settings().describe().into_iter().map(|(name, _)| name);
    let unsupported = named.filter(|name| !request.class.has_setting(name));
    let reason = |name: &str| {
        Reason::new(
            Rule::SettingSupported,
            format!("settings that a VF of class {} has", request.class),
            name,
        )
        .key(name)
        .remedy(format!("leave {name} out"))
    };
    unsupported.map(reason).collect()
}

/// On this function, unless the rule itself says on which.
fn at(function: Bdf, reason: Reason) -> Reason {
    Reason { function: reason.function.or(Some(function)), ..reason }
}

fn at_vf(ledger: &Ledger<'_>, pf: &PhysicalFunction, vf: VfId, reason: Reason) -> Reason {
    at(ledger.existing(vf).map_or(pf.address, |vf| vf.address), reason)
}

/// A secondary controller has to be offline while its resources change.
fn resources_while_running(partition: &Name) -> Reason {
    Reason::new(
        Rule::ChangeWhileRunning,
        format!("{partition} stopped"),
        "it runs, and NVMe queues or interrupts would change",
    )
    .remedy(format!("stop it first: ioward stop {partition}"))
}
