//! Chooses a VF for every request of the goal.
//!
//! What a partition has and still fits stays with it. Then come requests pinned to one VF, those pinned to a PF, and the
//! rest, the fastest link wanted first: requests with fewer functions to choose from choose before the others, so that
//! a request goes without only when there really is nothing for it. Of the VFs that suit, one that is there already comes before one
//! that has to be made, a PF that the host does not use before one that it does, then the lowest address, then the
//! lowest index.

use std::cmp::Reverse;

use ioward_model::{Assignment, Class, Owner, PhysicalFunction, Reason, Rule, VfId, VfRequest, VfSettings};

use crate::{
    compat,
    goal::{Goal, PartitionGoal},
    ledger::Ledger,
};

/// A VF that a partition holds once the plan is carried out.
pub(crate) struct Holding<'a> {
    /// Whose it is.
    pub owner: Owner,
    /// Which it is.
    pub vf: VfId,
    /// What is noted of it now; `None`: it is new to its owner.
    pub before: Option<&'a Assignment>,
    /// All settings it is to have.
    pub settings: VfSettings,
}

/// A VF for every request, in no particular order.
///
/// # Errors
/// Why some get none.
pub(crate) fn place<'a>(ledger: &mut Ledger<'a>, goal: &Goal) -> Result<Vec<Holding<'a>>, Vec<Reason>> {
    let mut reasons = Vec::new();
    let (mut stay, mut open) = (Vec::new(), Vec::new());
    for partition in &goal.partitions {
        for request in &partition.spec.vfs {
            let owner = partition.owner(&request.name);
            reasons.extend(ledger.macs.conflict(&owner, request).map(|reason| reason.for_request(&owner)));
            match kept(ledger, partition, request) {
                Some((pf, before)) => stay.push((owner, request, pf, before)),
                None => open.push((owner, request)),
            }
        }
    }
    // All that stays is noted before anything is decided that depends on what is left.
    for (owner, _, _, before) in &stay {
        ledger.hold(owner, before.vf, &before.effective_settings());
        if let Some(mac) = chosen_before(ledger, owner, before).mac {
            ledger.macs.take(mac, owner);
        }
    }
    let mut holdings = Vec::new();
    for (owner, request, pf, before) in stay {
        let settings = settings_kept(ledger, &owner, request, before);
        let change = settings.missing_from(&before.settings);
        let why = compat::of_kept(ledger, pf, before.vf, &owner, request, &change);
        reasons.extend(why.into_iter().map(|reason| reason.for_request(&owner)));
        ledger.hold(&owner, before.vf, &settings);
        holdings.push(Holding { owner, vf: before.vf, before: Some(before), settings });
    }
    let wanted_speed =
        |request: &VfRequest| request.min_link_speed.map_or(0, ioward_model::BitRate::megabits);
    open.sort_by_key(|(_, request)| {
        (request.index.is_none(), request.pf.is_none(), Reverse(wanted_speed(request)))
    });
    for (owner, request) in open {
        match choose(ledger, &owner, request) {
            Ok(vf) => {
                let settings = settings_new(ledger, &owner, request, vf);
                ledger.hold(&owner, vf, &settings);
                holdings.push(Holding { owner, vf, before: None, settings });
            }
            Err(why) => reasons.extend(why.into_iter().map(|reason| reason.for_request(&owner))),
        }
    }
    if reasons.is_empty() { Ok(holdings) } else { Err(reasons) }
}

/// What the partition has for this request, when it still fits. What the host does by itself (a link that goes down)
/// takes no VF away from a partition: only a changed request does, or an adapter that is gone.
fn kept<'a>(
    ledger: &Ledger<'a>,
    partition: &PartitionGoal,
    request: &VfRequest,
) -> Option<(&'a PhysicalFunction, &'a Assignment)> {
    let present = ledger.state.partitions.get(&partition.spec.name)?;
    let assignment = present.vfs.get(&request.name)?;
    let pf = ledger.inventory.physical_function(assignment.vf.pf)?;
    let speed_wanted_before = present.spec.vf(&request.name).and_then(|before| before.min_link_speed);
    let fits = request.pf.is_none_or(|pf| pf == assignment.vf.pf)
        && request.index.is_none_or(|index| index == assignment.vf.index)
        && pf.class == request.class
        && pf.sriov.as_ref().is_none_or(|sriov| assignment.vf.index < sriov.total_vfs)
        && (speed_wanted_before == request.min_link_speed || compat::link_speed(pf, request).is_none());
    fits.then_some((pf, assignment))
}

