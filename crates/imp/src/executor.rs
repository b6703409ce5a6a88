//! Carries out a plan: what has nothing in common side by side, and what has one after the other ([`crate::order`]).
//!
//! ```text
//!              find, write down, do, write down
//!   step 1 ─> step 2 ────────> … ─> step n ─> done
//!   step 3 ────────> step 4 ─┘
//!                      │ fails
//!     all or nothing   ├─> nothing begins any more, what is under way ends, and everything is rolled back (rollback.rs)
//!     best effort      └─> what rests on it is left, everything else goes on
//! ```
//!
//! A step that fails leaves nothing. One that is stuck in the kernel, or that was done and could not be written down, is
//! in doubt, and rolled back with the others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use ioward_fabric::FabricError;
use ioward_model::{EventKind, Outcome, Plan, Policy, Step};
use tokio::time::Instant;

use crate::{
    changes::{Change, Listener},
    changing::ChangeGuard,
    error::{ImpError, error_chain},
    events::EventLog,
    journal::Journal,
    metrics::Counters,
    notes::Notes,
    operations::Operations,
    order::Order,
    rollback::{Carried, Left},
    step::{Failure, StepRunner},
};

/// So many steps are under way at once at most: each may be a machine that starts.
const AT_ONCE: usize = 8;

/// Whoever is told how a plan goes, and may cancel it.
#[async_trait]
pub(crate) trait Progress: Send + Sync {
    /// Something has happened.
    fn tell(&self, kind: EventKind);

    /// Whether nothing more is to begin.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// Waits until it is cancelled.
    async fn cancelled(&self) {
        std::future::pending::<()>().await;
    }
}

/// A person's plan that may be carried out: it has been written down, and no other is under way.
pub(crate) struct Begun {
    pub plan: Plan,
    /// The number of the change, and of its journal. A plan without steps has no journal.
    pub number: u64,
    pub change: Arc<Change>,
    pub guard: ChangeGuard,
}

/// A plan that is carried out.
pub(crate) struct Execution<'a> {
    pub plan: &'a Plan,
    /// The number by which its events tell it.
    pub number: u64,
    pub journal: Journal<'a>,
    pub progress: &'a dyn Progress,
}

/// How a plan came to its end.
pub(crate) struct Executed<'a> {
    /// The steps that are done, or perhaps are, in the order in which that came about.
    pub done: Vec<Carried<'a>>,
    /// The steps that failed, with why. `None` in place of a step: the plan was cancelled.
    pub failures: Vec<(Option<&'a Step>, String)>,
}

/// The part that carries out plans.
pub(crate) struct Executor {
    pub(crate) runner: StepRunner,
    pub(crate) notes: Arc<Notes>,
    pub(crate) events: Arc<EventLog>,
    pub(crate) operations: Arc<Operations>,
    pub(crate) counters: Arc<Counters>,
}

impl Executor {
    /// Carries out a plan all of whose steps are to be done, or none.
    pub(crate) async fn carry_out(self: Arc<Self>, begun: Begun) {
        let Begun { plan, number, change, mut guard } = begun;
        let listener = Listener::new(&self.events, change);
        let execution =
            Execution { plan: &plan, number, journal: Journal::of(&self.notes, number), progress: &listener };
        listener.tell(EventKind::PlanStarted { plan: number, steps: plan.steps.len() });
        let Executed { done, failures } = self.execute(&execution).await;
        match failures.into_iter().next() {
            None => {
                // Whoever hears of the end may ask for something at once.
                guard.end();
                listener.tell(EventKind::PlanDone { plan: number });
            }
            Some((_, error)) => self.roll_back(&execution, done, error).await,
        }
    }

    /// Tells that the adapter of a step is stuck, if that is why it failed, and tells again when it answers.
    pub(crate) fn watch_stuck(&self, step: &Step, error: &ImpError) {
        let ImpError::Fabric(error @ FabricError::Stuck { .. }) = error else { return };
        let Some(pf) = step.subject().adapter() else { return };
        self.operations.watch_stuck(pf, error);
    }

