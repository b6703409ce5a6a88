//! VFs that belong to the plan under way until it has ended: their guests change nothing meanwhile. A plan restores and sets what
//! was known when it was made. A guest that set something more before its VF was taken would leave that behind on it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ioward_model::{Plan, Step, VfId};
use ioward_pci::Bdf;

/// The claim of the plan under way. There is one plan at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims(Arc<Mutex<Claim>>);

#[derive(Debug, Default)]
struct Claim {
    vfs: BTreeSet<VfId>,
    /// Adapters all of whose VFs are made anew.
    pfs: BTreeSet<Bdf>,
}

/// A claim that holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Claimed(Claims);

impl Drop for Claimed {
    fn drop(&mut self) {
        *self.0.lock() = Claim::default();
    }
}

impl Claims {
    /// Claims all VFs that the steps of a plan are about.
    pub(crate) fn claim(&self, plan: &Plan) -> Claimed {
        let vfs = plan.steps.iter().filter_map(|step| step.meaning().subject.vf).collect();
        let resized = plan.steps.iter().filter_map(|step| match step {
            Step::SetVfCount { pf, .. } => Some(*pf),
            _ => None,
        });
        *self.lock() = Claim { vfs, pfs: resized.collect() };
        Claimed(self.clone())
    }

    /// Whether a VF is claimed.
    pub(crate) fn has(&self, vf: VfId) -> bool {
        let claim = self.lock();
        claim.pfs.contains(&vf.pf) || claim.vfs.contains(&vf)
    }

    fn lock(&self) -> MutexGuard<'_, Claim> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claimed {
    /// The adapters of all that is claimed.
    pub(crate) fn adapters(&self) -> BTreeSet<Bdf> {
        let claim = self.0.lock();
        claim.pfs.iter().copied().chain(claim.vfs.iter().map(|vf| vf.pf)).collect()
    }
}
