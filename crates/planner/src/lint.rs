//! Whether a plan is safe, without a look at how it was made: [`lint`] carries it out on a [`Machine`], and undoes it from
//! every point on the way.

use std::collections::BTreeSet;

use ioward_model::{
    Assignment, Disturbance, Holder, Intent, Inventory, KindName, Name, Outcome, Owner, PartitionState, Plan,
    Policy, State, Step, VfId, VfSettings,
};
use ioward_pci::Bdf;

use crate::{Machine, machine::has_vf_by};

/// Everything that is wrong with a plan for this inventory and this state; empty when it is safe.
///
/// - Every step is one that the host would carry out where it stands, and its inverse one that leads back.
/// - VFs are made while no host driver can take them, and only such are given away as nobody else uses.
/// - Whoever runs and loses a VF for a while is named.
/// - Its choices keep the hard rules ([`crate::validate`]), and each of them is explained.
/// - At the end a partition has a channel if and only if it has VFs, and all VFs that its Spec asks for.
///
/// Where something assigned is not attached, lost already, or in doubt when the plan begins, that cannot be put back, and only
/// the way forward is checked. Takes time in the square of the number of steps.
#[must_use]
pub fn lint(plan: &Plan, inventory: &Inventory, state: &State) -> Vec<String> {
    let mut problems = Vec::new();
    let next = state.revision + u64::from(plan.intent.policy() == Policy::AllOrNothing);
    if (plan.parent, plan.id, plan.generation) != (state.revision, next, inventory.generation) {
        problems.push("it was made from another state or inventory".to_owned());
    }
    if plan.disturbs.iter().any(|disturbed| !is_asked_for(plan, inventory, disturbed))
        && !plan.options.allow_disruption
    {
        problems.push("it disturbs what runs, and that is not allowed".to_owned());
    }
    problems.extend(crate::validate(plan, inventory, state));
    problems.extend(crate::validate::explained(plan));
    if plan.intent.policy() == Policy::BestEffort {
        // It begins on a host that is not as the state says, and is never rolled back: `validate` has looked at its steps.
        return problems;
    }
    let start = Machine::new(inventory, state);
    let can_be_undone = is_sound(&start);
    let mut machine = start.clone();
    let mut done: Vec<Done> = Vec::new();
    for (n, step) in plan.steps.iter().enumerate() {
        let place = format!("step {} ({step})", n + 1);
        problems
            .extend(unsafe_here(plan, n, &machine).into_iter().map(|problem| format!("{place}: {problem}")));
        let noted = machine.state().noted_for(step);
        match machine.carry_out(step) {
            Ok(outcome) => done.push(Done { step: step.clone(), outcome, noted }),
            Err(refusal) => {
                problems.push(format!("{place}: {refusal}"));
                return problems;
            }
        }
        if can_be_undone && let Err(problem) = undo(&start, machine.clone(), &done) {
            problems.push(format!("undone after {place}: {problem}"));
        }
    }
    // Earlier faults of a partition that is not asked about are not this plan's business.
    let before = unfinished(plan, &start);
    let asked: BTreeSet<&Name> = match &plan.intent {
        Intent::Apply { spec } => spec.partitions.iter().map(|partition| &partition.name).collect(),
        Intent::Attach { partition, .. } | Intent::Detach { partition, .. } => BTreeSet::from([partition]),
        Intent::Adopt { partition, .. } => partition.iter().collect(),
        Intent::Remove { .. }
        | Intent::Start { .. }
        | Intent::Stop { .. }
        | Intent::Release { .. }
        | Intent::Evacuate { .. }
        | Intent::EvacuateHost
        | Intent::Depart { .. }
        | Intent::Return { .. }
        | Intent::Failover { .. }
        | Intent::Reconcile { .. } => BTreeSet::new(),
    };
    let new = unfinished(plan, &machine)
        .into_iter()
        .filter(|problem| asked.contains(&problem.0) || !before.contains(problem));
    problems.extend(new.map(|(_, problem)| problem));
    problems
}

