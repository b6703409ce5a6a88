//! `guest_may` of a Spec: the changes that a partition may make to its own VF.
//!
//! ```toml
//! guest_may = ["mac", "reset"]                                      # names: whatever the PF allows
//! guest_may = { vlan = "100-110", max_tx_rate = "<=500Mbit" }       # a table narrows it
//! ```
//!
//! Reading is always allowed; changing is not unless it is named here.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};

use crate::{BitRate, Kind, Setting, Value, VfOp, VfSettings, Vlan, VlanProtocol, nearest};

/// Something that a partition may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Change a setting.
    Set(Setting),
    /// Reset the VF.
    Reset,
    /// Say which of the VF and its standby is active.
    Failover,
    /// Read statistics: always allowed, and may be named.
    Stats,
}

impl Permission {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Setting::ALL.iter().map(|setting| Self::Set(*setting)).chain([
            Self::Reset,
            Self::Failover,
            Self::Stats,
        ])
    }

    /// The word used in Specs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Set(setting) => setting.as_str(),
            Self::Reset => "reset",
            Self::Failover => "failover",
            Self::Stats => "stats",
        }
    }
}

impl FromStr for Permission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::all().find(|permission| permission.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::all().map(Self::as_str).collect();
            let hint = match nearest(text, known.iter().copied()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let text: String = text.chars().take(40).collect();
            format!("'{text}' is nothing a guest may do; {hint}")
        })
    }
}

/// How far a permission goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// As far as the PF allows.
    Any,
    /// VLANs within a bound.
    Vlans(VlanBound),
    /// A rate that is limited, and to no more than this.
    RateAtMost(BitRate),
    /// At most so many queues or interrupts.
    CountAtMost(u16),
    /// MAC addresses that begin with these bytes.
    MacPrefix(Vec<u8>),
}

impl Grant {
    fn parse(permission: Permission, text: &str) -> Result<Self, String> {
        let at_most = text.strip_prefix("<=").map(str::trim);
        let kind = if let Permission::Set(setting) = permission { Some(setting.kind()) } else { None };
        let (grant, form) = match kind {
            Some(Kind::Mac) => (mac_prefix(text).map(Self::MacPrefix), "\"52:54:00:*\""),
            Some(Kind::Vlan) => (
                VlanBound::parse(text).map(Self::Vlans),
                "\"100-110,200\" or \"100-110,proto=802.1ad,prio=0-3\"",
            ),
            Some(Kind::Rate) => {
                (at_most.and_then(|rate| rate.parse().ok()).map(Self::RateAtMost), "\"<=500Mbit\"")
            }
            Some(Kind::Count) => {
                (at_most.and_then(|count| count.parse().ok()).map(Self::CountAtMost), "\"<=4\"")
            }
            Some(Kind::Switch | Kind::Link) | None => (None, "true"),
        };
        grant.ok_or_else(|| {
            let text: String = text.chars().take(40).collect();
            format!("'{text}' does not narrow {}; write {form}", permission.as_str())
        })
    }

    /// Whether a setting may be given this value.
    fn allows(&self, setting: Setting, value: Value) -> bool {
        match (self, value) {
            (Self::Vlans(bound), Value::Vlan(vlan)) => bound.allows(vlan),
            // Protocol and priority of a tag are allowed by name only: they reach beyond the port.
            (Self::Any, Value::Vlan(vlan)) => vlan.is_plain(),
            (Self::RateAtMost(most), Value::Rate(rate)) => {
                // A greatest rate of 0 means no limit: that is more than any bound.
                let unlimited = setting == Setting::MaxTxRate && rate.megabits() == 0;
                rate <= *most && !unlimited
            }
            (Self::CountAtMost(most), Value::Count(count)) => count <= *most,
            (Self::MacPrefix(prefix), Value::Mac(mac)) => mac.bytes().starts_with(prefix),
            (Self::Any, _) => true,
            // A bound of another kind of value bounds nothing that is asked for here.
            _ => false,
        }
    }
}

