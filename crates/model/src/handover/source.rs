//! The side that a partition is moved away from.

use serde::{Deserialize, Serialize};

use super::{ToSource, ToTarget};
use crate::Migration;

/// A target is told so many times that the partition was kept, and is to ask after that: a target that is gone for good is not told for ever.
const TELLS_OF_KEPT: u32 = 100;

/// What a source has on its disk of a move. It owns the partition but for [`SourceNote::Given`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SourceNote {
    /// It is being moved.
    Moving,
    /// It was given to the target. It is not to be started here again, whatever happens.
    Given,
    /// It stays here, and the target has not confirmed that it knows.
    Kept,
}

/// What a source has to do. In the order of the list; where one fails that notes something, or the daemon dies, none of those behind it is
/// done, and [`Source::restored`] goes on from what is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAction {
    /// Write this down, in place of what was there. With [`SourceNote::Given`], the partition is taken out of the state in the same
    /// transaction, and kept beside the note; with [`SourceNote::Kept`] after that it is put back. `None`: forget the move.
    Note(Option<SourceNote>),
    /// Tell the target, as well as that can be done now.
    Tell(ToTarget),
    /// Begin to send the state of the machine.
    SendState,
    /// Have the machine run, if it stands still or is being sent. One that is not there is not started.
    Resume,
    /// End the machine, which stands still, and return what it had.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asking,
    Sending { is_there: bool, is_sent: bool },
    Given,
    Kept { told: u32 },
    Forgotten,
}

/// A move, as its source sees it.
#[derive(Clone, Debug)]
pub struct Source {
    phase: Phase,
    why_kept: Option<String>,
    is_unknown_there: bool,
}

impl Source {
    fn new(phase: Phase) -> Self {
        Self { phase, why_kept: None, is_unknown_there: false }
    }

    /// Begins a move of a partition that this host owns.
    #[must_use]
    pub fn begin() -> (Self, Vec<SourceAction>) {
        let actions =
            vec![SourceAction::Note(Some(SourceNote::Moving)), SourceAction::Tell(ToTarget::Prepare)];
        (Self::new(Phase::Asking), actions)
    }

    /// Goes on after the daemon has started again.
    #[must_use]
    pub fn restored(note: SourceNote) -> (Self, Vec<SourceAction>) {
        match note {
            SourceNote::Moving => {
                let mut source = Self::new(Phase::Asking);
                let actions = source.keep("the daemon at its source was started again in between");
                (source, actions)
            }
            SourceNote::Given => {
                (Self::new(Phase::Given), vec![SourceAction::End, SourceAction::Tell(ToTarget::Given)])
            }
            SourceNote::Kept => {
                let actions = vec![SourceAction::Resume, SourceAction::Tell(ToTarget::Kept)];
                (Self::new(Phase::Kept { told: 1 }), actions)
            }
        }
    }

    /// Takes in what the target says.
    pub fn hear(&mut self, message: &ToSource) -> Vec<SourceAction> {
        match (self.phase, message) {
            (Phase::Asking, ToSource::Prepared) => {
                self.phase = Phase::Sending { is_there: false, is_sent: false };
                vec![SourceAction::SendState]
            }
            (Phase::Asking | Phase::Sending { .. }, ToSource::Refused { why }) => self.keep(why),
            (Phase::Asking | Phase::Sending { .. }, ToSource::Discarded | ToSource::Unknown) => {
                self.keep("its target knows nothing of it any more")
            }
            (Phase::Sending { is_sent, .. }, ToSource::There) => {
                self.phase = Phase::Sending { is_there: true, is_sent };
                self.decide()
            }
            (Phase::Given, ToSource::Owned) => {
                self.phase = Phase::Forgotten;
                vec![SourceAction::Note(None), SourceAction::Tell(ToTarget::Unknown)]
            }
            (Phase::Given, ToSource::There) => vec![SourceAction::Tell(ToTarget::Given)],
            (Phase::Given, ToSource::Unknown | ToSource::Discarded) => {
                self.is_unknown_there = true;
                Vec::new()
            }
            (Phase::Kept { .. }, ToSource::Prepared | ToSource::There) => {
                vec![SourceAction::Tell(ToTarget::Kept)]
            }
            (Phase::Kept { .. }, ToSource::Discarded | ToSource::Refused { .. } | ToSource::Unknown) => {
                self.forget()
            }
            (Phase::Forgotten, message) => {
                super::unknown_to_source(message).map(SourceAction::Tell).into_iter().collect()
            }
            // Doubled, or late.
            (Phase::Sending { .. }, ToSource::Prepared)
            | (Phase::Asking, ToSource::There)
            | (Phase::Given, ToSource::Prepared | ToSource::Refused { .. })
            // A person has said that the source is gone, and it is not.
            | (Phase::Asking | Phase::Sending { .. } | Phase::Kept { .. }, ToSource::Owned) => Vec::new(),
        }
    }

