//! The VLAN that a port tags a VF's frames with: ID, protocol and priority.
//!
//! Where only an ID is meant, as nearly always, only an ID is written, read and sent: an 802.1Q tag of priority 0 is
//! *plain*.
//!
//! ```text
//! Spec, JSON      vlan = 100      vlan = { id = 100, protocol = "802.1ad", priority = 3 }
//! command line    vlan=100        vlan=100,proto=802.1ad,prio=3
//! ```

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeStruct,
};

use crate::{UnitError, units::refuse};

/// The greatest VLAN ID; 4095 is reserved (IEEE 802.1Q).
const MAX_ID: u16 = 4094;
/// The greatest priority: it has three bits (PCP).
const MAX_PRIORITY: u8 = 7;
const WANTED: &str = "VLAN; use 1 to 4094, or 0 for untagged; 100,proto=802.1ad,prio=3 says more";

/// The protocol of a VLAN tag, by its EtherType.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum VlanProtocol {
    /// 8100h: the usual tag.
    #[default]
    #[serde(rename = "802.1Q")]
    Dot1Q,
    /// 88a8h: a service tag, outside of the customer's own (QinQ).
    #[serde(rename = "802.1ad")]
    Dot1ad,
}

impl VlanProtocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Dot1Q, Self::Dot1ad];

    /// The word used in Specs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dot1Q => "802.1Q",
            Self::Dot1ad => "802.1ad",
        }
    }

    /// The EtherType that begins the tag.
    #[must_use]
    pub fn ethertype(self) -> u16 {
        match self {
            Self::Dot1Q => 0x8100,
            Self::Dot1ad => 0x88a8,
        }
    }

    /// The protocol of this EtherType.
    #[must_use]
    pub fn from_ethertype(ethertype: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.ethertype() == ethertype)
    }
}

impl FromStr for VlanProtocol {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let known = Self::ALL.into_iter().find(|protocol| protocol.as_str().eq_ignore_ascii_case(text));
        known.ok_or_else(|| refuse(text, "VLAN protocol; use 802.1Q or 802.1ad"))
    }
}

/// The tag that a port puts on a VF's frames. ID 0 is no VLAN: frames are untagged, or carry a priority alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vlan {
    id: u16,
    protocol: VlanProtocol,
    priority: u8,
}

impl Vlan {
    /// Untagged.
    pub const NONE: Self = Self { id: 0, protocol: VlanProtocol::Dot1Q, priority: 0 };

    /// The plain VLAN with this ID; `None` above 4094.
    #[must_use]
    pub fn new(id: u16) -> Option<Self> {
        (id <= MAX_ID).then_some(Self { id, ..Self::NONE })
    }

    /// The same VLAN with another protocol and priority; `None` for a priority above 7.
    #[must_use]
    pub fn tagged(self, protocol: VlanProtocol, priority: u8) -> Option<Self> {
        (priority <= MAX_PRIORITY).then_some(Self { id: self.id, protocol, priority })
    }

    /// The ID.
    #[must_use]
    pub fn id(self) -> u16 {
        self.id
    }

    /// The protocol of the tag.
    #[must_use]
    pub fn protocol(self) -> VlanProtocol {
        self.protocol
    }

    /// The priority in the tag, 0 to 7.
    #[must_use]
    pub fn priority(self) -> u8 {
        self.priority
    }

    /// Whether its ID says all: 802.1Q, priority 0.
    #[must_use]
    pub fn is_plain(self) -> bool {
        self == Self { id: self.id, ..Self::NONE }
    }

    /// The broadcast domain that frames with this tag are kept to; `None` without a VLAN. Tags of one ID may meet in a
    /// switch, whatever their protocol and priority.
    #[must_use]
    pub fn domain(self) -> Option<u16> {
        Some(self.id).filter(|id| *id != 0)
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)?;
        if self.protocol != VlanProtocol::default() {
            write!(f, ",proto={}", self.protocol.as_str())?;
        }
        if self.priority != 0 {
            write!(f, ",prio={}", self.priority)?;
        }
        Ok(())
    }
}

impl FromStr for Vlan {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || refuse(text, WANTED);
        let mut parts = text.split(',');
        let id = parts.next().and_then(|id| id.parse().ok()).and_then(Self::new).ok_or_else(wrong)?;
        let (mut protocol, mut priority) = (None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("proto", name)) if protocol.is_none() => protocol = Some(name.parse()?),
                Some(("prio", number)) if priority.is_none() => {
                    priority = Some(number.parse().map_err(|_| wrong())?);
                }
                _ => return Err(wrong()),
            }
        }
        id.tagged(protocol.unwrap_or_default(), priority.unwrap_or(0)).ok_or_else(wrong)
    }
}

