//! Names of partitions and of their VFs, chosen by the user.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A partition's name, or a VF's name within its partition: a letter, then letters, digits, `-` and `_`; at most 40.
///
/// The set is narrow on purpose: a name becomes a folder, a QEMU object ID and a cgroup. Clones share the text:
/// plans, states and inventories of large hosts repeat the same few thousand names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A text that is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no name; use a letter, then letters, digits, '-' and '_', 40 at most")]
pub struct NameError(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic());
        let goes_on_well = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if starts_well && goes_on_well && text.len() <= 40 {
            Ok(Self(text.into()))
        } else {
            Err(NameError(text.chars().take(60).collect()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The owner of a VF: a partition's name and the VF's name in it, written `web/net0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The partition that holds the VF.
    pub partition: Name,
    /// The VF's name in the partition's Spec.
    pub vf: Name,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.vf)
    }
}

impl FromStr for Owner {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (partition, vf) =
            text.split_once('/').ok_or_else(|| NameError(text.chars().take(60).collect()))?;
        Ok(Self { partition: partition.parse()?, vf: vf.parse()? })
    }
}

impl Serialize for Owner {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A reference to a VF in a partition's Spec: `net0` is one of its own, `db/net0` one of another partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VfRef {
    /// A VF of the same partition.
    Own(Name),
    /// A VF of the partition named.
    Of(Owner),
}

impl VfRef {
    /// The owner of the VF, in a Spec of this partition.
    #[must_use]
    pub fn owner(&self, partition: &Name) -> Owner {
        match self {
            Self::Own(vf) => Owner { partition: partition.clone(), vf: vf.clone() },
            Self::Of(owner) => owner.clone(),
        }
    }
}

impl fmt::Display for VfRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(vf) => vf.fmt(f),
            Self::Of(owner) => owner.fmt(f),
        }
    }
}

impl FromStr for VfRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains('/') { text.parse().map(Self::Of) } else { text.parse().map(Self::Own) }
    }
}

impl Serialize for VfRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VfRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_as_the_name_of_a_folder() {
        for good in ["web", "a", "db-2", "Net_0"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "0web", "..", "a/b", "a b", "-x", "ä", "a,b=c", &"x".repeat(41)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
