//! Taking an adapter out of service, and its return.
//!
//! ```text
//!   evacuate ─> a goal: each partition that holds VFs there as it is, but nothing of it on that adapter
//!            ─> the planner's own placement, which does not look at the adapter any more
//!            ─> the adapter gives no VFs, and is as it was found
//! ```
//!
//! A VF that no other adapter suits is in the way, or is left out where that was asked for, or where its machine goes on by a standby on a
//! bridge: it is taken from its partition.

use std::collections::BTreeSet;

use ioward_model::{
    Identity, Intent, Inventory, Options, OutOfService, Owner, PartitionState, Reason, Rule, State,
    VfRequest, Why,
};
use ioward_pci::Bdf;

use crate::{
    WorkedOut,
    goal::{Goal, PartitionGoal},
    placement, reach,
};

/// An adapter that is taken out of service.
pub(crate) struct Evacuation {
    pub pf: Bdf,
    /// The note of it to make; `None`: it is out of service already.
    pub note: Option<OutOfService>,
}

/// The parts of a plan for such an intent; `None`: it is another.
pub(crate) fn work_out(
    inventory: &Inventory,
    state: &State,
    intent: &Intent,
    options: Options,
) -> Option<Result<WorkedOut, Vec<Reason>>> {
    match intent {
        Intent::Evacuate { pf, leave_out } => Some(evacuate(inventory, state, *pf, *leave_out, options)),
        Intent::Return { pf } => Some(bring_back(inventory, state, *pf, options)),
        _ => None,
    }
}

fn evacuate(
    inventory: &Inventory,
    state: &State,
    pf: Bdf,
    leave_out: bool,
    options: Options,
) -> Result<WorkedOut, Vec<Reason>> {
    check_known(inventory, state, pf)?;
    let moving: BTreeSet<Owner> =
        state.assignments().filter(|(_, held)| held.vf.pf == pf).map(|(owner, _)| owner).collect();
    let mut left_out = BTreeSet::new();
    loop {
        let goal = goal(inventory, state, pf, &left_out);
        let reasons = match reach(inventory, state, &goal, options) {
            Ok(worked_out) => return Ok(worked_out),
            Err(reasons) => reasons,
        };
        let unplaced = without_place(state, &reasons, &moving);
        let goes_on: BTreeSet<Owner> =
            unplaced.iter().filter(|owner| has_standby(state, owner)).cloned().collect();
        if !goes_on.is_empty() {
            left_out.extend(goes_on);
            continue;
        }
        if !leave_out || unplaced.is_empty() {
            return Err(explained(reasons, pf, &unplaced));
        }
        // Each turn leaves out more, and there are only so many.
        left_out.extend(unplaced);
    }
}

/// Whether a machine goes on without this VF.
fn has_standby(state: &State, owner: &Owner) -> bool {
    state.partitions.get(&owner.partition).is_some_and(|partition| partition.standbys.contains_key(&owner.vf))
}

/// The moving VFs for which there is none elsewhere. One that would only take leave to be placed is none of them; but nobody is asked for an
/// adapter that the host uses where a standby does, which may well be on a bridge that this is a port of.
fn without_place(state: &State, reasons: &[Reason], moving: &BTreeSet<Owner>) -> BTreeSet<Owner> {
    let takes_leave = |reason: &&Reason| match reason.rule {
        Rule::Disruption => true,
        Rule::ManagementNic => !owner(reason).is_some_and(|owner| has_standby(state, &owner)),
        _ => false,
    };
    let (leave, never): (Vec<_>, Vec<_>) = reasons.iter().partition(takes_leave);
    let leave: BTreeSet<Owner> = leave.into_iter().filter_map(owner).collect();
    let never = never.into_iter().filter_map(owner);
    never.filter(|owner| moving.contains(owner) && !leave.contains(owner)).collect()
}

fn owner(reason: &Reason) -> Option<Owner> {
    reason.request.as_deref()?.parse().ok()
}

/// Why not, with the way out for those who have no place. That they can't stay where they are is no news where more is said of them.
fn explained(reasons: Vec<Reason>, pf: Bdf, unplaced: &BTreeSet<Owner>) -> Vec<Reason> {
    let is_news = |reason: &Reason| (reason.rule, reason.function) != (Rule::InService, Some(pf));
    let explained: BTreeSet<Owner> =
        reasons.iter().filter(|reason| is_news(reason)).filter_map(owner).collect();
    let says_more = |reason: &Reason| owner(reason).is_some_and(|owner| explained.contains(&owner));
    let mut kept: Vec<_> =
        reasons.into_iter().filter(|reason| is_news(reason) || !says_more(reason)).collect();
    for reason in &mut kept {
        if owner(reason).is_some_and(|owner| unplaced.contains(&owner)) {
            let or = if reason.remedy.is_empty() { "" } else { "; or " };
            reason.remedy += or;
            reason.remedy += "--leave-out takes it from its partition";
        }
    }
    kept
}

/// All that holds VFs there as it is, without them on that adapter.
fn goal(inventory: &Inventory, state: &State, pf: Bdf, left_out: &BTreeSet<Owner>) -> Goal {
    let holds = |partition: &&PartitionState| partition.vfs.values().any(|held| held.vf.pf == pf);
    let partitions = state.partitions.values().filter(holds);
    let partitions = partitions.map(|partition| {
        let mut spec = partition.spec.clone();
        let left_out = left_out.iter().filter(|left| left.partition == partition.spec.name);
        left_out.for_each(|left| spec.leave_out(&left.vf));
        spec.vfs.iter_mut().for_each(|request| unpin(request, pf));
        PartitionGoal { spec, start: false }
    });
    let note = (!state.out_of_service.contains_key(&pf)).then(|| OutOfService {
        since_ms: 0,
        why: Why::Evacuated,
        vf: None,
        identity: identity(inventory, state, pf),
    });
    let mut goal = Goal::of_partitions(partitions.collect());
    goal.evacuation = Some(Evacuation { pf, note });
    goal
}

/// A pin to the adapter holds no more: a later plan for the partition would want to go back there.
fn unpin(request: &mut VfRequest, pf: Bdf) {
    if request.pf == Some(pf) {
        (request.pf, request.index) = (None, None);
    }
}

fn identity(inventory: &Inventory, state: &State, pf: Bdf) -> Option<Identity> {
    let found = || Identity::of(inventory.physical_function(pf)?, inventory);
    state.identity(pf).cloned().or_else(found)
}

fn bring_back(
    inventory: &Inventory,
    state: &State,
    pf: Bdf,
    options: Options,
) -> Result<WorkedOut, Vec<Reason>> {
    check_known(inventory, state, pf)?;
    let mut goal = Goal::default();
    goal.returns = state.out_of_service.get(&pf).map(|out| (pf, out.clone()));
    reach(inventory, state, &goal, options)
}

/// The adapter is there, or something is noted of it: one that has failed may be gone.
fn check_known(inventory: &Inventory, state: &State, pf: Bdf) -> Result<(), Vec<Reason>> {
    let is_out = state.out_of_service.contains_key(&pf);
    if inventory.physical_function(pf).is_some() || is_out || state.noted_pfs().contains(&pf) {
        return Ok(());
    }
    Err(vec![placement::no_such_pf(inventory, pf)])
}
