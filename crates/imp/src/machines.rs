//! The machines of partitions: how they are, and when they have ended.

use std::{collections::BTreeSet, sync::Arc};

use ioward_api::{AssignedVf, PartitionView};
use ioward_hypervisor::{Hypervisor, HypervisorEvent};
use ioward_model::{Class, EventKind, Name, RowKey, State};

use crate::{
    channels::Channels,
    error::{ImpError, error_chain},
    events::EventLog,
    notes::{Must, Notes},
};

/// The part that knows of machines.
pub(crate) struct Machines {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) events: Arc<EventLog>,
    pub(crate) channels: Arc<Channels>,
}

impl Machines {
    /// All partitions, as they are.
    ///
    /// # Errors
    /// When the hypervisor can't tell.
    pub(crate) async fn views(&self) -> Result<Vec<PartitionView>, ImpError> {
        let machines = self.hypervisor.partitions().await?;
        let state = self.notes.state();
        let views = state.partitions.values().map(|partition| {
            let machine = machines.iter().find(|machine| machine.name == partition.spec.name);
            let vfs = partition.vfs.iter().map(|(name, assignment)| {
                let request = partition.spec.vf(name);
                AssignedVf {
                    name: name.clone(),
                    class: request.map_or(Class::Other, |request| request.class),
                    vf: assignment.vf,
                    address: assignment.address,
                    settings: assignment.effective_settings(),
                    guest_may: request.map(|request| request.guest_may.words()).unwrap_or_default(),
                }
            });
            PartitionView {
                name: partition.spec.name.clone(),
                running: machine.is_some_and(|machine| machine.running),
                accelerator: machine.and_then(|machine| machine.accelerator),
                pid: machine.and_then(|machine| machine.pid),
                kind: (&partition.spec.kind).into(),
                channel: partition.channel,
                agent: self.channels.agent(&partition.spec.name),
                console: machine.and_then(|machine| machine.console.clone()),
                vfs: vfs.collect(),
            }
        });
        Ok(views.collect())
    }

    async fn runs(&self, partition: &Name) -> bool {
        let machines = self.hypervisor.partitions().await.unwrap_or_default();
        machines.iter().any(|machine| machine.name == *partition && machine.running)
    }

    pub(crate) async fn note_those_gone(&self, why: &str) -> Result<(), ImpError> {
        // Before the look: what is started after it has not gone.
        let noted = self.notes.state().partitions;
        let machines = self.hypervisor.partitions().await?;
        let running: BTreeSet<_> =
            machines.iter().filter(|machine| machine.running).map(|machine| &machine.name).collect();
        let gone = noted.iter().filter(|(name, partition)| partition.running && !running.contains(name));
        self.note_ended(gone.map(|(name, _)| name), why);
        Ok(())
    }

    /// Follows what the hypervisor tells, for as long as the daemon lives.
    pub(crate) async fn follow(&self) {
        let mut events = self.hypervisor.events().await;
        // Nobody tells of a machine that ended after it was adopted and before somebody listened.
        if let Err(error) = self.note_those_gone("its machine was gone when the daemon started").await {
            tracing::error!("cannot look for machines that have ended: {}", error_chain(&error));
        }
        while let Some(HypervisorEvent::Ended { partition, why }) = events.recv().await {
            // The news may be older than the latest start, and a start may come while it is looked.
            let is_running =
                |state: &State| state.partitions.get(&partition).is_some_and(|noted| noted.running);
            let was_running = self.notes.look(is_running);
            if self.runs(&partition).await {
                continue;
            }
            if was_running {
                self.note_ended([&partition], &why);
            } else {
                self.events.emit(EventKind::PartitionEnded { partition, why });
            }
        }
    }

    /// Notes all of them at once: a disk takes as long for one as for those of a whole host.
    fn note_ended<'a>(&self, partitions: impl IntoIterator<Item = &'a Name>, why: &str) {
        let partitions: Vec<_> = partitions.into_iter().collect();
        partitions.iter().for_each(|partition| self.channels.stop(partition));
        let rows = |_: &State| partitions.iter().map(|name| RowKey::Partition((*name).clone())).collect();
        let mut news = Vec::new();
        // That it can't be written down makes it no less so; the log says it.
        let _ = self.notes.change(Must::BeKnown, rows, Vec::new(), |state| {
            for name in &partitions {
                let noted = state.partitions.get_mut(*name);
                if noted.is_some_and(|partition| std::mem::take(&mut partition.running)) {
                    news.push((*name).clone());
                }
            }
        });
        for partition in news {
            self.events.emit(EventKind::PartitionEnded { partition, why: why.to_owned() });
        }
    }
}
