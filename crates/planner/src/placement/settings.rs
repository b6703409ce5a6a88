//! Settings of the VFs of a placement: those asked for, those they need to work, and those chosen before.

use ioward_model::{Assignment, Class, Owner, PhysicalFunction, VfId, VfRequest, VfSettings};

use crate::{compat, ledger::Ledger};

/// All settings of a VF that is new to its owner: those it asks for, and those it needs in order to work.
///
/// `waiting` are requests that come after it and get a share of the same controller.
pub(super) fn new(
    ledger: &mut Ledger<'_>,
    owner: &Owner,
    request: &VfRequest,
    vf: VfId,
    waiting: u16,
) -> VfSettings {
    let mut settings = request.settings();
    let Some(pf) = ledger.pf(vf.pf) else { return settings };
    settings.min_tx_rate = request.min_tx_rate.and_then(|rate| rate.on_link(pf.speed_mbps()));
    match pf.class {
        Class::Network => {
            // A guest knows its VF by the MAC of the standby that it has already.
            let standby = ledger.standby(owner).map(|standby| standby.mac);
            settings.mac = settings.mac.or(standby).or_else(|| Some(ledger.derive_mac(owner, pf)));
        }
        Class::Nvme => {
            let (queues, interrupts) = nvme_share(ledger, pf, vf.index, waiting);
            settings.queues = settings.queues.or(queues);
            settings.interrupts = settings.interrupts.or(interrupts);
            settings.online = Some(true);
        }
        Class::Display | Class::Accelerator | Class::Other => {}
    }
    settings
}

/// All settings of a VF that takes the place of another, whose adapter is taken out of service: those asked for, and the MAC that
/// ioward chose before. Shares of a controller's resources are those of the new one.
pub(super) fn moved(
    ledger: &mut Ledger<'_>,
    owner: &Owner,
    request: &VfRequest,
    before: &Assignment,
    vf: VfId,
    waiting: u16,
) -> VfSettings {
    let chosen = chosen_before(ledger, owner, before);
    let request = VfRequest { mac: request.mac.or(chosen.mac), ..request.clone() };
    new(ledger, owner, &request, vf, waiting)
}

/// All settings of a VF that stays: those asked for now, those ioward chose before, and for what is asked for no longer
/// what was there before ioward came.
pub(super) fn kept(
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
    let mut settings = new(ledger, owner, &request, before.vf, 0);
    // A VF that was taken over without an address of its own keeps to that.
    settings.mac = settings.mac.filter(|_| request.mac.is_some());
    if request.min_tx_rate.is_some() {
        // A part of a port that has no link now stays what it was.
        settings.min_tx_rate = settings.min_tx_rate.or(before.settings.min_tx_rate);
    }
    settings.or(&no_longer_asked)
}

/// The settings that ioward chose when nobody asked for them: they stay as they are for as long as nobody does.
pub(super) fn chosen_before(ledger: &Ledger<'_>, owner: &Owner, before: &Assignment) -> VfSettings {
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
/// Those who wait get the fewest that work at least. Where they are not known, the fewest that work; where there are none to give, nothing.
fn nvme_share(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    index: u16,
    waiting: u16,
) -> (Option<u16>, Option<u16>) {
    let Some(resources) = pf.nvme.as_ref().and_then(|nvme| nvme.resources) else {
        return (Some(compat::LEAST_QUEUES), Some(compat::LEAST_INTERRUPTS));
    };
    let vfs = u32::from(ledger.limit(pf).max(1));
    let (queues_left, interrupts_left) = ledger.nvme_left(pf, &resources, index);
    let share = |total: u32, most: u16, left: u16, least: u16| {
        let even = u16::try_from(total / vfs).unwrap_or(u16::MAX);
        let left = left.saturating_sub(least.saturating_mul(waiting));
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