    /// Carries out the steps of a plan, as its policy says.
    pub(crate) async fn execute<'a>(&self, execution: &Execution<'a>) -> Executed<'a> {
        let Execution { plan, number: id, progress, .. } = *execution;
        let policy = plan.intent.policy();
        let mut order = Order::of(&plan.steps, policy);
        let (mut done, mut failures, mut left) = (Vec::new(), Vec::new(), Left::default());
        let count = AtomicUsize::new(0);
        // All in this one task: nothing goes on when it does not, and where nothing waits, the order is always the same.
        let mut under_way = FuturesUnordered::new();
        loop {
            let goes_on = |failures: &Vec<_>| policy == Policy::BestEffort || failures.is_empty();
            while goes_on(&failures) && under_way.len() < AT_ONCE && order.has_ready() {
                if progress.is_cancelled() {
                    failures.push((None, ImpError::Cancelled.to_string()));
                    break;
                }
                let Some((n, step)) = order.begin().and_then(|n| Some((n, plan.steps.get(n)?))) else {
                    break;
                };
                if left.holds_up(step) {
                    left.add(step);
                    order.done(n);
                    continue;
                }
                let what = Box::new(step.clone());
                progress.tell(EventKind::StepStarted { plan: id, number: n + 1, what });
                under_way.push(self.carry_out_step(execution, &count, n + 1, step));
            }
            let Some((carried, result)) = under_way.next().await else { break };
            let number = carried.number;
            match result {
                Ok(()) => {
                    order.done(number - 1);
                    let note = carried.outcome.note.clone();
                    progress.tell(EventKind::StepDone { plan: id, number, note });
                    done.push(carried);
                }
                Err(error) => {
                    progress.tell(EventKind::StepFailed { plan: id, number, error: error.clone() });
                    failures.push((Some(carried.step), error));
                    match policy {
                        Policy::AllOrNothing => done.extend(carried.in_doubt.then_some(carried)),
                        Policy::BestEffort => {
                            left.add(carried.step);
                            order.done(number - 1);
                        }
                    }
                }
            }
        }
        drop(under_way);
        Executed { done, failures }
    }

    /// Carries out one step and writes that down: what has come of it, and why it failed, with all causes.
    async fn carry_out_step<'a>(
        &self,
        execution: &Execution<'_>,
        count: &AtomicUsize,
        number: usize,
        step: &'a Step,
    ) -> (Carried<'a>, Result<(), String>) {
        let mut carried = Carried { number, step, outcome: Outcome::default(), noted: None, in_doubt: false };
        let begun = Instant::now();
        let result = self.try_step(execution, count, &mut carried).await;
        self.counters.step(step, result.is_ok(), begun.elapsed());
        (carried, result)
    }

    async fn try_step(
        &self,
        execution: &Execution<'_>,
        count: &AtomicUsize,
        carried: &mut Carried<'_>,
    ) -> Result<(), String> {
        let Execution { plan, journal, progress, .. } = execution;
        let number = carried.number;
        let _kept_out = self.runner.keep_out(carried.step).await;
        carried.noted = self.notes.look(|state| state.noted_for(carried.step));
        carried.outcome = self.runner.found_before(carried.step).await.map_err(|error| {
            self.watch_stuck(carried.step, &error);
            error_chain(&error)
        })?;
        carried.outcome.was_in_doubt = self.notes.look(|state| state.is_in_doubt(carried.step));
        let step = &match plan.intent.policy() {
            Policy::AllOrNothing => carried.step.clone(),
            Policy::BestEffort => as_noted_now(carried),
        };
        if let Err(error) = journal.begun(number, &carried.outcome, &carried.noted) {
            journal.failed(number);
            return Err(error_chain(&error));
        }
        let gives_up = async {
            if step.meaning().may_be_given_up {
                progress.cancelled().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let result = tokio::select! {
            result = self.runner.do_step(step, carried.outcome.clone()) => result,
            // Whatever the guest does later all the same is noticed.
            () = gives_up => Err(ImpError::Cancelled.into()),
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
        let _kept_out_too = self.runner.keep_out_at_last(step).await;
        let order = count.load(Ordering::Relaxed) + 1;
        let ends = (order == plan.steps.len()).then_some(*plan);
        if let Err(error) = journal.done(number, order, step, &carried.outcome, &carried.noted, ends) {
            // A step that is not written down must not be done either.
            carried.in_doubt = true;
            return Err(error_chain(&error));
        }
        count.store(order, Ordering::Relaxed);
        self.runner.tell_partitions(step);
        Ok(())
    }
}

/// A step that repairs settings, as of now: whatever a partition has changed since it was planned holds.
fn as_noted_now(carried: &Carried<'_>) -> Step {
    match (carried.step, &carried.noted, &carried.outcome.settings_before) {
        (Step::ConfigureVf { vf, to }, Some(noted), Some(present)) => {
            Step::ConfigureVf { vf: *vf, to: noted.lost_since(to, present) }
        }
        (step, ..) => step.clone(),
    }
}
