//! A VF's standby: a virtual network adapter on a bridge of the host's, which carries a guest's traffic while the VF is away.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{LONGEST_INTERFACE, MacAddress};

/// The name of a network interface of the host's, as the kernel takes it (dev_valid_name() in net/core/dev.c): 1 to 15 bytes, with no
/// `/`, no `:`, no white space and no control character, and neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(Arc<str>);

/// A text that is not an [`InterfaceName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no interface's name; use 1 to 15 bytes with no '/', ':' or space")]
pub struct InterfaceNameError(String);

impl InterfaceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        let hostile = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let is_name = (1..=LONGEST_INTERFACE).contains(&text.len())
            && text != "."
            && text != ".."
            && !text.chars().any(hostile);
        if is_name {
            Ok(Self(text.into()))
        } else {
            Err(InterfaceNameError(text.chars().take(60).flat_map(char::escape_debug).collect()))
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for InterfaceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for InterfaceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What the standby of a VF is: a virtio-net adapter with the feature `VIRTIO_NET_F_STANDBY` (virtio 1.2 §5.1.3), whose primary is
/// the VF. A guest knows the two for a pair by their one MAC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StandbyNic {
    /// The bridge of the host's that it is on.
    pub bridge: InterfaceName,
    /// Its MAC: the VF's.
    pub mac: MacAddress,
}

impl fmt::Display for StandbyNic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on bridge {}", self.mac, self.bridge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_takes_for_a_name_is_one_and_nothing_else() {
        for good in ["b", "br0", "br-lan.100", "fifteen-bytes-x", "brücke", "..."] {
            assert_eq!(good.parse::<InterfaceName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "../br0", "a:1", "br 0", "br0\n", "\u{1b}[2J", "sixteen-bytes-xx"] {
            let error = bad.parse::<InterfaceName>().unwrap_err().to_string();
            assert!(!error.contains(|c: char| c.is_control()), "{error:?}");
        }
    }

    #[test]
    fn a_standby_is_read_as_it_was_written_and_a_hostile_bridge_is_refused() {
        let text = r#"{"bridge":"br0","mac":"52:54:00:aa:00:01"}"#;
        let nic: StandbyNic = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&nic).unwrap(), text);
        for bad in
            [text.replace("br0", "../br0"), text.replace(":01\"", "\""), text.replace("mac", "address")]
        {
            assert!(serde_json::from_str::<StandbyNic>(&bad).is_err(), "{bad}");
        }
    }
}
