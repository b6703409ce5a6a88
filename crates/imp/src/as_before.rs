//! Whether the host is as it was before a plan already. A daemon that could roll a plan back on the host but not write that down
//! (the disk was full) leaves a journal that says it is half done; rolled back step by step once more, a VF that its guest has
//! open again would be taken out of its hands on the way.
//!
//! The first finding of each step is the state before the plan. When all of that is so now, only the notes are put back.

use std::{collections::BTreeMap, sync::Arc};

use ioward_fabric::FabricError;
use ioward_model::{Aspect, AspectValue, Change, Observation, Outcome, Step};

use crate::{error::ImpError, imp::Imp, rollback::Carried};

/// The part of the host that a plan has touched, as it was before.
#[derive(Default)]
struct Before {
    values: BTreeMap<Aspect, AspectValue>,
    /// Steps that finish what may be half done, and do nothing where it is done.
    make_sure: Vec<Step>,
}

impl Before {
    /// From steps in the order in which they were done.
    fn of(steps: &[Carried<'_>]) -> Self {
        let mut before = Self::default();
        for Carried { step, outcome, .. } in steps {
            let Some(Change { aspect, from, .. }) = step.change(outcome) else { continue };
            let earlier = before.values.remove(&aspect);
            if earlier.is_none() {
                let inverse = step.inverse(outcome);
                before.make_sure.extend(inverse.filter(|inverse| inverse.meaning().may_be_half_done));
            }
            let value = match earlier {
                Some(earlier) => earlier.or(from),
                None => from,
            };
            before.values.insert(aspect, value);
        }
        // As they would be rolled back: a partition before its channel, and that before its VFs.
        before.make_sure.reverse();
        before
    }
}

impl Imp {
    /// Whether the host is as it was before these steps, in the order in which they were done.
    pub(crate) async fn is_as_before(self: &Arc<Self>, steps: &[Carried<'_>]) -> bool {
        // A guest may still do what it was asked for.
        if steps.iter().any(|carried| carried.in_doubt && carried.step.meaning().asks_guest) {
            return false;
        }
        let before = Before::of(steps);
        let (Ok(inventory), Ok(partitions)) = (self.look().await, self.hypervisor.partitions().await) else {
            return false;
        };
        let host = Observation { inventory: &inventory, partitions: &partitions };
        if !before.values.iter().all(|(aspect, value)| host.shows(aspect, value)) {
            return false;
        }
        for step in &before.make_sure {
            match self.do_step(step, Outcome::default()).await.map_err(|failure| failure.error) {
                Ok(_) | Err(ImpError::Fabric(FabricError::NoSuchVf { .. })) => {}
                Err(_) => return false,
            }
        }
        true
    }
}
