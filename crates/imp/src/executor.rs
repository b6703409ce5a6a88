//! Carries out a plan: what has nothing in common side by side, and what has one after the other ([`crate::order`]). Undoes
//! what it did when a step fails or somebody cancels the change.
//!
//! ```text
//!              find, write down, do, write down
//!   step 1 ─> step 2 ────────> … ─> step n ─> done
//!   step 3 ────────> step 4 ─┘
//!                      │ fails: nothing begins any more, what is under way ends
//!   undo 1 <─ undo 3 <─ undo 2   in the reverse of the order in which they were done
//!                       (undo 4, when it is in doubt whether it was done)
//! ```
//!
//! A step that fails leaves nothing. One that is stuck in the kernel, or that was done and could not be written down, is
//! in doubt, and undone with the others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use ioward_model::{EventKind, Outcome, Plan, Step};
use tokio::sync::OwnedMutexGuard;

use crate::{
    changes::{Change, Listener},
    error::{ImpError, error_chain},
    imp::Imp,
    journal::Journal,
    order::Order,
    rollback::Carried,
    step::Failure,
};

/// So many steps are under way at once at most: each may be a machine that starts.
const AT_ONCE: usize = 8;

/// A plan that may be carried out: it has been written down, and no other is.
pub(crate) struct Begun {
    pub plan: Plan,
    /// The number of the change, and of its journal. A plan without steps has no journal.
    pub number: u64,
    pub change: Arc<Change>,
    pub _guard: OwnedMutexGuard<()>,
}

/// What the steps of a plan have in common.
struct Execution<'a> {
    listener: &'a Listener<'a>,
    journal: Journal<'a>,
    plan: &'a Plan,
    /// How many are done.
    done: AtomicUsize,
}

impl Imp {
    /// Carries out a plan. Its events tell it by the number of the change.
    pub(crate) async fn carry_out(self: Arc<Self>, begun: Begun) {
        let Begun { plan, number, change, _guard } = begun;
        let listener = Listener::new(&self.events, change);
        let journal = self.journal(number);
        let execution = Execution { listener: &listener, journal, plan: &plan, done: AtomicUsize::new(0) };
        let id = number;
        listener.tell(EventKind::PlanStarted { plan: id, steps: plan.steps.len() });
        let mut order = Order::of(&plan.steps);
        let (mut done, mut failure) = (Vec::new(), None);
        // All in this one task: nothing goes on when it does not, and where nothing waits, the order is always the same.
        let mut under_way = FuturesUnordered::new();
        loop {
            while failure.is_none() && under_way.len() < AT_ONCE && order.has_ready() {
                if listener.is_gone() {
                    failure = Some(ImpError::Cancelled.to_string());
                    break;
                }
                let Some((n, step)) = order.begin().and_then(|n| Some((n, plan.steps.get(n)?))) else {
                    break;
                };
                let what = Box::new(step.clone());
                listener.tell(EventKind::StepStarted { plan: id, number: n + 1, what });
                under_way.push(self.carry_out_step(&execution, n + 1, step));
            }
            let Some((carried, result)) = under_way.next().await else { break };
            let number = carried.number;
            match result {
                Ok(()) => {
                    order.done(number - 1);
                    let note = carried.outcome.note.clone();
                    listener.tell(EventKind::StepDone { plan: id, number, note });
                    done.push(carried);
                }
                Err(error) => {
                    listener.tell(EventKind::StepFailed { plan: id, number, error: error.clone() });
                    failure.get_or_insert(error);
                    if carried.in_doubt {
                        done.push(carried);
                    }
                }
            }
        }
        match failure {
            None => listener.tell(EventKind::PlanDone { plan: id }),
            Some(error) => self.undo(&listener, &execution.journal, id, done, error).await,
        }
    }

    /// Carries out one step and writes that down: what has come of it, and why it failed, in full.
    async fn carry_out_step<'a>(
        self: &Arc<Self>,
        execution: &Execution<'_>,
        number: usize,
        step: &'a Step,
    ) -> (Carried<'a>, Result<(), String>) {
        let mut carried = Carried { number, step, outcome: Outcome::default(), noted: None, in_doubt: false };
        let result = self.try_step(execution, &mut carried).await;
        (carried, result)
    }

    async fn try_step(
        self: &Arc<Self>,
        execution: &Execution<'_>,
        carried: &mut Carried<'_>,
    ) -> Result<(), String> {
        let (number, step, journal) = (carried.number, carried.step, &execution.journal);
        let _kept_out = self.keep_out(step).await;
        carried.noted = self.notes.look(|state| state.noted_for(step));
        carried.outcome = self.found_before(step).await.map_err(|error| error_chain(&error))?;
        if let Err(error) = journal.begun(number, &carried.outcome, &carried.noted) {
            journal.failed(number);
            return Err(error_chain(&error));
        }
        let result = tokio::select! {
            result = self.do_step(step, carried.outcome.clone()) => result,
            () = execution.listener.gives_up(step) => Err(ImpError::Cancelled.into()),
        };
        match result {
            Ok(outcome) => carried.outcome = outcome,
            Err(Failure { error, in_doubt }) => {
                carried.in_doubt = in_doubt;
                if in_doubt {
                    self.watch_stuck(step, &error);
                } else {
                    journal.failed(number);
                }
                return Err(error_chain(&error));
            }
        }
        let _kept_out_too = self.keep_out_at_last(step).await;
        let order = execution.done.load(Ordering::Relaxed) + 1;
        let ends = (order == execution.plan.steps.len()).then_some(execution.plan);
        if let Err(error) = journal.done(number, order, step, &carried.outcome, &carried.noted, ends) {
            // What is not written down must not be done either.
            carried.in_doubt = true;
            return Err(error_chain(&error));
        }
        execution.done.store(order, Ordering::Relaxed);
        self.tell_partitions(step);
        Ok(())
    }
}