/// VLANs that a guest may choose from. Nothing said of them, tags are plain: 802.1Q, priority 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanBound {
    /// IDs, both ends included.
    ids: Vec<(Vlan, Vlan)>,
    /// The protocols that are named; none is 802.1Q.
    protocols: Vec<VlanProtocol>,
    /// Priorities, both ends included.
    priorities: (u8, u8),
}

impl VlanBound {
    /// Reads `100-110,200`, with `proto=` and `prio=` among its parts where more is allowed.
    fn parse(text: &str) -> Option<Self> {
        let mut bound = Self { ids: Vec::new(), protocols: Vec::new(), priorities: (0, 0) };
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None => {
                    let (low, high): (u16, u16) = range(part)?;
                    bound.ids.push((Vlan::new(low)?, Vlan::new(high)?));
                }
                Some(("proto", name)) => bound.protocols.push(name.parse().ok()?),
                Some(("prio", priorities)) => {
                    bound.priorities = range(priorities).filter(|(_, high)| *high <= 7)?;
                }
                Some(_) => return None,
            }
        }
        (!bound.ids.is_empty()).then_some(bound)
    }

    fn allows(&self, vlan: Vlan) -> bool {
        let protocol = vlan.protocol();
        let is_usual = self.protocols.is_empty() && protocol == VlanProtocol::default();
        let (least, most) = self.priorities;
        self.ids.iter().any(|(low, high)| (low.id()..=high.id()).contains(&vlan.id()))
            && (is_usual || self.protocols.contains(&protocol))
            && (least..=most).contains(&vlan.priority())
    }
}

/// `100-110`, or `100` for 100 alone.
fn range<T: FromStr + PartialOrd>(text: &str) -> Option<(T, T)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
    (low <= high).then_some((low, high))
}

impl fmt::Display for VlanBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |low: u16, high: u16| {
            if low == high { low.to_string() } else { format!("{low}-{high}") }
        };
        let ids = self.ids.iter().map(|(low, high)| range(low.id(), high.id()));
        let protocols = self.protocols.iter().map(|protocol| format!("proto={}", protocol.as_str()));
        let (least, most) = self.priorities;
        let priorities = (most != 0).then(|| format!("prio={}", range(least.into(), most.into())));
        f.write_str(&ids.chain(protocols).chain(priorities).collect::<Vec<_>>().join(","))
    }
}

/// The bytes before `:*`, five at most.
fn mac_prefix(text: &str) -> Option<Vec<u8>> {
    let byte = |part: &str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?;
    let prefix: Option<Vec<u8>> = text.strip_suffix(":*")?.split(':').map(byte).collect();
    prefix.filter(|bytes| bytes.len() < 6)
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => write!(f, "any"),
            Self::Vlans(bound) => bound.fmt(f),
            Self::RateAtMost(most) => write!(f, "<={most}"),
            Self::CountAtMost(most) => write!(f, "<={most}"),
            Self::MacPrefix(prefix) => {
                prefix.iter().try_for_each(|byte| write!(f, "{byte:02x}:"))?;
                write!(f, "*")
            }
        }
    }
}

/// The changes that a partition may make to one VF. Empty by default: it may read, and change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestMay {
    grants: BTreeMap<Permission, Grant>,
}

impl GuestMay {
    /// Whether the operation is allowed; if not, one sentence for each thing that is not.
    ///
    /// # Errors
    /// The sentences name the setting, what was asked for and what is allowed.
    pub fn check(&self, op: &VfOp) -> Result<(), Vec<String>> {
        let denied = match op {
            VfOp::List | VfOp::Get { .. } | VfOp::Stats { .. } => Vec::new(),
            VfOp::Reset { .. } if self.grants.contains_key(&Permission::Reset) => Vec::new(),
            VfOp::Reset { .. } => vec!["reset is not in guest_may of this VF".to_owned()],
            VfOp::Failover { .. } if self.grants.contains_key(&Permission::Failover) => Vec::new(),
            VfOp::Failover { .. } => vec!["failover is not in guest_may of this VF".to_owned()],
            VfOp::Set { change, .. } => self.check_change(change),
        };
        if denied.is_empty() { Ok(()) } else { Err(denied) }
    }

    /// Whether some change of this kind is allowed.
    #[must_use]
    pub fn grants(&self, permission: Permission) -> bool {
        self.grants.contains_key(&permission)
    }

