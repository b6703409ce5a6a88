//! Carries out a plan: what has nothing in common side by side, and what has one after the other ([`crate::order`]). How each step
//! goes is in [`crate::course`].
//!
//! ```text
//!   step 1 ─> step 2 ────────> … ─> step n ─> done
//!   step 3 ────────> step 4 ─┘
//!                      │ fails
//!     all or nothing   ├─> nothing begins any more, what is under way ends, and everything is rolled back (rollback.rs)
//!     best effort      └─> what rests on it is left, everything else goes on
//! ```
//!
//! A step that fails leaves nothing. One that is stuck in the kernel, or that was done and could not be written down, is
//! in doubt, and rolled back with the others.

use std::sync::Arc;

use async_trait::async_trait;
use ioward_fabric::FabricError;
use ioward_model::{EventKind, Plan, Step};

use crate::{
    changes::{Change, Listener},
    changing::ChangeGuard,
    error::ImpError,
    events::EventLog,
    journal::Journal,
    metrics::Counters,
    notes::Notes,
    operations::Operations,
    rollback::Carried,
    step::StepRunner,
};

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
}
