//! The audit log: who asked for what.

use serde::{Deserialize, Serialize};

use crate::{Name, VfOp};

/// One operation on the VFs of a partition, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// Whose VFs: it asked itself, unless `uid` says who did.
    pub partition: Name,
    /// The user of the host who asked through the API, by the UID of the connection; `None`: the partition itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// For what.
    pub request: VfOp,
    /// Its result.
    pub verdict: Verdict,
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "verdict", content = "why", rename_all = "kebab-case")]
pub enum Verdict {
    /// Allowed and done.
    Granted,
    /// Not allowed.
    Refused(String),
    /// Allowed, but it could not be done.
    Failed(String),
}

/// How long an entry is worth keeping. Each kind of each partition has its own room in the log: reads push out no changes, and
/// no partition pushes out another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditKind {
    /// Whatever a user of the API asked for: a partition can't push out of the log what was done to it.
    User,
    /// A change that was allowed, whether it could be made or not.
    Change,
    /// A request that was not allowed.
    Refusal,
    /// A look that was allowed.
    Read,
}

impl AuditKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::User, Self::Change, Self::Refusal, Self::Read];
}

impl AuditEntry {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> AuditKind {
        if self.uid.is_some() {
            return AuditKind::User;
        }
        match (&self.verdict, &self.request) {
            (Verdict::Refused(_), _) => AuditKind::Refusal,
            (_, VfOp::Set { .. } | VfOp::Reset { .. } | VfOp::Failover { .. }) => AuditKind::Change,
            (_, VfOp::List | VfOp::Get { .. } | VfOp::Stats { .. }) => AuditKind::Read,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How many entries of a partition are not kept any more, or never were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditDropped {
    /// Changes.
    pub changes: u64,
    /// Refusals.
    pub refusals: u64,
    /// Reads.
    pub reads: u64,
    /// Operations that users of the API asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub users: u64,
}

impl AuditDropped {
    /// Whether nothing was dropped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Counts more of a kind.
    pub fn add(&mut self, kind: AuditKind, count: u64) {
        let of_kind = match kind {
            AuditKind::User => &mut self.users,
            AuditKind::Change => &mut self.changes,
            AuditKind::Refusal => &mut self.refusals,
            AuditKind::Read => &mut self.reads,
        };
        *of_kind = of_kind.saturating_add(count);
    }

    /// Counts all of these as well.
    pub fn add_all(&mut self, more: &Self) {
        AuditKind::ALL.into_iter().for_each(|kind| self.add(kind, more.of(kind)));
    }

    /// How many of a kind.
    #[must_use]
    pub fn of(&self, kind: AuditKind) -> u64 {
        match kind {
            AuditKind::User => self.users,
            AuditKind::Change => self.changes,
            AuditKind::Refusal => self.refusals,
            AuditKind::Read => self.reads,
        }
    }
}

impl std::fmt::Display for AuditDropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counted = [
            (self.users, "user's operation"),
            (self.changes, "change"),
            (self.refusals, "refusal"),
            (self.reads, "read"),
        ];
        let told = counted.into_iter().filter(|(count, _)| *count > 0);
        let told: Vec<_> = told
            .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
            .collect();
        f.write_str(&told.join(", "))
    }
}
