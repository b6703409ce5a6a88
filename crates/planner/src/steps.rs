//! The order of steps. Whatever has to go comes first, then the adapters change, then what is new is built up, and
//! partitions start last.
//!
//! Each step can be undone from where the one before it left off, so that the inverses in reverse lead back from any
//! point. That is why a VF that is lost and made again is unconfigured and unbound before it goes: undoing those steps
//! configures and binds it again.

use std::collections::BTreeSet;

use ioward_model::{Assignment, Name, Owner, Step, VfId, VirtualFunction};
use ioward_pci::Bdf;

use crate::{
    adapters::AdapterChange, drivers::VFIO, evacuate::Evacuation, goal::Goal, ledger::Ledger,
    placement::Holding, standbys::Standbys,
};

/// All steps, in order.
pub(crate) fn order<'a>(
    ledger: &Ledger<'a>,
    goal: &Goal,
    mut holdings: Vec<Holding<'a>>,
    changes: &[AdapterChange],
) -> Vec<Step> {
    let resized: BTreeSet<Bdf> =
        changes.iter().filter(|change| change.vfs.is_needed()).map(|change| change.pf).collect();
    holdings.extend(bystanders(ledger, goal, &resized));
    holdings.sort_by(|a, b| a.owner.cmp(&b.owner));
    let remade = |holding: &&Holding<'_>| {
        let partition = &holding.owner.partition;
        let sound =
            || ledger.existing(holding.vf).is_some_and(|vf| ledger.is_ready(partition, holding.vf, vf));
        holding.before.is_some() && (resized.contains(&holding.vf.pf) || !sound())
    };
    let remade: BTreeSet<VfId> = holdings.iter().filter(remade).map(|holding| holding.vf).collect();

    let mut steps = Vec::new();
    // From the first step on, nothing else gives a VF of it away.
    if let Some(Evacuation { pf, note: Some(to) }) = &goal.evacuation {
        steps.push(Step::TakeOutOfService { pf: *pf, to: to.clone() });
    }
    if let Some((pf, from)) = &goal.returns {
        steps.push(Step::ReturnToService { pf: *pf, from: from.clone() });
    }
    let force = ledger.options.force;
    steps.extend(
        goal.stop.iter().map(|partition| Step::StopPartition { partition: partition.clone(), force }),
    );
    let stays = Stays::of(&holdings);
    let standbys = Standbys::of(ledger, goal, &holdings);
    for name in goal.concerned() {
        release(ledger, goal, name, &stays, &standbys, &mut steps);
    }
    for holding in holdings.iter().filter(|holding| remade.contains(&holding.vf)) {
        suspend(ledger, holding, &standbys, &mut steps);
    }
    for change in changes {
        adapter(change, &mut steps);
    }
    for partition in &goal.partitions {
        let from = ledger.state.partitions.get(&partition.spec.name).map(|present| present.spec.clone());
        if from.as_ref() != Some(&partition.spec) {
            steps.push(Step::DefinePartition { to: partition.spec.clone(), from });
        }
    }
    for holding in &holdings {
        let is_made = resized.contains(&holding.vf.pf);
        prepare(ledger, holding, &standbys, remade.contains(&holding.vf), is_made, &mut steps);
    }
    attach(ledger, goal, &holdings, &remade, &standbys, &mut steps);
    let starts = goal.partitions.iter().filter(|partition| partition.start);
    steps.extend(starts.map(|partition| Step::StartPartition { partition: partition.spec.name.clone() }));
    steps
}

/// VFs of partitions that nothing is asked of, on adapters whose VFs all go and come back.
fn bystanders<'a>(ledger: &Ledger<'a>, goal: &Goal, resized: &BTreeSet<Bdf>) -> Vec<Holding<'a>> {
    if resized.is_empty() {
        return Vec::new();
    }
    let others = ledger.state.partitions.iter().filter(|(name, _)| !goal.concerns(name));
    let held =
        others.flat_map(|(name, partition)| partition.vfs.iter().map(move |(vf, held)| (name, vf, held)));
    let on_resized = held.filter(|(_, _, held)| resized.contains(&held.vf.pf));
    on_resized
        .map(|(partition, vf, held)| Holding {
            owner: Owner { partition: partition.clone(), vf: vf.clone() },
            vf: held.vf,
            before: Some(held),
            settings: held.settings.clone(),
        })
        .collect()
}

