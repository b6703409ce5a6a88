//! Relaxations: the smallest sets of rules that would have to give way so that what is refused can be done, each tried out.
//!
//! ```text
//! Reasons ─> relaxations that would meet them ─> one at a time, then two, then three ─> plan again ─> Ways
//! ```
//! Nothing is promised that was not planned: a Way is listed only when planning with it succeeds.

use std::collections::BTreeSet;

use ioward_model::{
    Intent, Inventory, Name, NumaPolicy, Options, Owner, PartitionSpec, Plan, Reason, Relaxation, Rule,
    State, VfCount, VfId, VfRequest, Way, checks,
};

use crate::{MAX_REASONS, plan_or_all_reasons, said_once, suitability};

/// How many ways are listed.
const MAX_WAYS: usize = 4;
/// How many relaxations are tried, alone and together.
const MAX_POOL: usize = 16;
/// How many of them at once, at most.
const MAX_SIZE: usize = 3;
/// How many plans are made for it, over how many requests all in all.
const MAX_PLANNED: usize = 20_000;
/// How many requests that are refused are looked at.
const MAX_REQUESTS: usize = 8;

/// A plan, with what would spare those it disturbs; or why not, with what would have to give way.
///
/// # Errors
/// As [`crate::plan`]: at least one Reason. The ways are empty when nothing was found that helps.
pub fn advise(
    inventory: &Inventory,
    state: &State,
    intent: &Intent,
    options: &Options,
) -> Result<Plan, (Vec<Reason>, Vec<Way>)> {
    let host = Host { inventory, state };
    match plan_or_all_reasons(inventory, state, intent, options) {
        Ok(plan) if plan.disturbs.is_empty() => Ok(plan),
        Ok(plan) => {
            let calm = Options { allow_disruption: false, ..*options };
            let instead = match crate::plan(inventory, state, intent, &calm) {
                Err(reasons) => host.relaxations(intent, &calm, &reasons),
                Ok(_) => Vec::new(),
            };
            let spares = |way: &Way| !way.gives.contains(&Relaxation::AllowDisruption);
            Ok(Plan { instead: instead.into_iter().filter(spares).collect(), ..plan })
        }
        Err(reasons) => {
            let looked_at = &reasons[..reasons.len().min(MAX_REASONS)];
            let ways = host.relaxations(intent, options, looked_at);
            Err((said_once(reasons), ways))
        }
    }
}

struct Host<'a> {
    inventory: &'a Inventory,
    state: &'a State,
}

