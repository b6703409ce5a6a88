//! The journal of one plan: each step that changes the host is written down before it is carried out, and each together with the state after.
//! What can be is written down at once.

use ioward_model::{Assignment, Ended, Outcome, Plan, PlanRecord, Policy, RowKey, State, Step, StepRecord};
use ioward_store::{Change, StoreError};

use crate::{
    error::error_chain,
    events::now_ms,
    notes::{Must, Notes},
    rollback::Carried,
};

/// The journal of a plan.
pub(crate) struct Journal<'a> {
    notes: &'a Notes,
    /// [`PlanRecord::number`]; `None`: this one can't be kept, and the plan is carried out all the same.
    plan: Option<u64>,
    policy: Policy,
}

/// Writes down that a plan is about to be carried out, as the change of this number, in this boot of the host.
pub(crate) fn begin_plan(notes: &Notes, boot: &str, number: u64, plan: &Plan) -> Result<(), StoreError> {
    let boot = boot.to_owned();
    let record = PlanRecord { number, plan: plan.clone(), boot, begun_ms: now_ms(), ended: None };
    let begun = vec![Change::PlanBegun(Box::new(record))];
    notes.change(Must::BeWritten, |_| Vec::new(), begun, |_| {})
}

impl<'a> Journal<'a> {
    /// The journal of a plan that was begun, all of whose steps are done, or none.
    pub(crate) fn of(notes: &'a Notes, plan: u64) -> Self {
        Self { notes, plan: Some(plan), policy: Policy::AllOrNothing }
    }

    /// The journal of repairs that the daemon before this one was in the middle of.
    pub(crate) fn of_repairs(notes: &'a Notes, plan: u64) -> Self {
        Self { policy: Policy::BestEffort, ..Self::of(notes, plan) }
    }

    /// Begins a plan that is carried out as far as that is possible. Where the disk is full, it goes without a journal: what
    /// it repairs is noted already.
    pub(crate) fn begin_repairs(notes: &'a Notes, boot: &str, number: u64, plan: &Plan) -> Self {
        let begun = begin_plan(notes, boot, number, plan);
        if let Err(error) = &begun {
            tracing::error!("a plan to reconcile has no journal: {}", error_chain(error));
        }
        Self { notes, plan: begun.is_ok().then_some(number), policy: Policy::BestEffort }
    }

    fn step(&self, number: usize, record: StepRecord) -> Vec<Change> {
        self.plan.map(|plan| Change::Step { plan, number, record }).into_iter().collect()
    }

    fn end(&self, ended: Ended) -> Option<Change> {
        self.plan.map(|plan| Change::PlanEnded { plan, ended })
    }

    /// Writes down what must be for a plan to go on, if it is one that does not go on otherwise.
    fn write(
        &self,
        rows: impl FnOnce(&State) -> Vec<RowKey>,
        more: Vec<Change>,
        change: impl FnOnce(&mut State),
    ) -> Result<(), StoreError> {
        match self.policy {
            Policy::AllOrNothing => self.notes.change(Must::BeWritten, rows, more, change),
            Policy::BestEffort => {
                // It is so, whether it can be written down or not; the log says it.
                let _ = self.notes.change(Must::BeKnown, rows, more, change);
                Ok(())
            }
        }
    }

    /// A step has failed and has changed nothing.
    pub(crate) fn failed(&self, number: usize) {
        let failed = self.step(number, StepRecord::Failed);
        // Without it, a daemon after this one looks whether there is something to undo, and finds nothing.
        let _ = self.notes.change(Must::BeKnown, |_| Vec::new(), failed, |_| {});
    }

    /// Writes down, at once, that steps are about to be carried out, and that others have been: those are noted in the state from now on.
    /// Of the latter, what was carried out; they are the next after so many that were `before`. The plan is given with its last step, which
    /// ends it.
    pub(crate) fn write_down(
        &self,
        begun: &[&Carried<'_>],
        before: usize,
        done: &[(&Step, &Carried<'_>)],
        ends: Option<&Plan>,
    ) -> Result<(), StoreError> {
        if done.is_empty() && self.plan.is_none() {
            return Ok(());
        }
        let begun = begun.iter().flat_map(|Carried { number, outcome, noted, .. }| {
            self.step(*number, StepRecord::Begun { found: outcome.clone(), noted: noted.clone() })
        });
        let finished =
            done.iter().enumerate().flat_map(|(n, (_, Carried { number, outcome, noted, .. }))| {
                let (order, outcome, noted) = (before + n + 1, outcome.clone(), noted.clone());
                self.step(*number, StepRecord::Done { order, outcome, noted })
            });
        let more = begun.chain(finished).chain(ends.and_then(|_| self.end(Ended::Done))).collect();
        let rows = |state: &State| {
            let mut rows: Vec<_> = done.iter().flat_map(|(step, _)| state.rows_of(step)).collect();
            rows.extend(ends.into_iter().flat_map(State::rows_of_done));
            rows
        };
        self.write(rows, more, |state| {
            for (step, Carried { outcome, .. }) in done {
                match self.policy {
                    Policy::AllOrNothing => state.record(step, outcome),
                    Policy::BestEffort => state.record_repair(step, outcome),
                }
            }
            if let Some(plan) = ends {
                state.record_done(plan);
            }
        })
    }

    /// A step has been rolled back by its inverse, where it has one, and what was `noted` before it holds again.
    pub(crate) fn rolled_back(
        &self,
        number: usize,
        step: &Step,
        inverse: Option<(&Step, &Outcome)>,
        noted: Option<&Assignment>,
    ) {
        let undone = self.step(number, StepRecord::Undone);
        // It is rolled back all the same, and a daemon after this one would find that out.
        let _ = self.notes.change(
            Must::BeKnown,
            |state| state.rows_of(step),
            undone,
            |state| {
                if let Some((inverse, outcome)) = inverse {
                    state.record(inverse, outcome);
                }
                if let Some(noted) = noted {
                    state.record_undone(step, noted);
                }
            },
        );
    }

    /// A step that perhaps is done could not be rolled back: what it may have given to a partition is noted.
    pub(crate) fn left(&self, step: &Step, outcome: &Outcome) {
        let rows = |state: &State| state.rows_of(step);
        let _ =
            self.notes.change(Must::BeKnown, rows, Vec::new(), |state| state.record_in_doubt(step, outcome));
    }

    /// The plan has failed. When something is left, plans made before no longer hold.
    pub(crate) fn failed_plan(&self, is_rolled_back: bool) {
        let ended = self.end(if is_rolled_back { Ended::Undone } else { Ended::Left });
        let _ = self.notes.change(
            Must::BeKnown,
            |_| vec![RowKey::Revision],
            ended.into_iter().collect(),
            |state| {
                state.revision += u64::from(!is_rolled_back);
            },
        );
    }

    /// Repairs have come to their end, and some are left. When all are done, the last of them has said so.
    pub(crate) fn left_repairs(&self) {
        let ended = self.end(Ended::Left).into_iter().collect();
        let _ = self.notes.change(Must::BeKnown, |_| Vec::new(), ended, |_| {});
    }
}