    /// Takes in how far the machine is: one that can't be moved any more stays.
    pub fn see(&mut self, migration: &Migration) -> Vec<SourceAction> {
        match (self.phase, migration) {
            (Phase::Sending { is_there, .. }, Migration::Complete) => {
                self.phase = Phase::Sending { is_there, is_sent: true };
                self.decide()
            }
            (Phase::Sending { .. }, Migration::Failed { why }) => self.keep(why),
            _ => Vec::new(),
        }
    }

    /// Some time has passed: what the other side may not have heard is told once more.
    pub fn tick(&mut self) -> Vec<SourceAction> {
        match &mut self.phase {
            Phase::Asking => vec![SourceAction::Tell(ToTarget::Prepare)],
            Phase::Given => vec![SourceAction::Tell(ToTarget::Given)],
            Phase::Kept { told } if *told < TELLS_OF_KEPT => {
                *told += 1;
                vec![SourceAction::Tell(ToTarget::Kept)]
            }
            // It asks, should it ever be back.
            Phase::Kept { .. } => self.forget(),
            // It may have said There, or that there will be nothing of it.
            Phase::Sending { .. } => vec![SourceAction::Tell(ToTarget::Ask)],
            Phase::Forgotten => Vec::new(),
        }
    }

    /// Ends the move where that is still possible: somebody has cancelled it, its time is up, or its machine has ended. Empty once it
    /// is given: nothing can be done then.
    pub fn cancel(&mut self, why: &str) -> Vec<SourceAction> {
        match self.phase {
            Phase::Asking | Phase::Sending { .. } => self.keep(why),
            Phase::Given | Phase::Kept { .. } | Phase::Forgotten => Vec::new(),
        }
    }

    /// Takes back what was given, as its target says that it knows nothing of it: its disk is lost. A person has to say so. Empty where that is
    /// not what the target says.
    pub fn take_back(&mut self) -> Vec<SourceAction> {
        if self.phase == Phase::Given && self.is_unknown_there {
            self.keep("its target has lost it, and somebody has taken it back")
        } else {
            Vec::new()
        }
    }

    /// Whether the partition is the target's.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.phase == Phase::Given
    }

    /// Whether the target says that it knows nothing of what it was given.
    #[must_use]
    pub fn is_unknown_there(&self) -> bool {
        self.phase == Phase::Given && self.is_unknown_there
    }

    /// Why the partition stays here, once that is settled.
    #[must_use]
    pub fn why_kept(&self) -> Option<&str> {
        self.why_kept.as_deref()
    }

    /// Whether nothing is left to be done.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.phase == Phase::Forgotten
    }

    /// The one decision, once both machines stand still with the same state.
    fn decide(&mut self) -> Vec<SourceAction> {
        if self.phase != (Phase::Sending { is_there: true, is_sent: true }) {
            return Vec::new();
        }
        self.phase = Phase::Given;
        let given = SourceAction::Note(Some(SourceNote::Given));
        vec![given, SourceAction::Tell(ToTarget::Given), SourceAction::End]
    }

    fn keep(&mut self, why: &str) -> Vec<SourceAction> {
        self.phase = Phase::Kept { told: 1 };
        self.why_kept = Some(why.to_owned());
        // Noted first: what a machine that runs has changed is not to be undone by a target that is given the partition after a crash.
        let kept = SourceAction::Note(Some(SourceNote::Kept));
        vec![kept, SourceAction::Resume, SourceAction::Tell(ToTarget::Kept)]
    }

    fn forget(&mut self) -> Vec<SourceAction> {
        self.phase = Phase::Forgotten;
        vec![SourceAction::Note(None)]
    }
}