/// Whether a disturbance is the very thing that was asked for.
fn is_asked_for(plan: &Plan, inventory: &Inventory, disturbed: &Disturbance) -> bool {
    let about = match &plan.intent {
        Intent::Stop { partition } | Intent::Remove { partition } => partition,
        Intent::Detach { partition, vf } => {
            // Another VF of it that was lost already may go with this one: that disturbs nobody.
            let is_there = |vf: &VfId| {
                let pf = inventory.physical_function(vf.pf);
                pf.is_some_and(|pf| pf.virtual_function(vf.index).is_some())
            };
            let mut detached = plan.steps.iter().filter_map(|step| match step {
                Step::DetachVf { owner, vf, .. } if is_there(vf) => Some(owner),
                _ => None,
            });
            if detached.any(|owner| (&owner.partition, &owner.vf) != (partition, vf)) {
                return false;
            }
            partition
        }
        Intent::EvacuateHost => return true,
        Intent::Depart { partition } => partition,
        Intent::Apply { .. }
        | Intent::Start { .. }
        | Intent::Attach { .. }
        | Intent::Adopt { .. }
        | Intent::Release { .. }
        | Intent::Evacuate { .. }
        | Intent::Return { .. }
        | Intent::Failover { .. }
        | Intent::Reconcile { .. } => return false,
    };
    disturbed.who == about.as_str()
}

/// Things that the host would do, and a person would not want.
fn unsafe_here(plan: &Plan, n: usize, machine: &Machine) -> Vec<String> {
    let (inventory, state) = (machine.inventory(), machine.state());
    let pf_of = |address: Bdf| inventory.physical_function(address);
    let declared = |address: Bdf| plan.disturbs.iter().any(|disturbed| disturbed.function == address);
    let mut problems = Vec::new();
    let mut needs_no_host = |address: Bdf| {
        if pf_of(address).is_some_and(|pf| !pf.in_use_by_host.is_empty())
            && !plan.options.allow_management_nic
        {
            problems.push(format!("the host uses {address}"));
        }
    };
    match &plan.steps[n] {
        Step::SetVfCount { pf: address, to, .. } => {
            needs_no_host(*address);
            let Some(pf) = pf_of(*address) else { return problems };
            let original = state.adapters.get(address).map(|held| held.original);
            if original.is_none() {
                problems.push("the adapter was not noted first".into());
            }
            let as_found = original.is_some_and(|original| original.autoprobe && original.num_vfs == *to);
            if *to > 0 && pf.drivers_autoprobe == Some(true) && !as_found {
                problems.push("autoprobe is on while VFs appear".into());
            }
            let used = pf.virtual_functions.iter().filter(|vf| {
                let ours = state.owner(VfId { pf: *address, index: vf.index }).is_some();
                let lent = vf.holder.as_ref().is_some_and(|holder| *holder != Holder::Nobody);
                !vf.in_use_by_host.is_empty() || lent || !ours && vf.driver.as_deref() == Some("vfio-pci")
            });
            problems.extend(
                used.filter(|vf| !declared(vf.address))
                    .map(|vf| format!("{} is used and not named as disturbed", vf.address)),
            );
        }
        // Its domain has it already, and it stays as it is: whose it is, `validate` has looked at.
        Step::Assign { owner, .. } if adopts(plan, owner) => {}
        Step::Assign { to, .. } => {
            needs_no_host(to.vf.pf);
            let vf = pf_of(to.vf.pf).and_then(|pf| pf.virtual_function(to.vf.index));
            match vf {
                None => problems.push("the VF does not exist".into()),
                Some(vf) if !vf.in_use_by_host.is_empty() => problems.push("the host uses the VF".into()),
                Some(vf) if vf.holder.as_ref().is_some_and(|holder| *holder != Holder::Nobody) => {
                    problems.push("somebody else has the VF".into());
                }
                Some(vf) if vf.driver.as_deref() == Some("vfio-pci") => {
                    problems.push("somebody else has bound the VF".into());
                }
                Some(_) => {}
            }
        }
        Step::DetachVf { owner, vf, .. } => {
            let runs = state.partitions.get(&owner.partition).is_some_and(|partition| partition.running);
            let present = pf_of(vf.pf).and_then(|pf| pf.virtual_function(vf.index));
            let present =
                present.filter(|present| has_vf_by(state, &owner.partition, present.driver.as_deref()));
            if let Some(present) = present.filter(|present| runs && !declared(present.address)) {
                problems.push(format!("{} is lost and not named as disturbed", present.address));
            }
        }
        Step::StopPartition { partition, .. } => {
            let held =
                state.partitions.get(partition).into_iter().flat_map(|partition| partition.vfs.values());
            let attached = held.filter(|held| held.attached);
            let present = attached.filter_map(|held| pf_of(held.vf.pf)?.virtual_function(held.vf.index));
            let bound = present.filter(|present| has_vf_by(state, partition, present.driver.as_deref()));
            problems.extend(
                bound.filter(|present| !declared(present.address)).map(|present| {
                    format!("{} stops with it and is not named as disturbed", present.address)
                }),
            );
        }
        Step::StartPartition { .. } => {
            let last = plan.steps[n..].iter().all(|step| matches!(step, Step::StartPartition { .. }));
            problems.extend((!last).then(|| "partitions start before all is done".to_owned()));
        }
        _ => {}
    }
    problems
}