impl Serialize for Vlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_plain() {
            return serializer.serialize_u16(self.id);
        }
        let mut table = serializer.serialize_struct("Vlan", 3)?;
        table.serialize_field("id", &self.id)?;
        table.serialize_field("protocol", &self.protocol)?;
        table.serialize_field("priority", &self.priority)?;
        table.end()
    }
}

impl<'de> Deserialize<'de> for Vlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdOrTable;

        impl<'de> Visitor<'de> for IdOrTable {
            type Value = Vlan;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a VLAN, as 100 or {{ id = 100, protocol = \"802.1ad\", priority = 3 }}")
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Vlan, E> {
                let vlan = u16::try_from(id).ok().and_then(Vlan::new);
                vlan.ok_or_else(|| de::Error::custom(refuse(&id.to_string(), WANTED)))
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Vlan, E> {
                self.visit_i64(i64::try_from(id).unwrap_or(i64::MAX))
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Vlan, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Table {
                    id: u16,
                    #[serde(default)]
                    protocol: VlanProtocol,
                    #[serde(default)]
                    priority: u8,
                }

                let table = Table::deserialize(de::value::MapAccessDeserializer::new(table))?;
                let id = Vlan::new(table.id)
                    .ok_or_else(|| de::Error::custom(refuse(&table.id.to_string(), WANTED)))?;
                id.tagged(table.protocol, table.priority).ok_or_else(|| {
                    let priority = table.priority.to_string();
                    de::Error::custom(refuse(&priority, "priority of a VLAN; use 0 to 7"))
                })
            }
        }

        deserializer.deserialize_any(IdOrTable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(id: u16, priority: u8) -> Vlan {
        Vlan::new(id).unwrap().tagged(VlanProtocol::Dot1ad, priority).unwrap()
    }

    #[test]
    fn vlan_4095_is_reserved() {
        assert_eq!(Vlan::new(4094).unwrap().id(), 4094);
        assert_eq!(Vlan::new(4095), None);
        for bad in ["-1", "4095", "70000", r#"{"id":4095}"#, r#""5""#, "null", "[1]"] {
            assert!(serde_json::from_str::<Vlan>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_plain_vlan_is_its_id_everywhere() {
        let plain = Vlan::new(100).unwrap();
        assert_eq!((plain.to_string(), "100".parse()), ("100".to_owned(), Ok(plain)));
        assert_eq!(serde_json::to_string(&plain).unwrap(), "100");
        for json in ["100", r#"{"id":100}"#, r#"{"id":100,"protocol":"802.1Q","priority":0}"#] {
            assert_eq!(serde_json::from_str::<Vlan>(json).unwrap(), plain, "{json}");
        }
    }

    #[test]
    fn protocol_and_priority_are_written_and_read() {
        for (vlan, text) in [
            (service(100, 3), "100,proto=802.1ad,prio=3"),
            (service(7, 0), "7,proto=802.1ad"),
            (Vlan::new(7).unwrap().tagged(VlanProtocol::Dot1Q, 5).unwrap(), "7,prio=5"),
        ] {
            assert_eq!((vlan.to_string().as_str(), text.parse()), (text, Ok(vlan)));
            let json = serde_json::to_string(&vlan).unwrap();
            assert_eq!(serde_json::from_str::<Vlan>(&json).unwrap(), vlan, "{json}");
            let toml = toml::to_string(&std::collections::BTreeMap::from([("vlan", vlan)])).unwrap();
            let read: std::collections::BTreeMap<String, Vlan> = toml::from_str(&toml).unwrap();
            assert_eq!(read["vlan"], vlan, "{toml}");
        }
        let json = r#"{"id":100,"protocol":"802.1ad","priority":3}"#;
        assert_eq!(serde_json::to_string(&service(100, 3)).unwrap(), json);
    }

    #[test]
    fn a_wrong_protocol_or_priority_says_what_would_be_right() {
        for (text, says) in [
            ("100,proto=802.1X", "802.1Q or 802.1ad"),
            ("100,prio=8", "use 1 to 4094"),
            ("100,prio=1,prio=2", "prio=3 says more"),
            ("100,qos=1", "prio=3 says more"),
            ("proto=802.1ad", "use 1 to 4094"),
        ] {
            let error = text.parse::<Vlan>().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for (json, says) in [
            (r#"{"id":1,"priority":8}"#, "use 0 to 7"),
            (r#"{"id":1,"protocol":"802.1X"}"#, "802.1ad"),
            (r#"{"protocol":"802.1ad"}"#, "missing field `id`"),
            (r#"{"id":1,"pcp":8}"#, "unknown field `pcp`"),
        ] {
            let error = serde_json::from_str::<Vlan>(json).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
