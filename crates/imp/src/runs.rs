//! How often plans have started and stopped each partition. A look at its machine, or news of it, that is older than that says
//! nothing any more.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ioward_model::{Name, Step};

/// Counts of starts and stops, by partition.
#[derive(Debug, Default)]
pub(crate) struct Runs(Mutex<HashMap<Name, u64>>);

/// The counts at one moment.
#[derive(Debug)]
pub(crate) struct RunsThen(HashMap<Name, u64>);

impl Runs {
    /// The counts, before a look.
    pub(crate) fn now(&self) -> RunsThen {
        // Whoever notes something holds it for as long as the disk takes.
        tokio::task::block_in_place(|| RunsThen(self.lock().clone()))
    }

    /// Counts a step that has been carried out and is about to be noted.
    pub(crate) fn count(&self, step: &Step) {
        if let Step::StartPartition { partition } | Step::StopPartition { partition, .. } = step {
            tokio::task::block_in_place(|| *self.lock().entry(partition.clone()).or_default() += 1);
        }
    }

    /// Does something with those that no plan has started or stopped since; no start or stop is noted meanwhile.
    pub(crate) fn of_those_since<T>(
        &self,
        then: &RunsThen,
        partitions: &[Name],
        note: impl FnOnce(Vec<Name>) -> T,
    ) -> T {
        let now = self.lock();
        let is_same = |partition: &&Name| now.get(*partition) == then.0.get(*partition);
        note(partitions.iter().filter(is_same).cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
