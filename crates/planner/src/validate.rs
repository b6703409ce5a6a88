//! Whether a plan's choices keep the hard rules, seen from the plan alone: an independent look at placement, as
//! [`crate::lint`] is one at the steps.
//!
//! It shares no code with the rules that made the choice, and looks once at each VF: every plan is validated before it
//! leaves the management partition.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::{
    Apart, Capability, Class, FailureDomain, Holder, Intent, IntoMap, Inventory, NumaPolicy, Owner,
    PartitionKind, PartitionSpec, PhysicalFunction, Plan, Policy, Process, Runs, State, Step, Subclass, VfId,
    VfRequest, VfSettings, VirtualFunction,
};
use ioward_pci::Bdf;

/// Who has which VF, and how it is set.
type Holders = BTreeMap<Owner, (VfId, VfSettings)>;

/// Every hard rule that the VFs do not keep once the plan is carried out; empty when it keeps them all.
///
/// VFs that stay with their owners are not judged anew: a link may have gone down since.
#[must_use]
pub fn validate(plan: &Plan, inventory: &Inventory, state: &State) -> Vec<String> {
    let mut found = Found { inventory, plan, problems: Vec::new() };
    let before: Holders =
        state.assignments().map(|(owner, held)| (owner, (held.vf, held.effective_settings()))).into_map();
    let after = found.follow(before.clone());
    found.none_out_of_service(state);
    found.one_owner_each(&after);
    let specs = specs(plan, state);
    let requests: BTreeMap<Owner, (&PartitionSpec, &VfRequest)> = specs
        .values()
        .flat_map(|partition| {
            let owner = |vf: &VfRequest| Owner { partition: partition.name.clone(), vf: vf.name.clone() };
            partition.vfs.iter().map(move |vf| (owner(vf), (*partition, vf)))
        })
        .into_map();
    let new: BTreeSet<&Owner> = after
        .iter()
        .filter(|(owner, held)| before.get(*owner).map(|held| held.0) != Some(held.0))
        .map(|(owner, _)| owner)
        .collect();
    for owner in &new {
        match requests.get(*owner) {
            Some((partition, request)) => found.suits(owner, after[*owner].0, partition, request),
            None => found.problems.push(format!("{owner} gets a VF that it does not ask for")),
        }
    }
    found.apart(&requests, &after, &new);
    found.budgets(&after, &new);
    found.problems.extend(crate::reconcile::check(plan, inventory, state));
    found.problems
}

/// All partitions as they are to be.
fn specs<'a>(plan: &'a Plan, state: &'a State) -> BTreeMap<String, &'a PartitionSpec> {
    let present = state.partitions.values().map(|partition| &partition.spec);
    let wanted = plan.steps.iter().filter_map(|step| match step {
        Step::DefinePartition { to, .. } => Some(to),
        _ => None,
    });
    present.chain(wanted).map(|spec| (spec.name.to_string(), spec)).into_map()
}

struct Found<'a> {
    inventory: &'a Inventory,
    plan: &'a Plan,
    problems: Vec<String>,
}

