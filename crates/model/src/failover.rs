//! Failover of a network VF to a standby: the wish in a Spec, the note in the state, and when to switch. Pure; docs/failover.md.
//!
//! ```text
//!               the primary has a fault, and the standby works; or somebody asks
//!   primary ────────────────────────────────────────────────────────────────────> standby
//!     active <──────────────────────────────────────────────────────────────────── active
//!               the primary has worked for a while (back = "automatic"), the standby has a fault, or somebody asks
//! ```
//!
//! A standby is another VF of the partition, or an adapter on a bridge of the host's. Which of two VFs a partition sends by is its own
//! doing: it bonds them, and its agent follows what is noted here. A standby on a bridge carries something only while the VF is out of
//! the machine ([`FailedOver::unplugged`]): the host differs from the state then, and is reconciled.

use std::{collections::VecDeque, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    Apart, Assignment, FailureDomain, InterfaceName, InterfaceNameError, Inventory, Name, NameError, Owner,
    PairRole, PairView, PartitionState, StandbyNic, State, VfId, VfRef, utc,
};

/// A primary has to work for so long before it is gone back to. Doubles with each failover within [`FAILOVER_WINDOW_MS`], so that a
/// link that flaps does not take the partition along. Milliseconds.
const BACK_AFTER_MS: u64 = 10_000;
/// However often it flaps, it is gone back to after so long. Milliseconds.
const BACK_AT_LATEST_MS: u64 = 600_000;
/// Failovers that are counted. Milliseconds.
const FAILOVER_WINDOW_MS: u64 = 600_000;

/// What carries a partition's traffic in place of a VF.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standby {
    /// Another VF of the partition.
    Vf(Name),
    /// An adapter of its machine on this bridge of the host's.
    Bridge(InterfaceName),
}

/// How a bridge is told from a VF.
const BRIDGE: &str = "bridge:";

/// A text that names no standby.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StandbyError {
    /// It names no VF.
    #[error(transparent)]
    Vf(#[from] NameError),
    /// It names no bridge.
    #[error(transparent)]
    Bridge(#[from] InterfaceNameError),
}

impl Standby {
    /// The VF that it is; `None`: it is on a bridge.
    #[must_use]
    pub fn vf(&self) -> Option<&Name> {
        match self {
            Self::Vf(name) => Some(name),
            Self::Bridge(_) => None,
        }
    }

    /// The bridge that it is on; `None`: it is a VF.
    #[must_use]
    pub fn bridge(&self) -> Option<&InterfaceName> {
        match self {
            Self::Vf(_) => None,
            Self::Bridge(bridge) => Some(bridge),
        }
    }
}

impl FromStr for Standby {
    type Err = StandbyError;

    fn from_str(text: &str) -> Result<Self, StandbyError> {
        Ok(match text.strip_prefix(BRIDGE) {
            Some(bridge) => Self::Bridge(bridge.parse()?),
            None => Self::Vf(text.parse()?),
        })
    }
}

impl fmt::Display for Standby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vf(name) => name.fmt(f),
            Self::Bridge(bridge) => write!(f, "{BRIDGE}{bridge}"),
        }
    }
}

