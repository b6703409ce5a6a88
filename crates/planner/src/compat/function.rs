//! Rules on one VF, its PF's abilities aside: whether it can be had.

use ioward_model::{Holder, Owner, PhysicalFunction, Reason, Rule, VfId, checks};

use crate::{drivers::VFIO, ledger::Ledger};

pub(super) fn vf_index(ledger: &Ledger<'_>, pf: &PhysicalFunction, index: u16) -> Option<Reason> {
    let (total, most) = (pf.total_vfs(), checks::most_vfs(pf));
    if index >= total {
        let required = format!("an index below {total} (TotalVFs)");
        return Some(Reason::new(Rule::VfIndex, required, format!("index {index}")));
    }
    if index >= most {
        let required = format!("an index below {most}, for so many VFs have bus numbers below the port");
        let reason = Reason::new(Rule::VfIndex, required, format!("index {index}"));
        return Some(reason.remedy("turn on ARI and SR-IOV in the firmware, or boot with pci=assign-busses"));
    }
    let asked = ledger.count_asked(pf.address).filter(|asked| index >= *asked)?;
    let reason = Reason::new(
        Rule::VfIndex,
        format!("an index below {asked}, the number of VFs asked for"),
        format!("index {index}"),
    );
    Some(reason.remedy(format!(
        "ask for more: [[adapter]] pf = \"{}\", vfs = {}",
        pf.address,
        index.saturating_add(1)
    )))
}

pub(super) fn vf_free(ledger: &Ledger<'_>, pf: &PhysicalFunction, vf: VfId, owner: &Owner) -> Option<Reason> {
    let holder = ledger.holder(vf).filter(|holder| holder != owner).map(|holder| format!("{holder} has it"));
    let function = ledger.existing(vf);
    let foreign = || function.and_then(|function| ledger.foreign_use(pf, function));
    let is_orphan = holder.is_none()
        && function.is_some_and(|vf| vf.holder == Some(Holder::Nobody) && vf.driver.as_deref() == Some(VFIO));
    let reason = Reason::new(Rule::VfFree, "a VF that nobody has", holder.or_else(foreign)?);
    Some(if is_orphan { reason.remedy("ioward orphans --reap takes it back") } else { reason })
}

/// Who has it keeps it until it is taken away.
pub(super) fn in_service(ledger: &Ledger<'_>, vf: VfId, owner: &Owner) -> Option<Reason> {
    let (address, out) = ledger.state.vf_out_of_service(vf)?;
    let is_own = ledger.state.owner(vf).as_ref() == Some(owner);
    (!is_own).then(|| checks::vf_out_of_service(address, out))
}

pub(super) fn vf_readable(ledger: &Ledger<'_>, pf: &PhysicalFunction, vf: VfId) -> Option<Reason> {
    let missing = vf.index < pf.num_vfs() && ledger.existing(vf).is_none();
    missing.then(|| {
        Reason::new(
            Rule::Readable,
            "a VF that can be read",
            format!("{vf} is enabled, and could not be read"),
        )
    })
}

/// What a namespace has by a driver of the host's is kept apart by nothing else.
pub(super) fn iommu_group(ledger: &Ledger<'_>, vf: VfId, owner: &Owner) -> Option<Reason> {
    if !ledger.kind(&owner.partition).uses_vfio() {
        return None;
    }
    let function = ledger.existing(vf).filter(|function| !function.iommu_group_shared_with.is_empty())?;
    let with: Vec<_> = function.iommu_group_shared_with.iter().take(8).map(ToString::to_string).collect();
    let reason = Reason::new(
        Rule::IommuGroup,
        "an IOMMU group of its own",
        format!("it shares one with {}", with.join(", ")),
    );
    Some(reason.remedy("use a slot behind a port with ACS, or a VF of another adapter"))
}

/// A VF that is given back is reset, so that nothing of its partition is left on it.
pub(super) fn reset(ledger: &Ledger<'_>, vf: VfId) -> Option<Reason> {
    let function = ledger.existing(vf).filter(|function| function.flr == Some(false))?;
    let required = "a VF that can be reset by itself (FLR)";
    let reason =
        Reason::new(Rule::Capability, required, format!("{} can't (reset_method)", function.address));
    Some(reason.remedy("use a VF of another adapter, or echo flr >reset_method where the kernel takes it"))
}

/// A VF that is not there has to be made.
pub(super) fn to_be_made(ledger: &Ledger<'_>, pf: &PhysicalFunction, index: u16) -> Option<Reason> {
    let resized = ledger.is_named(pf.address) && ledger.limit(pf) != pf.num_vfs();
    let makes = index >= pf.num_vfs() || resized;
    super::making(ledger, pf).into_iter().next().filter(|_| makes)
}

/// More VFs than there are now, on a PF that gives some already, means that all of them go for a while.
pub(super) fn growth(ledger: &Ledger<'_>, pf: &PhysicalFunction, index: u16) -> Option<Reason> {
    if !ledger.would_grow(pf, index) {
        return None;
    }
    let wanted = index.saturating_add(ledger.unplaced.max(1)).min(checks::most_vfs(pf));
    let to = ledger.count_asked(pf.address).unwrap_or(wanted);
    disruption(ledger, pf, to).map(|reason| {
        reason.remedy(format!(
            "use a VF of another PF, or allow it with --allow-disruption; to avoid it next time, ask for VFs up front: \
             [[adapter]] pf = \"{}\", vfs = {to}",
            pf.address
        ))
    })
}

/// Partitions that run keep their VFs, unless a person allows otherwise. NumVFs changes through zero only.
pub(crate) fn disruption(ledger: &Ledger<'_>, pf: &PhysicalFunction, to: u16) -> Option<Reason> {
    let from = pf.num_vfs();
    if ledger.options.allow_disruption || from == 0 || from == to {
        return None;
    }
    let losers = ledger.losers(pf);
    let named: Vec<_> = losers
        .iter()
        .take(8)
        .map(|loser| format!("{} loses {} ({})", loser.who, loser.what, loser.address))
        .collect();
    let more = if losers.len() > 8 { format!(" and {} more", losers.len() - 8) } else { String::new() };
    let found = format!("going from {from} to {to} VFs leads through 0: {}{more}", named.join(", "));
    let reason = Reason::new(Rule::Disruption, "that nothing that runs loses a VF", found).on(pf.address);
    (!losers.is_empty()).then(|| reason.remedy("allow it with --allow-disruption"))
}
