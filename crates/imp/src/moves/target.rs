//! The side that a partition comes to.

use std::{collections::VecDeque, os::fd::OwnedFd};

use ioward_hypervisor::HypervisorError;
use ioward_model::{
    EventKind, Name, Owner, State,
    handover::{
        MoveId, MovedPartition, Target, TargetAction, TargetNote, ToSource, ToTarget, unknown_to_target,
    },
};
use tokio::time::Instant;

use super::{Live, Moves, Side, check_peer, not_moved};
use crate::error::{ImpError, error_chain};

impl Moves {
    /// Takes in what the source of a move says; `offer` is the partition and the source's name, beside [`ToTarget::Prepare`]. Gives what is
    /// to be told to it.
    pub(crate) async fn target_hears(
        &self,
        id: MoveId,
        messages: &[ToTarget],
        offer: Option<(&MovedPartition, &str)>,
    ) -> Vec<ToSource> {
        let mut live = self.live.lock().await;
        self.restore_one(&mut live, id).await;
        let mut answers = Vec::new();
        for message in messages {
            if let Some(it) = live.targets.get_mut(&id) {
                let actions = it.side.hear(message);
                self.target_does(&mut live, id, actions).await;
            } else if let (ToTarget::Prepare, Some((moved, peer))) = (message, offer) {
                match self.check_offer(moved, peer).await {
                    Ok(()) => {
                        // What is left of a move away from here is not asked for any more.
                        live.sources.retain(|_, before| before.name() != moved.spec.name);
                        let (target, actions) = Target::asked();
                        live.targets.insert(id, Side::new(target, moved.clone(), peer));
                        self.target_does(&mut live, id, actions).await;
                    }
                    Err(error) => answers.push(ToSource::Refused { why: error_chain(&error) }),
                }
            } else {
                answers.extend(unknown_to_target(message));
            }
        }
        self.look_at_target(&mut live, id).await;
        if let Some(it) = live.targets.get_mut(&id) {
            it.carried = Instant::now();
            if it.outbox.is_empty() {
                let actions = it.side.tick();
                self.target_does(&mut live, id, actions).await;
            }
        }
        if let Some(it) = live.targets.get_mut(&id) {
            answers.append(&mut it.outbox);
        }
        live.targets.retain(|_, it| !it.side.is_forgotten());
        answers
    }

    /// Takes a partition whose source is gone for good, because a person says so. Whether there was one.
    pub(crate) async fn accept(&self, partition: &Name) -> bool {
        let mut live = self.live.lock().await;
        let noted = self.notes.look(|state| state.moves.get(partition).map(|moving| moving.id));
        let Some(id) = noted else { return false };
        self.restore_one(&mut live, id).await;
        let Some(it) = live.targets.get_mut(&id) else { return false };
        let actions = it.side.accept();
        let is_accepted = !actions.is_empty();
        self.target_does(&mut live, id, actions).await;
        is_accepted
    }

    pub(super) async fn look_at_target(&self, live: &mut Live, id: MoveId) {
        let Some(it) = live.targets.get_mut(&id) else { return };
        let actions = match self.hypervisor.migration(&it.moved.spec.name).await {
            Ok(migration) => it.side.see(&migration),
            Err(HypervisorError::NotRunning(_) | HypervisorError::NoSuchPartition(_)) => {
                it.side.give_up("the machine that waited for its state has ended")
            }
            Err(_) => Vec::new(),
        };
        self.target_does(live, id, actions).await;
    }

    pub(super) async fn target_does(&self, live: &mut Live, id: MoveId, actions: Vec<TargetAction>) {
        self.goes_on.notify_one();
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            let Some(it) = live.targets.get_mut(&id) else { return };
            let name = it.name();
            match action {
                TargetAction::Note(note) => {
                    let (peer, moved) = (it.peer.clone(), it.moved.clone());
                    let is_noted = self.note(&name, |state| {
                        state.note_coming(id, &peer, &moved, note);
                    });
                    if !is_noted {
                        live.targets.remove(&id);
                        return;
                    }
                    tracing::info!("the move {id} of {name} from {peer}: {note:?}");
                    if note == Some(TargetNote::Owned) {
                        self.events.emit(EventKind::PartitionCame { partition: name, peer });
                    }
                }
                TargetAction::Tell(message) => it.outbox.push(message),
                TargetAction::Prepare => match self.prepare(&it.moved).await {
                    Ok(way) => {
                        it.way = Some(way);
                        queue.extend(it.side.prepared());
                    }
                    Err(error) => queue.extend(it.side.give_up(&error_chain(&error))),
                },
                TargetAction::Discard => {
                    it.way = None;
                    // What it owns is never ended by a move that came to nothing.
                    if self.notes.look(|state| !state.partitions.contains_key(&name)) {
                        self.end(&name).await;
                    }
                }
                TargetAction::Resume => {
                    let moved = it.moved.clone();
                    self.resume(&name).await;
                    // One that is gone can be started anew.
                    if let Err(error) = self.hypervisor.define(&moved.spec).await {
                        tracing::error!("partition {name}, which has come here: {}", error_chain(&error));
                    }
                    if moved.layout.channel {
                        self.channels.serve(&name);
                    }
                }
                TargetAction::Conflict => tracing::error!(
                    "partition {name} was taken over as its source was said to be gone, and that has kept it: it may run twice"
                ),
            }
        }
    }

    /// Whether a partition that is offered can be taken at all.
    async fn check_offer(&self, moved: &MovedPartition, peer: &str) -> Result<(), ImpError> {
        let name = &moved.spec.name;
        check_peer(name, peer)?;
        let is_here = |state: &State| {
            let moving = state.moves.get(name).is_some_and(|moving| !moving.is_settled());
            moving || state.partitions.contains_key(name)
        };
        if self.notes.look(is_here) {
            return Err(not_moved(
                name,
                format!("its target has a partition {name} already, or one on its way"),
            ));
        }
        if !moved.layout.standbys.keys().eq(moved.standbys.keys()) {
            return Err(not_moved(name, "its machine has other standbys than are said of it".into()));
        }
        let known = self.hypervisor.partitions().await?;
        if known.iter().any(|known| known.name == *name) {
            return Err(not_moved(
                name,
                format!("what runs partitions at its target knows a {name} already"),
            ));
        }
        let obstacles = self.hypervisor.check_definition(&moved.spec).await?;
        match obstacles.first() {
            Some(obstacle) => {
                let why = format!("its target needs {}, and there is {}", obstacle.required, obstacle.found);
                Err(not_moved(name, why))
            }
            None => Ok(()),
        }
    }

    async fn prepare(&self, moved: &MovedPartition) -> Result<OwnedFd, HypervisorError> {
        self.hypervisor.define(&moved.spec).await?;
        if moved.layout.channel {
            self.hypervisor.create_channel(&moved.spec.name).await?;
        }
        for (vf, nic) in &moved.standbys {
            let owner = Owner { partition: moved.spec.name.clone(), vf: vf.clone() };
            self.hypervisor.attach_standby(&owner, nic).await?;
        }
        self.hypervisor.receive(&moved.spec.name, &moved.layout).await
    }
}