impl Host<'_> {
    /// The smallest sets of relaxations with which there is a plan.
    fn relaxations(&self, intent: &Intent, options: &Options, reasons: &[Reason]) -> Vec<Way> {
        let pool = self.pool(intent, reasons);
        let requests = requests(self.state, intent).len().max(1);
        let mut tries = (MAX_PLANNED / requests).max(MAX_POOL);
        let mut found: Vec<Way> = Vec::new();
        for size in 1..=MAX_SIZE.min(pool.len()) {
            for chosen in combinations(pool.len(), size) {
                if tries == 0 || found.len() == MAX_WAYS {
                    return found;
                }
                let gives: Vec<_> = chosen.iter().map(|n| pool[*n].clone()).collect();
                tries -= 1;
                if self.is_possible(intent, options, &gives) {
                    found.push(Way { gives });
                }
            }
            if !found.is_empty() {
                break;
            }
        }
        found
    }

    /// Whether there is a plan once all of these give way.
    fn is_possible(&self, intent: &Intent, options: &Options, gives: &[Relaxation]) -> bool {
        let (mut inventory, mut state) = (None, None);
        let (mut intent, mut options) = (intent.clone(), *options);
        for relaxation in gives {
            match relaxation {
                Relaxation::AllowDisruption => options.allow_disruption = true,
                Relaxation::AllowManagementNic => options.allow_management_nic = true,
                Relaxation::LeaveOut { request, key } => {
                    change(&mut intent, request, |vf| {
                        leave_out(vf, key);
                    });
                }
                Relaxation::OtherNumaNode { request, .. } => {
                    change(&mut intent, request, |vf| vf.numa = Some(NumaPolicy::Prefer));
                }
                Relaxation::Together { request, with } => {
                    part(&mut intent, request, with);
                    part(&mut intent, with, request);
                }
                Relaxation::OtherVfCount { pf, vfs } => {
                    if let Intent::Apply { spec } = &mut intent {
                        for adapter in spec.adapters.iter_mut().filter(|adapter| adapter.pf == *pf) {
                            adapter.vfs = Some(VfCount::Exactly(*vfs));
                            adapter.spare = None;
                        }
                    }
                }
                Relaxation::GiveUpVf { partition, pf } => {
                    let state = state.get_or_insert_with(|| self.state.clone());
                    let inventory = inventory.get_or_insert_with(|| self.inventory.clone());
                    if !give_up(inventory, state, partition, *pf) {
                        return false;
                    }
                }
            }
        }
        let inventory = inventory.as_ref().unwrap_or(self.inventory);
        crate::is_possible(inventory, state.as_ref().unwrap_or(self.state), &intent, options)
    }

    /// Relaxations that may help: those that meet the reasons of the refusal, and those for which single VFs do not suit.
    fn pool(&self, intent: &Intent, reasons: &[Reason]) -> Vec<Relaxation> {
        let mut pool = BTreeSet::new();
        let wanted = requests(self.state, intent);
        let named: BTreeSet<&str> = reasons.iter().filter_map(|reason| reason.request.as_deref()).collect();
        reasons.iter().for_each(|reason| self.meet(intent, reason, &mut pool));
        for (partition, request) in wanted {
            let owner = Owner { partition: partition.name.clone(), vf: request.name.clone() };
            if !named.contains(owner.to_string().as_str()) || pool.len() > MAX_POOL * MAX_REQUESTS {
                continue;
            }
            let adapters = if let Intent::Apply { spec } = intent { &spec.adapters[..] } else { &[] };
            let anywhere = VfRequest { pf: None, index: None, ..request.clone() };
            let candidates = suitability(self.inventory, self.state, adapters, partition, &anywhere);
            let mut seen = BTreeSet::new();
            for candidate in candidates.iter().filter(|candidate| seen.insert(candidate.vf.pf)) {
                // One reason that nothing can be done about is enough.
                let mut of_it = BTreeSet::new();
                candidate.reasons.iter().for_each(|reason| self.meet(intent, reason, &mut of_it));
                let is_hopeless = |reason: &Reason| {
                    matches!(reason.rule, Rule::Class | Rule::Readable | Rule::AdapterIdentity | Rule::Iommu)
                };
                if !candidate.reasons.iter().any(is_hopeless) {
                    pool.extend(of_it);
                }
            }
            for (key, pinned) in [("pf", request.pf.is_some()), ("index", request.index.is_some())] {
                if pinned {
                    pool.insert(Relaxation::LeaveOut { request: owner.clone(), key: key.into() });
                }
            }
        }
        let mut pool: Vec<_> = pool.into_iter().collect();
        pool.sort_by_key(burden);
        pool.truncate(MAX_POOL);
        pool
    }

    fn can_do_without(&self, intent: &Intent, request: &Owner, key: &str) -> bool {
        let all = requests(self.state, intent);
        let mut named =
            all.iter().filter(|(of, vf)| (&of.name, &vf.name) == (&request.partition, &request.vf));
        named.next().is_some_and(|(_, vf)| leave_out(&mut (*vf).clone(), key))
    }

    /// Adds the relaxations that would meet one reason.
    fn meet(&self, intent: &Intent, reason: &Reason, pool: &mut BTreeSet<Relaxation>) {
        let owner = reason.request.as_deref().and_then(|request| request.parse::<Owner>().ok());
        match (reason.rule, owner) {
            (Rule::Disruption, _) => _ = pool.insert(Relaxation::AllowDisruption),
            (Rule::ManagementNic, _) => _ = pool.insert(Relaxation::AllowManagementNic),
            (Rule::NumaNode, Some(request)) => {
                let pf = reason.function.and_then(|pf| self.inventory.physical_function(pf));
                if let Some(node) = pf.and_then(|pf| pf.numa_node) {
                    pool.insert(Relaxation::OtherNumaNode { request, node });
                }
            }
            (Rule::Redundancy, Some(request)) => pool.extend(ties(self.state, intent, &request)),
            (Rule::VfCapacity | Rule::VfFree | Rule::VfIndex | Rule::Bandwidth, request) => {
                let of_it = |function| {
                    let pf = self.inventory.physical_function(function).map(|pf| pf.address);
                    pf.or_else(|| self.inventory.virtual_function(function).map(|(pf, _)| pf.address))
                };
                let Some(pf) = reason.function.and_then(of_it) else { return };
                if let Some(pf) = self.inventory.physical_function(pf)
                    && let Intent::Apply { spec } = intent
                    && spec.adapters.iter().any(|adapter| adapter.pf == pf.address && adapter.vfs.is_some())
                {
                    pool.insert(Relaxation::OtherVfCount { pf: pf.address, vfs: checks::most_vfs(pf) });
                }
                let asks = request.as_ref().map(|request| &request.partition);
                let holders = self.state.assignments().filter(|(_, held)| held.vf.pf == pf);
                let others =
                    holders.map(|(owner, _)| owner.partition).filter(|partition| Some(partition) != asks);
                pool.extend(others.map(|partition| Relaxation::GiveUpVf { partition, pf }));
                if let (Some(request), Some(key)) = (request, &reason.key) {
                    pool.insert(Relaxation::LeaveOut { request, key: key.clone() });
                }
            }
            (_, Some(request)) => {
                if let Some(key) = &reason.key
                    && self.can_do_without(intent, &request, key)
                {
                    pool.insert(Relaxation::LeaveOut { request, key: key.clone() });
                }
            }
            _ => {}
        }
    }
}

