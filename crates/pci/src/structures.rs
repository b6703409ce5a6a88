//! The small capabilities: PCI Express link, MSI-X, Device Serial Number, ARI and ACS.

use std::fmt;

use crate::{Capability, ConfigError, ConfigSpace, ExtendedCapability};

/// The PCIe link of a function, from Link Capabilities and Link Status (PCIe 6.0 §7.5.3.6 and §7.5.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcieLink {
    /// Current speed, in MT/s.
    pub speed_mts: u32,
    /// Current number of lanes.
    pub width: u8,
    /// Maximum speed, in MT/s.
    pub max_speed_mts: u32,
    /// Maximum number of lanes.
    pub max_width: u8,
}

impl PcieLink {
    /// The function's link; `None` when it has no PCI Express capability, or no link (it sits in the root complex).
    ///
    /// # Errors
    /// [`ConfigError::Truncated`] when the structure reaches beyond the end.
    pub fn find(config: &ConfigSpace<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(offset) = config.find(Capability::PCI_EXPRESS) else { return Ok(None) };
        let link = |register: u16| {
            let [width, _] = (register >> 4 & 0x3f).to_le_bytes();
            Some((speed_mts(register & 0xf)?, width))
        };
        let (now, best) = (link(config.u16(offset + 0x12)?), link(config.u16(offset + 0x0c)?));
        Ok(now.zip(best).map(|((speed_mts, width), (max_speed_mts, max_width))| Self {
            speed_mts,
            width,
            max_speed_mts,
            max_width,
        }))
    }
}

/// The speed for a link speed code of Link Capabilities, in MT/s.
fn speed_mts(code: u16) -> Option<u32> {
    [2_500, 5_000, 8_000, 16_000, 32_000, 64_000].get(usize::from(code).checked_sub(1)?).copied()
}

/// The MSI-X capability (PCIe 6.0 §7.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixCapability {
    /// Interrupt vectors in the table, 1 to 2048.
    pub vectors: u16,
    /// MSI-X Enable.
    pub enabled: bool,
}

impl MsixCapability {
    /// The function's MSI-X capability, where it has one.
    ///
    /// # Errors
    /// [`ConfigError::Truncated`] when the structure reaches beyond the end.
    pub fn find(config: &ConfigSpace<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(offset) = config.find(Capability::MSIX) else { return Ok(None) };
        let control = config.u16(offset + 2)?;
        Ok(Some(Self { vectors: (control & 0x7ff) + 1, enabled: control & 0x8000 != 0 }))
    }
}

/// A Device Serial Number (PCIe 6.0 §7.9.3): an EUI-64, written as `00-1b-21-ff-ff-12-34-56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceSerialNumber(pub u64);

impl DeviceSerialNumber {
    /// The function's serial number, where it has one.
    ///
    /// # Errors
    /// [`ConfigError::Truncated`] when the structure reaches beyond the end.
    pub fn find(config: &ConfigSpace<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(offset) = config.find_extended(ExtendedCapability::SERIAL_NUMBER) else { return Ok(None) };
        let (low, high) = (config.u32(offset + 4)?, config.u32(offset + 8)?);
        Ok(Some(Self(u64::from(high) << 32 | u64::from(low))))
    }
}

impl fmt::Display for DeviceSerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i] = self.0.to_be_bytes();
        write!(f, "{a:02x}-{b:02x}-{c:02x}-{d:02x}-{e:02x}-{g:02x}-{h:02x}-{i:02x}")
    }
}

/// The ARI extended capability (PCIe 6.0 §7.8.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AriCapability {
    /// ARI Capability.
    pub capabilities: u16,
    /// ARI Control.
    pub control: u16,
}

impl AriCapability {
    /// The function's ARI capability, where it has one.
    ///
    /// # Errors
    /// [`ConfigError::Truncated`] when the structure reaches beyond the end.
    pub fn find(config: &ConfigSpace<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(offset) = config.find_extended(ExtendedCapability::ARI) else { return Ok(None) };
        Ok(Some(Self { capabilities: config.u16(offset + 4)?, control: config.u16(offset + 6)? }))
    }

    /// The next higher function number of the device; 0 for the last.
    #[must_use]
    pub fn next_function(&self) -> u8 {
        self.capabilities.to_le_bytes()[1]
    }
}

/// The ACS extended capability (PCIe 6.0 §7.7.11). In both registers bit 0 is source validation, 1 translation
/// blocking, 2 request redirect, 3 completion redirect, 4 upstream forwarding, 5 egress control, 6 direct translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcsCapability {
    /// The features that the function supports.
    pub capabilities: u16,
    /// The features that are enabled.
    pub control: u16,
}

impl AcsCapability {
    /// The function's ACS capability, where it has one.
    ///
    /// # Errors
    /// [`ConfigError::Truncated`] when the structure reaches beyond the end.
    pub fn find(config: &ConfigSpace<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(offset) = config.find_extended(ExtendedCapability::ACS) else { return Ok(None) };
        Ok(Some(Self { capabilities: config.u16(offset + 4)?, control: config.u16(offset + 6)? }))
    }
}
