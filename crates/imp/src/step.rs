//! One step: what is found before it, what it does to the host, and how long that may take.

use std::time::Duration;

use ioward_fabric::FabricError;
use ioward_hypervisor::{Accelerator, HypervisorError, StopMode};
use ioward_model::{Outcome, Step};

use crate::{error::ImpError, imp::Imp, subject::Subject};

/// How long a step may take when what it rests on does not keep its own, shorter bounds ([`ioward_fabric::Fabric`],
/// [`ioward_hypervisor::Hypervisor`]).
fn bound(step: &Step) -> Duration {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    match step {
        // A VF may take two seconds to come or go, and there may be 256 of them and more.
        Step::SetVfCount { .. } => minutes(60),
        Step::StartPartition { .. } | Step::StopPartition { .. } => minutes(10),
        _ => minutes(5),
    }
}

/// Why a step was not carried out.
pub(crate) struct Failure {
    pub error: ImpError,
    /// It may take effect all the same, or has done so in part: only a look at the host can tell.
    pub in_doubt: bool,
}

impl<E: Into<ImpError>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let in_doubt =
            matches!(error, ImpError::Fabric(FabricError::Stuck { .. }) | ImpError::TooLong { .. });
        Self { error, in_doubt }
    }
}

impl Imp {
    /// What is found before a step: what its inverse needs to know, and can't be seen any more afterwards.
    pub(crate) async fn found_before(&self, step: &Step) -> Result<Outcome, ImpError> {
        let mut found = Outcome::default();
        match step {
            Step::ConfigureVf { vf, .. } => {
                found.address = Some(self.fabric.vf_address(*vf).await?);
                found.settings_before = Some(self.fabric.settings(*vf).await?);
            }
            Step::BindDriver { vf, .. } => {
                found.address = Some(self.fabric.vf_address(*vf).await?);
                found.driver_before = self.fabric.driver(*vf).await?;
            }
            _ => {}
        }
        Ok(found)
    }

    /// Carries out a step within its bound. What is so already is left alone, so that it can be done twice, or once more
    /// after it was done in part. One that fails leaves nothing, unless that is in doubt.
    pub(crate) async fn do_step(&self, step: &Step, found: Outcome) -> Result<Outcome, Failure> {
        let bound = bound(step);
        match tokio::time::timeout(bound, self.do_unbounded(step, found)).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(ImpError::TooLong { step: step.to_string(), after: bound }.into()),
        }
    }

    async fn do_unbounded(&self, step: &Step, found: Outcome) -> Result<Outcome, ImpError> {
        let mut outcome = found;
        match step {
            // These four are about what is known, not about the machine.
            Step::HoldAdapter { .. }
            | Step::ReleaseAdapter { .. }
            | Step::Assign { .. }
            | Step::Unassign { .. } => {}
            Step::SetAutoprobe { pf, to, .. } => self.fabric.set_autoprobe(*pf, *to).await?,
            Step::SetVfCount { pf, to, .. } => self.fabric.set_vf_count(*pf, *to).await?,
            Step::ConfigureVf { vf, to } => {
                let missing =
                    to.missing_from(outcome.settings_before.as_ref().unwrap_or(&Default::default()));
                if !missing.is_empty() {
                    self.fabric.configure(*vf, &missing).await?;
                }
            }
            Step::BindDriver { vf, to } => {
                outcome.driver_before = self.fabric.bind(*vf, to.as_deref()).await?;
            }
            Step::ResetVf { vf } => self.fabric.reset(*vf).await?,
            Step::DefinePartition { to, .. } => self.hypervisor.define(to).await?,
            Step::UndefinePartition { from } => self.hypervisor.undefine(&from.name).await?,
            Step::CreateChannel { partition } => self.hypervisor.create_channel(partition).await?,
            Step::DestroyChannel { partition } => {
                self.channels.stop(partition);
                gone(self.hypervisor.destroy_channel(partition).await)?;
            }
            Step::AttachVf { owner, vf } => {
                let address = self.fabric.vf_address(*vf).await?;
                self.hypervisor.attach_vf(owner, address).await?;
            }
            Step::DetachVf { owner, force, .. } => gone(self.hypervisor.detach_vf(owner, *force).await)?,
            Step::StartPartition { partition } => {
                if self.hypervisor.start(partition).await? == Accelerator::Tcg {
                    outcome.note =
                        Some("no usable /dev/kvm: it runs in software emulation, slowly".to_owned());
                }
            }
            Step::StopPartition { partition, force } => {
                let mode = if *force { StopMode::Force } else { StopMode::Graceful };
                gone(self.hypervisor.stop(partition, mode).await)?;
                self.channels.stop(partition);
            }
        }
        Ok(outcome)
    }

    /// Keeps operations of partitions away from an adapter while a step changes it, its VFs, or whose they are.
    pub(crate) async fn keep_out(&self, step: &Step) -> Option<tokio::sync::OwnedRwLockWriteGuard<()>> {
        match step {
            // It waits for the guest, which is not to be kept waiting in turn. Its operations are over before the VF is
            // noted as detached: Imp::keep_out_at_last.
            Step::DetachVf { .. } | Step::AttachVf { .. } => None,
            _ => Some(self.ownership.write(Subject::of(step).adapter()?).await),
        }
    }

    /// The same for a step that has been carried out, before it is noted.
    pub(crate) async fn keep_out_at_last(
        &self,
        step: &Step,
    ) -> Option<tokio::sync::OwnedRwLockWriteGuard<()>> {
        match step {
            Step::DetachVf { vf, .. } => Some(self.ownership.write(vf.pf).await),
            _ => None,
        }
    }

    /// Tells the partitions concerned, once a step is noted.
    pub(crate) fn tell_partitions(self: &std::sync::Arc<Self>, step: &Step) {
        match step {
            Step::CreateChannel { partition } | Step::StartPartition { partition } => {
                self.serve_channel(partition);
            }
            Step::AttachVf { owner, .. } | Step::DetachVf { owner, .. } => {
                self.channels.vfs_changed(&owner.partition);
            }
            Step::ConfigureVf { vf, .. } => {
                if let Some(owner) = self.notes.look(|state| state.owner(*vf)) {
                    self.channels.vfs_changed(&owner.partition);
                }
            }
            _ => {}
        }
    }
}

/// Of a partition that the hypervisor does not know, everything is taken away already.
fn gone(result: Result<(), HypervisorError>) -> Result<(), HypervisorError> {
    match result {
        Err(HypervisorError::NoSuchPartition(_)) => Ok(()),
        result => result,
    }
}