impl Found<'_> {
    fn pf(&self, address: Bdf) -> Option<&PhysicalFunction> {
        // Sorted by address, as identify gives them; looked through where they are not.
        let pfs = &self.inventory.physical_functions;
        let at = pfs.binary_search_by_key(&address, |pf| pf.address).ok();
        at.map(|at| &pfs[at]).or_else(|| pfs.iter().find(|pf| pf.address == address))
    }

    /// Who holds what at the end.
    fn follow(&mut self, mut holders: Holders) -> Holders {
        let mut by_vf: BTreeMap<VfId, Owner> =
            holders.iter().map(|(owner, held)| (held.0, owner.clone())).into_map();
        for step in &self.plan.steps {
            match step {
                Step::Assign { owner, to } => {
                    if let Some(other) = by_vf.insert(to.vf, owner.clone()) {
                        self.problems.push(format!("{} is assigned to {owner} while {other} has it", to.vf));
                    }
                    holders.insert(owner.clone(), (to.vf, to.effective_settings()));
                }
                Step::Unassign { owner, from } => {
                    holders.remove(owner);
                    by_vf.remove(&from.vf);
                }
                Step::ConfigureVf { vf, to } => {
                    if let Some((_, settings)) = by_vf.get(vf).and_then(|owner| holders.get_mut(owner)) {
                        *settings = to.or(settings);
                    }
                }
                _ => {}
            }
        }
        holders
    }

    /// From an adapter that is out of service nobody gets a VF, and none are made, unless to repair what partitions hold there.
    fn none_out_of_service(&mut self, state: &State) {
        let mut out: BTreeSet<Bdf> = state.out_of_service.keys().copied().collect();
        let repairs = self.plan.intent.policy() == Policy::BestEffort;
        for step in &self.plan.steps {
            match step {
                Step::TakeOutOfService { pf, .. } => _ = out.insert(*pf),
                Step::ReturnToService { pf, .. } => _ = out.remove(pf),
                Step::Assign { owner, to }
                    if state.vf_out_of_service(to.vf).is_some_and(|(address, _)| out.contains(&address)) =>
                {
                    self.problems.push(format!("{owner} gets {}, which is out of service by itself", to.vf));
                }
                Step::Assign { owner, to } if out.contains(&to.vf.pf) => {
                    self.problems.push(format!("{owner} gets {}, which is out of service", to.vf));
                }
                Step::SetVfCount { pf, to: 1.., .. } if out.contains(pf) && !repairs => {
                    self.problems.push(format!("VFs of {pf} are made, which is out of service"));
                }
                _ => {}
            }
        }
    }

    fn one_owner_each(&mut self, holders: &Holders) {
        let mut seen = BTreeMap::new();
        for (owner, (vf, _)) in holders {
            if let Some(other) = seen.insert(*vf, owner) {
                self.problems.push(format!("{vf} has two owners, {other} and {owner}"));
            }
        }
    }

    /// A VF that is new to its owner is what was asked for.
    fn suits(&mut self, owner: &Owner, vf: VfId, partition: &PartitionSpec, request: &VfRequest) {
        let Some(pf) = self.pf(vf.pf) else {
            self.problems.push(format!("{owner} gets {vf}, which has no PF"));
            return;
        };
        let speed = pf.netdevs.iter().filter_map(|netdev| netdev.speed_mbps).max().unwrap_or(0);
        let namespaces = pf.nvme.as_ref().map_or(0, |nvme| nvme.namespaces.len());
        let vectors = pf.virtual_functions.iter().filter_map(|vf| vf.msix_vectors).max().map(u32::from);
        let node = partition.numa_node.filter(|_| request.numa == Some(NumaPolicy::Require));
        let function = pf.virtual_functions.iter().find(|function| function.index == vf.index);
        let is_namespace = matches!(partition.kind, PartitionKind::Namespace(_));
        // One that its domain has already changes nothing of the PF.
        let is_adopted = crate::lint::adopts(self.plan, owner);
        let management = self.plan.options.allow_management_nic || pf.in_use_by_host.is_empty() || is_adopted;
        let is_nobodys = |function: &VirtualFunction| match &function.holder {
            None | Some(Holder::Nobody) => true,
            Some(Holder::Process(process)) => is_adopted && self.is_adopted_from(process),
            Some(Holder::NetworkNamespace { .. }) => false,
        };
        let rules = [
            (
                "the class",
                request.class == pf.class
                    || request.class.as_str() == "accelerator" && pf.subclass == Some(Subclass::Coprocessor),
            ),
            ("the sub-class", request.subclass.is_none_or(|wanted| pf.subclass == Some(wanted))),
            ("the PF that it is pinned to", request.pf.is_none_or(|wanted| wanted == vf.pf)),
            ("the index that it is pinned to", request.index.is_none_or(|wanted| wanted == vf.index)),
            ("a VF that there can be", pf.sriov.as_ref().is_some_and(|sriov| vf.index < sriov.total_vfs)),
            ("the link speed", request.min_link_speed.is_none_or(|wanted| speed >= wanted.megabits())),
            ("a carrier", !request.carrier || pf.netdevs.iter().any(|netdev| netdev.carrier == Some(true))),
            (
                "the PCIe bandwidth",
                request.min_pcie_bandwidth.is_none_or(|wanted| pf.pcie_mbps() >= Some(wanted.megabits())),
            ),
            ("the NUMA node", node.is_none() || pf.numa_node == node),
            ("RDMA", !request.needs.contains(&Capability::Rdma) || !pf.rdma_devices.is_empty()),
            ("the namespaces", request.min_namespaces.is_none_or(|wanted| namespaces >= usize::from(wanted))),
            (
                "the interrupt vectors",
                request
                    .min_msix_vectors
                    .is_none_or(|wanted| pf.vf_msix_total.or(vectors) >= Some(wanted.into())),
            ),
            ("a PF that the host does not use", management),
            ("a network interface, for a namespace", !is_namespace || request.class == Class::Network),
            ("an IOMMU", is_namespace || self.inventory.iommu),
            (
                "a slot that keeps devices apart",
                is_namespace
                    || pf.iommu_group_shared_with.is_empty() && pf.conditions.port_in_group.is_none(),
            ),
            ("vfio-pci", is_namespace || self.inventory.vfio_pci != Some(false)),
            ("a PF whose VFs vfio-pci can hand on", is_namespace || pf.driver.as_deref() != Some("nvidia")),
            (
                "a VF that nobody else uses",
                function.is_none_or(|function| {
                    function.in_use_by_host.is_empty()
                        && is_nobodys(function)
                        && (is_namespace || function.iommu_group_shared_with.is_empty())
                        && function.flr != Some(false)
                }),
            ),
        ];
        let missed: Vec<_> = rules.iter().filter(|(_, kept)| !kept).map(|(rule, _)| *rule).collect();
        if !missed.is_empty() {
            self.problems.push(format!("{owner} gets {vf} and not {}", missed.join(", ")));
        }
    }

    /// Whether a process is the machine of the domain that is taken over.
    fn is_adopted_from(&self, process: &Process) -> bool {
        let Intent::Adopt { found: Some(found), .. } = &self.plan.intent else { return false };
        let is_named = matches!(&process.runs, Runs::LibvirtDomain { name } if name.as_str() == found.name);
        found.running && found.pid.map_or(is_named, |pid| process.pid == pid)
    }

    /// Two that are to be apart are, unless neither is new.
    fn apart(
        &mut self,
        requests: &BTreeMap<Owner, (&PartitionSpec, &VfRequest)>,
        holders: &Holders,
        new: &BTreeSet<&Owner>,
    ) {
        for (owner, (partition, request)) in requests {
            for Apart { vf, by, .. } in request.aparts().filter(|apart| !apart.prefer) {
                let other = vf.owner(&partition.name);
                let (Some(a), Some(b)) = (holders.get(owner), holders.get(&other)) else { continue };
                if (new.contains(owner) || new.contains(&other)) && self.share(by, a.0.pf, b.0.pf) {
                    self.problems.push(format!("{owner} and {other} are on one {}", by.as_str()));
                }
            }
        }
    }

    fn share(&self, by: FailureDomain, a: Bdf, b: Bdf) -> bool {
        let same = |a: &PhysicalFunction, b: &PhysicalFunction| match by {
            FailureDomain::Port => a.address == b.address,
            FailureDomain::Adapter => {
                let slot =
                    |pf: &PhysicalFunction| (pf.address.domain(), pf.address.bus(), pf.address.device());
                slot(a) == slot(b)
                    || a.serial_number.as_ref().is_some_and(|serial| b.serial_number.as_ref() == Some(serial))
            }
            FailureDomain::NumaNode => a.numa_node.is_some() && a.numa_node == b.numa_node,
        };
        a == b || self.pf(a).zip(self.pf(b)).is_some_and(|(a, b)| same(a, b))
    }

    /// No PF that gets a new VF gives more than it has.
    fn budgets(&mut self, holders: &Holders, new: &BTreeSet<&Owner>) {
        let mut sums: BTreeMap<Bdf, (u64, u64, u64)> = BTreeMap::new();
        for (vf, settings) in holders.values() {
            let (rate, queues, interrupts) = sums.entry(vf.pf).or_default();
            *rate += settings.min_tx_rate.map_or(0, |rate| rate.megabits().into());
            *queues += settings.queues.map_or(0, u64::from);
            *interrupts += settings.interrupts.map_or(0, u64::from);
        }
        // What is taken over as it is takes nothing more from its PF.
        let given = new.iter().filter(|owner| !crate::lint::adopts(self.plan, owner));
        let touched: BTreeSet<Bdf> = given.map(|owner| holders[*owner].0.pf).collect();
        for address in touched {
            let (rate, queues, interrupts) = sums.get(&address).copied().unwrap_or_default();
            let Some(pf) = self.pf(address) else { continue };
            let speed = pf.netdevs.iter().filter_map(|netdev| netdev.speed_mbps).max();
            let mut over = Vec::new();
            if speed.is_some_and(|speed| rate > speed.into()) {
                over.push(format!("{rate} Mbit/s of {address} are guaranteed"));
            }
            if let Some(resources) = pf.nvme.as_ref().and_then(|nvme| nvme.resources)
                && (queues > resources.queues_total.into() || interrupts > resources.interrupts_total.into())
            {
                over.push(format!("{queues} queues and {interrupts} interrupts of {address} are given"));
            }
            self.problems.extend(over);
        }
    }
}

/// Whether the plan explains each VF that it assigns, as a reader may rely on.
#[must_use]
pub(crate) fn explained(plan: &Plan) -> Vec<String> {
    let assigned: BTreeMap<&Owner, VfId> = plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Assign { owner, to } => Some((owner, to.vf)),
            _ => None,
        })
        .collect();
    let explained: BTreeMap<&Owner, VfId> =
        plan.placements.iter().map(|placement| (&placement.owner, placement.vf)).into_map();
    let decides = matches!(
        plan.intent,
        Intent::Apply { .. } | Intent::Attach { .. } | Intent::Start { .. } | Intent::Evacuate { .. }
    );
    let wrong = assigned.iter().filter(|(owner, vf)| decides && explained.get(*owner) != Some(*vf));
    wrong.map(|(owner, vf)| format!("{owner} gets {vf}, and it is not said why")).collect()
}