impl Serialize for Standby {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Standby {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a VF falls back on: `failover = { standby = "net0-b" }`, or `failover = { standby = "bridge:br0" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// The standby.
    pub standby: Standby,
    /// What a VF and its standby must not have in common. Of a bridge nobody knows what it hangs on.
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
    /// The rule of redundancy that goes with a standby that is a VF.
    #[must_use]
    pub fn apart(&self) -> Option<Apart> {
        let standby = self.standby.vf()?.clone();
        Some(Apart { vf: VfRef::Own(standby), by: self.by, prefer: false })
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
    /// The VF is out of its machine meanwhile: its standby is on a bridge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unplugged: bool,
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
    /// The standby.
    pub standby: HeldStandby<'a>,
}

/// A standby that a partition has.
#[derive(Clone, Copy, Debug)]
pub enum HeldStandby<'a> {
    /// The VF that it is.
    Vf(&'a Assignment),
    /// What is on a bridge.
    Bridge(&'a StandbyNic),
}

impl FailoverPair<'_> {
    /// Why the standby carries nothing, as far as the host can tell; `None`: it may.
    #[must_use]
    pub fn fault_of_standby(&self, inventory: &Inventory) -> Option<String> {
        match self.standby {
            HeldStandby::Vf(held) => fault_of(inventory, held),
            HeldStandby::Bridge(_) => None,
        }
    }

    /// The VFs that are of it.
    pub fn vfs(&self) -> impl Iterator<Item = VfId> {
        let standby = match self.standby {
            HeldStandby::Vf(held) => Some(held.vf),
            HeldStandby::Bridge(_) => None,
        };
        [Some(self.primary.vf), standby].into_iter().flatten()
    }

    /// The note that the standby is active.
    #[must_use]
    pub fn failed_over(&self, since_ms: u64, why: FailoverCause) -> FailedOver {
        FailedOver { since_ms, why, unplugged: matches!(self.standby, HeldStandby::Bridge(_)) }
    }
}

impl PartitionState {
    /// All pairs of which both are held.
    pub fn failover_pairs(&self) -> impl Iterator<Item = FailoverPair<'_>> {
        self.spec.vfs.iter().filter_map(|request| {
            let failover = request.failover.as_ref()?;
            let primary = self.vfs.get(&request.name)?;
            let standby = match &failover.standby {
                Standby::Vf(standby) => HeldStandby::Vf(self.vfs.get(standby)?),
                Standby::Bridge(_) => HeldStandby::Bridge(self.standbys.get(&request.name)?),
            };
            let owner = Owner { partition: self.spec.name.clone(), vf: request.name.clone() };
            Some(FailoverPair { owner, failover, primary, standby })
        })
    }

    /// The pair that a VF is of, as its primary or its standby.
    #[must_use]
    pub fn failover_pair(&self, vf: &Name) -> Option<FailoverPair<'_>> {
        self.failover_pairs().find(|pair| pair.owner.vf == *vf || pair.failover.standby.vf() == Some(vf))
    }

    /// The part that a VF has in a pair of two VFs, for the partition.
    #[must_use]
    pub fn pair_view(&self, vf: &Name) -> Option<PairView> {
        let pair = self.failover_pair(vf)?;
        let standby = pair.failover.standby.vf()?;
        let (role, partner) = if pair.owner.vf == *vf {
            (PairRole::Primary, standby)
        } else {
            (PairRole::Standby, &pair.owner.vf)
        };
        let active = if pair.primary.failed_over.is_some() { standby } else { &pair.owner.vf };
        Some(PairView { role, partner: partner.clone(), active: active == vf })
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
    if !held.is_handed_over() {
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
        let standby_works = pair.fault_of_standby(inventory).is_none();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MacAddress, Spec, VfSettings};

    #[test]
    fn a_standby_is_a_vf_or_a_bridge_and_nothing_else() {
        for text in ["net0-b", "bridge:br0", "bridge:br-lan.100"] {
            let standby: Standby = text.parse().unwrap();
            assert_eq!(standby.to_string(), text);
            assert_eq!(standby.vf().is_some(), !text.starts_with("bridge:"));
        }
        for bad in ["", "bridge:", "bridge:../br0", "bridge:a/b", "br0:", "net0 b", "bridge:sixteen-bytes-xx"]
        {
            assert!(bad.parse::<Standby>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_bridge_can_not_be_the_standby_of_is_told_with_its_place() {
        let problems = |vf: &str, kind: &str| {
            let text = format!(
                "version = 1\n[[partition]]\nname = \"web\"\n{kind}\n[[partition.vf]]\nname = \"net0\"\n{vf}\n"
            );
            Spec::parse(text.as_bytes()).map_err(|error| error.to_string()).err().unwrap_or_default()
        };
        let machine = "boot = { disk = \"/dev/null\" }";
        let network =
            |more: &str| format!("class = \"network\"\nfailover = {{ standby = \"bridge:br0\" }}\n{more}");
        assert_eq!(problems(&network(""), machine), "");
        for (vf, kind, place) in [
            (network(""), "libvirt = \"web\"", "failover.standby"),
            (network("guest_may = [\"mac\"]"), machine, "guest_may"),
            (network("").replace("br0\"", "br0\", by = \"port\""), machine, "failover.by"),
            (network("").replace("network", "nvme"), machine, "failover.standby"),
            (network("").replace("br0", "no bridge"), machine, "is no interface's name"),
        ] {
            let problem = problems(&vf, kind);
            assert!(problem.contains(place), "{vf} {kind}: {problem}");
        }
    }

    /// A driver that is told of another MAC while it goes never lets go; one that has gone may have registered its own once more.
    #[test]
    fn a_vf_has_no_mac_while_it_goes_and_nobodys_when_it_is_out() {
        let mac: MacAddress = "52:54:00:aa:00:01".parse().unwrap();
        let vf = VfId { pf: "0000:01:00.0".parse().unwrap(), index: 0 };
        let settings = |mac| VfSettings { mac: Some(mac), ..VfSettings::default() };
        let mut held = Assignment { settings: settings(mac), ..Assignment::new(vf) };
        assert_eq!(held.settings_now(true), settings(mac));
        let over = FailedOver { since_ms: 1, why: FailoverCause::Asked, unplugged: true };
        held.failed_over = Some(over);
        assert_eq!(held.settings_now(true), settings(MacAddress::ZERO));
        let parked = held.settings_now(false);
        assert!(parked.mac.is_some_and(|parked| parked.is_unicast() && parked != mac));
        assert_eq!(held.effective_settings(), settings(mac), "it is still its own");
        assert_eq!(held.lost_settings(&settings(MacAddress::ZERO), false), parked);
        // As of the look that found it: whether the machine has it is not looked at again.
        assert_eq!(held.lost_since(&settings(MacAddress::ZERO), &settings(mac)), settings(MacAddress::ZERO));
        assert_eq!(held.lost_since(&parked, &settings(MacAddress::ZERO)), parked);
        assert_eq!(held.lost_since(&VfSettings::default(), &settings(mac)), VfSettings::default());
        for mac in ["06:00:00:00:00:01", "0a:00:00:00:00:01", "00:1b:21:00:00:01"] {
            let mac: MacAddress = mac.parse().unwrap();
            assert_ne!(mac.parked(), mac);
        }
    }
}