    /// All that is allowed, as words: `mac`, `vlan 100-110`.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let word = |(permission, grant): (&Permission, &Grant)| match grant {
            Grant::Any => permission.as_str().to_owned(),
            narrowed => format!("{} {narrowed}", permission.as_str()),
        };
        self.grants.iter().map(word).collect()
    }

    fn check_change(&self, change: &VfSettings) -> Vec<String> {
        let denied =
            change.values().filter_map(|(setting, value)| match self.grants.get(&Permission::Set(setting)) {
                Some(grant) if grant.allows(setting, value) => None,
                Some(Grant::Any) => Some(format!(
                    "{setting} {value} is more than guest_may allows: 802.1Q tags of priority 0"
                )),
                Some(grant) => Some(format!("{setting} {value} is outside what guest_may allows ({grant})")),
                None => Some(format!("{setting} is not in guest_may of this VF")),
            });
        denied.collect()
    }
}

impl Serialize for GuestMay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.grants.len()))?;
        for (permission, grant) in &self.grants {
            match grant {
                Grant::Any => map.serialize_entry(permission.as_str(), &true)?,
                narrowed => map.serialize_entry(permission.as_str(), &narrowed.to_string())?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for GuestMay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesOrTable;

        impl<'de> Visitor<'de> for NamesOrTable {
            type Value = GuestMay;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "names, as [\"mac\"], or a table that narrows them, as {{ vlan = \"100-110\" }}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<GuestMay, A::Error> {
                let mut grants = BTreeMap::new();
                while let Some(name) = names.next_element::<String>()? {
                    grants.insert(name.parse().map_err(de::Error::custom)?, Grant::Any);
                }
                Ok(GuestMay { grants })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<GuestMay, A::Error> {
                #[derive(Deserialize)]
                #[serde(untagged, expecting = "true, false or a text that narrows it")]
                enum Value {
                    Flag(bool),
                    Narrowed(String),
                }
                let mut grants = BTreeMap::new();
                while let Some((name, value)) = table.next_entry::<String, Value>()? {
                    let permission: Permission = name.parse().map_err(de::Error::custom)?;
                    let grant = match value {
                        Value::Flag(false) => continue,
                        Value::Flag(true) => Grant::Any,
                        Value::Narrowed(text) => {
                            Grant::parse(permission, &text).map_err(de::Error::custom)?
                        }
                    };
                    grants.insert(permission, grant);
                }
                Ok(GuestMay { grants })
            }
        }

        deserializer.deserialize_any(NamesOrTable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(json: &str) -> GuestMay {
        serde_json::from_str(json).unwrap()
    }

    fn set(change: VfSettings) -> VfOp {
        VfOp::Set { vf: "net0".parse().unwrap(), change }
    }

    #[test]
    fn nothing_named_means_reading_only() {
        let nothing = GuestMay::default();
        assert!(nothing.check(&VfOp::List).is_ok());
        assert!(nothing.check(&VfOp::Stats { vf: "net0".parse().unwrap() }).is_ok());
        assert!(nothing.check(&VfOp::Reset { vf: "net0".parse().unwrap() }).is_err());
        let denied =
            nothing.check(&set(VfSettings { trust: Some(false), ..VfSettings::default() })).unwrap_err();
        assert_eq!(denied, ["trust is not in guest_may of this VF"]);
    }

    #[test]
    fn a_table_narrows() {
        let some = may(
            r#"{"vlan": "100-110,200", "max_tx_rate": "<=500Mbit", "mac": "52:54:00:*", "queues": "<=4"}"#,
        );
        let vlan = |id| set(VfSettings { vlan: Vlan::new(id), ..VfSettings::default() });
        assert!(
            some.check(&vlan(100)).is_ok()
                && some.check(&vlan(110)).is_ok()
                && some.check(&vlan(200)).is_ok()
        );
        assert_eq!(
            some.check(&vlan(111)).unwrap_err(),
            ["vlan 111 is outside what guest_may allows (100-110,200)"]
        );
        let rate = |text: &str| set(VfSettings { max_tx_rate: text.parse().ok(), ..VfSettings::default() });
        assert!(some.check(&rate("500Mbit")).is_ok());
        assert!(some.check(&rate("501Mbit")).is_err());
        assert!(some.check(&rate("0Mbit")).is_err(), "0 lifts the limit");
        let mac = |text: &str| set(VfSettings { mac: text.parse().ok(), ..VfSettings::default() });
        assert!(some.check(&mac("52:54:00:01:02:03")).is_ok());
        assert!(some.check(&mac("52:55:00:01:02:03")).is_err());
    }

    /// A guest that may choose a VLAN's ID must not choose the tag's protocol or priority as well: with a service tag it
    /// would leave its customer's network, and with a priority go before others.
    #[test]
    fn a_vlan_may_have_a_protocol_or_priority_only_where_that_is_named() {
        let asks = |guest_may: &str, vlan: &str| {
            may(guest_may)
                .check(&set(VfSettings { vlan: vlan.parse().ok(), ..VfSettings::default() }))
                .is_ok()
        };
        for plain_only in [r#"["vlan"]"#, r#"{"vlan":"100-110"}"#, r#"{"vlan":"100-110,proto=802.1Q"}"#] {
            assert!(asks(plain_only, "100"), "{plain_only}");
            assert!(!asks(plain_only, "100,proto=802.1ad"), "{plain_only}");
            assert!(!asks(plain_only, "100,prio=1"), "{plain_only}");
        }
        let service = r#"{"vlan":"100-110,proto=802.1ad,prio=0-3"}"#;
        assert!(asks(service, "105,proto=802.1ad") && asks(service, "105,proto=802.1ad,prio=3"));
        assert!(!asks(service, "105"), "802.1Q is not named");
        assert!(!asks(service, "105,proto=802.1ad,prio=4") && !asks(service, "111,proto=802.1ad"));
        let either = r#"{"vlan":"1-9,proto=802.1Q,proto=802.1ad,prio=2"}"#;
        assert!(asks(either, "9,prio=2") && asks(either, "9,proto=802.1ad,prio=2") && !asks(either, "9"));
        let denied = may(r#"["vlan"]"#)
            .check(&set(VfSettings { vlan: "5,prio=7".parse().ok(), ..VfSettings::default() }));
        assert_eq!(
            denied.unwrap_err(),
            ["vlan 5,prio=7 is more than guest_may allows: 802.1Q tags of priority 0"]
        );
    }

    #[test]
    fn one_forbidden_setting_forbids_the_change() {
        let mac_only = may(r#"["mac"]"#);
        let both =
            VfSettings { mac: "52:54:00:01:02:03".parse().ok(), vlan: Vlan::new(5), ..VfSettings::default() };
        assert_eq!(mac_only.check(&set(both)).unwrap_err(), ["vlan is not in guest_may of this VF"]);
    }

    #[test]
    fn it_reads_what_it_writes() {
        for json in [
            r#"{}"#,
            r#"{"mac":true,"vlan":"100-110,200","max_tx_rate":"<=500Mbit"}"#,
            r#"{"mac":"52:54:00:*"}"#,
            r#"{"vlan":"100-110,200,proto=802.1Q,proto=802.1ad,prio=0-3"}"#,
            r#"{"vlan":"7,prio=5"}"#,
        ] {
            assert_eq!(serde_json::to_string(&may(json)).unwrap(), json);
        }
    }

    #[test]
    fn a_wrong_word_names_the_near_one() {
        let error = serde_json::from_str::<GuestMay>(r#"["vlna"]"#).unwrap_err().to_string();
        assert!(error.contains("did you mean 'vlan'?"), "{error}");
        for bad in [
            r#"{"vlan":"110-100"}"#,
            r#"{"vlan":"100-4095"}"#,
            r#"{"vlan":"100,proto=802.1X"}"#,
            r#"{"vlan":"100,prio=0-8"}"#,
            r#"{"vlan":"prio=3"}"#,
            r#"{"trust":"yes"}"#,
            r#"{"max_tx_rate":"500"}"#,
            "3",
        ] {
            assert!(serde_json::from_str::<GuestMay>(bad).is_err(), "{bad}");
        }
    }
}
