//! Orphans: VFs that are bound to vfio-pci for nobody, as a crash of something that is not ioward leaves them. They may be
//! meant for something that is to start later, so they are taken back only when a person asks for it.

use std::{collections::BTreeSet, sync::Arc};

use ioward_api::Reaped;
use ioward_fabric::Fabric;
use ioward_hypervisor::Hypervisor;
use ioward_model::{EventKind, Orphan, VfId};

use crate::{
    error::{ImpError, error_chain},
    events::EventLog,
    look::Looks,
    ownership::Ownership,
};

/// The part that finds orphans, and takes them back.
pub(crate) struct Orphans {
    pub(crate) fabric: Arc<dyn Fabric>,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) looks: Arc<Looks>,
    pub(crate) events: Arc<EventLog>,
    pub(crate) ownership: Arc<Ownership>,
}

impl Orphans {
    /// VFs that are bound to vfio-pci, belong to no partition, and that nobody has open.
    ///
    /// # Errors
    /// When the host can't be looked at.
    pub(crate) async fn find(&self) -> Result<Vec<Orphan>, ImpError> {
        let inventory = self.looks.look().await?;
        let machines = self.hypervisor.partitions().await?;
        let given: BTreeSet<_> =
            machines.iter().flat_map(|machine| machine.vfs.iter().map(|(_, function)| *function)).collect();
        let mut orphans = Vec::new();
        for pf in &inventory.physical_functions {
            for vf in &pf.virtual_functions {
                let is_bound = vf.driver.as_deref() == Some("vfio-pci");
                if !is_bound || vf.owner.is_some() || given.contains(&vf.address) {
                    continue;
                }
                let id = VfId { pf: pf.address, index: vf.index };
                // One of which that can't be known is not said to be nobody's.
                if matches!(self.fabric.is_open(id).await, Ok(false)) {
                    orphans.push(Orphan { vf: id, address: vf.address });
                }
            }
        }
        Ok(orphans)
    }

    /// Resets all orphans and leaves them without a driver. To be called while nothing else is being changed.
    ///
    /// # Errors
    /// When the host can't be looked at.
    pub(crate) async fn reap_all(&self) -> Result<Vec<Reaped>, ImpError> {
        let mut reaped = Vec::new();
        for orphan in self.find().await? {
            let _kept_out = self.ownership.write(orphan.vf.pf).await;
            let error = match self.reap(orphan).await {
                Ok(()) => {
                    self.events.emit(EventKind::OrphanReaped { orphan });
                    None
                }
                Err(error) => Some(error_chain(&error)),
            };
            reaped.push(Reaped { orphan, error });
        }
        Ok(reaped)
    }

    async fn reap(&self, Orphan { vf, .. }: Orphan) -> Result<(), ImpError> {
        // Whoever had it last leaves nothing to whoever gets it next.
        self.fabric.reset(vf).await?;
        self.fabric.bind(vf, None).await?;
        Ok(())
    }
}