/// Whether a plan takes a VF over as it is. No other intent than to adopt does.
pub(crate) fn adopts(plan: &Plan, owner: &Owner) -> bool {
    matches!(plan.intent, Intent::Adopt { .. })
        && plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::AdoptVf { owner: adopted, .. } if adopted == owner))
}

/// Whether everything assigned is attached, and there: what is broken already can't be put back, nor what is in doubt.
fn is_sound(machine: &Machine) -> bool {
    if machine.state().partitions.values().any(|partition| partition.channel_in_doubt) {
        return false;
    }
    let bound = |owner: &Owner, vf: VfId| {
        let function = machine.inventory().physical_function(vf.pf)?.virtual_function(vf.index)?;
        has_vf_by(machine.state(), &owner.partition, function.driver.as_deref()).then_some(())
    };
    machine
        .state()
        .assignments()
        .all(|(owner, held)| held.attached && !held.attached_in_doubt && bound(&owner, held.vf).is_some())
}

/// A step that has been carried out.
struct Done {
    step: Step,
    outcome: Outcome,
    /// [`State::noted_for`] it, before it was.
    noted: Option<Assignment>,
}

fn undo(start: &Machine, mut machine: Machine, done: &[Done]) -> Result<(), String> {
    for Done { step, outcome, noted } in done.iter().rev() {
        let Some(inverse) = step.inverse(outcome) else { continue };
        machine.carry_out(&inverse).map_err(|refusal| format!("{inverse}: {refusal}"))?;
        if let Some(noted) = noted {
            machine.note_undone(step, noted);
        }
    }
    let resized: BTreeSet<Bdf> = done
        .iter()
        .filter_map(|done| if let Step::SetVfCount { pf, .. } = &done.step { Some(*pf) } else { None })
        .collect();
    let ((host, state), (host_now, state_now)) = (essence(start, &resized), essence(&machine, &resized));
    let pfs = host.physical_functions.iter().zip(&host_now.physical_functions);
    let differs = pfs.filter(|(before, after)| before != after).map(|(pf, _)| pf.address.to_string()).next();
    let partitions = state.partitions.keys().chain(state_now.partitions.keys());
    let differs = differs.or_else(|| {
        let mut differing =
            partitions.filter(|name| state.partitions.get(name) != state_now.partitions.get(name));
        differing.next().map(ToString::to_string)
    });
    let differs = differs.or_else(|| (state != state_now).then(|| "what is noted of adapters".to_owned()));
    differs.map_or(Ok(()), |what| Err(format!("{what} is not as it was")))
}

