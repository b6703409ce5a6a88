//! Moves of partitions to other hosts and from there: carries out what the two sides of a move ([`Source`], [`Target`]) have to do, and keeps
//! their notes.
//!
//! ```text
//!   whoever carries:  messages in ──> Source / Target ──> actions ──┬──> notes, hypervisor
//!                     messages out <── outbox <─────────────────────┘
//! ```
//!
//! The daemon has no network: somebody carries what the two sides say, and the state of the machine, and asks again and again
//! ([`Moves::source_hears`], [`Moves::target_hears`]). Each time, the side looks at its machine, and says once more what the other one may not
//! know. What is said is believed as far as it goes: who may carry, is for the API's roles. When nobody carries any more, a move that is
//! not decided is given up ([`CARRIER`]).
//!
//! While a partition is being moved, no plan touches it. It has no VFs then: they are taken out before, by a plan as at any time.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use ioward_api::Leaving;
use ioward_hypervisor::{Hypervisor, HypervisorError, StopMode};
use ioward_model::{
    EventKind, Name, Owner, RowKey, State, VfRequest,
    handover::{
        MoveId, MoveSide, MovedPartition, Source, SourceAction, SourceNote, Target, TargetAction, TargetNote,
        ToSource, ToTarget, unknown_to_source, unknown_to_target,
    },
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    channels::Channels,
    error::{ImpError, error_chain},
    events::EventLog,
    imp::Imp,
    notes::{Must, Notes},
};

/// So long may nobody come who carries, before a move that is not decided is given up.
const CARRIER: Duration = Duration::from_secs(60);
/// Between two looks whether somebody came.
const LOOK_EACH: Duration = Duration::from_secs(5);
/// The longest name of another host, in bytes.
const LONGEST_PEER: usize = 256;

/// The part that moves partitions.
pub(crate) struct Moves {
    hypervisor: Arc<dyn Hypervisor>,
    notes: Arc<Notes>,
    channels: Arc<Channels>,
    events: Arc<EventLog>,
    /// One thing at a time: moves are few, and what they wait for is bounded.
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    sources: BTreeMap<MoveId, Side<Source, ToTarget>>,
    targets: BTreeMap<MoveId, Side<Target, ToSource>>,
}

/// One side of a move, with what waits to be fetched.
struct Side<S, M> {
    side: S,
    moved: MovedPartition,
    peer: String,
    outbox: Vec<M>,
    /// The end of the way for the machine's state.
    way: Option<OwnedFd>,
    /// When somebody came last.
    carried: Instant,
}

impl<S, M> Side<S, M> {
    fn new(side: S, moved: MovedPartition, peer: &str) -> Self {
        Self { side, moved, peer: peer.to_owned(), outbox: Vec::new(), way: None, carried: Instant::now() }
    }

    fn name(&self) -> Name {
        self.moved.spec.name.clone()
    }
}

impl Moves {
    pub(crate) fn new(
        hypervisor: Arc<dyn Hypervisor>,
        notes: Arc<Notes>,
        channels: Arc<Channels>,
        events: Arc<EventLog>,
    ) -> Self {
        Self { hypervisor, notes, channels, events, live: Mutex::default() }
    }

    /// Goes on with what the daemon before this one was in the middle of.
    pub(crate) async fn restore(&self) {
        let mut live = self.live.lock().await;
        let ids: Vec<_> = self.notes.look(|state| state.moves.values().map(|moving| moving.id).collect());
        for id in ids {
            self.restore_one(&mut live, id).await;
        }
    }

