//! Recovery: a daemon rolls back what the one before it was in the middle of when it ended, before it serves anybody.
//!
//! ```text
//!   operation that was not answered ─────────────────────────────> its VF is set as before
//!   plan of an earlier boot of the host ─────────────────────────> what is noted is as before; the host is anyway
//!   plan of which nothing but stopping or detaching is missing ──> finished: a guest that was asked can't be told no
//!   plan that is rolled back on the host already ────────────────> what is noted is as before
//!   plan of repairs ─────────────────────────────────────────────> ended; the next look makes a plan of the rest
//!   any other plan ──────────────────────────────────────────────> rolled back, like one that has failed
//! ```
//!
//! The journal says where to look, and no more: a step that is noted as begun may be done, half done, or not. It is rolled
//! back by its inverse, which looks at the host and leaves alone what is so already.

use ioward_model::{EventKind, Outcome, Policy, Step, StepRecord};
use ioward_store::Interrupted;

use crate::{
    as_before::is_as_before,
    changes::{Changes, Listener},
    executor::{Execution, Executor, Progress as _},
    journal::Journal,
    look::Looks,
    ownership::Together,
    rollback::Carried,
};

/// The parts that recovery takes.
pub(crate) struct Recovery<'a> {
    pub(crate) executor: &'a Executor,
    pub(crate) looks: &'a Looks,
    pub(crate) changes: &'a Changes,
    /// The kernel's ID of this boot of the host.
    pub(crate) boot: &'a str,
}

impl Recovery<'_> {
    /// Rolls back, or finishes, what the daemon before this one was in the middle of.
    pub(crate) async fn recover(&self, interrupted: Option<Interrupted>) {
        self.executor.operations.put_all_back().await;
        let Some(Interrupted { record, steps }) = interrupted else { return };
        let (plan, id) = (&record.plan, record.number);
        let notes = &self.executor.notes;
        if plan.intent.policy() == Policy::BestEffort {
            // Its steps are noted; the next look makes a plan of what is missing.
            Journal::of_repairs(notes, id).left_repairs();
            return;
        }
        let listener = Listener::new(&self.executor.events, self.changes.begin(id, plan, None));
        let execution = Execution { plan, number: id, journal: Journal::of(notes, id), progress: &listener };
        let carried = carried(&plan.steps, &steps);
        let under_way = carried.iter().filter(|carried| carried.in_doubt).count();
        listener.tell(EventKind::PlanInterrupted {
            plan: id,
            steps: plan.steps.len(),
            done: carried.len() - under_way,
            under_way,
        });
        let error = "the daemon ended in the middle of it".to_owned();
        if record.boot != self.boot {
            self.roll_back_notes(&execution, carried, error).await;
            return;
        }
        let only_guests_are_missing = carried.len() == plan.steps.len()
            && under_way > 0
            && carried.iter().all(|carried| !carried.in_doubt || carried.step.meaning().asks_guest);
        if only_guests_are_missing && self.finish(&execution, &carried).await {
            listener.tell(EventKind::PlanDone { plan: id });
            return;
        }
        if is_as_before(self.looks, &self.executor.runner, &carried).await {
            put_notes_back(&execution, carried, error);
            return;
        }
        self.executor.roll_back(&execution, carried, error).await;
    }

    /// Carries out what is missing of a plan. False when that is not possible: what was done is in the journal.
    async fn finish(
        &self,
        Execution { plan, number: id, journal, progress }: &Execution<'_>,
        carried: &[Carried<'_>],
    ) -> bool {
        let under_way: Vec<_> = carried.iter().filter(|carried| carried.in_doubt).collect();
        for (n, under_way_still) in under_way.iter().enumerate() {
            let Carried { number, step, .. } = *under_way_still;
            let before = carried.len() - under_way.len() + n;
            let ends = (before + 1 == carried.len()).then_some(*plan);
            let Ok(outcome) = self.executor.runner.do_step(step, Outcome::default()).await else {
                return false;
            };
            let _kept_out = self.executor.runner.keep_out_at_last(step, &Together::default()).await;
            let finished = Carried { outcome, ..(*under_way_still).clone() };
            if journal.write_down(&[], before, &[(step, &finished)], ends).is_err() {
                return false;
            }
            progress.tell(EventKind::StepDone { plan: *id, number: *number, note: finished.outcome.note });
        }
        true
    }

    /// Rolls back a plan of an earlier boot. Its effects on VFs and machines are gone with that. What is noted is put back, and
    /// with it what the hypervisor may have written down.
    async fn roll_back_notes(&self, execution: &Execution<'_>, carried: Vec<Carried<'_>>, error: String) {
        for Carried { step, outcome, .. } in carried.iter().rev() {
            if step.meaning().outlives_boot
                && let Some(inverse) = step.inverse(outcome)
            {
                let _ = self.executor.runner.do_step(&inverse, Outcome::default()).await;
            }
        }
        put_notes_back(execution, carried, error);
    }
}

/// Notes that steps are rolled back, which they are.
fn put_notes_back(
    Execution { number: plan, journal, progress, .. }: &Execution<'_>,
    carried: Vec<Carried<'_>>,
    error: String,
) {
    for Carried { number, step, outcome, noted, .. } in carried.into_iter().rev() {
        let inverse = step.inverse(&outcome);
        let outcome = Outcome::default();
        let inverse = inverse.as_ref().map(|inverse| (inverse, &outcome));
        journal.rolled_back(number, step, inverse, noted.as_ref());
        if inverse.is_some() {
            progress.tell(EventKind::StepUndone { plan: *plan, number, error: None });
        }
    }
    journal.failed_plan(true);
    progress.tell(EventKind::PlanFailed { plan: *plan, error, undone: true });
}

/// The steps that are to be rolled back, in the order in which they were done; those that were under way come last.
fn carried<'a>(
    steps: &'a [Step],
    journal: &std::collections::BTreeMap<usize, StepRecord>,
) -> Vec<Carried<'a>> {
    let carried = journal.iter().filter_map(|(number, record)| {
        let (order, outcome, noted) = match record {
            StepRecord::Begun { found, noted } => (usize::MAX, found, noted),
            StepRecord::Done { order, outcome, noted } => (*order, outcome, noted),
            StepRecord::Failed | StepRecord::Undone => return None,
        };
        let step = steps.get(number.checked_sub(1)?)?;
        let (outcome, noted, in_doubt) = (outcome.clone(), noted.clone(), order == usize::MAX);
        Some((order, Carried { number: *number, step, outcome, noted, in_doubt }))
    });
    let mut carried: Vec<_> = carried.collect();
    carried.sort_by_key(|(order, carried)| (*order, carried.number));
    carried.into_iter().map(|(_, carried)| carried).collect()
}
