//! Rollback: the steps of a plan are taken back by their inverses, in the reverse of the order in which they were done.
//!
//! A VF that its guest does not let go of must not be unbound, nor an adapter be forgotten that still has the VFs ioward
//! made. So whatever rests on something that could not be rolled back is left as well: it stays noted, and the next plan sees
//! to it.

use std::collections::BTreeSet;

use ioward_fabric::FabricError;
use ioward_model::{Assignment, EventKind, Name, Outcome, Step, VfId};
use ioward_pci::Bdf;

use crate::{
    error::{ImpError, error_chain},
    executor::{Execution, Executor},
    journal::Journal,
    ownership::Together,
    step::is_in_doubt,
};

/// A step that was carried out, or perhaps was.
#[derive(Clone, Debug)]
pub(crate) struct Carried<'a> {
    /// Its number in the plan, from 1.
    pub number: usize,
    pub step: &'a Step,
    /// The results of carrying it out, or what was found before.
    pub outcome: Outcome,
    /// [`ioward_model::State::noted_for`] it, before it was.
    pub noted: Option<Assignment>,
    /// Whether it was carried out is not known.
    pub in_doubt: bool,
}

/// The parts of a host that were left as they are.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pfs: BTreeSet<Bdf>,
    vfs: BTreeSet<VfId>,
    partitions: BTreeSet<Name>,
}

impl Left {
    /// Whether the subject of a step was left: its adapter, its VF or its partition; for a step about an adapter,
    /// any VF of it.
    pub(crate) fn holds_up(&self, step: &Step) -> bool {
        let about = step.subject();
        about.pf.is_some_and(|pf| self.pfs.contains(&pf) || self.vfs.iter().any(|vf| vf.pf == pf))
            || about.vf.is_some_and(|vf| self.vfs.contains(&vf) || self.pfs.contains(&vf.pf))
            || about.partition.is_some_and(|partition| self.partitions.contains(partition))
    }

    /// Notes that the subject of a step is left.
    pub(crate) fn add(&mut self, step: &Step) {
        let about = step.subject();
        self.pfs.extend(about.pf);
        self.vfs.extend(about.vf);
        self.partitions.extend(about.partition.cloned());
    }
}

impl Executor {
    /// Rolls steps back, the last of them first, and goes on past those that can't be with what does not rest on them.
    pub(crate) async fn roll_back(
        &self,
        Execution { journal, number: plan, progress, .. }: &Execution<'_>,
        steps: Vec<Carried<'_>>,
        error: String,
    ) {
        let mut undone = true;
        let mut left = Left::default();
        for carried in steps.into_iter().rev() {
            let inverse = carried.step.inverse(&carried.outcome);
            let number = carried.number;
            let (error, in_doubt) = if inverse.as_ref().is_some_and(|inverse| left.holds_up(inverse)) {
                (Some("left as it is: what it rests on could not be undone".to_owned()), false)
            } else {
                match self.roll_back_step(journal, &carried, inverse.as_ref()).await {
                    Ok(()) => (None, false),
                    Err(error) => {
                        self.watch_stuck(carried.step, &error);
                        (Some(error_chain(&error)), is_in_doubt(&error))
                    }
                }
            };
            let Some(inverse) = inverse else { continue };
            if error.is_some() {
                undone = false;
                left.add(&inverse);
                self.note_what_may_be_there(
                    journal,
                    carried.in_doubt.then_some((carried.step, &carried.outcome)),
                );
                self.note_what_may_be_there(journal, in_doubt.then_some((&inverse, &Outcome::default())));
            }
            progress.tell(EventKind::StepUndone { plan: *plan, number, error });
        }
        journal.failed_plan(undone);
        progress.tell(EventKind::PlanFailed { plan: *plan, error, undone });
    }

    /// Notes what a partition may have been given, when nobody could say whether it was.
    fn note_what_may_be_there(&self, journal: &Journal<'_>, in_doubt: Option<(&Step, &Outcome)>) {
        if let Some((step, outcome)) = in_doubt {
            journal.left(step, outcome);
            self.runner.tell_partitions(step);
        }
    }

    /// Rolls one step back by its inverse, which leaves alone what is so already: for a step that was not carried out it does
    /// nothing.
    async fn roll_back_step(
        &self,
        journal: &Journal<'_>,
        carried: &Carried<'_>,
        inverse: Option<&Step>,
    ) -> Result<(), ImpError> {
        let Carried { number, step, noted, in_doubt, .. } = carried;
        if *in_doubt && step.meaning().asks_guest {
            // When that fails, the guest still has what it was to let go of, and the inverse finds it so.
            let _ = self.runner.do_step(step, Outcome::default()).await;
        }
        let Some(inverse) = inverse else {
            journal.rolled_back(*number, step, None, noted.as_ref());
            return Ok(());
        };
        let _kept_out = self.runner.keep_out(inverse, &Together::default()).await;
        let outcome = match self.find_and_do(inverse).await {
            Err(ImpError::Fabric(FabricError::NoSuchVf { .. })) if inverse.meaning().ends_with_vf => {
                Outcome::default()
            }
            outcome => outcome?,
        };
        let _kept_out_too = self.runner.keep_out_at_last(inverse, &Together::default()).await;
        journal.rolled_back(*number, step, Some((inverse, &outcome)), noted.as_ref());
        self.runner.tell_partitions(inverse);
        Ok(())
    }

    async fn find_and_do(&self, step: &Step) -> Result<Outcome, ImpError> {
        let found = self.runner.found_before(step).await?;
        self.runner.do_step(step, found).await.map_err(|failure| failure.error)
    }
}
