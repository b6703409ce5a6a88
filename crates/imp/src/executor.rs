//! Carries out a plan, step by step, and undoes what it did when a step fails or the person goes away.
//!
//! ```text
//!   step 1 ─> step 2 ─> … ─> step n ─> done
//!                │ fails
//!   undo 1 <─ (whatever step 2 left is its own business: a step that fails leaves nothing)
//! ```

use std::sync::Arc;

use ioward_hypervisor::{Accelerator, StopMode};
use ioward_model::{Assignment, Event, EventKind, Outcome, Plan, RowKey, State, Step};
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::{
    error::{ImpError, in_full},
    imp::Imp,
    notes::Must,
    undo::Left,
};

/// Where events of one plan go: the log, and the person who waits.
struct Listener<'a> {
    imp: &'a Imp,
    person: mpsc::UnboundedSender<Event>,
}

/// A step that has been carried out.
struct Done<'a> {
    /// Its number in the plan, from 1.
    number: usize,
    step: &'a Step,
    outcome: Outcome,
    /// [`ioward_model::State::noted_for`] it, before it was.
    noted: Option<Assignment>,
}

impl Listener<'_> {
    fn tell(&self, kind: EventKind) {
        // A person who has gone away is noticed between steps; what happens is in the log all the same.
        let _ = self.person.send(self.imp.events.emit(kind));
    }
}

impl Imp {
    /// Carries out a plan. Whoever gave it hears of it through `person`; `_guard` keeps others out until the end.
    pub(crate) async fn carry_out(
        self: Arc<Self>,
        plan: Plan,
        person: mpsc::UnboundedSender<Event>,
        _guard: OwnedMutexGuard<()>,
    ) {
        let listener = Listener { imp: &self, person };
        let id = plan.id;
        listener.tell(EventKind::PlanStarted { plan: id, steps: plan.steps.len() });
        let mut done: Vec<Done<'_>> = Vec::new();
        for (n, step) in plan.steps.iter().enumerate() {
            let number = n + 1;
            if listener.person.is_closed() {
                let error = "interrupted".to_owned();
                self.undo(&listener, id, done, error).await;
                return;
            }
            listener.tell(EventKind::StepStarted { plan: id, number, what: Box::new(step.clone()) });
            let noted = self.notes.look(|state| state.noted_for(step));
            match self.carry_out_step(step).await {
                Ok(outcome) => {
                    listener.tell(EventKind::StepDone { plan: id, number, note: outcome.note.clone() });
                    done.push(Done { number, step, outcome, noted });
                }
                Err(error) => {
                    let error = in_full(&error);
                    listener.tell(EventKind::StepFailed { plan: id, number, error: error.clone() });
                    self.undo(&listener, id, done, error).await;
                    return;
                }
            }
        }
        // A plan without steps changes nothing, not even the revision.
        let revision = if plan.steps.is_empty() { plan.parent } else { id };
        match self.note_revision(revision) {
            Ok(()) => listener.tell(EventKind::PlanDone { plan: id }),
            Err(error) => {
                let error = format!("it is done, but could not be noted: {}", in_full(&error));
                listener.tell(EventKind::PlanFailed { plan: id, error, undone: false });
            }
        }
    }

    /// Undoes steps, the latest first, and goes on past those that can't be undone with what does not rest on them.
    async fn undo(self: &Arc<Self>, listener: &Listener<'_>, plan: u64, done: Vec<Done<'_>>, error: String) {
        let mut undone = true;
        let mut left = Left::default();
        for Done { number, step, outcome, noted } in done.into_iter().rev() {
            let Some(inverse) = step.inverse(&outcome) else { continue };
            let error = if left.holds_up(&inverse) {
                Some("left as it is: what it rests on could not be undone".to_owned())
            } else {
                self.undo_step(step, &inverse, noted).await.err().map(|error| in_full(&error))
            };
            if error.is_some() {
                undone = false;
                left.add(&inverse);
            }
            listener.tell(EventKind::StepUndone { plan, number, error });
        }
        if !undone && let Err(error) = self.note_revision(self.notes.look(|state| state.revision + 1)) {
            // Plans made before no longer hold; that this is not noted costs no more than a refusal later.
            tracing::error!("cannot note the revision: {}", in_full(&error));
        }
        listener.tell(EventKind::PlanFailed { plan, error, undone });
    }

