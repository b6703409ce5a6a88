//! What is left as it is once something on the way back could not be undone.
//!
//! A VF that its guest does not let go of must not be unbound, nor an adapter be forgotten that still has the VFs ioward
//! made. So whatever rests on something that was left is left as well: it stays noted, and the next plan sees to it.

use std::collections::BTreeSet;

use ioward_model::{Name, Step, VfId};
use ioward_pci::Bdf;

/// What was left.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pfs: BTreeSet<Bdf>,
    vfs: BTreeSet<VfId>,
    partitions: BTreeSet<Name>,
}

impl Left {
    /// Whether a step is about something that was left: its adapter, its VF or its partition; for a step about an adapter,
    /// any VF of it.
    pub(crate) fn holds_up(&self, step: &Step) -> bool {
        let about = Subject::of(step);
        about.pf.is_some_and(|pf| self.pfs.contains(&pf) || self.vfs.iter().any(|vf| vf.pf == pf))
            || about.vf.is_some_and(|vf| self.vfs.contains(&vf) || self.pfs.contains(&vf.pf))
            || about.partition.is_some_and(|partition| self.partitions.contains(partition))
    }

    /// Notes that what a step is about is left.
    pub(crate) fn add(&mut self, step: &Step) {
        let about = Subject::of(step);
        self.pfs.extend(about.pf);
        self.vfs.extend(about.vf);
        self.partitions.extend(about.partition.cloned());
    }
}

/// What a step is about.
#[derive(Default)]
struct Subject<'a> {
    /// The adapter as a whole.
    pf: Option<Bdf>,
    vf: Option<VfId>,
    partition: Option<&'a Name>,
}

impl<'a> Subject<'a> {
    fn of(step: &'a Step) -> Self {
        let nothing = Self::default;
        match step {
            Step::HoldAdapter { pf, .. }
            | Step::ReleaseAdapter { pf, .. }
            | Step::SetAutoprobe { pf, .. }
            | Step::SetVfCount { pf, .. } => Self { pf: Some(*pf), ..nothing() },
            Step::ConfigureVf { vf, .. } | Step::BindDriver { vf, .. } | Step::ResetVf { vf } => {
                Self { vf: Some(*vf), ..nothing() }
            }
            Step::Assign { owner, to: held } | Step::Unassign { owner, from: held } => {
                Self { vf: Some(held.vf), partition: Some(&owner.partition), ..nothing() }
            }
            Step::AttachVf { owner, vf } | Step::DetachVf { owner, vf, .. } => {
                Self { vf: Some(*vf), partition: Some(&owner.partition), ..nothing() }
            }
            Step::DefinePartition { to: spec, .. } | Step::UndefinePartition { from: spec } => {
                Self { partition: Some(&spec.name), ..nothing() }
            }
            Step::CreateChannel { partition }
            | Step::DestroyChannel { partition }
            | Step::StartPartition { partition }
            | Step::StopPartition { partition, .. } => Self { partition: Some(partition), ..nothing() },
        }
    }
}
