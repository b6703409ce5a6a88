//! Who an adapter is: what survives another slot, other bus numbers, a boot and a rename, where its address does not.
//!
//! A mark that another adapter of the host has too, or that nobody has filled in, tells nothing, and is not noted. Of an
//! adapter without any mark its address alone counts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{HexId, Inventory, MacAddress, PhysicalFunction};

/// A key for a physical function that stays when its address does not: `8086-10c9-dsn-001b21ffff123456-0`.
///
/// Vendor and device ID, the best of its marks (`dsn`: Device Serial Number, `nvme`: serial number of its controller,
/// `mac`: the least permanent address), and its number on its adapter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AdapterId(String);

impl AdapterId {
    /// No key is longer, in bytes.
    const MAX_BYTES: usize = 64;

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AdapterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for AdapterId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_of_key = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > Self::MAX_BYTES || !text.chars().all(is_of_key) {
            return Err("that is no adapter ID; 'ioward host --json' shows them".to_owned());
        }
        Ok(Self(text))
    }
}

impl From<AdapterId> for String {
    fn from(id: AdapterId) -> Self {
        id.0
    }
}

/// Who a physical function is. At least one of its marks is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Identity {
    /// PCI vendor ID.
    pub vendor_id: HexId,
    /// PCI device ID.
    pub device_id: HexId,
    /// Its number on its adapter, 0 to 7: the functions of one share their serial number.
    pub function: u8,
    /// A mark: the PCIe Device Serial Number, as the inventory has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// A mark: the permanent MAC addresses of its interfaces, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<MacAddress>,
    /// A mark: the serial number of its NVMe controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvme_serial: Option<String>,
}

/// An identity held against an adapter that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// It is this one: all marks that both have are the same.
    Same,
    /// It is another one.
    Other,
    /// It has no mark to go by now: without its driver it has no MAC.
    Unknown,
}

impl Identity {
    /// Who an adapter is, by the marks that no other adapter of the host has; `None` when it has none.
    #[must_use]
    pub fn of(pf: &PhysicalFunction, inventory: &Inventory) -> Option<Self> {
        let mut own = Self::told_by(pf)?;
        let others = inventory.physical_functions.iter().filter(|other| other.address != pf.address);
        let others: Vec<_> = others.filter_map(Self::told_by).collect();
        for other in &others {
            own.macs.retain(|mac| !other.macs.contains(mac));
            if own.is_like(other) {
                own.serial_number = own.serial_number.filter(|own| other.serial_number.as_ref() != Some(own));
                own.nvme_serial = own.nvme_serial.filter(|own| other.nvme_serial.as_ref() != Some(own));
            }
        }
        own.has_marks().then_some(own)
    }

    /// The key of this function: its best mark, without the separators that it is written with.
    #[must_use]
    pub fn id(&self) -> AdapterId {
        let digits = |mark: &str| mark.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
        // Serial numbers of NVMe have 20 bytes, padded with spaces; makers write what they like into them.
        let word = |mark: &str| {
            let one = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            mark.trim().chars().take(20).map(one).collect::<String>()
        };
        let mark = match (&self.serial_number, &self.nvme_serial) {
            (Some(serial), _) => format!("dsn-{}", digits(serial).chars().take(16).collect::<String>()),
            (None, Some(serial)) => format!("nvme-{}", word(serial)),
            (None, None) => {
                let mac = self.macs.first().map(|mac| digits(&mac.to_string()));
                format!("mac-{}", mac.unwrap_or_default())
            }
        };
        AdapterId(format!("{}-{}-{mark}-{}", self.vendor_id, self.device_id, self.function))
    }

    /// The marks that an adapter has, whoever else says the same; without marks where it has none. `None` when not even its
    /// IDs can be read.
    #[must_use]
    pub fn told_by(pf: &PhysicalFunction) -> Option<Self> {
        if pf.vendor_id == HexId(u16::MAX) || pf.device_id == HexId(u16::MAX) {
            return None;
        }
        let mut macs: Vec<_> = pf.netdevs.iter().filter_map(|netdev| netdev.permanent_mac).collect();
        macs.retain(|mac| mac.is_unicast());
        macs.sort_unstable();
        macs.dedup();
        Some(Self {
            vendor_id: pf.vendor_id,
            device_id: pf.device_id,
            function: pf.address.function(),
            serial_number: pf.serial_number.clone().filter(|serial| is_filled_in(serial)),
            macs,
            nvme_serial: pf.nvme.as_ref().and_then(|nvme| nvme.serial.clone()).filter(|it| is_filled_in(it)),
        })
    }