    async fn undo_step(
        self: &Arc<Self>,
        step: &Step,
        inverse: &Step,
        noted: Option<Assignment>,
    ) -> Result<(), ImpError> {
        self.carry_out_step(inverse).await?;
        let Some(noted) = noted else { return Ok(()) };
        let rows = |state: &State| state.rows_of(step);
        Ok(self.notes.change(Must::BeWritten, rows, Vec::new(), |state| state.record_undone(step, &noted))?)
    }

    fn note_revision(&self, revision: u64) -> Result<(), ImpError> {
        let row = |_: &State| vec![RowKey::Revision];
        Ok(self.notes.change(Must::BeWritten, row, Vec::new(), |state| state.revision = revision)?)
    }

    /// Carries out one step and notes it.
    async fn carry_out_step(self: &Arc<Self>, step: &Step) -> Result<Outcome, ImpError> {
        // From here until it is noted, no operation of a partition is under way on a VF that changes hands.
        let changes_hands =
            matches!(step, Step::Assign { .. } | Step::Unassign { .. } | Step::SetVfCount { .. });
        let _owners = if changes_hands { Some(self.ownership.write().await) } else { None };
        let outcome = self.do_step(step).await?;
        let rows = |state: &State| state.rows_of(step);
        let recorded =
            self.notes.change(Must::BeWritten, rows, Vec::new(), |state| state.record(step, &outcome));
        if let Err(error) = recorded {
            // What is not noted must not be done either. Should that fail too, the first error is the one to tell.
            if let Some(inverse) = step.inverse(&outcome) {
                let _ = self.do_step(&inverse).await;
            }
            return Err(error.into());
        }
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
        Ok(outcome)
    }

    async fn do_step(&self, step: &Step) -> Result<Outcome, ImpError> {
        let mut outcome = Outcome::default();
        match step {
            // These four are about what is known, not about the machine.
            Step::HoldAdapter { .. }
            | Step::ReleaseAdapter { .. }
            | Step::Assign { .. }
            | Step::Unassign { .. } => {}
            Step::SetAutoprobe { pf, to, .. } => self.fabric.set_autoprobe(*pf, *to).await?,
            Step::SetVfCount { pf, to, .. } => self.fabric.set_vf_count(*pf, *to).await?,
            Step::ConfigureVf { vf, to } => {
                // The change comes last: a step that fails leaves nothing.
                outcome.address = Some(self.fabric.vf_address(*vf).await?);
                let before = self.fabric.settings(*vf).await?;
                let missing = to.missing_from(&before);
                if !missing.is_empty() {
                    self.fabric.configure(*vf, &missing).await?;
                }
                outcome.settings_before = Some(before);
            }
            Step::BindDriver { vf, to } => {
                outcome.address = Some(self.fabric.vf_address(*vf).await?);
                outcome.driver_before = self.fabric.bind(*vf, to.as_deref()).await?;
            }
            Step::ResetVf { vf } => self.fabric.reset(*vf).await?,
            Step::DefinePartition { to, .. } => self.hypervisor.define(to).await?,
            Step::UndefinePartition { from } => self.hypervisor.undefine(&from.name).await?,
            Step::CreateChannel { partition } => self.hypervisor.create_channel(partition).await?,
            Step::DestroyChannel { partition } => {
                self.channels.stop(partition);
                self.hypervisor.destroy_channel(partition).await?;
            }
            Step::AttachVf { owner, vf } => {
                let address = self.fabric.vf_address(*vf).await?;
                self.hypervisor.attach_vf(owner, address).await?;
            }
            Step::DetachVf { owner, force, .. } => {
                self.hypervisor.detach_vf(owner, *force).await?;
            }
            Step::StartPartition { partition } => {
                if self.hypervisor.start(partition).await? == Accelerator::Tcg {
                    outcome.note =
                        Some("no usable /dev/kvm: it runs in software emulation, slowly".to_owned());
                }
            }
            Step::StopPartition { partition, force } => {
                let mode = if *force { StopMode::Force } else { StopMode::Graceful };
                self.hypervisor.stop(partition, mode).await?;
                self.channels.stop(partition);
            }
        }
        Ok(outcome)
    }
}
