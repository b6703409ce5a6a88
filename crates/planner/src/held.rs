//! VFs that are held now, indexed once: a plan is often about one partition of thousands, and this index is its cost.

use std::ops::Range;

use ioward_model::{Assignment, BitRate, MacAddress, Name, Owner, State, VfId, VfRef};
use ioward_pci::Bdf;

use crate::goal::Goal;

/// A VF that is somebody's now.
pub(crate) struct Held<'a> {
    pub vf: VfId,
    pub partition: &'a Name,
    pub name: &'a Name,
    pub noted: &'a Assignment,
    /// Whether nothing is decided about its partition.
    pub stays: bool,
}

impl Held<'_> {
    /// Whose it is.
    pub fn owner(&self) -> Owner {
        Owner { partition: self.partition.clone(), vf: self.name.clone() }
    }

    /// Flexible NVMe queue and interrupt resources that it has.
    pub fn nvme(&self) -> Option<(u16, u16)> {
        let (guest, plan) = (&self.noted.guest_settings, &self.noted.settings);
        guest.queues.or(plan.queues).zip(guest.interrupts.or(plan.interrupts))
    }

    /// Bandwidth that it is guaranteed, Mbit/s.
    pub fn guaranteed(&self) -> u32 {
        let (guest, plan) = (&self.noted.guest_settings, &self.noted.settings);
        guest.min_tx_rate.or(plan.min_tx_rate).map_or(0, BitRate::megabits)
    }
}

/// An index of all that is held, for one plan.
#[derive(Default)]
pub(crate) struct Survey<'a> {
    /// By VF.
    held: Vec<Held<'a>>,
    /// MAC addresses that VFs have or are to have about which nothing is decided; sorted.
    macs: Vec<MacAddress>,
    /// Partitions about which nothing is decided, and which ask to be apart from one that something is decided about.
    pub tied: Vec<&'a Name>,
}

impl<'a> Survey<'a> {
    pub(crate) fn of(state: &'a State, goal: &Goal) -> Self {
        let mut survey = Self::default();
        for (name, partition) in &state.partitions {
            let stays = !goal.concerns(name);
            let mut unset = false;
            for (vf, noted) in &partition.vfs {
                survey.held.push(Held { vf: noted.vf, partition: name, name: vf, noted, stays });
                if stays {
                    let macs = [noted.settings.mac, noted.guest_settings.mac];
                    survey.macs.extend(macs.into_iter().flatten());
                    unset |= noted.settings.mac.is_none();
                }
            }
            if !stays {
                continue;
            }
            if unset || partition.vfs.len() != partition.spec.vfs.len() {
                survey.macs.extend(partition.spec.vfs.iter().filter_map(|request| request.mac));
            }
            let mut apart = partition.spec.vfs.iter().flat_map(ioward_model::VfRequest::aparts);
            if apart.any(|apart| matches!(&apart.vf, VfRef::Of(other) if goal.concerns(&other.partition))) {
                survey.tied.push(name);
            }
        }
        survey.held.sort_unstable_by_key(|held| held.vf);
        survey.macs.sort_unstable();
        survey
    }

    /// The present holder of a VF.
    pub(crate) fn holder(&self, vf: VfId) -> Option<&Held<'a>> {
        self.held.binary_search_by_key(&vf, |held| held.vf).ok().map(|at| &self.held[at])
    }

    /// All VFs of a PF that stay with their owners, by index.
    pub(crate) fn staying_on(&self, pf: Bdf) -> impl Iterator<Item = &Held<'a>> {
        self.held[self.range(pf)].iter().filter(|held| held.stays)
    }

    /// Whether a VF about which nothing is decided has this address.
    pub(crate) fn has_mac(&self, mac: MacAddress) -> bool {
        self.macs.binary_search(&mac).is_ok()
    }

    fn range(&self, pf: Bdf) -> Range<usize> {
        let begin = self.held.partition_point(|held| held.vf.pf < pf);
        let end = self.held.partition_point(|held| held.vf.pf <= pf);
        begin..end
    }
}