    /// This one against an adapter that is there. Every mark that both have must be the same: some makers give all their cards
    /// one serial number.
    pub(crate) fn compare(&self, pf: &PhysicalFunction) -> Likeness {
        let Some(found) = Self::told_by(pf) else { return Likeness::Unknown };
        if !self.is_like(&found) {
            return Likeness::Other;
        }
        let same = |noted: &Option<String>, found: &Option<String>| Some(noted.as_ref()? == found.as_ref()?);
        let is_told = !self.macs.is_empty() && !found.macs.is_empty();
        // Interfaces come one by one, and VFs may bring some of their own.
        let macs = is_told.then(|| self.macs.iter().any(|mac| found.macs.contains(mac)));
        let marks = [
            same(&self.serial_number, &found.serial_number),
            macs,
            same(&self.nvme_serial, &found.nvme_serial),
        ];
        match marks.into_iter().flatten().reduce(|all, one| all && one) {
            Some(true) => Likeness::Same,
            Some(false) => Likeness::Other,
            None => Likeness::Unknown,
        }
    }

    /// Whether an adapter that is there has everything to show by which it can be told to be this one. One whose driver is
    /// still to come has not: some makers give all their cards one serial number, and the MAC comes with the driver.
    pub(crate) fn can_be_told_by(&self, pf: &PhysicalFunction) -> bool {
        Self::told_by(pf).is_some_and(|found| {
            self.serial_number.is_some() <= found.serial_number.is_some()
                && self.macs.is_empty() >= found.macs.is_empty()
                && self.nvme_serial.is_some() <= found.nvme_serial.is_some()
        })
    }

    /// The identity to note of an adapter that is this one: marks that have come since are added, and those that another adapter
    /// of the host has by now are dropped. `None` when none is left.
    pub(crate) fn brought_up_to_date(&self, pf: &PhysicalFunction, inventory: &Inventory) -> Option<Self> {
        let told = Self::told_by(pf)?;
        let alone = Self::of(pf, inventory);
        let one = |noted: &Option<String>, told: &Option<String>, alone: Option<&String>| {
            if told.is_some() { alone.cloned() } else { noted.clone() }
        };
        let mut macs = self.macs.clone();
        if let Some(alone) = alone.as_ref().filter(|_| macs.is_empty()) {
            macs.clone_from(&alone.macs);
        }
        macs.retain(|mac| {
            !told.macs.contains(mac) || alone.as_ref().is_some_and(|own| own.macs.contains(mac))
        });
        let of_alone = |mark: fn(&Self) -> Option<&String>| alone.as_ref().and_then(mark);
        let now = Self {
            serial_number: one(
                &self.serial_number,
                &told.serial_number,
                of_alone(|own| own.serial_number.as_ref()),
            ),
            nvme_serial: one(&self.nvme_serial, &told.nvme_serial, of_alone(|own| own.nvme_serial.as_ref())),
            macs,
            ..told
        };
        now.has_marks().then_some(now)
    }

    fn has_marks(&self) -> bool {
        self.serial_number.is_some() || !self.macs.is_empty() || self.nvme_serial.is_some()
    }

    /// Whether both are the same function of the same model.
    fn is_like(&self, other: &Self) -> bool {
        (self.vendor_id, self.device_id, self.function) == (other.vendor_id, other.device_id, other.function)
    }
}

/// Whether a serial number is one: zeros and ones stand for none.
fn is_filled_in(serial: &str) -> bool {
    let all = |of: char| serial.chars().all(|c| c.eq_ignore_ascii_case(&of) || c == '-' || c.is_whitespace());
    !all('0') && !all('f')
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function {} of a {}:{}", self.function, self.vendor_id, self.device_id)?;
        let macs: Vec<_> = self.macs.iter().map(ToString::to_string).collect();
        let macs = (!macs.is_empty()).then(|| macs.join(" and "));
        let marks = [
            ("serial number", self.serial_number.as_ref()),
            ("MAC", macs.as_ref()),
            ("NVMe serial number", self.nvme_serial.as_ref()),
        ];
        let mut before = " with";
        for (what, mark) in marks {
            if let Some(mark) = mark {
                write!(f, "{before} {what} {mark}")?;
                before = ",";
            }
        }
        Ok(())
    }
}
