//! Carries out a plan, step by step, and undoes what it did when a step fails or the person goes away.
//!
//! ```text
//!              find, write down, do, write down
//!   step 1 ─> step 2 ─> … ─> step n ─> done
//!                │ fails
//!   undo 1 <─ (undo 2, when it is in doubt whether it was done)
//! ```
//!
//! A step that fails leaves nothing. One that is stuck in the kernel, or that was done and could not be written down, is
//! in doubt, and undone with the others.

use std::sync::Arc;

use ioward_model::{Event, EventKind, Outcome, Plan};
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::{
    error::{ImpError, in_full},
    events::Listener,
    imp::Imp,
    journal::Journal,
    step::Failure,
    undo::Carried,
};

/// A plan that may be carried out: it has been written down, and no other is.
pub(crate) struct Begun {
    pub plan: Plan,
    /// The number of its journal. A plan without steps has none.
    pub number: u64,
    pub _guard: OwnedMutexGuard<()>,
}

impl Imp {
    /// Carries out a plan. Whoever gave it hears of it through `person`.
    pub(crate) async fn carry_out(self: Arc<Self>, begun: Begun, person: mpsc::UnboundedSender<Event>) {
        let Begun { plan, number, _guard } = begun;
        let listener = Listener::new(&self.events, person);
        let journal = self.journal(number);
        let id = plan.id;
        listener.tell(EventKind::PlanStarted { plan: id, steps: plan.steps.len() });
        let mut done: Vec<Carried<'_>> = Vec::new();
        for (n, step) in plan.steps.iter().enumerate() {
            let number = n + 1;
            if listener.is_gone() {
                let error = ImpError::Interrupted.to_string();
                self.undo(&listener, &journal, id, done, error).await;
                return;
            }
            listener.tell(EventKind::StepStarted { plan: id, number, what: Box::new(step.clone()) });
            let revision = (number == plan.steps.len()).then_some(id);
            let mut carried =
                Carried { number, step, outcome: Outcome::default(), noted: None, in_doubt: false };
            let result =
                self.carry_out_step(&listener, &journal, &mut carried, done.len() + 1, revision).await;
            match result {
                Ok(()) => {
                    let note = carried.outcome.note.clone();
                    listener.tell(EventKind::StepDone { plan: id, number, note });
                    done.push(carried);
                }
                Err(error) => {
                    listener.tell(EventKind::StepFailed { plan: id, number, error: error.clone() });
                    if carried.in_doubt {
                        done.push(carried);
                    }
                    self.undo(&listener, &journal, id, done, error).await;
                    return;
                }
            }
        }
        listener.tell(EventKind::PlanDone { plan: id });
    }

    /// Carries out one step and writes that down. What has come of it is in `carried`; why it failed is in the error.
    async fn carry_out_step(
        self: &Arc<Self>,
        listener: &Listener<'_>,
        journal: &Journal<'_>,
        carried: &mut Carried<'_>,
        order: usize,
        revision: Option<u64>,
    ) -> Result<(), String> {
        let (number, step) = (carried.number, carried.step);
        let _kept_out = self.keep_out(step).await;
        carried.noted = self.notes.look(|state| state.noted_for(step));
        carried.outcome = self.found_before(step).await.map_err(|error| in_full(&error))?;
        if let Err(error) = journal.begun(number, &carried.outcome, &carried.noted) {
            journal.failed(number);
            return Err(in_full(&error));
        }
        let result = tokio::select! {
            result = self.do_step(step, carried.outcome.clone()) => result,
            () = listener.gives_up(step) => Err(ImpError::Interrupted.into()),
        };
        match result {
            Ok(outcome) => carried.outcome = outcome,
            Err(Failure { error, in_doubt }) => {
                carried.in_doubt = in_doubt;
                if !in_doubt {
                    journal.failed(number);
                }
                return Err(in_full(&error));
            }
        }
        let _kept_out_too = self.keep_out_at_last(step).await;
        if let Err(error) = journal.done(number, order, step, &carried.outcome, &carried.noted, revision) {
            // What is not written down must not be done either.
            carried.in_doubt = true;
            return Err(in_full(&error));
        }
        self.tell_partitions(step);
        Ok(())
    }
}