/// VFs and partitions that do not go.
struct Stays<'a> {
    /// VFs that stay with their owners.
    vfs: BTreeSet<VfId>,
    /// Partitions that hold some VF then.
    partitions: BTreeSet<&'a Name>,
}

impl<'a> Stays<'a> {
    fn of(holdings: &'a [Holding<'_>]) -> Self {
        let kept = holdings.iter().filter(|holding| holding.before.is_some());
        Self {
            vfs: kept.map(|holding| holding.vf).collect(),
            partitions: holdings.iter().map(|holding| &holding.owner.partition).collect(),
        }
    }
}

/// Takes from a partition what it does not hold any more, and leaves those VFs as they were found.
fn release(
    ledger: &Ledger<'_>,
    goal: &Goal,
    name: &Name,
    stays: &Stays<'_>,
    standbys: &Standbys,
    steps: &mut Vec<Step>,
) {
    let Some(partition) = ledger.state.partitions.get(name) else { return };
    let goes: Vec<_> = partition.vfs.iter().filter(|(_, held)| !stays.vfs.contains(&held.vf)).collect();
    let owner = |vf: &Name| Owner { partition: name.clone(), vf: vf.clone() };
    let goes_now = |vf: &Name, held: &Assignment| {
        held.attached && (!stays.vfs.contains(&held.vf) || standbys.changes(&owner(vf)))
    };
    for (vf, held) in partition.vfs.iter().filter(|(vf, held)| goes_now(vf, held)) {
        steps.push(Step::DetachVf { owner: owner(vf), vf: held.vf, force: ledger.options.force });
    }
    for (vf, nic) in partition.standbys.iter().filter(|(vf, _)| standbys.changes(&owner(vf))) {
        steps.push(Step::DetachStandby { owner: owner(vf), nic: nic.clone() });
    }
    if partition.channel && !stays.partitions.contains(name) {
        steps.push(Step::DestroyChannel { partition: name.clone() });
    }
    for (vf, held) in goes {
        clean(ledger, name, held, steps);
        let from = Assignment { attached: false, attached_in_doubt: false, ..held.clone() };
        steps.push(Step::Unassign { owner: owner(vf), from });
    }
    if goal.remove.as_ref() == Some(name) {
        steps.push(Step::UndefinePartition { from: partition.spec.clone() });
    }
}

/// Puts a VF back to what it was, unless it was lost meanwhile.
fn clean(ledger: &Ledger<'_>, name: &Name, held: &Assignment, steps: &mut Vec<Step>) {
    let vf = held.vf;
    let Some(present) = ledger.existing(vf).filter(|present| !is_lost(ledger, name, held, present)) else {
        return;
    };
    // A driver of the host's does not see that its device is reset.
    let is_taken_off =
        !ledger.kind(name).uses_vfio() && held.original_driver.is_some() && present.driver.is_some();
    if is_taken_off {
        steps.push(Step::BindDriver { vf, to: None });
    }
    steps.push(Step::ResetVf { vf });
    if !held.original_settings.is_empty() {
        steps.push(Step::ConfigureVf { vf, to: held.original_settings.clone() });
    }
    match &held.original_driver {
        Some(None) if is_taken_off => {}
        Some(driver) => steps.push(Step::BindDriver { vf, to: driver.clone() }),
        // Somebody has bound it while it was a partition's.
        None if present.driver.as_deref() == Some(VFIO) => steps.push(Step::BindDriver { vf, to: None }),
        None => {}
    }
}

