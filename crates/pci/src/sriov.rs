//! The Single Root I/O Virtualization extended capability (PCIe 6.0 §9.3.3).

use crate::{ConfigError, ConfigSpace, ExtendedCapability};

/// The registers of an SR-IOV capability, as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SriovCapability {
    /// SR-IOV Capabilities.
    pub capabilities: u32,
    /// SR-IOV Control.
    pub control: u16,
    /// SR-IOV Status.
    pub status: u16,
    /// InitialVFs.
    pub initial_vfs: u16,
    /// TotalVFs. A driver may allow fewer.
    pub total_vfs: u16,
    /// NumVFs.
    pub num_vfs: u16,
    /// Function Dependency Link: the function's own number when it depends on no other.
    pub function_dependency_link: u8,
    /// First VF Offset. May change with NumVFs and ARI.
    pub first_vf_offset: u16,
    /// VF Stride. May change with NumVFs and ARI.
    pub vf_stride: u16,
    /// VF Device ID.
    pub vf_device_id: u16,
    /// Supported Page Sizes: bit n stands for 2^(n + 12) bytes.
    pub supported_page_sizes: u32,
    /// System Page Size: one bit, with the same meaning.
    pub system_page_size: u32,
    /// VF BAR0 to VF BAR5, raw.
    pub vf_bars: [u32; 6],
}

/// The window that a VF BAR register describes, alone or with the next register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfBarRegister {
    /// BAR number, 0 to 5.
    pub index: u8,
    /// 64-bit: the next register holds the upper half.
    pub is_64bit: bool,
    /// Prefetchable.
    pub prefetchable: bool,
    /// Address of VF 0's window; 0 when it is unset or the BAR does not exist.
    pub address: u64,
}

impl SriovCapability {
    /// The function's SR-IOV capability; `None` when its list has none.
    ///
    /// # Errors
    /// [`ConfigError::Truncated`] when the structure reaches beyond the end.
    pub fn find(config: &ConfigSpace<'_>) -> Result<Option<Self>, ConfigError> {
        config.find_extended(ExtendedCapability::SRIOV).map(|offset| Self::parse(config, offset)).transpose()
    }

    fn parse(config: &ConfigSpace<'_>, offset: usize) -> Result<Self, ConfigError> {
        let mut vf_bars = [0; 6];
        for (bar, register) in vf_bars.iter_mut().zip((offset + 0x24..).step_by(4)) {
            *bar = config.u32(register)?;
        }
        let [function_dependency_link, _] = config.u16(offset + 0x12)?.to_le_bytes();
        Ok(Self {
            capabilities: config.u32(offset + 0x04)?,
            control: config.u16(offset + 0x08)?,
            status: config.u16(offset + 0x0a)?,
            initial_vfs: config.u16(offset + 0x0c)?,
            total_vfs: config.u16(offset + 0x0e)?,
            num_vfs: config.u16(offset + 0x10)?,
            function_dependency_link,
            first_vf_offset: config.u16(offset + 0x14)?,
            vf_stride: config.u16(offset + 0x16)?,
            vf_device_id: config.u16(offset + 0x1a)?,
            supported_page_sizes: config.u32(offset + 0x1c)?,
            system_page_size: config.u32(offset + 0x20)?,
            vf_bars,
        })
    }

    /// VF Enable.
    #[must_use]
    pub fn vf_enable(&self) -> bool {
        self.control & 1 != 0
    }

    /// VF Migration Capable: only then may InitialVFs be fewer than TotalVFs.
    #[must_use]
    pub fn vf_migration_capable(&self) -> bool {
        self.capabilities & 1 != 0
    }

    /// VF Memory Space Enable.
    #[must_use]
    pub fn vf_memory_enable(&self) -> bool {
        self.control & 1 << 3 != 0
    }

    /// ARI Capable Hierarchy: VFs may use function numbers above 7. Only the lowest-numbered PF of a device has it.
    #[must_use]
    pub fn ari_capable_hierarchy(&self) -> bool {
        self.control & 1 << 4 != 0
    }

    /// The page sizes of a page size register, in bytes, ascending.
    #[must_use]
    pub fn page_sizes(register: u32) -> Vec<u64> {
        (0..32).filter(|bit| register & 1 << bit != 0).map(|bit| 1 << (bit + 12)).collect()
    }

    /// The VF BARs, including those that do not exist, which a register alone can't tell. The upper half of a
    /// 64-bit BAR is not a BAR of its own.
    #[must_use]
    pub fn vf_bar_registers(&self) -> Vec<VfBarRegister> {
        let mut registers = Vec::new();
        let mut bars = (0u8..).zip(self.vf_bars);
        while let Some((index, low)) = bars.next() {
            // Bit 0 (I/O space) is never set in a VF BAR; bits 2 and 1 are 10b for 64 bits, bit 3 is prefetchable.
            let is_64bit = low & 0b110 == 0b100;
            let high = if is_64bit { bars.next().map_or(0, |(_, high)| high) } else { 0 };
            let address = u64::from(high) << 32 | u64::from(low & !0xf);
            registers.push(VfBarRegister { index, is_64bit, prefetchable: low & 0b1000 != 0, address });
        }
        registers
    }
}