fn choose(ledger: &Ledger<'_>, owner: &Owner, request: &VfRequest) -> Result<VfId, Vec<Reason>> {
    let Some(address) = request.pf else { return choose_anywhere(ledger, owner, request) };
    let Some(pf) = ledger.inventory.physical_function(address) else {
        return Err(vec![no_such_pf(ledger, address)]);
    };
    let mut reasons = compat::of_adapter(ledger, pf, request);
    let Some(index) = request.index else {
        return first_free(ledger, pf, owner, request)
            .map_err(|reason| if reasons.is_empty() { vec![reason] } else { reasons });
    };
    reasons.extend(compat::of_function(ledger, pf, index, owner, request));
    if reasons.is_empty() { Ok(VfId { pf: address, index }) } else { Err(reasons) }
}

fn choose_anywhere(ledger: &Ledger<'_>, owner: &Owner, request: &VfRequest) -> Result<VfId, Vec<Reason>> {
    let mut best = None;
    let mut reasons = Vec::new();
    for pf in &ledger.inventory.physical_functions {
        match first_free(ledger, pf, owner, request) {
            Ok(vf) => {
                let key = preference(ledger, pf, vf.index);
                best = best.filter(|(known, _)| *known <= key).or(Some((key, vf)));
            }
            Err(reason) => reasons.push(reason),
        }
    }
    if let Some((_, vf)) = best {
        return Ok(vf);
    }
    // An adapter of another class is no news where there are some of the right one.
    reasons.retain(|reason| reason.rule != Rule::Class);
    if reasons.is_empty() {
        let class = request.class;
        reasons.push(Reason::new(
            Rule::FunctionExists,
            format!("an SR-IOV adapter of class {class}"),
            "this host has none",
        ));
    }
    Err(reasons)
}

/// The lower, the better.
pub(crate) fn preference(ledger: &Ledger<'_>, pf: &PhysicalFunction, index: u16) -> impl Ord + Copy + use<> {
    let grows = ledger.would_grow(pf, index);
    let disturbs = grows && pf.num_vfs() > 0 && !ledger.losers(pf).is_empty();
    (disturbs, grows, !pf.in_use_by_host.is_empty(), pf.address, index)
}

/// The lowest VF of a PF that suits, or in one reason why there is none.
fn first_free(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    owner: &Owner,
    request: &VfRequest,
) -> Result<VfId, Reason> {
    if let Some(reason) = compat::of_adapter(ledger, pf, request).into_iter().next() {
        return Err(reason);
    }
    let mut telling = None;
    let held = |index| ledger.holder(VfId { pf: pf.address, index }).is_some();
    for index in (0..ledger.limit(pf)).filter(|index| !held(*index)) {
        let reasons = compat::of_function(ledger, pf, index, owner, request);
        if reasons.is_empty() {
            return Ok(VfId { pf: pf.address, index });
        }
        telling = telling.or_else(|| reasons.into_iter().find(|reason| reason.rule != Rule::VfFree));
    }
    Err(telling.unwrap_or_else(|| exhausted(ledger, pf)))
}

fn exhausted(ledger: &Ledger<'_>, pf: &PhysicalFunction) -> Reason {
    let limit = ledger.limit(pf);
    let held = ledger.holders_on(pf.address).count();
    let total = pf.total_vfs();
    let found = format!("{held} of {limit} VFs are held by partitions, the rest is used otherwise");
    let found = if held == usize::from(limit) { format!("all {limit} VFs are held") } else { found };
    let reason = Reason::new(Rule::VfCapacity, "a VF that nobody has", found).on(pf.address);
    if limit < total {
        reason.remedy(format!(
            "ask for more, up to {total}: [[adapter]] pf = \"{}\", vfs = \"max\"",
            pf.address
        ))
    } else {
        reason.remedy("use another adapter, or give a VF back")
    }
}

