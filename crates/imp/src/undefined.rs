//! Gives back the VFs of domains that were undefined: their partitions are removed, by plans like those of a person.
//!
//! Some edit a domain by `virsh undefine` and `virsh define`, so one has to be gone at two looks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ioward_model::{Intent, KindName, Name, Options, PartitionState};
use tokio::time::sleep;

use crate::{
    error::{ImpError, error_chain},
    imp::Imp,
};

/// Between two looks.
const LOOK_EACH: Duration = Duration::from_secs(10);
/// How long plans of others may take before.
const WAIT: Duration = Duration::from_secs(60);

/// What was found at the looks so far.
#[derive(Debug, Default)]
pub struct Undefined {
    /// Partitions whose domains were gone at the last look.
    gone: BTreeSet<Name>,
    /// Those of them that were to be removed already. Why that failed has been told: a person has to see to it.
    tried: BTreeSet<Name>,
}

impl Imp {
    /// Gives back what domains had that are undefined, for as long as the daemon lives. Without a domain it sleeps.
    pub(crate) async fn follow_undefined(self: Arc<Self>) {
        let mut undefined = Undefined::default();
        loop {
            let is_domain = |noted: &PartitionState| noted.spec.kind.name() == KindName::Domain;
            self.notes.wait_for(|state| state.partitions.values().any(is_domain)).await;
            sleep(LOOK_EACH).await;
            if let Err(error) = self.give_back_undefined(&mut undefined).await {
                tracing::warn!("cannot look for domains that were undefined: {}", error_chain(&error));
            }
        }
    }

    /// Looks once, and begins to remove the partitions whose domains were gone at the look before, too.
    ///
    /// # Errors
    /// When the hypervisor can't tell.
    pub async fn give_back_undefined(self: &Arc<Self>, before: &mut Undefined) -> Result<(), ImpError> {
        let gone = self.gone().await?;
        before.tried.retain(|partition| gone.contains(partition));
        let still: Vec<_> = before.gone.intersection(&gone).cloned().collect();
        for partition in still {
            if !before.tried.insert(partition.clone()) {
                continue;
            }
            tracing::info!("partition {partition} is removed: its domain was undefined");
            let intent = Intent::Remove { partition: partition.clone() };
            let plan = self.plan(&intent, &Options::default()).await;
            let begun = match plan {
                Ok(plan) => self.begin_within(plan, WAIT, None).await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = begun {
                tracing::warn!("partition {partition} stays, to be removed by hand: {}", error_chain(&error));
            }
        }
        before.gone = gone;
        Ok(())
    }

    async fn gone(&self) -> Result<BTreeSet<Name>, ImpError> {
        let all = self.hypervisor.partitions().await?;
        let noted = self.state().partitions;
        let is_gone = |name: &Name| noted.contains_key(name);
        let gone = all.into_iter().filter(|status| status.gone && !status.running).map(|status| status.name);
        Ok(gone.filter(is_gone).collect())
    }
}
