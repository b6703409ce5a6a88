//! What events are about: a follower may ask for some of it.

use std::str::FromStr;

use ioward_model::EventKind;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Adapters and their functions.
    Inventory,
    /// Partitions that start, end and go.
    Partitions,
    /// Plans and their steps.
    Changes,
    /// What differs from the state, and what is done about it.
    Drift,
    /// Channels of partitions.
    Channels,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 5] =
        [Self::Inventory, Self::Partitions, Self::Changes, Self::Drift, Self::Channels];

    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::Partitions => "partitions",
            Self::Changes => "changes",
            Self::Drift => "drift",
            Self::Channels => "channels",
        }
    }

    /// The topic of an event; `None`: it is told to every follower.
    #[must_use]
    pub fn of(kind: &EventKind) -> Option<Self> {
        use EventKind as E;
        match kind {
            E::PlanStarted { .. }
            | E::StepStarted { .. }
            | E::StepDone { .. }
            | E::StepFailed { .. }
            | E::StepUndone { .. }
            | E::PlanDone { .. }
            | E::PlanFailed { .. }
            | E::PlanInterrupted { .. } => Some(Self::Changes),
            E::InventoryChanged { .. }
            | E::AdapterStuck { .. }
            | E::AdapterAnswers { .. }
            | E::AdapterService { .. }
            | E::AdapterAttempted { .. }
            | E::VfLockedOut { .. }
            | E::AdapterMoved { .. }
            | E::AdapterSetAside { .. } => Some(Self::Inventory),
            E::HostBooted
            | E::HostRestored { .. }
            | E::DriftFound { .. }
            | E::DriftRepaired { .. }
            | E::DriftGone { .. }
            | E::RepairFailed { .. }
            | E::OrphanReaped { .. } => Some(Self::Drift),
            E::PartitionStarted { .. }
            | E::PartitionEnded { .. }
            | E::PartitionHalted { .. }
            | E::PartitionReset { .. }
            | E::PartitionLeftHalted { .. }
            | E::PartitionGoesOn { .. }
            | E::PartitionStartedElsewhere { .. }
            | E::PartitionGone { .. }
            | E::PartitionLeaves { .. }
            | E::PartitionLeft { .. }
            | E::PartitionStays { .. }
            | E::PartitionCame { .. }
            | E::FailedOver { .. }
            | E::FailedBack { .. }
            | E::VfTakenOut { .. } => Some(Self::Partitions),
            E::ChannelOpened { .. } | E::ChannelMisused { .. } | E::ChannelEventsLeftOut { .. } => {
                Some(Self::Channels)
            }
            E::Missed { .. } | E::Restarted { .. } => None,
        }
    }
}

/// Some topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topics(u8);

impl Topics {
    /// All of them.
    pub const ALL: Self = Self(u8::MAX);

    /// Whether a follower of these is told of the event.
    #[must_use]
    pub fn have(self, kind: &EventKind) -> bool {
        Topic::of(kind).is_none_or(|topic| self.0 & bit(topic) != 0)
    }
}

fn bit(topic: Topic) -> u8 {
    1 << topic as u8
}

/// A text that names no topics.
#[derive(Debug, thiserror::Error)]
#[error("topics={0}: takes inventory, partitions, changes, drift, channels, with commas between them")]
pub struct TopicsError(String);

impl FromStr for Topics {
    type Err = TopicsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no = || TopicsError(text.chars().take(64).collect());
        let mut topics = Self(0);
        for word in text.split(',') {
            let topic = Topic::ALL.into_iter().find(|topic| topic.word() == word.trim()).ok_or_else(no)?;
            topics.0 |= bit(topic);
        }
        Ok(topics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_those_that_are_named_and_what_concerns_the_stream_itself() {
        let topics: Topics = "drift, inventory".parse().unwrap();
        assert!(
            topics.have(&EventKind::HostBooted)
                && topics.have(&EventKind::InventoryChanged { generation: 2 })
        );
        assert!(
            !topics.have(&EventKind::PlanDone { plan: 1 })
                && Topics::ALL.have(&EventKind::PlanDone { plan: 1 })
        );
        assert!(topics.have(&EventKind::Missed { count: 1 }));
        for wrong in ["", "drift,", "Drift", "everything"] {
            assert!(wrong.parse::<Topics>().is_err(), "{wrong}");
        }
    }
}