/// Has a request do without a key. False where it can do without no such key.
fn leave_out(vf: &mut VfRequest, key: &str) -> bool {
    match key {
        "subclass" => vf.subclass = None,
        "min_link_speed" => vf.min_link_speed = None,
        "carrier" => vf.carrier = false,
        "min_pcie_bandwidth" => vf.min_pcie_bandwidth = None,
        "needs" => vf.needs.clear(),
        "min_msix_vectors" => vf.min_msix_vectors = None,
        "min_namespaces" => vf.min_namespaces = None,
        "index" => vf.index = None,
        "pf" => (vf.pf, vf.index) = (None, None),
        setting => return setting.parse().is_ok_and(|setting| vf.leave_out(setting)),
    }
    true
}

/// Sort key: relaxations that a person agrees to more easily come first.
fn burden(relaxation: &Relaxation) -> u8 {
    match relaxation {
        Relaxation::OtherNumaNode { .. } => 0,
        Relaxation::LeaveOut { .. } => 1,
        Relaxation::OtherVfCount { .. } => 2,
        Relaxation::Together { .. } => 3,
        Relaxation::GiveUpVf { .. } => 4,
        Relaxation::AllowDisruption => 5,
        Relaxation::AllowManagementNic => 6,
    }
}

/// The VFs that an intent asks for, with the partitions that they are for.
fn requests<'a>(state: &'a State, intent: &'a Intent) -> Vec<(&'a PartitionSpec, &'a VfRequest)> {
    let of = |partition: &'a PartitionSpec| partition.vfs.iter().map(move |vf| (partition, vf));
    let present = |name: &Name| state.partitions.get(name).map(|partition| &partition.spec);
    match intent {
        Intent::Apply { spec } => spec.partitions.iter().flat_map(of).collect(),
        Intent::Attach { partition, vfs } => present(partition)
            .into_iter()
            .flat_map(|partition| vfs.iter().map(move |vf| (partition, vf)))
            .collect(),
        // These carry no requirements of their own that could be relaxed.
        Intent::Start { .. }
        | Intent::Stop { .. }
        | Intent::Remove { .. }
        | Intent::Detach { .. }
        | Intent::Adopt { .. }
        | Intent::Release { .. }
        | Intent::Evacuate { .. }
        | Intent::EvacuateHost
        | Intent::Depart { .. }
        | Intent::Return { .. }
        | Intent::Failover { .. }
        | Intent::Reconcile { .. } => Vec::new(),
    }
}