/// Whether nothing is left on a VF of what was set for its partition: it was made again and bound by somebody else, or its
/// way back was interrupted. One difference is none: guests have ways of their own, and some settings are not told. But no
/// guest takes its NVMe controller offline; it goes there with its VF, and keeps all else.
pub(crate) fn is_bare(held: &Assignment, present: &VirtualFunction) -> bool {
    // While its standby is active, whoever reconciles sees to it.
    if held.is_unplugged() {
        return false;
    }
    let noted = held.effective_settings();
    if noted.online == Some(true) && present.settings.online == Some(false) {
        return true;
    }
    let asked = noted.missing_from(&held.original_settings);
    let is_told = !asked.restored_from(&present.settings).is_empty();
    is_told && asked.missing_from(&present.settings) == asked
}

/// Whether a VF was lost, and perhaps made again by somebody else, whose it is then. One that has no driver but still
/// has something that was set for its partition, or has been taken from it, is not lost: its way back was interrupted. One on the driver
/// by which a namespace has it may be the host's by now.
fn is_lost(ledger: &Ledger<'_>, name: &Name, held: &Assignment, present: &VirtualFunction) -> bool {
    let is_ready = ledger.is_ready(name, held.vf, present);
    if is_ready && !ledger.kind(name).uses_vfio() {
        return present.foreign_use().is_some();
    }
    let asked = held.settings_now(false).missing_from(&held.original_settings);
    let carries_ours = !held.attached || asked.missing_from(&present.settings) != asked;
    held.original_driver.is_some() && !is_ready && !(present.driver.is_none() && carries_ours)
}

/// Takes a VF that is about to be lost, or is lost already, out of its partition for a while.
fn suspend(ledger: &Ledger<'_>, holding: &Holding<'_>, standbys: &Standbys, steps: &mut Vec<Step>) {
    let Some(held) = holding.before else { return };
    let (name, vf) = (&holding.owner.partition, holding.vf);
    if held.attached && !standbys.changes(&holding.owner) {
        steps.push(Step::DetachVf { owner: holding.owner.clone(), vf, force: ledger.options.force });
    }
    let Some(present) = ledger.existing(vf).filter(|present| !is_lost(ledger, name, held, present)) else {
        return;
    };
    if !held.original_settings.is_empty() {
        steps.push(Step::ConfigureVf { vf, to: held.original_settings.clone() });
    }
    if ledger.is_ready(name, vf, present) {
        steps.push(Step::BindDriver { vf, to: None });
    }
}

/// Autoprobe changes while there are no VFs: those that go come back, if this is undone, as they first came.
fn adapter(change: &AdapterChange, steps: &mut Vec<Step>) {
    let pf = change.pf;
    if let Some(to) = &change.after
        && change.before.as_ref() != Some(to)
    {
        steps.push(Step::HoldAdapter { pf, to: to.clone(), from: change.before.clone() });
    }
    let (vfs, autoprobe) = (change.vfs, change.autoprobe);
    let goes_through_zero = vfs.is_needed() || change.renews;
    if goes_through_zero && vfs.from > 0 {
        steps.push(Step::SetVfCount { pf, to: 0, from: vfs.from });
    }
    if autoprobe.is_needed() {
        steps.push(Step::SetAutoprobe { pf, to: autoprobe.to, from: autoprobe.from });
    }
    if goes_through_zero && vfs.to > 0 {
        steps.push(Step::SetVfCount { pf, to: vfs.to, from: 0 });
    }
    if let (Some(from), None) = (&change.before, &change.after) {
        steps.push(Step::ReleaseAdapter { pf, from: from.clone() });
    }
}