    /// Begins to move a partition away. Nothing else is being changed.
    async fn begin(
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

    /// The end of the way that the state of a machine comes out of, or goes into: once.
    pub(crate) async fn way(&self, id: MoveId) -> Option<OwnedFd> {
        let mut live = self.live.lock().await;
        let out = live.sources.get_mut(&id).and_then(|it| it.way.take());
        out.or_else(|| live.targets.get_mut(&id).and_then(|it| it.way.take()))
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

    /// Gives up what nobody carries any more.
    async fn give_up_uncarried(&self) {
        let mut live = self.live.lock().await;
        let why = "nobody carries it any more";
        let late = |carried: Instant| carried.elapsed() >= CARRIER;
        let sources: Vec<_> =
            live.sources.iter().filter(|(_, it)| late(it.carried)).map(|(id, _)| *id).collect();
        for id in sources {
            let actions = live.sources.get_mut(&id).map(|it| it.side.cancel(why)).unwrap_or_default();
            self.source_does(&mut live, id, actions).await;
        }
        let targets: Vec<_> =
            live.targets.iter().filter(|(_, it)| late(it.carried)).map(|(id, _)| *id).collect();
        for id in targets {
            let actions = live.targets.get_mut(&id).map(|it| it.side.give_up(why)).unwrap_or_default();
            self.target_does(&mut live, id, actions).await;
        }
    }

    /// Has a side in memory that is noted.
    async fn restore_one(&self, live: &mut Live, id: MoveId) {
        if live.sources.contains_key(&id) || live.targets.contains_key(&id) {
            return;
        }
        let state = self.notes.state();
        let Some((name, noted)) = state.moving(id) else { return };
        match &noted.side {
            MoveSide::Leaving { note, given } => {
                let moved = match given {
                    Some(given) => (**given).clone(),
                    None => match self.as_it_is(&state, name).await {
                        Some(moved) => moved,
                        // It was kept, and has been removed since.
                        None => return self.forget(name),
                    },
                };
                let (source, actions) = Source::restored(*note);
                live.sources.insert(id, Side::new(source, moved, &noted.peer));
                self.source_does(live, id, actions).await;
            }
            MoveSide::Coming { note, partition } => {
                let (target, actions) = Target::restored(*note);
                live.targets.insert(id, Side::new(target, (**partition).clone(), &noted.peer));
                self.target_does(live, id, actions).await;
            }
        }
    }

    /// Forgets a move of a partition that is not there any more. That it can't be written makes nothing worse: it is forgotten next time.
    fn forget(&self, name: &Name) {
        let forgotten = self.notes.change(Must::BeKnown, rows_of(name), Vec::new(), |state| {
            state.moves.remove(name);
        });
        drop(forgotten);
    }

    /// A partition that stays: what its machine was like does not matter any more.
    async fn as_it_is(&self, state: &State, name: &Name) -> Option<MovedPartition> {
        let noted = state.partitions.get(name)?;
        let layout = match self.hypervisor.layout(name).await {
            Ok(layout) => layout,
            Err(_) => ioward_model::MachineLayout {
                machine: "pc-q35-unknown".parse().ok()?,
                accelerator: ioward_model::Accelerator::Tcg,
                channel: noted.channel,
                standbys: BTreeMap::new(),
            },
        };
        Some(MovedPartition {
            spec: noted.spec.clone(),
            layout,
            standbys: noted.standbys.clone(),
            wanted: Vec::new(),
        })
    }

    async fn look_at_source(&self, live: &mut Live, id: MoveId) {
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

    async fn look_at_target(&self, live: &mut Live, id: MoveId) {
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

    /// Carries out what a source has to do. Where a note can't be written, the side is forgotten in memory and goes on from what is
    /// noted, as after a restart.
    async fn source_does(&self, live: &mut Live, id: MoveId, actions: Vec<SourceAction>) {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            let Some(it) = live.sources.get_mut(&id) else { return };
            let name = it.name();
            match action {
                SourceAction::Note(note) => {
                    let rows = rows_of(&name);
                    let (peer, moved) = (it.peer.clone(), it.moved.clone());
                    let why =
                        it.side.why_kept().unwrap_or("the daemon was started again meanwhile").to_owned();
                    let noted = self.notes.change(Must::BeWritten, rows, Vec::new(), |state| {
                        state.note_leaving(id, &peer, &moved, note);
                    });
                    if let Err(error) = noted {
                        tracing::error!(
                            "how far the move of {name} is can't be noted: {}",
                            error_chain(&error)
                        );
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

    async fn target_does(&self, live: &mut Live, id: MoveId, actions: Vec<TargetAction>) {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            let Some(it) = live.targets.get_mut(&id) else { return };
            let name = it.name();
            match action {
                TargetAction::Note(note) => {
                    let rows = rows_of(&name);
                    let (peer, moved) = (it.peer.clone(), it.moved.clone());
                    let noted = self.notes.change(Must::BeWritten, rows, Vec::new(), |state| {
                        state.note_coming(id, &peer, &moved, note);
                    });
                    if let Err(error) = noted {
                        tracing::error!(
                            "how far the move of {name} is can't be noted: {}",
                            error_chain(&error)
                        );
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

    /// Has a machine run that stands still; one that is not there is left so.
    async fn resume(&self, name: &Name) {
        match self.hypervisor.resume(name).await {
            Ok(()) | Err(HypervisorError::NotRunning(_) | HypervisorError::NoSuchPartition(_)) => {}
            Err(error) => tracing::error!("partition {name} can't be resumed: {}", error_chain(&error)),
        }
    }

    /// Ends a machine that stands still, and forgets it.
    async fn end(&self, name: &Name) {
        let ended = async {
            let known = self.hypervisor.partitions().await?;
            let Some(known) = known.into_iter().find(|known| known.name == *name) else { return Ok(()) };
            self.hypervisor.stop(name, StopMode::Force).await?;
            for vf in known.standbys {
                self.hypervisor.detach_standby(&Owner { partition: name.clone(), vf }).await?;
            }
            self.hypervisor.undefine(name).await
        };
        if let Err(error) = ended.await {
            tracing::error!("what is left of partition {name} can't be removed: {}", error_chain(&error));
        }
    }
}

fn rows_of(name: &Name) -> impl FnOnce(&State) -> Vec<RowKey> + use<> {
    let name = name.clone();
    move |_| vec![RowKey::Partition(name.clone()), RowKey::Move(name)]
}

fn not_moved(partition: &Name, why: String) -> ImpError {
    HypervisorError::NotMoved { partition: partition.clone(), why }.into()
}

fn check_peer(partition: &Name, peer: &str) -> Result<(), ImpError> {
    if peer.is_empty() || peer.len() > LONGEST_PEER || peer.chars().any(char::is_control) {
        return Err(not_moved(partition, "the name of the other host makes no sense".into()));
    }
    Ok(())
}

impl Imp {
    /// Begins to move a partition to another host, named `peer` for people, where it is to have the VFs that are `wanted`. `id` is drawn at
    /// random by whoever asks. What the target is to be offered.
    ///
    /// # Errors
    /// When it can't be moved, something else is being changed, or that can't be noted.
    pub async fn begin_move(
        &self,
        id: MoveId,
        partition: &Name,
        peer: &str,
        wanted: Vec<VfRequest>,
    ) -> Result<MovedPartition, ImpError> {
        let _nothing_changes = self.begin_change(Duration::ZERO).await?;
        self.moves.begin(id, partition, peer, wanted).await
    }

    /// What the target of a move has said; what it is to be told.
    pub async fn move_source_hears(&self, id: MoveId, messages: &[ToSource]) -> Leaving {
        self.moves.source_hears(id, messages).await
    }

    /// What the source of a move has said, with its offer beside [`ToTarget::Prepare`]: the partition, and the source's name for people.
    /// What it is to be told. VFs are kept for a partition from then on that it is taken in.
    ///
    /// # Errors
    /// When the host can't be looked at, to know whether it has VFs for it.
    pub async fn move_target_hears(
        &self,
        id: MoveId,
        messages: &[ToTarget],
        offer: Option<(&MovedPartition, &str)>,
    ) -> Result<Vec<ToSource>, ImpError> {
        let is_new = messages.iter().any(|message| matches!(message, ToTarget::Prepare));
        let Some((moved, _)) = offer.filter(|_| is_new) else {
            return Ok(self.moves.target_hears(id, messages, offer).await);
        };
        // No plan takes meanwhile what is found free here.
        let _nothing_changes = self.begin_change(Duration::ZERO).await?;
        if self.notes.look(|state| state.moving(id).is_none())
            && let Err(reasons) = self.planning.check_offer(moved).await?
        {
            let why = reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Ok(vec![ToSource::Refused { why }]);
        }
        Ok(self.moves.target_hears(id, messages, offer).await)
    }

    /// The end of the way for the state of a machine that is moved: a stream socket that it comes out of, or goes into. It is given once.
    pub async fn move_way(&self, id: MoveId) -> Option<OwnedFd> {
        self.moves.way(id).await
    }

    /// Has a partition that is being moved away stay here. Whether that was still possible.
    pub async fn cancel_move(&self, id: MoveId) -> bool {
        self.moves.cancel(id, "somebody has cancelled it").await
    }

    /// Takes a partition that has come here wholly, and whose source is gone for good. Whether there is one.
    pub async fn accept_move(&self, partition: &Name) -> bool {
        self.moves.accept(partition).await
    }

    /// Gives up moves that nobody carries any more, for as long as the daemon lives.
    pub(crate) async fn follow_moves(self: Arc<Self>) {
        loop {
            sleep(LOOK_EACH).await;
            self.moves.give_up_uncarried().await;
        }
    }
}

/// Whether somebody moves one of these partitions: which, and to or from where.
pub(crate) fn moved_meanwhile<'a>(
    state: &State,
    mut partitions: impl Iterator<Item = &'a Name>,
) -> Option<(Name, String)> {
    partitions.find_map(|name| {
        let moving = state.moves.get(name).filter(|moving| !moving.is_settled())?;
        Some((name.clone(), moving.peer.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_are_for_people_and_bounded() {
        let web: Name = "web".parse().unwrap();
        assert!(check_peer(&web, "https://b.example:8443").is_ok());
        for bad in ["", "a\nb", &"x".repeat(LONGEST_PEER + 1)] {
            assert!(check_peer(&web, bad).is_err(), "{bad}");
        }
    }
}
