//! What a host has noted of moves, as part of its [`State`]: the one place where a partition enters or leaves that by a move.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MoveId, SourceNote, TargetNote};
use crate::{MachineLayout, Name, PartitionSpec, PartitionState, StandbyNic, State, VfRequest};

/// A move of a partition, away from this host or to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Move {
    /// Its ID, the same on both hosts.
    pub id: MoveId,
    /// The other host, as it was named by whoever asked for the move.
    pub peer: String,
    /// Which side of it this host is.
    #[serde(flatten)]
    pub side: MoveSide,
}

/// A side of a move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "side", rename_all = "kebab-case")]
pub enum MoveSide {
    /// The partition is moved away.
    Leaving {
        /// How far that is.
        note: SourceNote,
        /// The partition, once it is given: it is not in the state any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        given: Option<Box<MovedPartition>>,
    },
    /// The partition is moved here.
    Coming {
        /// How far that is.
        note: TargetNote,
        /// The partition. It is in the state once it is owned.
        partition: Box<MovedPartition>,
    },
}

/// A partition on its way: what makes a [`PartitionState`] at the other end. It has no VFs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MovedPartition {
    /// Its Spec.
    pub spec: PartitionSpec,
    /// What its machine is like.
    pub layout: MachineLayout,
    /// Its standbys: the other host has a bridge of the same name for each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub standbys: BTreeMap<Name, StandbyNic>,
    /// The VFs that it is to have at the other host, which keeps them for it until it has come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<VfRequest>,
}

impl MovedPartition {
    /// The partition at the host that it has come to.
    #[must_use]
    pub fn into_state(self, running: bool) -> PartitionState {
        PartitionState {
            channel: self.layout.channel,
            spec: self.spec,
            running,
            channel_in_doubt: false,
            vfs: BTreeMap::new(),
            standbys: self.standbys,
        }
    }
}

impl Move {
    /// Whether the partition may be changed meanwhile: the move has come to its end here, and only the other side may not know yet.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self.side {
            MoveSide::Leaving { note, .. } => note == SourceNote::Kept,
            MoveSide::Coming { note, .. } => note == TargetNote::Owned,
        }
    }
}

impl State {
    /// The move of this ID.
    #[must_use]
    pub fn moving(&self, id: MoveId) -> Option<(&Name, &Move)> {
        self.moves.iter().find(|(_, moving)| moving.id == id)
    }

    /// Notes how far a move away from here is: `moved` is the partition. `None`: it is forgotten.
    pub fn note_leaving(&mut self, id: MoveId, peer: &str, moved: &MovedPartition, note: Option<SourceNote>) {
        let name = moved.spec.name.clone();
        let Some(note) = note else { return self.forget_move(id) };
        let mut given = None;
        match note {
            SourceNote::Given => {
                self.partitions.remove(&name);
                given = Some(Box::new(moved.clone()));
            }
            // Taken back: its machine is gone.
            SourceNote::Kept if !self.partitions.contains_key(&name) => {
                self.partitions.insert(name.clone(), moved.clone().into_state(false));
            }
            SourceNote::Moving | SourceNote::Kept => {}
        }
        let side = MoveSide::Leaving { note, given };
        self.moves.insert(name, Move { id, peer: peer.to_owned(), side });
    }

    /// Notes how far a move to here is. `None`: it is forgotten.
    pub fn note_coming(&mut self, id: MoveId, peer: &str, moved: &MovedPartition, note: Option<TargetNote>) {
        let name = moved.spec.name.clone();
        let Some(note) = note else { return self.forget_move(id) };
        if note == TargetNote::Owned {
            self.partitions.entry(name.clone()).or_insert_with(|| moved.clone().into_state(true));
        }
        let side = MoveSide::Coming { note, partition: Box::new(moved.clone()) };
        self.moves.insert(name, Move { id, peer: peer.to_owned(), side });
    }

    fn forget_move(&mut self, id: MoveId) {
        self.moves.retain(|_, moving| moving.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Accelerator, Boot};

    fn moved() -> MovedPartition {
        let layout = MachineLayout {
            machine: "pc-q35-10.0".parse().unwrap(),
            accelerator: Accelerator::Kvm,
            channel: true,
            standbys: std::collections::BTreeMap::new(),
        };
        MovedPartition {
            spec: PartitionSpec::new("web".parse().unwrap(), Boot::default()),
            layout,
            standbys: BTreeMap::new(),
            wanted: Vec::new(),
        }
    }

    fn id(n: u8) -> MoveId {
        MoveId::from_random([n; 16])
    }

    #[test]
    fn a_partition_leaves_the_one_state_and_enters_the_other() {
        let web: Name = "web".parse().unwrap();
        let (mut source, mut target) = (State::default(), State::default());
        source.partitions.insert(web.clone(), moved().into_state(true));
        let before = source.partitions.clone();
        source.note_leaving(id(1), "b", &moved(), Some(SourceNote::Moving));
        target.note_coming(id(1), "a", &moved(), Some(TargetNote::Reserved));
        target.note_coming(id(1), "a", &moved(), Some(TargetNote::There));
        assert!(source.partitions == before && target.partitions.is_empty());
        assert!(!source.moves[&web].is_settled() && !target.moves[&web].is_settled());
        source.note_leaving(id(1), "b", &moved(), Some(SourceNote::Given));
        target.note_coming(id(1), "a", &moved(), Some(TargetNote::Owned));
        assert!(source.partitions.is_empty() && target.partitions == before);
        assert!(!source.moves[&web].is_settled() && target.moves[&web].is_settled());
        // What is said about another move changes nothing.
        source.note_leaving(id(2), "b", &moved(), None);
        assert!(source.moving(id(1)).is_some() && source.moving(id(2)).is_none());
        source.note_leaving(id(1), "b", &moved(), None);
        target.note_coming(id(1), "a", &moved(), None);
        assert!(source.moves.is_empty() && target.moves.is_empty() && target.partitions == before);
    }

    #[test]
    fn what_was_given_and_is_taken_back_is_as_before_and_stopped() {
        let web: Name = "web".parse().unwrap();
        let mut source = State::default();
        source.partitions.insert(web.clone(), moved().into_state(true));
        source.note_leaving(id(1), "b", &moved(), Some(SourceNote::Given));
        source.note_leaving(id(1), "b", &moved(), Some(SourceNote::Kept));
        assert_eq!(source.partitions[&web], moved().into_state(false));
        assert!(source.moves[&web].is_settled());
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let mut state = State::default();
        state.note_leaving(id(1), "b", &moved(), Some(SourceNote::Given));
        let text = serde_json::to_string(&state).unwrap();
        assert!(text.contains(r#""side":"leaving","note":"given""#), "{text}");
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        assert!(!serde_json::to_string(&State::default()).unwrap().contains("moves"));
    }
}
