//! How a partition changes hands between two hosts: what their two daemons note, tell each other and do. Pure; the wire, the disk and the
//! machines are others'.
//!
//! ```text
//!   source  ── Prepare ──>  target            The source has noted Moving, the target notes Reserved.
//!           <── Prepared ──                   A machine waits there for its state.
//!           ══ the state ══>                  QEMU's own migration. Then both machines stand still with the same state.
//!           <── There ──                      The target has noted There. From here it does not let go by itself.
//!      notes Given: **the one decision**. The partition is not the source's from here on, whatever happens.
//!           ── Given ──>                      The target notes Owned, and has its machine run.
//!           <── Owned ──                      The source forgets it.
//!           ── Unknown ──>                    The target forgets how it came by it.
//!
//!   source:  Moving ──┬── Given ── forgotten          target:  Reserved ── There ──┬── Owned ── forgotten
//!                     └── Kept ─── forgotten                      │                └── discarded
//!                                                                 └── discarded
//! ```
//!
//! Messages may be lost, doubled, late and out of order, and each daemon may die at any time. What is noted is on the disk before the actions
//! behind it in a list are carried out; a daemon that has started again goes on from its note. Therefore:
//!
//! - Each side tells what it has noted again and again ([`Source::tick`], [`Target::tick`]) until the answer shows that the other one knows.
//! - A source that has not noted Given keeps the partition: also one that dies while it is Moving, as soon as it is back. Whoever asks it for a move
//!   that it does not know is told so, which means kept. It does not answer while it is Moving, as it does not know yet.
//! - A target that has not noted There has not told it, so nobody has given it anything: it may discard the machine at any time. From There on
//!   it asks, and a machine that runs twice or not at all is not possible. If the source is never seen again, a person says what is to
//!   be done ([`Target::accept`]), as nobody else can know whether the guest runs there.
//!
//! A move has an ID of its own ([`MoveId`]), and none has that of another one, so that what is said about an earlier move of the same
//! partition changes nothing.

mod noted;
mod source;
mod target;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use noted::{Move, MoveSide, MovedPartition};
pub use source::{Source, SourceAction, SourceNote};
pub use target::{Target, TargetAction, TargetNote};

/// One move of one partition. 128 bits, drawn at random by its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MoveId(u128);

/// A text that is not a [`MoveId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ID of a move has 32 digits of 0 to 9 and a to f")]
pub struct MoveIdError;

impl MoveId {
    /// Of 16 bytes, which are to be random.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for MoveId {
    type Err = MoveIdError;

    fn from_str(text: &str) -> Result<Self, MoveIdError> {
        let is_digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(MoveIdError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| MoveIdError)
    }
}

impl Serialize for MoveId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MoveId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// From the source to the target, about a move that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ToTarget {
    /// Reserve what the partition needs, and have a machine wait for its state. What it needs goes beside this.
    Prepare,
    /// How far is it?
    Ask,
    /// The partition is yours.
    Given,
    /// The partition stays with its source.
    Kept,
    /// The source knows no such move: either it has kept the partition, or it was told that the target owns it.
    Unknown,
}

/// From the target to the source, about a move that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ToSource {
    /// A machine waits for the state.
    Prepared,
    /// There will be nothing of it: it can't be prepared, the state did not come wholly, or the daemon was started again in between.
    Refused {
        /// Why, for a person.
        why: String,
    },
    /// The whole state is here: whose is the partition?
    There,
    /// The target owns the partition.
    Owned,
    /// The target has nothing of this move, and never will have.
    Discarded,
    /// The target knows no such move: it has discarded it, or, told that the partition is its own, has lost its disk.
    Unknown,
}

/// What a source answers about a move that it has no note of.
#[must_use]
pub fn unknown_to_source(message: &ToSource) -> Option<ToTarget> {
    match message {
        ToSource::Prepared | ToSource::There | ToSource::Owned => Some(ToTarget::Unknown),
        ToSource::Refused { .. } | ToSource::Discarded | ToSource::Unknown => None,
    }
}

/// What a target answers about a move that it has no note of; `None`: nothing, or, where it is asked to prepare, [`Target::asked`].
#[must_use]
pub fn unknown_to_target(message: &ToTarget) -> Option<ToSource> {
    match message {
        ToTarget::Given | ToTarget::Ask => Some(ToSource::Unknown),
        ToTarget::Kept => Some(ToSource::Discarded),
        ToTarget::Prepare | ToTarget::Unknown => None,
    }
}
