//! The side that a partition leaves.

use std::collections::VecDeque;

use ioward_api::Leaving;
use ioward_hypervisor::HypervisorError;
use ioward_model::{
    EventKind, Name, VfRequest,
    handover::{MoveId, MovedPartition, Source, SourceAction, SourceNote, ToSource, unknown_to_source},
};
use tokio::time::Instant;

use super::{Live, Moves, Side, check_peer, not_moved};
use crate::error::{ImpError, error_chain};

impl Moves {
    /// Begins to move a partition away. Nothing else is being changed.
    pub(super) async fn begin(
        &self,
        id: MoveId,
        partition: &Name,
        peer: &str,
        wanted: Vec<VfRequest>,
    ) -> Result<MovedPartition, ImpError> {
        check_peer(partition, peer)?;
        let mut live = self.live.lock().await;
        let state = self.notes.state();
        let noted = state.partitions.get(partition);
        let noted = noted.ok_or_else(|| HypervisorError::NoSuchPartition(partition.clone()))?;
        if noted.spec.machine().is_none() {
            let kind = noted.spec.kind.name();
            let what = "moved by ioward; libvirt moves its domains itself (virsh migrate --live)".into();
            return Err(HypervisorError::NotForKind { partition: partition.clone(), kind, what }.into());
        }
        if state.moves.get(partition).is_some_and(|moving| !moving.is_settled()) {
            return Err(not_moved(partition, "it is being moved already".into()));
        }
        if let Some(vf) = noted.vfs.keys().next() {
            let why = format!(
                "it holds {vf}, and VFs do not go along; take them out first, and give it others there: ioward detach {partition} {vf}"
            );
            return Err(not_moved(partition, why));
        }
        let layout = self.hypervisor.layout(partition).await?;
        let moved =
            MovedPartition { spec: noted.spec.clone(), layout, standbys: noted.standbys.clone(), wanted };
        // What is left of the one before is not asked for any more.
        live.sources.retain(|_, before| before.name() != *partition);
        let (source, actions) = Source::begin();
        live.sources.insert(id, Side::new(source, moved.clone(), peer));
        self.source_does(&mut live, id, actions).await;
        if live.sources.contains_key(&id) {
            Ok(moved)
        } else {
            Err(not_moved(partition, "the state can't be written; see the log".into()))
        }
    }

    /// Takes in what the target of a move says, and gives what is to be told to it.
    pub(crate) async fn source_hears(&self, id: MoveId, messages: &[ToSource]) -> Leaving {
        let mut live = self.live.lock().await;
        self.restore_one(&mut live, id).await;
        for message in messages {
            let Some(it) = live.sources.get_mut(&id) else { break };
            let actions = it.side.hear(message);
            self.source_does(&mut live, id, actions).await;
        }
        self.look_at_source(&mut live, id).await;
        let Some(it) = live.sources.get_mut(&id) else {
            let messages = messages.iter().filter_map(unknown_to_source).take(1).collect();
            return Leaving { messages, is_given: false, why_kept: None, is_over: true };
        };
        it.carried = Instant::now();
        if it.outbox.is_empty() {
            let actions = it.side.tick();
            self.source_does(&mut live, id, actions).await;
        }
        let Some(it) = live.sources.get_mut(&id) else {
            return Leaving { messages: Vec::new(), is_given: false, why_kept: None, is_over: true };
        };
        let leaving = Leaving {
            messages: std::mem::take(&mut it.outbox),
            is_given: it.side.is_given(),
            why_kept: it.side.why_kept().map(str::to_owned),
            is_over: it.side.is_forgotten(),
        };
        live.sources.retain(|_, it| !it.side.is_forgotten());
        leaving
    }

    /// Has a partition stay here, where that is still possible. Whether it was.
    pub(crate) async fn cancel(&self, id: MoveId, why: &str) -> bool {
        let mut live = self.live.lock().await;
        self.restore_one(&mut live, id).await;
        let Some(it) = live.sources.get_mut(&id) else { return false };
        let actions = it.side.cancel(why);
        let is_cancelled = !actions.is_empty();
        self.source_does(&mut live, id, actions).await;
        is_cancelled
    }

    pub(super) async fn look_at_source(&self, live: &mut Live, id: MoveId) {
        let Some(it) = live.sources.get_mut(&id) else { return };
        let actions = match self.hypervisor.migration(&it.moved.spec.name).await {
            Ok(migration) => it.side.see(&migration),
            Err(HypervisorError::NotRunning(_) | HypervisorError::NoSuchPartition(_)) => {
                it.side.cancel("its machine has ended")
            }
            Err(_) => Vec::new(),
        };
        self.source_does(live, id, actions).await;
    }

    /// Carries out what a source has to do. Where a note can't be written, the side is forgotten in memory and goes on from what is
    /// noted, as after a restart.
    pub(super) async fn source_does(&self, live: &mut Live, id: MoveId, actions: Vec<SourceAction>) {
        self.goes_on.notify_one();
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            let Some(it) = live.sources.get_mut(&id) else { return };
            let name = it.name();
            match action {
                SourceAction::Note(note) => {
                    let (peer, moved) = (it.peer.clone(), it.moved.clone());
                    let why =
                        it.side.why_kept().unwrap_or("the daemon was started again meanwhile").to_owned();
                    let is_noted = self.note(&name, |state| {
                        state.note_leaving(id, &peer, &moved, note);
                    });
                    if !is_noted {
                        live.sources.remove(&id);
                        return;
                    }
                    tracing::info!("the move {id} of {name} to {peer}: {note:?}");
                    match note {
                        Some(SourceNote::Moving) => {
                            self.events.emit(EventKind::PartitionLeaves { partition: name, peer });
                        }
                        Some(SourceNote::Given) => {
                            self.events.emit(EventKind::PartitionLeft { partition: name, peer });
                        }
                        Some(SourceNote::Kept) => {
                            self.events.emit(EventKind::PartitionStays { partition: name, peer, why });
                        }
                        None => {}
                    }
                }
                SourceAction::Tell(message) => it.outbox.push(message),
                SourceAction::SendState => match self.hypervisor.send(&name).await {
                    Ok(way) => it.way = Some(way),
                    Err(error) => queue.extend(it.side.cancel(&error_chain(&error))),
                },
                SourceAction::Resume => {
                    it.way = None;
                    self.resume(&name).await;
                }
                SourceAction::End => {
                    it.way = None;
                    self.channels.stop(&name);
                    self.end(&name).await;
                }
            }
        }
    }
}
