//! Failover of a network VF to a standby, which is another VF of the same partition: the wish in a Spec, the note in the state, and
//! when to switch. Pure; docs/failover.md.
//!
//! ```text
//!               the primary has a fault, and the standby works; or somebody asks
//!   primary ────────────────────────────────────────────────────────────────────> standby
//!     active <──────────────────────────────────────────────────────────────────── active
//!               the primary has worked for a while (back = "automatic"), the standby has a fault, or somebody asks
//! ```
//!
//! Which of the two a partition sends by is its own doing: it bonds them, and its agent follows what is noted here.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    Apart, Assignment, FailureDomain, Inventory, Name, Owner, PairRole, PairView, PartitionState, State,
    VfRef, utc,
};

/// A primary has to work for so long before it is gone back to. Doubles with each failover within [`FAILOVER_WINDOW_MS`], so that a
/// link that flaps does not take the partition along. Milliseconds.
const BACK_AFTER_MS: u64 = 10_000;
/// However often it flaps, it is gone back to after so long. Milliseconds.
const BACK_AT_LATEST_MS: u64 = 600_000;
/// Failovers that are counted. Milliseconds.
const FAILOVER_WINDOW_MS: u64 = 600_000;

/// What a VF falls back on: `failover = { standby = "net0-b" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// The standby: another VF of the same partition.
    pub standby: Name,
    /// What the two must not have in common.
    #[serde(default = "adapter", skip_serializing_if = "is_adapter")]
    pub by: FailureDomain,
    /// How it goes back.
    #[serde(default, skip_serializing_if = "Back::is_automatic")]
    pub back: Back,
}

fn adapter() -> FailureDomain {
    FailureDomain::Adapter
}

fn is_adapter(by: &FailureDomain) -> bool {
    *by == FailureDomain::Adapter
}

/// How a partition goes back to its primary after a fault of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Back {
    /// By itself, once the primary has worked for a while.
    #[default]
    Automatic,
    /// When somebody asks, or the standby has a fault.
    Manual,
}

impl Back {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_automatic(&self) -> bool {
        *self == Self::Automatic
    }
}

impl Failover {
    /// The rule of redundancy that goes with it.
    #[must_use]
    pub fn apart(&self) -> Apart {
        Apart { vf: VfRef::Own(self.standby.clone()), by: self.by, prefer: false }
    }
}

/// Why, and since when, a standby is active in place of its primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailedOver {
    /// In milliseconds since 1970 (UTC). 0 in a plan, which can't know it: it is noted as it is carried out.
    pub since_ms: u64,
    /// Why.
    pub why: FailoverCause,
}

/// Why a partition was failed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FailoverCause {
    /// A user of the host asked for it.
    Asked,
    /// The partition asked for it.
    Guest,
    /// Its primary has, or had, a fault.
    Fault {
        /// The fault, in words.
        what: String,
    },
}

impl FailedOver {
    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        let why = match &self.why {
            FailoverCause::Asked => "asked for",
            FailoverCause::Guest => "asked for by the partition",
            FailoverCause::Fault { what } => what,
        };
        if self.since_ms == 0 { why.to_owned() } else { format!("{why}, {}", utc::time(self.since_ms)) }
    }
}

/// A primary and its standby, both held.
#[derive(Clone, Debug)]
pub struct FailoverPair<'a> {
    /// The primary.
    pub owner: Owner,
    /// What its Spec says.
    pub failover: &'a Failover,
    /// The primary's VF.
    pub primary: &'a Assignment,
    /// The standby's.
    pub standby: &'a Assignment,
}

impl FailoverPair<'_> {
    /// The name of the one that is active.
    #[must_use]
    pub fn active(&self) -> &Name {
        if self.primary.failed_over.is_some() { &self.failover.standby } else { &self.owner.vf }
    }
}

impl PartitionState {
    /// All pairs of which both are held.
    pub fn failover_pairs(&self) -> impl Iterator<Item = FailoverPair<'_>> {
        self.spec.vfs.iter().filter_map(|request| {
            let failover = request.failover.as_ref()?;
            let primary = self.vfs.get(&request.name)?;
            let standby = self.vfs.get(&failover.standby)?;
            let owner = Owner { partition: self.spec.name.clone(), vf: request.name.clone() };
            Some(FailoverPair { owner, failover, primary, standby })
        })
    }

    /// The pair that a VF is of, as its primary or its standby.
    #[must_use]
    pub fn failover_pair(&self, vf: &Name) -> Option<FailoverPair<'_>> {
        self.failover_pairs().find(|pair| pair.owner.vf == *vf || pair.failover.standby == *vf)
    }

    /// The part that a VF has in its pair, for the partition.
    #[must_use]
    pub fn pair_view(&self, vf: &Name) -> Option<PairView> {
        let pair = self.failover_pair(vf)?;
        let (role, partner) = if pair.owner.vf == *vf {
            (PairRole::Primary, &pair.failover.standby)
        } else {
            (PairRole::Standby, &pair.owner.vf)
        };
        Some(PairView { role, partner: partner.clone(), active: pair.active() == vf })
    }
}

