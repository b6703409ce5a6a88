//! How many VFs each adapter is to give, and who is disturbed by getting there.

use std::collections::BTreeSet;

use ioward_model::{
    AdapterOriginal, AdapterSpec, AdapterState, Disturbance, Identity, Owner, PhysicalFunction, Reason, Rule,
    VfCount, VfId, checks,
};
use ioward_pci::Bdf;

use crate::{compat, goal::Goal, ledger::Ledger, placement, placement::Holding};

/// A change of an adapter. With nothing to change, `from` and `to` are the same.
pub(crate) struct AdapterChange {
    pub pf: Bdf,
    /// The noted state of it now.
    pub before: Option<AdapterState>,
    /// The noted state of it then; `None`: ioward has let go of it.
    pub after: Option<AdapterState>,
    /// NumVFs.
    pub vfs: Change<u16>,
    /// Whether its VFs go and come back, as many as before.
    pub renews: bool,
    /// `sriov_drivers_autoprobe`.
    pub autoprobe: Change<bool>,
}

/// From one value to another.
#[derive(Clone, Copy)]
pub(crate) struct Change<T> {
    pub from: T,
    pub to: T,
}

impl<T: PartialEq + Copy> Change<T> {
    fn none(value: T) -> Self {
        Self { from: value, to: value }
    }

    /// Whether there is anything to do.
    pub fn is_needed(&self) -> bool {
        self.from != self.to
    }
}

/// Checks the numbers of VFs that the Spec itself asks for.
pub(crate) fn check_named(ledger: &Ledger<'_>, goal: &Goal) -> Vec<Reason> {
    let problem = |(pf, count): (&Bdf, &Option<VfCount>)| {
        if is_let_go_of(ledger, *pf, *count) {
            return None;
        }
        let Some(function) = ledger.inventory.physical_function(*pf) else {
            return Some(placement::no_such_pf(ledger.inventory, *pf));
        };
        if let Some(reason) = compat::readable(ledger, function) {
            return Some(reason.on(*pf));
        }
        capacity(function, *count)
    };
    goal.adapters.iter().filter_map(problem).collect()
}

/// Whether an adapter that ioward holds for its number of VFs alone is to be given back, and is gone: it is forgotten. By the same Spec,
/// applied once more, it is forgotten already.
fn is_let_go_of(ledger: &Ledger<'_>, pf: Bdf, count: Option<VfCount>) -> bool {
    let is_gone = ledger.inventory.physical_function(pf).is_none_or(|pf| pf.sriov.is_none());
    let is_held = ledger.state.adapters.contains_key(&pf);
    let is_used = || ledger.state.assignments().any(|(_, held)| held.vf.pf == pf);
    let is_none = |adapter: &AdapterSpec| adapter.pf == pf && adapter.count() == count;
    let was_let_go_of =
        || ledger.state.wanted.as_ref().is_some_and(|before| before.adapters.iter().any(is_none));
    count == Some(VfCount::Exactly(0)) && is_gone && (is_held || was_let_go_of()) && !is_used()
}

/// No more VFs are asked for than the PF can give.
pub(crate) fn capacity(pf: &PhysicalFunction, count: Option<VfCount>) -> Option<Reason> {
    let (total, most) = (pf.total_vfs(), checks::most_vfs(pf));
    let VfCount::Exactly(count) = count? else { return None };
    let (required, remedy) = if count > total {
        (format!("at most {total} VFs (TotalVFs)"), "ask for fewer, or for \"max\"")
    } else if count > most {
        let required = format!("at most {most} VFs: the others have no bus numbers below the port");
        (required, "ask for fewer, or turn on ARI and SR-IOV in the firmware")
    } else if checks::makes_all_or_none(pf) && count > 0 && count < total {
        let driver = pf.driver.as_deref().unwrap_or_default();
        (format!("all {total} VFs or none, for its driver {driver} makes no other number"), "ask for \"max\"")
    } else {
        return None;
    };
    let reason = Reason::new(Rule::VfCapacity, required, format!("{count} asked for"));
    Some(reason.on(pf.address).remedy(remedy))
}

