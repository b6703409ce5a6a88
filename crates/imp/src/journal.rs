//! The journal of one plan: each step is written down before it is carried out, and together with the state after.

use ioward_model::{Assignment, Ended, Outcome, Plan, PlanRecord, RowKey, State, Step, StepRecord};
use ioward_store::{Change, StoreError};

use crate::{
    events::now_ms,
    imp::Imp,
    notes::{Must, Notes},
};

/// The journal of a plan.
pub(crate) struct Journal<'a> {
    notes: &'a Notes,
    /// [`PlanRecord::number`].
    plan: u64,
}

impl Imp {
    /// Writes down that a plan is about to be carried out, as the change of this number.
    pub(crate) fn begin_plan(&self, number: u64, plan: &Plan) -> Result<(), StoreError> {
        let boot = self.run.boot.clone();
        let record = PlanRecord { number, plan: plan.clone(), boot, begun_ms: now_ms(), ended: None };
        let begun = vec![Change::PlanBegun(Box::new(record))];
        self.notes.change(Must::BeWritten, |_| Vec::new(), begun, |_| {})
    }

    pub(crate) fn journal(&self, plan: u64) -> Journal<'_> {
        Journal { notes: &self.notes, plan }
    }
}

impl Journal<'_> {
    fn step(&self, number: usize, record: StepRecord) -> Change {
        Change::Step { plan: self.plan, number, record }
    }

    /// A step is about to be carried out.
    pub(crate) fn begun(
        &self,
        number: usize,
        found: &Outcome,
        noted: &Option<Assignment>,
    ) -> Result<(), StoreError> {
        let record = StepRecord::Begun { found: found.clone(), noted: noted.clone() };
        self.notes.change(Must::BeWritten, |_| Vec::new(), vec![self.step(number, record)], |_| {})
    }

    /// A step has failed and has changed nothing.
    pub(crate) fn failed(&self, number: usize) {
        let failed = vec![self.step(number, StepRecord::Failed)];
        // Without it, a daemon after this one looks whether there is something to undo, and finds nothing.
        let _ = self.notes.change(Must::BeKnown, |_| Vec::new(), failed, |_| {});
    }

    /// A step has been carried out, and what it means is known from now on. The plan is given with its last step, which
    /// ends it.
    pub(crate) fn done(
        &self,
        number: usize,
        order: usize,
        step: &Step,
        outcome: &Outcome,
        noted: &Option<Assignment>,
        ends: Option<&Plan>,
    ) -> Result<(), StoreError> {
        let record = StepRecord::Done { order, outcome: outcome.clone(), noted: noted.clone() };
        let mut more = vec![self.step(number, record)];
        more.extend(ends.map(|_| Change::PlanEnded { plan: self.plan, ended: Ended::Done }));
        let rows = |state: &State| {
            let mut rows = state.rows_of(step);
            rows.extend(ends.into_iter().flat_map(State::rows_of_done));
            rows
        };
        self.notes.change(Must::BeWritten, rows, more, |state| {
            state.record(step, outcome);
            if let Some(plan) = ends {
                state.record_done(plan);
            }
        })
    }

    /// A step has been undone by its inverse, where it has one, and what was `noted` before it holds again.
    pub(crate) fn undone(
        &self,
        number: usize,
        step: &Step,
        inverse: Option<(&Step, &Outcome)>,
        noted: Option<&Assignment>,
    ) {
        let undone = vec![self.step(number, StepRecord::Undone)];
        // It is undone all the same, and a daemon after this one would find that out.
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

    /// The plan has failed. When something is left, plans made before no longer hold.
    pub(crate) fn ended(&self, undone: bool) {
        let ended = if undone { Ended::Undone } else { Ended::Left };
        let ended = vec![Change::PlanEnded { plan: self.plan, ended }];
        let _ = self.notes.change(
            Must::BeKnown,
            |_| vec![RowKey::Revision],
            ended,
            |state| {
                state.revision += u64::from(!undone);
            },
        );
    }
}
