//! Requirements of a request beyond a VF of its class: a Spec's words for guests, capabilities, NUMA, redundancy
//! and guaranteed bandwidth.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{BitRate, UnitError, VfRef};

/// The guest of a partition: an operating system whose drivers are known, or the drivers themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Its operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<GuestOs>,
    /// Its VF drivers, as `igbvf`; they override what is known of the operating system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<String>,
}

/// An operating system with known VF drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum GuestOs {
    /// Linux, with the drivers of its own tree.
    Linux,
    /// FreeBSD, with the drivers of its own tree.
    Freebsd,
    /// Windows, with the vendors' drivers.
    Windows,
}

impl GuestOs {
    /// The word used in Specs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Freebsd => "freebsd",
            Self::Windows => "windows",
        }
    }
}

/// A capability that a request requires of its adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// RDMA: the PF has an RDMA device.
    Rdma,
    /// VFs can be trusted.
    Trust,
    /// Spoof checking can be set.
    Spoofchk,
    /// The port can tag and filter a VF's VLAN.
    Vlan,
    /// The port can tag a VF's frames with 802.1ad, too.
    #[serde(rename = "vlan-802.1ad")]
    Vlan8021ad,
    /// A VF's rate can be limited.
    RateLimit,
    /// A VF can be given a guaranteed rate.
    GuaranteedRate,
    /// A VF's link state can be set.
    LinkState,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Rdma,
        Self::Trust,
        Self::Spoofchk,
        Self::Vlan,
        Self::Vlan8021ad,
        Self::RateLimit,
        Self::GuaranteedRate,
        Self::LinkState,
    ];

    /// The word used in Specs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rdma => "rdma",
            Self::Trust => "trust",
            Self::Spoofchk => "spoofchk",
            Self::Vlan => "vlan",
            Self::Vlan8021ad => "vlan-802.1ad",
            Self::RateLimit => "rate-limit",
            Self::GuaranteedRate => "guaranteed-rate",
            Self::LinkState => "link-state",
        }
    }
}

/// How a NUMA node counts for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NumaPolicy {
    /// The nearest adapter.
    #[default]
    Prefer,
    /// Only an adapter on the partition's node.
    Require,
}

/// A failure domain that two VFs must not share, so that one keeps working when the other fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FailureDomain {
    /// The port: one PF.
    Port,
    /// The adapter: all PFs of one device.
    Adapter,
    /// The NUMA node.
    NumaNode,
}

impl FailureDomain {
    /// The word used in Specs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Adapter => "adapter",
            Self::NumaNode => "numa-node",
        }
    }
}

/// Redundancy: another VF that must not share a failure domain with this one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Apart {
    /// The other one: `net0` of the same partition, or `db/net0` of another.
    pub vf: VfRef,
    /// The domain that they must not share.
    #[serde(default = "adapter_domain")]
    pub by: FailureDomain,
    /// A preference rather than a rule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prefer: bool,
}

fn adapter_domain() -> FailureDomain {
    FailureDomain::Adapter
}

/// A guaranteed bandwidth: written `500Mbit`, or as a share of the port's, `25%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guarantee {
    /// A fixed rate.
    Rate(BitRate),
    /// A percentage of the link's rate, 1 to 100.
    Percent(u8),
}

impl Guarantee {
    /// The rate on a link of this speed in Mbit/s, rounded up; `None` for a percentage of an unknown speed.
    #[must_use]
    pub fn on_link(self, speed_mbps: Option<u32>) -> Option<BitRate> {
        match self {
            Self::Rate(rate) => Some(rate),
            Self::Percent(percent) => {
                let megabits = (u64::from(speed_mbps?) * u64::from(percent)).div_ceil(100);
                u32::try_from(megabits).ok().map(BitRate::from_megabits)
            }
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => rate.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Guarantee {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else {
            return text.parse().map(Self::Rate).map_err(|error: UnitError| format!("{error}, or 25%"));
        };
        let percent = percent.trim().parse().ok().filter(|percent| (1..=100).contains(percent));
        percent.map(Self::Percent).ok_or_else(|| {
            let text: String = text.chars().take(40).collect();
            format!("'{text}' is no part of a port; use 1% to 100%")
        })
    }
}

impl Serialize for Guarantee {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Guarantee {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