/// The changes of adapters that the Spec names and of those whose VFs come or go.
///
/// # Errors
/// When the numbers don't go together, or what the host uses or what runs would be disturbed.
pub(crate) fn changes(
    ledger: &Ledger<'_>,
    goal: &Goal,
    holdings: &[Holding<'_>],
) -> Result<Vec<AdapterChange>, Vec<Reason>> {
    let named = goal.adapters.keys().copied();
    let held_then = holdings.iter().map(|holding| holding.vf.pf);
    let concerned = goal.concerned().iter().filter_map(|name| ledger.state.partitions.get(name));
    let evacuated = goal.evacuation.as_ref().map(|evacuation| evacuation.pf);
    // One that was held for the sake of its own VFs alone, which come back.
    let returned = goal.returns.as_ref().map(|(pf, _)| *pf).filter(|pf| {
        ledger.state.adapters.get(pf).is_some_and(|held| held.wanted.is_none())
            && ledger.holders_on(*pf).is_empty()
    });
    let held_now = concerned.flat_map(|partition| partition.vfs.values());
    let concerned: BTreeSet<Bdf> = evacuated
        .into_iter()
        .chain(returned)
        .chain(named)
        .chain(held_then)
        .chain(held_now.map(|assignment| assignment.vf.pf))
        .collect();
    let (mut changes, mut reasons) = (Vec::new(), Vec::new());
    for pf in concerned {
        match change(ledger, goal, pf) {
            Ok(change) => changes.push(change),
            Err(why) => reasons.extend(why),
        }
    }
    if reasons.is_empty() { Ok(changes) } else { Err(reasons) }
}

fn change(ledger: &Ledger<'_>, goal: &Goal, address: Bdf) -> Result<AdapterChange, Vec<Reason>> {
    let before = ledger.state.adapters.get(&address).cloned();
    let last_index = ledger.holders_on(address).pop_last();
    let readable = ledger.inventory.physical_function(address).filter(|pf| pf.sriov.is_some());
    let Some(pf) = readable else {
        // There is nothing to be done to an adapter that is gone but to forget it.
        let after = before.clone().filter(|_| last_index.is_some());
        return Ok(AdapterChange {
            pf: address,
            before,
            after,
            vfs: Change::none(0),
            renews: false,
            autoprobe: Change::none(true),
        });
    };
    let autoprobe = pf.drivers_autoprobe.unwrap_or(true);
    let original =
        before.as_ref().map_or(AdapterOriginal { num_vfs: pf.num_vfs(), autoprobe }, |held| held.original);
    let named = goal.adapters.get(&address).copied();
    let asks_for_vfs = matches!(named.flatten(), Some(VfCount::Exactly(1..) | VfCount::Max));
    // Out of service it gives no VFs, not even those that it was found with: these come back as it returns.
    let is_bare = ledger.is_out(address) && last_index.is_none() && !asks_for_vfs;
    let kept_empty = match named.flatten() {
        _ if is_bare => original.num_vfs > 0,
        // Asking for none is giving back, where there were none to begin with.
        Some(VfCount::Exactly(0) | VfCount::Spare(0)) => original.num_vfs > 0,
        named => named.is_some(),
    };
    let (after, count) = if last_index.is_some() || kept_empty {
        let wanted =
            if is_bare { None } else { named.unwrap_or(before.as_ref().and_then(|held| held.wanted)) };
        let identity = match &before {
            Some(held) => held.identity.clone(),
            None => Identity::of(pf, ledger.inventory),
        };
        let after = AdapterState { original, wanted, identity };
        let count = if is_bare { 0 } else { count(ledger, goal, pf, last_index.as_ref())? };
        (Some(after), count)
    } else {
        (None, if is_bare { 0 } else { original.num_vfs.min(pf.total_vfs()) })
    };
    let vfs = Change { from: pf.num_vfs(), to: count };
    let autoprobe_then = match (&after, pf.drivers_autoprobe) {
        // VFs must not fall to host drivers as they appear. Without the attribute there is nothing to set.
        (Some(_), Some(_)) if vfs.is_needed() && vfs.to > 0 => false,
        (None, Some(_)) => original.autoprobe,
        (Some(_), Some(_)) if is_bare => original.autoprobe,
        _ => autoprobe,
    };
    let autoprobe = Change { from: autoprobe, to: autoprobe_then };
    let guards = [compat::management_nic(ledger, pf), compat::disruption(ledger, pf, vfs.to)];
    let mut reasons: Vec<_> = guards.into_iter().flatten().collect();
    if vfs.to > 0 {
        reasons.extend(compat::making(ledger, pf).into_iter().next());
    }
    if vfs.is_needed() && !reasons.is_empty() {
        return Err(reasons);
    }
    // VFs that were made without drivers, where autoprobe gave them some before, get those back by being made again; but
    // that is not worth a disturbance.
    let lack_drivers =
        after.is_none() && autoprobe.is_needed() && autoprobe.to && !vfs.is_needed() && vfs.from > 0;
    let renews = lack_drivers && reasons.is_empty() && !ledger.has_losers(pf);
    Ok(AdapterChange { pf: address, before, after, vfs, renews, autoprobe })
}

/// The number of VFs an adapter is to give: what the Spec at hand says; or else, where there are too few, what was asked
/// for earlier or as many as are assigned. It does not shrink by itself, nor grow for partitions that nothing is asked
/// of: taking a VF back must not fail because another partition's can't be made again.
fn count(
    ledger: &Ledger<'_>,
    goal: &Goal,
    pf: &PhysicalFunction,
    last: Option<&(VfId, Owner)>,
) -> Result<u16, Vec<Reason>> {
    let needed = last.map_or(0, |(vf, _)| vf.index.saturating_add(1));
    let concerned =
        ledger.holders_on(pf.address).into_iter().filter(|(_, owner)| goal.concerns(&owner.partition));
    let needed_now = concerned.map(|(vf, _)| vf.index.saturating_add(1)).max().unwrap_or(0);
    let asked = ledger.count_asked(pf.address);
    if let (Some(asked), Some((vf, owner))) =
        (asked.filter(|asked| *asked < needed && ledger.is_named(pf.address)), last)
    {
        let found = format!("{owner} has VF {}", vf.index);
        let reason = Reason::new(Rule::VfIndex, format!("no VF beyond the {asked} asked for in use"), found);
        let remedy = format!("ask for at least {needed}, or take that VF from {}", owner.partition);
        return Err(vec![reason.on(pf.address).for_request(owner).remedy(remedy)]);
    }
    let spare = ledger.spare(pf.address);
    let most = checks::most_vfs(pf);
    let with_spare = needed.saturating_add(spare.unwrap_or(0)).min(most);
    // Some to spare are wished for now, and nobody is disturbed for a wish.
    let spare_now = spare.is_some() && goal.adapters.contains_key(&pf.address);
    let count = match asked {
        Some(asked) if ledger.is_named(pf.address) => asked,
        _ if needed_now <= pf.num_vfs() && (!spare_now || ledger.has_losers(pf)) => pf.num_vfs(),
        asked => asked.unwrap_or(with_spare).max(needed),
    };
    Ok(if count > 0 && checks::makes_all_or_none(pf) { most } else { count })
}

/// Who loses a VF for a while as an adapter's number of VFs changes.
pub(crate) fn disturbances(ledger: &Ledger<'_>, change: &AdapterChange) -> Vec<Disturbance> {
    let Change { from, to } = change.vfs;
    let pf = ledger.inventory.physical_function(change.pf).filter(|_| from != to && from > 0);
    let why = format!("while the number of VFs of {} goes from {from} through 0 to {to}", change.pf);
    pf.map(|pf| ledger.losers(pf)).into_iter().flatten().map(|loser| loser.disturbance(&why)).collect()
}
