//! The machines of partitions: how they are, and when they have ended.

use std::{collections::BTreeSet, sync::Arc};

use ioward_api::{AssignedVf, PartitionView};
use ioward_hypervisor::{Hypervisor, HypervisorEvent, PartitionStatus};
use ioward_model::{Class, EventKind, Name, Owner, RowKey, State};
use tokio::sync::{Mutex, Notify};

use crate::{
    channels::Channels,
    error::{ImpError, error_chain},
    events::EventLog,
    notes::{Must, Notes},
    runs::{Runs, RunsThen},
};

/// The part that knows of machines.
pub(crate) struct Machines {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) events: Arc<EventLog>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) runs: Arc<Runs>,
    /// The hypervisor has told something that is worth a look at the host.
    pub(crate) news: Arc<Notify>,
    /// Held while one event or one look is noted. A look in the middle of an event would note its end first, and its reason would be
    /// told by nobody.
    pub(crate) noting: Mutex<()>,
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
                    failover: partition.pair_view(name),
                    standby_bridge: partition.standbys.get(name).map(|nic| nic.bridge.clone()),
                    failed_over: assignment.failed_over.clone(),
                }
            });
            PartitionView {
                name: partition.spec.name.clone(),
                running: machine.is_some_and(|machine| machine.running),
                halted: machine.and_then(|machine| machine.halted),
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

    async fn is_running(&self, partition: &Name) -> bool {
        let machines = self.hypervisor.partitions().await.unwrap_or_default();
        machines.iter().any(|machine| machine.name == *partition && machine.running)
    }

    /// Notes what has ended, or been started by others, and was not told; serves the channels of the latter.
    ///
    /// # Errors
    /// When the hypervisor can't tell.
    pub(crate) async fn catch_up(&self, why: &str) -> Result<(), ImpError> {
        self.note_how_they_are(why).await?.iter().for_each(|partition| self.channels.serve(partition));
        Ok(())
    }

    /// The same, and serves nobody yet. Those that were started.
    ///
    /// # Errors
    /// When the hypervisor can't tell.
    pub(crate) async fn note_how_they_are(&self, why: &str) -> Result<Vec<Name>, ImpError> {
        let _noting = self.noting.lock().await;
        // Before the look: what is started after it has not gone.
        let (then, noted) = (self.runs.now(), self.notes.state());
        let machines = self.hypervisor.partitions().await?;
        let Misnoted { ended, started } = misnoted(&noted, &machines);
        for partition in self.note_ended(&then, &ended) {
            self.events.emit(EventKind::PartitionEnded { partition, why: why.to_owned() });
        }
        let mut running = Vec::new();
        for partition in started {
            // A plan may have started it meanwhile, and another have stopped it.
            let then = self.runs.now();
            if self.is_running(&partition).await && self.note_started(&then, &partition) {
                running.push(partition);
            }
        }
        Ok(running)
    }

    /// Follows what the hypervisor tells, for as long as the daemon lives.
    pub(crate) async fn follow(&self) {
        let mut events = self.hypervisor.events().await;
        // Nobody tells of a machine that ended after it was adopted and before somebody listened.
        if let Err(error) = self.catch_up("its machine was gone when the daemon started").await {
            tracing::error!("cannot look for machines that have ended: {}", error_chain(&error));
        }
        while let Some(event) = events.recv().await {
            // A guest that connects is no reason to look at the host.
            let is_news = !matches!(event, HypervisorEvent::AgentConnected { .. });
            self.handle(event).await;
            if is_news {
                self.news.notify_one();
            }
        }
    }

    /// The news may be older than the latest start, and a start may come while it is looked.
    async fn handle(&self, event: HypervisorEvent) {
        let _noting = self.noting.lock().await;
        let then = self.runs.now();
        match event {
            HypervisorEvent::Ended { partition, why } => {
                let is_running =
                    |state: &State| state.partitions.get(&partition).is_some_and(|noted| noted.running);
                let was_running = self.notes.look(is_running);
                if self.is_running(&partition).await {
                    return;
                }
                if !was_running || !self.note_ended(&then, std::slice::from_ref(&partition)).is_empty() {
                    self.events.emit(EventKind::PartitionEnded { partition, why });
                }
            }
            HypervisorEvent::Started { partition } => {
                if self.is_running(&partition).await && self.note_started(&then, &partition) {
                    self.channels.serve(&partition);
                }
            }
            HypervisorEvent::AgentConnected { partition } => self.channels.serve(&partition),
            // The look that follows finds it.
            HypervisorEvent::Halted { .. } => {}
            HypervisorEvent::Gone { partition, why } => {
                if self.is_running(&partition).await {
                    return;
                }
                self.note_ended(&then, std::slice::from_ref(&partition));
                self.events.emit(EventKind::PartitionGone { partition, why });
            }
            HypervisorEvent::Detached { owner: Owner { partition, vf }, why } => {
                self.events.emit(EventKind::VfTakenOut { partition, vf, why });
            }
        }
    }

    /// Notes that a partition runs, which somebody else has started, unless a plan has started or stopped it since. Whether it is noted.
    fn note_started(&self, then: &RunsThen, partition: &Name) -> bool {
        let rows = |_: &State| vec![RowKey::Partition(partition.clone())];
        let mut is_news = false;
        let is_so = self.runs.of_those_since(then, std::slice::from_ref(partition), |them| {
            if them.is_empty() {
                return false;
            }
            // That it can't be written down makes it no less so; the log says it.
            let _ = self.notes.change(Must::BeKnown, rows, Vec::new(), |state| {
                if let Some(noted) = state.partitions.get_mut(partition) {
                    is_news = !std::mem::replace(&mut noted.running, true);
                }
            });
            true
        });
        if is_news {
            self.events.emit(EventKind::PartitionStartedElsewhere { partition: partition.clone() });
        }
        is_so
    }

    /// Notes all of them at once, but for those that a plan has started or stopped since: a disk takes as long for one as for those of a
    /// whole host. Those that were noted as running.
    fn note_ended(&self, then: &RunsThen, partitions: &[Name]) -> Vec<Name> {
        self.runs.of_those_since(then, partitions, |partitions| {
            partitions.iter().for_each(|partition| self.channels.stop(partition));
            let rows = |_: &State| partitions.iter().cloned().map(RowKey::Partition).collect();
            let mut news = Vec::new();
            // That it can't be written down makes it no less so; the log says it.
            let _ = self.notes.change(Must::BeKnown, rows, Vec::new(), |state| {
                for name in &partitions {
                    let noted = state.partitions.get_mut(name);
                    if noted.is_some_and(|partition| std::mem::take(&mut partition.running)) {
                        news.push(name.clone());
                    }
                }
            });
            news
        })
    }
}

/// Partitions that are noted otherwise than they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Misnoted {
    /// Noted as running, and not so.
    pub(crate) ended: Vec<Name>,
    /// Domains and namespaces that run and are not noted so. A machine of ioward's own is started by steps only, which note it.
    pub(crate) started: Vec<Name>,
}

/// Compares what is noted with what the hypervisor says.
pub(crate) fn misnoted(state: &State, machines: &[PartitionStatus]) -> Misnoted {
    let running: BTreeSet<_> =
        machines.iter().filter(|machine| machine.running).map(|machine| &machine.name).collect();
    let mut all = Misnoted::default();
    for (name, noted) in &state.partitions {
        match (noted.running, running.contains(name)) {
            (true, false) => all.ended.push(name.clone()),
            (false, true) if noted.spec.machine().is_none() => all.started.push(name.clone()),
            _ => {}
        }
    }
    all
}
