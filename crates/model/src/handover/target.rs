//! The side that a partition is moved to.

use serde::{Deserialize, Serialize};

use super::{ToSource, ToTarget};
use crate::Migration;

/// What a target has on its disk of a move. It owns the partition with [`TargetNote::Owned`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TargetNote {
    /// VFs are reserved for it, and a machine may wait for its state.
    Reserved,
    /// The whole state is here, and the source may have been told so.
    There,
    /// It is this host's. The source may not know yet that we know.
    Owned,
}

/// What a target has to do; as [`super::SourceAction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetAction {
    /// Write this down, in place of what was there. With [`TargetNote::Owned`], the partition is put into the state in the same transaction,
    /// with the VFs that were reserved. `None`: forget the move; the partition stays where it is.
    Note(Option<TargetNote>),
    /// Tell the source, as well as that can be done now.
    Tell(ToSource),
    /// Reserve VFs, define the partition, and have a machine wait for the state. [`Target::prepared`] and [`Target::give_up`] are for what
    /// comes of it.
    Prepare,
    /// End the preparation of this move, if it is under way, and its machine, if there is one, and return what was reserved.
    Discard,
    /// Have the machine run, if it stands still. One that is not there is not started: the guest has ended as if its power had failed.
    Resume,
    /// Tell a person: this host owns the partition because somebody has said so, and its source has kept it. It may run twice.
    Conflict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Preparing,
    Ready,
    There,
    Owned,
    Forgotten,
}

/// A move, as its target sees it.
#[derive(Clone, Debug)]
pub struct Target {
    phase: Phase,
}

impl Target {
    /// Takes a partition in, on being told [`ToTarget::Prepare`] about a move that there is no note of. That there is no partition of its name here,
    /// and none on its way, has to be seen before: `discarded` things are this move's alone.
    #[must_use]
    pub fn asked() -> (Self, Vec<TargetAction>) {
        let actions = vec![TargetAction::Note(Some(TargetNote::Reserved)), TargetAction::Prepare];
        (Self { phase: Phase::Preparing }, actions)
    }

    /// Goes on after the daemon has started again.
    #[must_use]
    pub fn restored(note: TargetNote) -> (Self, Vec<TargetAction>) {
        match note {
            // The way that the state takes ended with the daemon before.
            TargetNote::Reserved => {
                let mut target = Self { phase: Phase::Preparing };
                let actions = target.give_up("the daemon at its target was started again in between");
                (target, actions)
            }
            TargetNote::There => (Self { phase: Phase::There }, vec![TargetAction::Tell(ToSource::There)]),
            TargetNote::Owned => {
                let actions = vec![TargetAction::Resume, TargetAction::Tell(ToSource::Owned)];
                (Self { phase: Phase::Owned }, actions)
            }
        }
    }

    /// Its machine waits for the state.
    pub fn prepared(&mut self) -> Vec<TargetAction> {
        if self.phase != Phase::Preparing {
            return Vec::new();
        }
        self.phase = Phase::Ready;
        vec![TargetAction::Tell(ToSource::Prepared)]
    }

    /// Takes in what the source says.
    pub fn hear(&mut self, message: &ToTarget) -> Vec<TargetAction> {
        let tell = |message| vec![TargetAction::Tell(message)];
        match (self.phase, message) {
            (Phase::Ready, ToTarget::Prepare | ToTarget::Ask) => tell(ToSource::Prepared),
            (Phase::There, ToTarget::Prepare | ToTarget::Ask) => tell(ToSource::There),
            (Phase::There, ToTarget::Given) => self.own(),
            (Phase::Owned, ToTarget::Given | ToTarget::Ask) => tell(ToSource::Owned),
            (Phase::Preparing | Phase::Ready | Phase::There, ToTarget::Kept | ToTarget::Unknown) => {
                self.phase = Phase::Forgotten;
                vec![TargetAction::Discard, TargetAction::Note(None), TargetAction::Tell(ToSource::Discarded)]
            }
            (Phase::Owned, ToTarget::Unknown) => {
                self.phase = Phase::Forgotten;
                vec![TargetAction::Note(None)]
            }
            (Phase::Owned, ToTarget::Kept) => vec![TargetAction::Conflict],
            (Phase::Forgotten, message) => {
                super::unknown_to_target(message).map(TargetAction::Tell).into_iter().collect()
            }
            // Doubled, or late. Nothing is given before it is There.
            (Phase::Preparing, ToTarget::Prepare | ToTarget::Ask | ToTarget::Given)
            | (Phase::Ready, ToTarget::Given)
            | (Phase::Owned, ToTarget::Prepare) => Vec::new(),
        }
    }

    /// Takes in how far its machine is.
    pub fn see(&mut self, migration: &Migration) -> Vec<TargetAction> {
        match (self.phase, migration) {
            (Phase::Ready, Migration::Complete) => {
                self.phase = Phase::There;
                vec![TargetAction::Note(Some(TargetNote::There)), TargetAction::Tell(ToSource::There)]
            }
            (Phase::Ready, Migration::Failed { why }) => self.give_up(why),
            _ => Vec::new(),
        }
    }

    /// Some time has passed: what the other side may not have heard is told once more.
    pub fn tick(&mut self) -> Vec<TargetAction> {
        let message = match self.phase {
            Phase::Ready => ToSource::Prepared,
            Phase::There => ToSource::There,
            Phase::Owned => ToSource::Owned,
            Phase::Preparing | Phase::Forgotten => return Vec::new(),
        };
        vec![TargetAction::Tell(message)]
    }

    /// Ends the move where that is still possible: it can't be prepared, its machine has ended, its time is up. Empty from [`TargetNote::There`]
    /// on: the partition may be ours then.
    pub fn give_up(&mut self, why: &str) -> Vec<TargetAction> {
        match self.phase {
            Phase::Preparing | Phase::Ready => {
                self.phase = Phase::Forgotten;
                let refused = ToSource::Refused { why: why.to_owned() };
                vec![TargetAction::Discard, TargetAction::Note(None), TargetAction::Tell(refused)]
            }
            Phase::There | Phase::Owned | Phase::Forgotten => Vec::new(),
        }
    }

    /// Takes the partition without being given it, because a person says that its source is gone for good. Empty where there is nothing to
    /// take.
    pub fn accept(&mut self) -> Vec<TargetAction> {
        if self.phase == Phase::There { self.own() } else { Vec::new() }
    }

    /// Whether everything is here, and only the source's word is missing.
    #[must_use]
    pub fn waits_for_word(&self) -> bool {
        self.phase == Phase::There
    }

    /// Whether the partition is this host's by this move.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.phase == Phase::Owned
    }

    /// Whether nothing is left to be done.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.phase == Phase::Forgotten
    }

    fn own(&mut self) -> Vec<TargetAction> {
        self.phase = Phase::Owned;
        vec![
            TargetAction::Note(Some(TargetNote::Owned)),
            TargetAction::Resume,
            TargetAction::Tell(ToSource::Owned),
        ]
    }
}