impl State {
    /// All pairs of all partitions.
    pub fn failover_pairs(&self) -> impl Iterator<Item = FailoverPair<'_>> {
        self.partitions.values().flat_map(PartitionState::failover_pairs)
    }

    /// The pair that a VF is of, as its primary or its standby.
    #[must_use]
    pub fn failover_pair(&self, owner: &Owner) -> Option<FailoverPair<'_>> {
        self.partitions.get(&owner.partition)?.failover_pair(&owner.vf)
    }
}

/// Why a VF carries nothing, as far as the host can tell; `None`: it may.
#[must_use]
pub fn fault_of(inventory: &Inventory, held: &Assignment) -> Option<String> {
    let address = held.vf.pf;
    let Some(pf) = inventory.physical_function(address) else {
        return Some(format!("adapter {address} is gone"));
    };
    if !pf.service.is_serving() {
        return Some(format!("adapter {address} is {}", pf.service));
    }
    if let Some(out) = &pf.out_of_service {
        return Some(format!("adapter {address}: {}", out.describe()));
    }
    if pf.virtual_function(held.vf.index).is_none() {
        return Some(format!("{} is gone", held.vf));
    }
    if !held.attached {
        return Some(format!("{} is not in its partition", held.vf));
    }
    // A VF carries nothing outside while its port has no link, nor, with most drivers, while its PF's interface is down.
    (!pf.netdevs.is_empty() && !pf.has_carrier()).then(|| format!("the port of {address} has no link"))
}

/// A change of which one of a pair is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// To the standby, because the primary has this fault.
    Over(String),
    /// To the primary.
    Back,
}

/// One pair, as it is watched from look to look.
#[derive(Clone, Debug, Default)]
pub struct FailoverWatch {
    /// Since when the primary has worked without a break.
    well_since_ms: Option<u64>,
    /// When it was failed over by itself, the latest last.
    failovers: VecDeque<u64>,
}

impl FailoverWatch {
    /// Takes in a look at a pair: what has to be done, if anything.
    pub fn see(&mut self, inventory: &Inventory, pair: &FailoverPair<'_>, now_ms: u64) -> Option<Switch> {
        let fault = fault_of(inventory, pair.primary);
        let standby_works = fault_of(inventory, pair.standby).is_none();
        self.well_since_ms = match fault {
            None => self.well_since_ms.or(Some(now_ms)),
            Some(_) => None,
        };
        match (&pair.primary.failed_over, fault) {
            (None, Some(fault)) if standby_works => {
                self.failovers.push_back(now_ms);
                self.failovers.retain(|at| now_ms.saturating_sub(*at) < FAILOVER_WINDOW_MS);
                Some(Switch::Over(fault))
            }
            // Whoever asked for the standby did not ask to be cut off.
            (Some(_), None) if !standby_works => Some(Switch::Back),
            (Some(over), None) => self.is_due(over, pair.failover.back, now_ms).then_some(Switch::Back),
            (None, _) | (Some(_), Some(_)) => None,
        }
    }

    /// From when on the primary is gone back to; `None`: it does not work. Milliseconds.
    fn back_at_ms(&self) -> Option<u64> {
        Some(self.well_since_ms?.saturating_add(self.back_after_ms()))
    }

    fn is_due(&self, over: &FailedOver, back: Back, now_ms: u64) -> bool {
        let is_for_fault = matches!(over.why, FailoverCause::Fault { .. });
        is_for_fault && back == Back::Automatic && self.back_at_ms().is_some_and(|at| at <= now_ms)
    }

    fn back_after_ms(&self) -> u64 {
        let times = u32::try_from(self.failovers.len().saturating_sub(1)).unwrap_or(u32::MAX);
        BACK_AFTER_MS.saturating_mul(1u64.checked_shl(times).unwrap_or(u64::MAX)).min(BACK_AT_LATEST_MS)
    }
}
