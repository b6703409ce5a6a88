//! Adapters with faults are touched by no plan, whatever it is for. That none of their VFs is given to anybody is one of the checks
//! (`ioward_model::checks`); here is what a plan would do to those that are given already.

use std::collections::BTreeSet;

use ioward_model::{Assignment, Intent, Inventory, Reason, State, Step};

/// Adapters that have a fault, and that steps would touch.
pub(crate) fn touched(inventory: &Inventory, state: &State, intent: &Intent, steps: &[Step]) -> Vec<Reason> {
    // How many VFs one has is not known while it does not answer, and it is not left at that in silence.
    let counts = match intent {
        Intent::Apply { spec } => &spec.adapters[..],
        _ => &[],
    };
    let counts = counts.iter().filter(|adapter| adapter.vfs.is_some()).map(|adapter| adapter.pf);
    let unknown = counts.filter(|pf| inventory.physical_function(*pf).is_some_and(|pf| pf.sriov.is_none()));
    let started = steps.iter().filter_map(|step| match step {
        Step::StartPartition { partition } => state.partitions.get(partition),
        _ => None,
    });
    // A machine starts without a VF whose standby is active.
    let opened = started.flat_map(|partition| partition.vfs.values());
    let opened = opened.filter(|held| !held.is_unplugged()).map(|held| held.vf.pf);
    let is_unplugged = |vf| state.assignment(vf).is_some_and(Assignment::is_unplugged);
    let is_waited_for = |pf| {
        inventory.physical_function(pf).is_some_and(|pf| pf.service.is_frozen() && pf.service.is_waited_for())
    };
    let reaches = |step: &Step| match step {
        Step::SetVfCount { pf, .. } | Step::SetAutoprobe { pf, .. } => Some(*pf),
        Step::ConfigureVf { vf, .. }
        | Step::BindDriver { vf, .. }
        | Step::ResetVf { vf }
        | Step::AttachVf { vf, .. } => Some(vf.pf),
        // It would be taken out while it may come back. Of one that has failed it can be given up; one whose standby is active is given
        // back.
        Step::DetachVf { vf, .. } if is_waited_for(vf.pf) && !is_unplugged(*vf) => Some(vf.pf),
        // What is noted, and what partitions are.
        _ => None,
    };
    let pfs: BTreeSet<_> = steps.iter().filter_map(reaches).chain(opened).chain(unknown).collect();
    let pfs = pfs.into_iter().filter_map(|pf| inventory.physical_function(pf));
    pfs.filter(|pf| pf.service.is_frozen()).filter_map(|pf| pf.service.in_the_way(pf.address)).collect()
}
