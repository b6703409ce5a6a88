//! Carries out one step: what its [`Meaning`] says, on the fabric and the hypervisor.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ioward_fabric::{Fabric, FabricError};
use ioward_hypervisor::{Accelerator, Hypervisor, HypervisorError, StopMode};
use ioward_model::{Assignment, FoundBefore, KeepsOut, Meaning, Name, Outcome, State, Step};
use tokio::sync::Notify;

use crate::{
    channels::Channels,
    error::ImpError,
    events::now_ms,
    notes::Notes,
    ownership::{Kept, Ownership, Together},
    runs::Runs,
};

/// Why a step was not carried out.
pub(crate) struct Failure {
    pub error: ImpError,
    /// It may take effect all the same, or has done so in part: only a look at the host can tell.
    pub in_doubt: bool,
}

/// Whether what failed so may be done all the same, or in part.
pub(crate) fn is_in_doubt(error: &ImpError) -> bool {
    matches!(
        error,
        ImpError::Fabric(FabricError::Stuck { .. })
            | ImpError::Hypervisor(HypervisorError::InDoubt { .. })
            | ImpError::TooLong { .. }
    )
}

impl<E: Into<ImpError>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let in_doubt = is_in_doubt(&error);
        Self { error, in_doubt }
    }
}

/// The part that carries out steps.
pub(crate) struct StepRunner {
    pub(crate) fabric: Arc<dyn Fabric>,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) starting: OwnStarts,
    pub(crate) runs: Arc<Runs>,
    /// A look at the host is worth while.
    pub(crate) news: Arc<Notify>,
}

/// Partitions that a step is starting just now. libvirt asks for their VFs meanwhile, and is not to wait for the plan that the step is of.
#[derive(Debug, Default)]
pub(crate) struct OwnStarts(Mutex<BTreeSet<Name>>);

impl OwnStarts {
    /// Whether a step is starting this partition.
    pub(crate) fn has(&self, partition: &Name) -> bool {
        self.lock().contains(partition)
    }

    /// It is, until what this returns is dropped.
    fn begin(&self, partition: &Name) -> impl Drop + Send {
        self.lock().insert(partition.clone());
        OwnStart { of: self, partition: partition.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Name>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct OwnStart<'a> {
    of: &'a OwnStarts,
    partition: Name,
}

impl Drop for OwnStart<'_> {
    fn drop(&mut self) {
        self.of.lock().remove(&self.partition);
    }
}

impl StepRunner {
    /// Looks up what has to be known before a step.
    pub(crate) async fn found_before(&self, step: &Step) -> Result<Outcome, ImpError> {
        let Meaning { found_before, subject, .. } = step.meaning();
        let mut found = Outcome::default();
        let (Some(vf), true) = (subject.vf, found_before != FoundBefore::Nothing) else { return Ok(found) };
        found.address = Some(self.fabric.vf_address(vf).await?);
        match found_before {
            FoundBefore::Settings => found.settings_before = Some(self.fabric.settings(vf).await?),
            FoundBefore::Driver => found.driver_before = self.fabric.driver(vf).await?,
            FoundBefore::Nothing | FoundBefore::Address => {}
        }
        Ok(found)
    }

    /// Carries out a step within its time limit. What is so already is left alone, so that it can be done twice, or once more
    /// after it was done in part. One that fails leaves nothing, unless that is in doubt.
    pub(crate) async fn do_step(&self, step: &Step, found: Outcome) -> Result<Outcome, Failure> {
        let limit = step.meaning().time_limit;
        let outcome = match tokio::time::timeout(limit, self.do_unbounded(step, found)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ImpError::TooLong { step: step.to_string(), after: limit }),
        };
        // Whatever came of it: what was seen before is old.
        self.runs.count(step);
        if let (Err(_), Step::DestroyChannel { partition }) = (&outcome, step) {
            // It may still be there, with a guest that asks.
            self.channels.serve(partition);
        }
        Ok(outcome?)
    }