fn change(intent: &mut Intent, request: &Owner, change: impl Fn(&mut VfRequest)) {
    match intent {
        Intent::Apply { spec } => {
            let partitions =
                spec.partitions.iter_mut().filter(|partition| partition.name == request.partition);
            partitions
                .flat_map(|partition| &mut partition.vfs)
                .filter(|vf| vf.name == request.vf)
                .for_each(change);
        }
        Intent::Attach { vfs, .. } => vfs.iter_mut().filter(|vf| vf.name == request.vf).for_each(change),
        _ => {}
    }
}

/// The rules of redundancy that a request is part of.
fn ties(state: &State, intent: &Intent, request: &Owner) -> Vec<Relaxation> {
    let all = requests(state, intent);
    let pairs = all.iter().flat_map(|(partition, vf)| {
        let owner = Owner { partition: partition.name.clone(), vf: vf.name.clone() };
        let hard = vf.apart_from.iter().filter(|apart| !apart.prefer);
        hard.map(move |apart| (owner.clone(), apart.vf.owner(&partition.name)))
    });
    let about = pairs.filter(|(a, b)| a == request || b == request);
    about.map(|(request, with)| Relaxation::Together { request, with }).collect()
}

fn part(intent: &mut Intent, request: &Owner, with: &Owner) {
    let partition = request.partition.clone();
    change(intent, request, |vf| {
        let about = |apart: &&mut ioward_model::Apart| apart.vf.owner(&partition) == *with;
        vf.apart_from.iter_mut().filter(about).for_each(|apart| apart.prefer = true);
    });
}

/// A host on which a partition has given one VF of this PF back, the last one.
fn give_up(inventory: &mut Inventory, state: &mut State, partition: &Name, pf: ioward_pci::Bdf) -> bool {
    let Some(holder) = state.partitions.get_mut(partition) else { return false };
    let held = holder.vfs.iter().filter(|(_, held)| held.vf.pf == pf).max_by_key(|(_, held)| held.vf.index);
    let Some((name, vf)) = held.map(|(name, held)| (name.clone(), held.vf)) else { return false };
    holder.vfs.remove(&name);
    holder.spec.vfs.retain(|request| request.name != name);
    let VfId { pf, index } = vf;
    let pfs = inventory.physical_functions.iter_mut().filter(|function| function.address == pf);
    let functions = pfs.flat_map(|pf| &mut pf.virtual_functions).filter(|function| function.index == index);
    functions.for_each(|function| function.driver = None);
    true
}

/// All ways to choose `size` of the first `n` numbers, each in ascending order, the lowest first.
fn combinations(n: usize, size: usize) -> impl Iterator<Item = Vec<usize>> {
    let mut next = (size <= n).then(|| (0..size).collect::<Vec<_>>());
    std::iter::from_fn(move || {
        let current = next.take()?;
        let mut following = current.clone();
        let turn = (0..size).rev().find(|place| following[*place] < n - size + place);
        next = turn.map(|place| {
            following[place] += 1;
            for later in place + 1..size {
                following[later] = following[later - 1] + 1;
            }
            following
        });
        Some(current)
    })
}
