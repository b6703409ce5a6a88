//! Moving a machine that runs to another host: what the machine there has to be like, and how far the move is.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Accelerator, Name};

/// The longest name of a machine type. QEMU's own have about 20 characters.
const LONGEST_TYPE: usize = 40;

/// A type of machine with its version, as QEMU names it: `pc-q35-10.0`, `pc-q35-rhel9.6.0`. A state that one version has written is read
/// by the same version only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineType(Arc<str>);

/// A text that is not a [`MachineType`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no type of machine that is moved; those begin with 'pc-q35-'")]
pub struct MachineTypeError(String);

impl MachineType {
    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MachineType {
    type Err = MachineTypeError;

    fn from_str(text: &str) -> Result<Self, MachineTypeError> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
        let version = text.strip_prefix("pc-q35-").filter(|version| !version.is_empty());
        match version {
            Some(version) if text.len() <= LONGEST_TYPE && version.chars().all(is_plain) => {
                Ok(Self(text.into()))
            }
            _ => Err(MachineTypeError(text.chars().take(60).flat_map(char::escape_debug).collect())),
        }
    }
}

impl fmt::Display for MachineType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for MachineType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MachineType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a running machine is like beyond its definition. The one that takes its state over has to be the same: what is in the state
/// is told apart by the slots that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MachineLayout {
    /// Its type.
    pub machine: MachineType,
    /// What it executes on. Nothing that ran on one goes on, on another.
    pub accelerator: Accelerator,
    /// Whether it has a channel.
    pub channel: bool,
    /// The slots of its standbys, by the names of their VFs.
    pub standbys: BTreeMap<Name, u8>,
}

/// How far a move is, as seen by one of its two machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Migration {
    /// It is not being moved: it runs as ever.
    None,
    /// Its state is on its way, out of it or into it. Bytes; all of them 0 where that is not known.
    UnderWay {
        /// Sent so far. What the guest changes is sent again, so this may come to more than `total`.
        sent: u64,
        /// Still to be sent.
        remaining: u64,
        /// The size of the guest's memory.
        total: u64,
    },
    /// The whole state has gone out of it, or into it. The machine stands still, and can be resumed or ended.
    Complete,
    /// It came to nothing. A machine that was to be sent away runs as ever; one that was to take the state over is of no use.
    Failed {
        /// Why, in words.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_machines_hold_nothing_that_could_be_an_option() {
        for good in ["pc-q35-10.0", "pc-q35-9.2", "pc-q35-rhel9.6.0", "pc-q35-noble-v2"] {
            assert_eq!(good.parse::<MachineType>().unwrap().as_str(), good);
        }
        let long = format!("pc-q35-{}", "1".repeat(40));
        for bad in [
            "",
            "q35",
            "pc-q35-",
            "pc-i440fx-10.0",
            "pc-q35-10.0,usb=on",
            "pc-q35-10.0 -S",
            "pc-q35-\n",
            &long,
        ] {
            let error = bad.parse::<MachineType>().unwrap_err().to_string();
            assert!(!error.contains(|c: char| c.is_control()), "{error:?}");
        }
    }

    #[test]
    fn a_layout_is_read_as_it_was_written_and_a_hostile_one_is_refused() {
        let text = r#"{"machine":"pc-q35-10.0","accelerator":"kvm","channel":true,"standbys":{"net0":1}}"#;
        let layout: MachineLayout = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&layout).unwrap(), text);
        for bad in [
            text.replace("10.0", "10.0,usb=on"),
            text.replace("net0", "../net0"),
            text.replace(":1}", ":256}"),
            text.replace("\"channel\"", "\"chanel\""),
        ] {
            assert!(serde_json::from_str::<MachineLayout>(&bad).is_err(), "{bad}");
        }
    }
}