/// The part of a host that has to be as it was once a plan has been rolled back. A VF that was no partition's, and that went and came back, may
/// have lost the driver and the use that somebody had given it; addresses learned on the way are no loss. What a VF gets
/// from its kernel and its driver as it appears (a group, interrupts, settings that nobody asked for) a machine of values
/// does not know.
fn essence(machine: &Machine, resized: &BTreeSet<Bdf>) -> (Inventory, State) {
    let (mut inventory, mut state) = (machine.inventory().clone(), machine.state().clone());
    for pf in inventory.physical_functions.iter_mut().filter(|pf| resized.contains(&pf.address)) {
        let address = pf.address;
        for vf in &mut pf.virtual_functions {
            let id = VfId { pf: address, index: vf.index };
            let held = state.assignments().find(|(_, held)| held.vf == id).map(|(_, held)| held);
            let asked = held.map(asked_for).unwrap_or_default();
            vf.settings = asked.restored_from(&vf.settings);
            vf.owner = None;
            vf.holder = None;
            vf.iommu_group = None;
            vf.iommu_group_shared_with.clear();
            vf.msix_vectors = None;
            (vf.errors, vf.out_of_service) = (None, None);
            (vf.flr, vf.vgpu_type) = (None, None);
            vf.netdevs.clear();
            if held.is_none() {
                vf.driver = None;
                vf.in_use_by_host.clear();
            }
        }
    }
    for assignment in state.partitions.values_mut().flat_map(|partition| partition.vfs.values_mut()) {
        let settings = asked_for(assignment);
        *assignment = Assignment {
            address: None,
            settings,
            guest_settings: VfSettings::default(),
            original_settings: VfSettings::default(),
            ..assignment.clone()
        };
    }
    (inventory, state)
}

/// Settings of a VF other than those it was found with.
fn asked_for(held: &Assignment) -> VfSettings {
    held.effective_settings().missing_from(&held.original_settings)
}

/// Whatever is missing once a plan is carried out, by partition.
fn unfinished(plan: &Plan, machine: &Machine) -> Vec<(Name, String)> {
    let mut problems = Vec::new();
    for (name, partition) in &machine.state().partitions {
        let mut found = Vec::new();
        let touches = |step: &Step| match step {
            Step::AttachVf { owner, .. } => owner.partition == *name,
            Step::DestroyChannel { partition } => partition == name,
            _ => false,
        };
        let touched = plan.steps.iter().any(touches);
        // A domain that was taken over as it was has none before it is given something.
        let may_lack_it = partition.spec.kind.name() == KindName::Domain && !touched && !partition.channel;
        if partition.channel == partition.vfs.is_empty() && !may_lack_it {
            let (vfs, channel) = (partition.vfs.len(), partition.channel);
            found.push(format!("at the end {name} has {vfs} VFs, and channel: {channel}"));
        }
        found.extend(short_of(partition).map(|what| format!("at the end {name} {what}")));
        let unattached = partition.vfs.iter().filter(|(_, held)| touched && !held.is_handed_over());
        found.extend(unattached.map(|(vf, _)| format!("{name}/{vf} is not attached")));
        problems.extend(found.into_iter().map(|problem| (name.clone(), problem)));
    }
    problems
}

fn short_of(partition: &PartitionState) -> Option<String> {
    let asked: BTreeSet<_> = partition.spec.vfs.iter().map(|vf| &vf.name).collect();
    let has: BTreeSet<_> = partition.vfs.keys().collect();
    (asked != has).then(|| format!("asks for {asked:?} and has {has:?}"))
}