    async fn do_unbounded(&self, step: &Step, found: Outcome) -> Result<Outcome, ImpError> {
        let mut outcome = found;
        match step {
            Step::TakeOutOfService { .. } | Step::SwitchOver { .. } => outcome.at_ms = Some(now_ms()),
            // These are about what is known, not about the machine.
            Step::HoldAdapter { .. }
            | Step::ReleaseAdapter { .. }
            | Step::ReturnToService { .. }
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
            Step::DefinePartition { to, .. } => {
                self.hypervisor.define(to).await?;
                // Where that can't be told it is found at the next look.
                outcome.runs = to.machine().is_none() && self.runs(&to.name).await;
            }
            Step::UndefinePartition { from } => self.hypervisor.undefine(&from.name).await?,
            Step::CreateChannel { partition } => self.hypervisor.create_channel(partition).await?,
            Step::DestroyChannel { partition } => {
                self.channels.stop(partition);
                gone(self.hypervisor.destroy_channel(partition).await)?;
            }
            Step::AttachVf { owner, vf } => {
                let address = self.fabric.vf_address(*vf).await?;
                // One whose standby is active is put in by whoever has it active again; until then that it is to be is a note.
                let is_away = |state: &State| state.assignment(*vf).is_some_and(Assignment::is_unplugged);
                if !self.notes.look(is_away) {
                    self.hypervisor.attach_vf(owner, address).await?;
                }
                outcome.address = Some(address);
            }
            Step::AdoptVf { owner, vf } => {
                let address = self.fabric.vf_address(*vf).await?;
                self.hypervisor.adopt_vf(owner, address).await?;
                outcome.address = Some(address);
            }
            Step::ReleaseVf { owner, .. } => gone(self.hypervisor.release_vf(owner).await)?,
            Step::AttachStandby { owner, nic } => self.hypervisor.attach_standby(owner, nic).await?,
            Step::DetachStandby { owner, .. } => gone(self.hypervisor.detach_standby(owner).await)?,
            Step::DetachVf { owner, force, .. } => gone(self.hypervisor.detach_vf(owner, *force).await)?,
            Step::StartPartition { partition } => {
                let _starting = self.starting.begin(partition);
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

    async fn runs(&self, partition: &Name) -> bool {
        let partitions = self.hypervisor.partitions().await.unwrap_or_default();
        partitions.iter().any(|known| known.running && known.name == *partition)
    }

    /// Keeps operations of partitions away from an adapter while a step changes it, its VFs, or whose they are. Steps that are made
    /// together don't keep each other out.
    pub(crate) async fn keep_out(&self, step: &Step, with: &Together) -> Option<Kept> {
        self.keep_out_if(step, KeepsOut::Throughout, with).await
    }

    /// The same for a step that has been carried out, before it is noted.
    pub(crate) async fn keep_out_at_last(&self, step: &Step, with: &Together) -> Option<Kept> {
        self.keep_out_if(step, KeepsOut::AtLast, with).await
    }

    async fn keep_out_if(&self, step: &Step, when: KeepsOut, with: &Together) -> Option<Kept> {
        let Meaning { keeps_out, subject, .. } = step.meaning();
        match subject.adapter() {
            Some(pf) if keeps_out == when => Some(self.ownership.write_together(pf, with).await),
            _ => None,
        }
    }

    /// Tells the partitions concerned, once a step is noted.
    pub(crate) fn tell_partitions(&self, step: &Step) {
        match step {
            Step::CreateChannel { partition } | Step::StartPartition { partition } => {
                self.channels.serve(partition);
            }
            Step::AttachVf { owner, .. }
            | Step::DetachVf { owner, .. }
            | Step::AdoptVf { owner, .. }
            | Step::ReleaseVf { owner, .. } => self.channels.vfs_changed(&owner.partition),
            Step::SwitchOver { owner, .. } => {
                self.channels.vfs_changed(&owner.partition);
                // What is noted may differ from the host now.
                self.news.notify_one();
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
