//! How a step is noted in the [`State`].

use std::collections::BTreeMap;

use super::{Outcome, Step, Subject};
#[cfg(doc)]
use crate::Policy;
use crate::{Assignment, FailedOver, Name, OutOfService, PartitionState, RowKey, State, VfId, VfSettings};

impl State {
    /// Notes that a step has been carried out. Noting it again changes nothing.
    pub fn record(&mut self, step: &Step, outcome: &Outcome) {
        match step {
            Step::HoldAdapter { pf, to, .. } => {
                self.adapters.insert(*pf, to.clone());
            }
            Step::ReleaseAdapter { pf, .. } => {
                self.adapters.remove(pf);
            }
            Step::TakeOutOfService { pf, to } => {
                let since_ms = if to.since_ms == 0 { outcome.at_ms.unwrap_or(0) } else { to.since_ms };
                self.out_of_service.insert(*pf, OutOfService { since_ms, ..to.clone() });
            }
            Step::ReturnToService { pf, .. } => {
                self.out_of_service.remove(pf);
            }
            Step::SetAutoprobe { .. } | Step::SetVfCount { .. } | Step::ResetVf { .. } => {}
            Step::Assign { owner, to } => {
                if let Some(partition) = self.partitions.get_mut(&owner.partition) {
                    partition.vfs.entry(owner.vf.clone()).or_insert_with(|| to.clone());
                }
            }
            Step::Unassign { owner, .. } => {
                if let Some(partition) = self.partitions.get_mut(&owner.partition) {
                    partition.vfs.remove(&owner.vf);
                }
            }
            Step::ConfigureVf { vf, to } => {
                if let Some(assignment) = self.assignment_mut(*vf) {
                    let before = outcome.settings_before.clone().unwrap_or_default();
                    // The value before the first change counts, not the one before the latest.
                    assignment.original_settings =
                        assignment.original_settings.or(&to.restored_from(&before));
                    assignment.settings = to.or(&assignment.settings);
                    assignment.guest_settings = assignment.guest_settings.without(to);
                    assignment.address = outcome.address.or(assignment.address);
                }
            }
            Step::BindDriver { vf, .. } => {
                if let Some(assignment) = self.assignment_mut(*vf) {
                    // A VF that was bound for guests before it was a partition's is not given to one; who has bound it
                    // since did not leave it as it was found.
                    let before = outcome.driver_before.clone().filter(|before| before != "vfio-pci");
                    assignment.original_driver.get_or_insert(before);
                    assignment.address = outcome.address.or(assignment.address);
                }
            }
            Step::DefinePartition { to, .. } => {
                let new = || PartitionState {
                    spec: to.clone(),
                    running: outcome.runs,
                    channel: false,
                    channel_in_doubt: false,
                    vfs: BTreeMap::new(),
                    standbys: BTreeMap::new(),
                };
                self.partitions.entry(to.name.clone()).or_insert_with(new).spec = to.clone();
            }
            Step::UndefinePartition { from } => {
                self.partitions.remove(&from.name);
            }
            Step::CreateChannel { partition } => self.record_channel(partition, true),
            Step::DestroyChannel { partition } => self.record_channel(partition, false),
            Step::AttachVf { vf, .. } | Step::AdoptVf { vf, .. } => {
                self.set_attached(*vf, true);
                self.record_address(*vf, outcome.address);
            }
            Step::DetachVf { vf, .. } | Step::ReleaseVf { vf, .. } => self.set_attached(*vf, false),
            Step::AttachStandby { owner, nic } => self.with(&owner.partition, |p| {
                p.standbys.insert(owner.vf.clone(), nic.clone());
            }),
            Step::DetachStandby { owner, .. } => self.with(&owner.partition, |p| {
                p.standbys.remove(&owner.vf);
            }),
            Step::SwitchOver { owner, to, .. } => {
                let at_ms = outcome.at_ms.unwrap_or(0);
                let to = to.clone().map(|to| match to.since_ms {
                    0 => FailedOver { since_ms: at_ms, ..to },
                    _ => to,
                });
                self.with(&owner.partition, |p| {
                    let Some(primary) = p.vfs.get_mut(&owner.vf) else { return };
                    // A plan may have taken it for a while as well.
                    if primary.is_unplugged() && to.is_none() {
                        (primary.attached, primary.attached_in_doubt) = (true, false);
                    }
                    primary.failed_over = to;
                });
            }
            Step::StartPartition { partition } => self.with(partition, |p| p.running = true),
            Step::StopPartition { partition, .. } => self.with(partition, |p| p.running = false),
        }
    }

    fn record_channel(&mut self, partition: &Name, there: bool) {
        self.with(partition, |p| (p.channel, p.channel_in_doubt) = (there, false));
    }

