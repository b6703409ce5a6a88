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

mod asked;
mod source;
mod target;

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc, time::Duration};

use ioward_hypervisor::{Hypervisor, HypervisorError, StopMode};
use ioward_model::{
    Name, Owner, RowKey, State,
    handover::{MoveId, MoveSide, MovedPartition, Source, Target, ToSource, ToTarget},
};
use tokio::{
    sync::{Mutex, Notify},
    time::Instant,
};

pub(crate) use self::asked::moved_meanwhile;
use crate::{
    channels::Channels,
    error::{ImpError, error_chain},
    events::EventLog,
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
    /// Wakes whoever looks after moves that nobody carries.
    goes_on: Notify,
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
        Self { hypervisor, notes, channels, events, live: Mutex::default(), goes_on: Notify::new() }
    }

    /// Goes on with what the daemon before this one was in the middle of.
    pub(crate) async fn restore(&self) {
        let mut live = self.live.lock().await;
        let ids: Vec<_> = self.notes.look(|state| state.moves.values().map(|moving| moving.id).collect());
        for id in ids {
            self.restore_one(&mut live, id).await;
        }
    }

    /// The end of the way that the state of a machine comes out of, or goes into: once.
    pub(crate) async fn way(&self, id: MoveId) -> Option<OwnedFd> {
        let mut live = self.live.lock().await;
        let out = live.sources.get_mut(&id).and_then(|it| it.way.take());
        out.or_else(|| live.targets.get_mut(&id).and_then(|it| it.way.take()))
    }

    /// Waits until there is a move that somebody has to carry.
    async fn wait_for_one(&self) {
        loop {
            let goes_on = self.goes_on.notified();
            let live = self.live.lock().await;
            if !live.sources.is_empty() || !live.targets.is_empty() {
                return;
            }
            drop(live);
            goes_on.await;
        }
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

    /// Notes how far a move is. Whether that could be written: if not, its side goes on from what is noted, as after a restart.
    fn note(&self, name: &Name, change: impl FnOnce(&mut State)) -> bool {
        let noted = self.notes.change(Must::BeWritten, rows_of(name), Vec::new(), change);
        if let Err(error) = &noted {
            tracing::error!("how far the move of {name} is can't be noted: {}", error_chain(error));
        }
        noted.is_ok()
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
