//! A change and its ID.

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The ID of a change: `EPOCH-NUMBER`. The number counts the plans begun on this host; the epoch differs for each
/// run of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId {
    /// The epoch of the run of the daemon.
    pub epoch: u64,
    /// The number of the change.
    pub number: u64,
}

/// A text that is not a change ID.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no ID of a change, which is two numbers: EPOCH-NUMBER")]
pub struct ChangeIdError(String);

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

impl FromStr for ChangeId {
    type Err = ChangeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no = || ChangeIdError(text.chars().take(64).collect());
        let (epoch, number) = text.split_once('-').ok_or_else(no)?;
        let parse = |digits: &str| digits.parse().map_err(|_: ParseIntError| no());
        Ok(Self { epoch: parse(epoch)?, number: parse(number)? })
    }
}

impl Serialize for ChangeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChangeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A plan that was begun, and its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// Its ID.
    pub id: ChangeId,
    /// The state's revision once it is done.
    pub revision: u64,
    /// The kind of intent: `apply`, `remove`, …
    pub intent: String,
    /// The user who asked for it; absent: the daemon itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its progress.
    pub status: ChangeStatus,
    /// Its number of steps.
    pub steps: usize,
    /// The steps that are done and not rolled back.
    pub steps_done: usize,
    /// When it began, in milliseconds since 1970 (UTC).
    pub begun_ms: u64,
    /// When it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The progress of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeStatus {
    /// Its steps are being carried out.
    Running,
    /// A step failed or somebody cancelled the change: it is being rolled back.
    Cancelling,
    /// All its steps are done.
    Done,
    /// Everything has been rolled back.
    RolledBack,
    /// Something could not be rolled back.
    Incomplete,
}

impl ChangeStatus {
    /// Its name in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Done => "done",
            Self::RolledBack => "rolled-back",
            Self::Incomplete => "incomplete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = ChangeId { epoch: u64::MAX, number: 12 };
        assert_eq!(id.to_string().parse::<ChangeId>().unwrap(), id);
        for text in ["", "7", "-", "7-", "-7", "7-8-9", "a-b", "18446744073709551616-1"] {
            assert!(text.parse::<ChangeId>().is_err(), "{text}");
        }
    }
}
