//! Partitions that are moved to another host: what whoever carries between the two daemons sends and is sent. docs/migration.md.

use ioward_model::{
    Name, VfRequest,
    handover::{MoveId, MovedPartition, ToSource, ToTarget},
};
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/moves`; the answer is the partition as it is to be offered to the target ([`Offer`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BeginMove {
    /// The ID of the move: 128 bits, drawn at random.
    pub id: MoveId,
    /// The partition.
    pub partition: Name,
    /// What the target is called, for people.
    pub to: String,
    /// The VFs that it is to have there.
    #[serde(default)]
    pub vfs: Vec<VfRequest>,
}

/// Body of `POST /v1/moves/ID/source`: what the target says. The answer is [`Leaving`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FromTarget {
    /// In the order in which it has said them.
    pub messages: Vec<ToSource>,
}

/// How far a move away from a host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Leaving {
    /// What is to be told to the target.
    pub messages: Vec<ToTarget>,
    /// Whether the partition is the target's.
    pub is_given: bool,
    /// Why it stays here, once that is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_kept: Option<String>,
    /// Whether nothing more is to be said.
    pub is_over: bool,
}

/// Body of `POST /v1/moves/ID/target`: what the source says. The answer is [`FromTarget`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FromSource {
    /// In the order in which it has said them.
    pub messages: Vec<ToTarget>,
    /// The partition, for a target that has not been asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
}

/// A partition that is offered to another host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The partition.
    pub partition: MovedPartition,
    /// What the source is called, for people.
    pub source: String,
}

/// Answer of `DELETE /v1/moves/ID`, and of `POST /v1/partitions/NAME/accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Settled {
    /// Whether it was possible, and is so now.
    pub settled: bool,
}
