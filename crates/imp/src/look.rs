//! Looking at the host: what the fabric finds, with what the state knows added, and a generation that counts changes.

use std::collections::BTreeMap;

use ioward_model::{Holder, Inventory, Reason, State, VfId, VfSettings, checks};
use ioward_pci::Bdf;

/// Adds owners to what was found, counts what is assigned and available, and gives the result a generation: that of
/// `last` where nothing that matters to a plan has changed since, the next one otherwise. Of an adapter that is to be kept off,
/// nothing is left but who it is, and the reason: it is as one that can't be read.
pub(crate) fn complete(
    mut found: Inventory,
    state: &State,
    quarantined: &BTreeMap<Bdf, Reason>,
    last: Option<&Inventory>,
) -> Inventory {
    for pf in &mut found.physical_functions {
        let address = pf.address;
        for vf in &mut pf.virtual_functions {
            vf.owner = state.owner(VfId { pf: address, index: vf.index });
            // The process that has it open is the partition's own.
            let is_own = matches!(vf.holder, Some(Holder::Process(_) | Holder::Nobody));
            vf.holder = vf.holder.take().filter(|_| vf.owner.is_none() || !is_own);
        }
    }
    checks::note_available(&mut found);
    for pf in &mut found.physical_functions {
        let address = pf.address;
        let assigned = state.assignments().filter(|(_, assignment)| assignment.vf.pf == address).count();
        pf.vfs_assigned = u16::try_from(assigned).unwrap_or(u16::MAX);
        pf.vfs_available = pf.vfs_available.saturating_sub(pf.vfs_assigned);
        if let Some(reason) = quarantined.get(&address) {
            (pf.vfs_assigned, pf.vfs_available) = (0, 0);
            pf.sriov = None;
            pf.virtual_functions.clear();
            pf.reasons.insert(0, reason.clone());
        }
    }
    found.generation = match last {
        None => 1,
        Some(last) if fixed_part(last) == fixed_part(&found) => last.generation,
        Some(last) => last.generation + 1,
    };
    found
}

/// An inventory without what comes and goes by itself: links, and settings that guests may change. A plan made before
/// a cable was plugged is not stale for that; whether it is still the right plan is found by planning again.
fn fixed_part(inventory: &Inventory) -> Inventory {
    let mut fixed = inventory.clone();
    fixed.generation = 0;
    for pf in &mut fixed.physical_functions {
        pf.link = None;
        pf.nvme = None;
        for netdev in &mut pf.netdevs {
            netdev.speed_mbps = None;
            netdev.carrier = None;
            netdev.up = false;
            netdev.mtu = None;
        }
        for vf in &mut pf.virtual_functions {
            vf.settings = VfSettings::default();
        }
    }
    fixed
}