    /// Notes what a partition may have after a step of which nobody can say whether it was carried out, so that it is taken
    /// away, or given once more, and nobody else gets it before.
    pub fn record_in_doubt(&mut self, step: &Step, outcome: &Outcome) {
        match step {
            Step::AttachVf { vf, .. } => {
                self.record(step, outcome);
                self.set_in_doubt(*vf);
            }
            Step::DetachVf { vf, .. } => self.set_in_doubt(*vf),
            // A look tells whether it is missing.
            Step::AttachStandby { .. } => self.record(step, outcome),
            Step::CreateChannel { partition } => {
                self.with(partition, |p| (p.channel, p.channel_in_doubt) = (true, true));
            }
            Step::DestroyChannel { partition } => self.with(partition, |p| p.channel_in_doubt = p.channel),
            // What these may have made or taken is no partition's, or a look at the host tells it.
            _ => {}
        }
    }

    /// Notes that a step has made something so again that is noted already, in a plan of [`Policy::BestEffort`]: only where a
    /// VF is now, and that a partition runs, is new. Who has set a setting, and whose a VF is, holds whatever becomes of the
    /// step.
    pub fn record_repair(&mut self, step: &Step, outcome: &Outcome) {
        match step {
            Step::StartPartition { .. } => self.record(step, outcome),
            Step::DefinePartition { to, .. } if outcome.runs => self.with(&to.name, |p| p.running = true),
            Step::CreateChannel { partition } => self.with(partition, |p| p.channel_in_doubt = false),
            Step::AttachVf { .. } => self.record(step, outcome),
            _ => {
                if let Some(vf) = step.subject().vf {
                    self.record_address(vf, outcome.address);
                }
            }
        }
    }

    /// Everything needed to roll a step back beyond its inverse: all that is noted of the VF that it configures or binds.
    #[must_use]
    pub fn noted_for(&self, step: &Step) -> Option<Assignment> {
        match step {
            Step::ConfigureVf { vf, .. } | Step::BindDriver { vf, .. } => self.assignment(*vf).cloned(),
            _ => None,
        }
    }

    /// The rows that noting a step, or its inverse, may change: those of its subject.
    #[must_use]
    pub fn rows_of(&self, step: &Step) -> Vec<RowKey> {
        if let Step::TakeOutOfService { pf, .. } | Step::ReturnToService { pf, .. } = step {
            return vec![RowKey::OutOfService(*pf)];
        }
        match step.subject() {
            Subject { owner: Some(owner), .. } => vec![RowKey::Assignment(owner.clone())],
            Subject { vf: Some(vf), .. } => self.row_of(vf),
            Subject { partition: Some(partition), .. } => vec![RowKey::Partition(partition.clone())],
            Subject { pf, .. } => pf.map(RowKey::Adapter).into_iter().collect(),
        }
    }

    /// Notes that a step has been undone, after its inverse has been recorded: what was noted `before` of what it speaks
    /// of holds again. Who had set a setting, and whether ioward had bound a VF, is not to be seen on the machine.
    pub fn record_undone(&mut self, step: &Step, before: &Assignment) {
        let Some(assignment) = self.assignment_mut(before.vf) else { return };
        match step {
            Step::ConfigureVf { to, .. } => {
                let back =
                    |now: &VfSettings, before: &VfSettings| now.without(to).or(&to.restored_from(before));
                assignment.settings = back(&assignment.settings, &before.settings);
                assignment.guest_settings = back(&assignment.guest_settings, &before.guest_settings);
                assignment.original_settings = back(&assignment.original_settings, &before.original_settings);
            }
            Step::BindDriver { .. } => assignment.original_driver = before.original_driver.clone(),
            _ => {}
        }
    }

    fn with(&mut self, partition: &Name, change: impl FnOnce(&mut PartitionState)) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            change(partition);
        }
    }

    fn set_attached(&mut self, vf: VfId, attached: bool) {
        if let Some(assignment) = self.assignment_mut(vf) {
            (assignment.attached, assignment.attached_in_doubt) = (attached, false);
        }
    }

    fn set_in_doubt(&mut self, vf: VfId) {
        if let Some(assignment) = self.assignment_mut(vf) {
            assignment.attached_in_doubt = assignment.attached;
        }
    }

    /// Whether a step gives to a partition what it may have already.
    #[must_use]
    pub fn is_in_doubt(&self, step: &Step) -> bool {
        match step {
            Step::AttachVf { vf, .. } => self.assignment(*vf).is_some_and(|held| held.attached_in_doubt),
            Step::CreateChannel { partition } => {
                self.partitions.get(partition).is_some_and(|noted| noted.channel_in_doubt)
            }
            _ => false,
        }
    }
}
