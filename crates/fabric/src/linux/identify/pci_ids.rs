//! Names of vendors and devices, from the host's own pci.ids (pciutils, hwdata).

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use ioward_model::{HexId, Inventory, PhysicalFunction};

use crate::linux::root::HostRoot;

/// Where distributions install it.
pub(in crate::linux) const PLACES: [&str; 2] = ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"];
/// The file has 1.5 MB.
const MAX_SIZE: usize = 16 << 20;

/// The names that one look at a host has found, for the next: going through that file takes longer than all else of a look. What
/// becomes of the file later is not seen.
#[derive(Debug, Default)]
pub(in crate::linux) struct Names(Mutex<BTreeMap<(HexId, HexId), String>>);

impl Names {
    /// The name of a device, which is found where it is not known yet.
    pub(super) fn of(&self, vendor: HexId, device: HexId, find: impl FnOnce() -> String) -> String {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.entry((vendor, device)).or_insert_with(find).clone()
    }
}

/// The text of pci.ids; empty if the host has none.
pub(in crate::linux) struct PciIds {
    text: String,
}

impl PciIds {
    pub(super) fn read(root: &HostRoot) -> Self {
        let bytes = PLACES.iter().find_map(|place| root.read(place, MAX_SIZE).ok()).unwrap_or_default();
        Self { text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    /// Returns a function that reduces such a text to the vendors and devices of a host.
    pub(in crate::linux) fn extract(inventory: &Inventory) -> impl Fn(&str) -> String {
        let pfs = inventory.physical_functions.iter();
        let mut wanted: Vec<_> = pfs.map(|pf| (pf.vendor_id, pf.device_id)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        move |text| {
            let ids = Self { text: text.to_owned() };
            let mut out = String::new();
            for vendor in wanted.chunk_by(|a, b| a.0 == b.0) {
                let Some((vendor_name, _)) = ids.find(vendor[0].0, vendor[0].1) else { continue };
                out += &format!("{}  {vendor_name}\n", vendor[0].0);
                for (vendor, device) in vendor {
                    let name = ids.find(*vendor, *device).and_then(|(_, name)| name);
                    out += &name.map_or(String::new(), |name| format!("\t{device}  {name}\n"));
                }
            }
            out
        }
    }

    /// Vendor and device names; in hexadecimal where the file has none.
    pub(super) fn name(&self, vendor: HexId, device: HexId) -> String {
        match self.find(vendor, device) {
            Some((vendor, Some(device))) => format!("{vendor} {device}"),
            Some((vendor, None)) => format!("{vendor} device {device}"),
            None => format!("{vendor}:{device}"),
        }
    }

    fn find(&self, vendor: HexId, device: HexId) -> Option<(String, Option<String>)> {
        // A vendor is `vvvv  Name`, and its devices follow as `<tab>dddd  Name`, up to the next line without a tab.
        let mut lines = self.text.lines().skip_while(|line| entry(line, vendor).is_none());
        let vendor_name = lines.next().and_then(|line| entry(line, vendor))?;
        let devices = lines.take_while(|line| line.starts_with(['\t', '#']));
        let mut devices = devices.filter_map(|line| line.strip_prefix('\t'));
        Some((vendor_name, devices.find_map(|line| entry(line, device))))
    }
}

/// The name in a line that begins with this ID.
fn entry(line: &str, id: HexId) -> Option<String> {
    let (found, name) = line.split_once("  ")?;
    let is_it = found.len() == 4 && found.parse() == Ok(id);
    is_it.then(|| name.trim().chars().filter(|c| !c.is_control()).take(200).collect())
}

/// The same inventory, with names from this host's pci.ids for what had none: a copied tree mostly has no such file, and a
/// recording has only what was known where it was made.
#[must_use]
pub fn named_as_here(mut inventory: Inventory) -> Inventory {
    let nameless = |pf: &PhysicalFunction| pf.name == format!("{}:{}", pf.vendor_id, pf.device_id);
    if inventory.physical_functions.iter().any(nameless)
        && let Ok(host) = HostRoot::live()
    {
        let ids = PciIds::read(&host);
        for pf in inventory.physical_functions.iter_mut().filter(|pf| nameless(pf)) {
            pf.name = ids.name(pf.vendor_id, pf.device_id);
        }
    }
    inventory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_looked_up_among_those_of_its_vendor() {
        let text = "# comment\n1111  Other\n\t10c9  Wrong\n8086  Intel Corporation\n\t10c9  82576\n\t\t8086 a03c  Sub\n\
                    ffff  Last\nC 02  Network\n\t10ca  Class, no device\n";
        let ids = PciIds { text: text.to_owned() };
        assert_eq!(ids.name(HexId(0x8086), HexId(0x10c9)), "Intel Corporation 82576");
        assert_eq!(ids.name(HexId(0x8086), HexId(0x10ca)), "Intel Corporation device 10ca");
        assert_eq!(ids.name(HexId(0x1234), HexId(0x10ca)), "1234:10ca");
        assert_eq!(PciIds { text: String::new() }.name(HexId(0x8086), HexId(0x10c9)), "8086:10c9");
    }

    #[test]
    fn a_name_is_looked_for_once() {
        let names = Names::default();
        assert_eq!(names.of(HexId(1), HexId(2), || "one".into()), "one");
        assert_eq!(names.of(HexId(1), HexId(2), || panic!("looked for again")), "one");
        assert_eq!(names.of(HexId(1), HexId(3), || "another".into()), "another");
    }
}
