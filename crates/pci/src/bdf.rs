//! The address of a PCI function: domain, bus, device, function.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The address of one PCI function, written `0000:01:10.0` (domain, bus, device, function in hexadecimal).
///
/// A domain (the kernel also says segment) has up to 32 bits on Linux: VMD and Hyper-V make domains above 0xffff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// A text that is not a PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no PCI address; write it as 0000:01:00.0 (domain:bus:device.function, hexadecimal)")]
pub struct BdfError {
    text: String,
}

impl Bdf {
    /// An address from its parts; `None` when `device` is over 31 or `function` over 7.
    #[must_use]
    pub fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        (device < 32 && function < 8).then_some(Self { domain, bus, device, function })
    }

    /// The function with this 16-bit routing ID (bus in the high byte) in a domain. With ARI the low byte is one
    /// 8-bit function number; Linux still names it device.function, and so does this (PCIe 6.0 §6.13).
    #[must_use]
    pub fn from_routing_id(domain: u32, routing_id: u16) -> Self {
        let [bus, devfn] = routing_id.to_be_bytes();
        Self { domain, bus, device: devfn >> 3, function: devfn & 7 }
    }

    /// The 16-bit routing ID: bus in the high byte, device and function in the low one.
    #[must_use]
    pub fn routing_id(self) -> u16 {
        u16::from_be_bytes([self.bus, self.device << 3 | self.function])
    }

    /// The routing ID of VF number `index` (from 0) of this PF: PCIe 6.0 §9.3.3.8, First VF Offset and VF Stride.
    /// `None` when it does not fit in 16 bits: such a VF cannot exist.
    #[must_use]
    pub fn virtual_function(self, first_vf_offset: u16, vf_stride: u16, index: u16) -> Option<Self> {
        let offset = u32::from(first_vf_offset) + u32::from(vf_stride) * u32::from(index);
        let id = u16::try_from(u32::from(self.routing_id()) + offset).ok()?;
        Some(Self::from_routing_id(self.domain, id))
    }

    /// Whether both are functions of one device.
    #[must_use]
    pub fn is_same_device(self, other: Self) -> bool {
        (self.domain, self.bus, self.device) == (other.domain, other.bus, other.device)
    }

    /// PCI domain.
    #[must_use]
    pub fn domain(self) -> u32 {
        self.domain
    }

    /// Bus number, 0 to 255.
    #[must_use]
    pub fn bus(self) -> u8 {
        self.bus
    }

    /// Device number, 0 to 31.
    #[must_use]
    pub fn device(self) -> u8 {
        self.device
    }

    /// Function number, 0 to 7.
    #[must_use]
    pub fn function(self) -> u8 {
        self.function
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for Bdf {
    type Err = BdfError;

    /// Takes `DDDD:BB:DD.F` and, as `lspci` does, `BB:DD.F` for domain 0.
    fn from_str(text: &str) -> Result<Self, BdfError> {
        let parse = || {
            let mut parts: Vec<&str> = text.split(':').collect();
            let (device, function) = parts.pop()?.split_once('.')?;
            let bus = parts.pop()?;
            let domain = parts.pop().unwrap_or("0000");
            let hex = |digits: &str, max: usize| {
                let fits = (1..=max).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
                fits.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
            };
            let byte = |digits, max| hex(digits, max).and_then(|n| u8::try_from(n).ok());
            parts.is_empty().then_some(())?;
            Self::new(hex(domain, 8)?, byte(bus, 2)?, byte(device, 2)?, byte(function, 1)?)
        };
        parse().ok_or_else(|| BdfError { text: text.chars().take(40).collect() })
    }
}

impl Serialize for Bdf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bdf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Bdf {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::{ObjectBuilder, schema::Type};
        let pattern = "^([0-9A-Fa-f]{1,8}:)?[0-9A-Fa-f]{1,2}:[01]?[0-9A-Fa-f]\\.[0-7]$";
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
        text.description(Some("A PCI address; without a domain, it is of domain 0."))
            .examples(["0000:01:10.0"])
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Bdf {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for text in ["0000:01:10.0", "10000:e1:00.7", "ffff:ff:1f.7"] {
            assert_eq!(text.parse::<Bdf>().unwrap().to_string(), text);
        }
        assert_eq!("01:00.1".parse::<Bdf>().unwrap().to_string(), "0000:01:00.1");
    }

    #[test]
    fn an_invalid_address_is_refused() {
        for text in [
            "",
            "eth0",
            "0000:01:20.0",
            "0000:01:00.8",
            "0:0:0:0.0",
            "0000:1g:00.0",
            "0000:01:00",
            "+1:00.0",
            "🦀:00.0",
        ] {
            assert!(text.parse::<Bdf>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_vf_is_first_offset_plus_stride_times_index_away() {
        let pf: Bdf = "0000:01:00.0".parse().unwrap();
        assert_eq!(pf.virtual_function(128, 2, 0).unwrap().to_string(), "0000:01:10.0");
        assert_eq!(pf.virtual_function(128, 2, 6).unwrap().to_string(), "0000:01:11.4");
        assert_eq!(pf.virtual_function(u16::MAX, u16::MAX, 1), None, "beyond the last bus");
    }
}