/// Makes a VF ready for its partition: settings first, so that they are there when the guest sees it, or its driver on the host.
/// `is_made`: it is one that this plan has the kernel make.
fn prepare(
    ledger: &Ledger<'_>,
    holding: &Holding<'_>,
    standbys: &Standbys,
    is_remade: bool,
    is_made: bool,
    steps: &mut Vec<Step>,
) {
    let vf = holding.vf;
    let driver = ledger.driver(&holding.owner.partition, vf);
    if holding.before.is_none() {
        steps.push(Step::Assign { owner: holding.owner.clone(), to: Assignment::new(vf) });
    }
    let kept = holding.before.filter(|_| !is_remade);
    let is_bare = |held| ledger.existing(vf).is_some_and(|present| is_bare(held, present));
    let mut to = match holding.before {
        None => holding.settings.clone(),
        // The changes of the guest are dropped with the old VF.
        Some(held) if is_remade || is_bare(held) => holding.settings.or(&held.original_settings),
        Some(held) => holding.settings.missing_from(&held.settings),
    };
    if is_away(holding) {
        // It has its MAC once it comes back, or the standby is another one.
        to.mac = holding.settings.mac.filter(|_| standbys.changes(&holding.owner));
    }
    if to.queues.is_some() || to.interrupts.is_some() {
        // A secondary controller is offline while its resources change.
        to.online = Some(true);
    }
    let present = ledger.existing(vf).filter(|_| !is_made && kept.is_none());
    if present.is_some_and(|present| present.driver.is_some() && present.driver.as_deref() == driver) {
        // Its driver reads the settings when it is bound.
        steps.push(Step::BindDriver { vf, to: None });
    }
    if !to.is_empty() {
        steps.push(Step::ConfigureVf { vf, to });
    }
    let to = driver.map(str::to_owned);
    if kept.is_none() && to.is_some() {
        steps.push(Step::BindDriver { vf, to });
    }
}

/// Gives VFs to their partitions, through a channel that is there before the first of them.
fn attach(
    ledger: &Ledger<'_>,
    goal: &Goal,
    holdings: &[Holding<'_>],
    remade: &BTreeSet<VfId>,
    standbys: &Standbys,
    steps: &mut Vec<Step>,
) {
    let is_given = |holding: &Holding<'_>| {
        let changes = standbys.changes(&holding.owner);
        let lacks = !holding.before.is_some_and(|held| held.attached && !held.attached_in_doubt);
        changes || !is_away(holding) && (lacks || remade.contains(&holding.vf))
    };
    let get_one: BTreeSet<&Name> =
        holdings.iter().filter(|holding| is_given(holding)).map(|holding| &holding.owner.partition).collect();
    let mut with_channel: BTreeSet<&Name> = BTreeSet::new();
    for holding in holdings {
        let (owner, vf) = (holding.owner.clone(), holding.vf);
        let name = &holding.owner.partition;
        if with_channel.insert(name) {
            let gets_one = get_one.contains(name);
            let present = ledger.state.partitions.get(name);
            let lacks_it = present.is_none_or(|present| !present.channel);
            let may_lack_it = present.is_some_and(|present| present.channel_in_doubt);
            if may_lack_it || lacks_it && (gets_one || is_reworded(ledger, goal, name)) {
                steps.push(Step::CreateChannel { partition: name.clone() });
            }
        }
        if let Some(nic) = standbys.coming(&owner) {
            steps.push(Step::AttachStandby { owner: owner.clone(), nic: nic.clone() });
        }
        if let Some(from) =
            holding.before.filter(|_| is_away(holding)).and_then(|held| held.failed_over.clone())
            && standbys.changes(&owner)
        {
            steps.push(Step::SwitchOver { owner: owner.clone(), to: None, from: Some(from) });
        }
        if is_given(holding) {
            steps.push(Step::AttachVf { owner, vf });
        }
    }
}

/// Whether a VF is out of its machine as long as its standby is active.
fn is_away(holding: &Holding<'_>) -> bool {
    holding.before.is_some_and(Assignment::is_unplugged)
}

/// Whether more is asked for a partition than before. A domain that was taken over as it was gets no channel before that.
fn is_reworded(ledger: &Ledger<'_>, goal: &Goal, name: &Name) -> bool {
    let before = ledger.state.partitions.get(name).map(|present| &present.spec);
    let mut wanted = goal.partitions.iter().map(|partition| &partition.spec);
    goal.detach.is_none() && wanted.any(|spec| spec.name == *name && before != Some(spec))
}
