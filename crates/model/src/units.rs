//! Quantities with their bounds: MAC addresses, memory sizes, bit rates. Every value is valid.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is not a quantity of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{found}' is no {wanted}")]
pub struct UnitError {
    found: String,
    wanted: &'static str,
}

/// A text that is not a quantity of the expected kind, cut to a printable length.
pub(crate) fn refuse(found: &str, wanted: &'static str) -> UnitError {
    UnitError { found: found.chars().take(40).collect(), wanted }
}

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// All zero: reported by drivers for a VF whose address was never set.
    pub const ZERO: Self = Self([0; 6]);

    /// An address from its bytes, in wire order.
    #[must_use]
    pub fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// Its bytes, in wire order.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The address that a VF has while its own is used elsewhere: no two of one host's have the same unless they differ in the first
    /// byte alone. Locally administered (IEEE 802 §8.4).
    #[must_use]
    pub fn parked(self) -> Self {
        const PARKED: [u8; 2] = [0x06, 0x0a];
        let [first, rest @ ..] = self.0;
        let [b, c, d, e, f] = rest;
        Self([if first == PARKED[0] { PARKED[1] } else { PARKED[0] }, b, c, d, e, f])
    }

    /// Whether a station can have it: neither multicast (IEEE 802 group bit) nor all zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self != Self::ZERO
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part
                .and_then(|p| u8::from_str_radix(p, 16).ok())
                .ok_or_else(|| refuse(text, "MAC address; write six bytes as 52:54:00:aa:00:01"))?;
        }
        if parts.next().is_some() {
            return Err(refuse(text, "MAC address; write six bytes as 52:54:00:aa:00:01"));
        }
        Ok(Self(bytes))
    }
}

/// An amount of memory in whole MiB, 16 MiB to 16 TiB; written `512MiB`, `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize {
    mebibytes: u32,
}

impl MemorySize {
    /// A size in MiB; `None` below 16 MiB or above 16 TiB.
    #[must_use]
    pub fn from_mebibytes(mebibytes: u32) -> Option<Self> {
        (16..=16 << 20).contains(&mebibytes).then_some(Self { mebibytes })
    }

    /// The size in MiB.
    #[must_use]
    pub fn mebibytes(self) -> u32 {
        self.mebibytes
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mebibytes {
            n if n % 1024 == 0 => write!(f, "{}GiB", n / 1024),
            n => write!(f, "{n}MiB"),
        }
    }
}

impl FromStr for MemorySize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_unit(text);
        let factor = match unit {
            "MiB" | "M" => 1,
            "GiB" | "G" => 1024,
            "TiB" | "T" => 1 << 20,
            _ => 0,
        };
        let mebibytes = number.and_then(|n| u32::try_from(n).ok()).and_then(|n| n.checked_mul(factor));
        mebibytes
            .and_then(Self::from_mebibytes)
            .ok_or_else(|| refuse(text, "memory size; write 512MiB or 2GiB, from 16MiB to 16TiB"))
    }
}

/// Bits per second, in whole Mbit/s; written `500Mbit`, `10Gbit`. As a limit, 0 means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitRate {
    megabits: u32,
}

impl BitRate {
    /// A rate in Mbit/s.
    #[must_use]
    pub fn from_megabits(megabits: u32) -> Self {
        Self { megabits }
    }

    /// The rate in Mbit/s: the unit of the kernel's `speed` attribute and of `IFLA_VF_RATE`.
    #[must_use]
    pub fn megabits(self) -> u32 {
        self.megabits
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.megabits {
            n if n >= 1000 && n % 1000 == 0 => write!(f, "{}Gbit", n / 1000),
            n => write!(f, "{n}Mbit"),
        }
    }
}

impl FromStr for BitRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_unit(text);
        let factor = match unit {
            "Mbit" | "M" => 1,
            "Gbit" | "G" => 1000,
            "Tbit" | "T" => 1_000_000,
            _ => 0,
        };
        let zero_or_unit = number.filter(|_| factor > 0);
        let megabits = zero_or_unit.and_then(|n| u32::try_from(n).ok()).and_then(|n| n.checked_mul(factor));
        let megabits = megabits.ok_or_else(|| refuse(text, "bit rate; write 500Mbit or 10Gbit"))?;
        Ok(Self { megabits })
    }
}

fn split_unit(text: &str) -> (Option<u64>, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..digits].parse().ok(), text[digits..].trim_start())
}

/// Implements serde through the text form of a quantity.
macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(MacAddress, MemorySize, BitRate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_six_bytes_of_two_digits() {
        let mac: MacAddress = "52:54:00:AA:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:aa:00:01");
        assert!(mac.is_unicast());
        assert!(!"01:00:5e:00:00:01".parse::<MacAddress>().unwrap().is_unicast());
        for bad in [
            "",
            "52:54:00:aa:00",
            "52:54:00:aa:00:01:02",
            "52-54-00-aa-00-01",
            "52:54:0:aa:00:01",
            "+2:54:00:aa:00:01",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_and_rates_read_and_write_the_same() {
        for text in ["512MiB", "2GiB", "16MiB"] {
            assert_eq!(text.parse::<MemorySize>().unwrap().to_string(), text);
        }
        for text in ["0Mbit", "500Mbit", "10Gbit"] {
            assert_eq!(text.parse::<BitRate>().unwrap().to_string(), text);
        }
        for bad in ["lots", "", "1", "512", "0MiB", "99999999TiB", "18446744073709551616MiB"] {
            assert!(bad.parse::<MemorySize>().is_err(), "{bad}");
        }
    }
}
