//! What a step is about.

use ioward_model::{Name, Step, VfId};
use ioward_pci::Bdf;

/// What a step is about: an adapter as a whole, a VF, a partition, or both of these.
#[derive(Default)]
pub(crate) struct Subject<'a> {
    /// The adapter as a whole.
    pub pf: Option<Bdf>,
    pub vf: Option<VfId>,
    pub partition: Option<&'a Name>,
}

impl<'a> Subject<'a> {
    pub(crate) fn of(step: &'a Step) -> Self {
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

    /// The adapter that it is about, as a whole or one VF of it.
    pub(crate) fn adapter(&self) -> Option<Bdf> {
        self.pf.or(self.vf.map(|vf| vf.pf))
    }
}