/// Why there is no PF at an address.
pub(crate) fn no_such_pf(ledger: &Ledger<'_>, address: ioward_pci::Bdf) -> Reason {
    let reason = match ledger.inventory.virtual_function(address) {
        Some((pf, vf)) => {
            let found = format!("VF {} of {}", vf.index, pf.address);
            Reason::new(Rule::IsPhysicalFunction, "an SR-IOV physical function", found)
                .remedy(format!("name its PF: pf = \"{}\", index = {}", pf.address, vf.index))
        }
        None => {
            Reason::new(Rule::FunctionExists, "an SR-IOV physical function", "there is none at this address")
                .remedy("`ioward host` shows those there are")
        }
    };
    reason.on(address)
}

/// All settings of a VF that is new to its owner: those it asks for, and those it needs in order to work.
fn settings_new(ledger: &mut Ledger<'_>, owner: &Owner, request: &VfRequest, vf: VfId) -> VfSettings {
    let mut settings = request.settings();
    let Some(pf) = ledger.inventory.physical_function(vf.pf) else { return settings };
    match pf.class {
        Class::Network => settings.mac = settings.mac.or_else(|| Some(ledger.macs.derive(owner, pf))),
        Class::Nvme => {
            let (queues, interrupts) = nvme_share(ledger, pf, vf.index);
            settings.queues = settings.queues.or(queues);
            settings.interrupts = settings.interrupts.or(interrupts);
            settings.online = Some(true);
        }
        Class::Display | Class::Accelerator | Class::Other => {}
    }
    settings
}

/// All settings of a VF that stays: those asked for now, those ioward chose before, and for what is asked for no longer
/// what was there before ioward came.
fn settings_kept(
    ledger: &mut Ledger<'_>,
    owner: &Owner,
    request: &VfRequest,
    before: &Assignment,
) -> VfSettings {
    let chosen = chosen_before(ledger, owner, before);
    let request = VfRequest {
        mac: request.mac.or(chosen.mac),
        queues: request.queues.or(chosen.queues),
        interrupts: request.interrupts.or(chosen.interrupts),
        ..request.clone()
    };
    let no_longer_asked = before.settings.restored_from(&before.original_settings);
    settings_new(ledger, owner, &request, before.vf).or(&no_longer_asked)
}

/// The settings that ioward chose when nobody asked for them: they stay as they are for as long as nobody does.
fn chosen_before(ledger: &Ledger<'_>, owner: &Owner, before: &Assignment) -> VfSettings {
    let asked =
        ledger.state.partitions.get(&owner.partition).and_then(|partition| partition.spec.vf(&owner.vf));
    let asked = asked.map(VfRequest::settings).unwrap_or_default();
    VfSettings {
        mac: before.settings.mac.filter(|_| asked.mac.is_none()),
        queues: before.settings.queues.filter(|_| asked.queues.is_none()),
        interrupts: before.settings.interrupts.filter(|_| asked.interrupts.is_none()),
        ..VfSettings::default()
    }
}

/// An even share of the controller's flexible resources among the VFs it is to give; never more than it has left.
/// Where they are not known, the fewest that work; where there are none to give, nothing.
fn nvme_share(ledger: &Ledger<'_>, pf: &PhysicalFunction, index: u16) -> (Option<u16>, Option<u16>) {
    let Some(resources) = pf.nvme.as_ref().and_then(|nvme| nvme.resources) else {
        return (Some(compat::LEAST_QUEUES), Some(compat::LEAST_INTERRUPTS));
    };
    let vfs = u32::from(ledger.limit(pf).max(1));
    let (queues_left, interrupts_left) = ledger.nvme_left(pf, &resources, index);
    let share = |total: u32, most: u16, left: u16, least: u16| {
        let even = u16::try_from(total / vfs).unwrap_or(u16::MAX);
        (total > 0).then(|| even.max(least).min(most).min(left))
    };
    (
        share(resources.queues_total, resources.queues_max_per_vf, queues_left, compat::LEAST_QUEUES),
        share(
            resources.interrupts_total,
            resources.interrupts_max_per_vf,
            interrupts_left,
            compat::LEAST_INTERRUPTS,
        ),
    )
}
