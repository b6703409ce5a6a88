//! The PF driver for NVMe: queues, interrupts and the state of secondary controllers, by admin commands.
//!
//! NVMe Base Specification 2.0: Identify CNS 14h and 15h (§5.17.2.14, §5.17.2.15), Virtualization Management (§5.28),
//! virtualization enhancements (§8.26). A secondary controller must be offline while its resources change, loses all of
//! them when it goes offline, and needs at least two queue resources (admin and one I/O queue) and one interrupt resource
//! to go online.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use ioward_model::{
    Capability, Class, NvmeResources, NvmeSecondary, NvmeState, PhysicalFunction, VfId, VfSettings,
    VfStatistics,
};
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{
    adapters::{Family, PfDriver},
    details::Details,
    nvme_admin::{Command, send},
    sysfs::{Sysfs, names, text},
};
use crate::FabricError;

const IDENTIFY: u8 = 0x06;
const VIRTUALIZATION_MANAGEMENT: u8 = 0x1c;
/// Every Identify data structure has this size.
const IDENTIFY_BYTES: usize = 4096;
/// Identify CNS: Primary Controller Capabilities.
const PRIMARY_CAPABILITIES: u32 = 0x14;
/// Identify CNS: Secondary Controller List.
const SECONDARY_LIST: u32 = 0x15;
/// Entries of one Secondary Controller List, and the size of one.
const LIST_ENTRIES: usize = 127;
const ENTRY_BYTES: usize = 32;

/// An action of Virtualization Management on a secondary controller.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    Offline,
    AssignQueues(u16),
    AssignInterrupts(u16),
    Online,
}

impl Action {
    fn command(self, controller_id: u16) -> Command {
        const QUEUE: u32 = 0;
        const INTERRUPT: u32 = 1;
        let (action, resource, number) = match self {
            Self::Offline => (0x7, 0, 0),
            Self::AssignQueues(number) => (0x8, QUEUE, number),
            Self::AssignInterrupts(number) => (0x8, INTERRUPT, number),
            Self::Online => (0x9, 0, 0),
        };
        Command {
            opcode: VIRTUALIZATION_MANAGEMENT,
            cdw10: u32::from(controller_id) << 16 | resource << 8 | action,
            cdw11: number.into(),
        }
    }

    pub(crate) fn describe(self, vf: VfId) -> String {
        match self {
            Self::Offline => format!("take the controller of {vf} offline"),
            Self::AssignQueues(number) => format!("give {number} queue resources to {vf}"),
            Self::AssignInterrupts(number) => format!("give {number} interrupt resources to {vf}"),
            Self::Online => format!("bring the controller of {vf} online"),
        }
    }
}

/// NVMe controllers, through their admin commands.
pub(super) struct NvmeControllers;

impl Family for NvmeControllers {
    fn claims(&self, pf: &PhysicalFunction) -> bool {
        pf.class == Class::Nvme
    }

    fn capabilities(&self, _: &PhysicalFunction, _: &str) -> BTreeSet<Capability> {
        // All that a request can need by name is of network adapters.
        BTreeSet::new()
    }

    fn open(&self, sysfs: &Sysfs<'_>, pf: Bdf) -> Result<Option<Box<dyn PfDriver>>, FabricError> {
        Ok(Primary::open(sysfs, pf)?.map(|primary| Box::new(primary) as Box<dyn PfDriver>))
    }
}

/// A primary controller.
struct Primary {
    pf: Bdf,
    controller: File,
}

impl Primary {
    /// The primary controller of a PF; `None` when the PF is no NVMe controller that its driver has started.
    fn open(sysfs: &Sysfs<'_>, pf: Bdf) -> Result<Option<Self>, FabricError> {
        let folder = sysfs.pf(pf)?.join("nvme");
        let Some(name) = names(&folder).into_iter().next() else { return Ok(None) };
        // The kernel keeps whoever asks it anything waiting until it is live again, or has been given up.
        let state =
            text(&folder.join(&name).join("state")).ok().and_then(|word| NvmeState::of_word(word.trim()));
        if let Some(state) = state.filter(|state| *state != NvmeState::Live) {
            return Err(FabricError::Refused {
                what: format!("ask the NVMe controller of {pf}"),
                why: format!("it is {state}"),
                source: Errno::AGAIN.into(),
            });
        }
        let path = sysfs.root.join("dev").join(&name);
        let failed = |source| FabricError::Read { path: path.clone(), source };
        let controller = File::open(&path).map_err(failed)?;
        // The name alone proves nothing: /dev is a folder like any other.
        let metadata = controller.metadata().map_err(failed)?;
        let device = metadata.rdev();
        let found = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        if !metadata.file_type().is_char_device() || found != text(&folder.join(&name).join("dev"))? {
            return Err(failed(io::Error::other("it is not the device that sysfs names")));
        }
        Ok(Some(Self { pf, controller }))
    }

    /// The resources that it can hand out; `None` when it has no virtualization enhancements.
    fn resources(&self) -> Result<Option<NvmeResources>, FabricError> {
        let bytes = self.identify(PRIMARY_CAPABILITIES, 0)?;
        Ok(resources(&bytes))
    }

    /// Its secondary controllers, by VF.
    fn secondaries(&self) -> Result<Vec<NvmeSecondary>, FabricError> {
        let mut all = Vec::new();
        let mut from = Some(0);
        while let Some(first) = from {
            let list = SecondaryList::read(&self.identify(SECONDARY_LIST, first)?).map_err(|what| {
                let what_for = format!("list the secondary controllers of {}", self.pf);
                let why = format!("the controller's answer makes no sense: {what}");
                FabricError::Refused { what: what_for, why, source: io::ErrorKind::InvalidData.into() }
            })?;
            all.extend(list.virtual_functions);
            // A controller that repeats itself must not keep us here.
            from = list.next.filter(|next| *next > first);
        }
        all.sort_by_key(|secondary| secondary.index);
        all.dedup_by_key(|secondary| secondary.index);
        Ok(all)
    }

    fn go(&self, vf: VfId, secondary: &NvmeSecondary, actions: &[Action]) -> Result<(), FabricError> {
        actions.iter().try_for_each(|action| {
            self.send(&action.describe(vf), action.command(secondary.controller_id), &mut [])
        })
    }

    fn secondary(&self, vf: VfId) -> Result<NvmeSecondary, FabricError> {
        let all = self.secondaries()?;
        all.into_iter()
            .find(|secondary| secondary.index == vf.index)
            .ok_or_else(|| self.unsupported("virtualize"))
    }

    fn unsupported(&self, what: &str) -> FabricError {
        FabricError::Unsupported {
            function: self.pf,
            driver: "its NVMe controller".to_owned(),
            what: what.to_owned(),
        }
    }

    fn identify(&self, structure: u32, from: u16) -> Result<Vec<u8>, FabricError> {
        let mut data = vec![0; IDENTIFY_BYTES];
        let command = Command { opcode: IDENTIFY, cdw10: u32::from(from) << 16 | structure, cdw11: 0 };
        self.send(&format!("read what {} can hand out", self.pf), command, &mut data)?;
        Ok(data)
    }

    fn send(&self, what: &str, command: Command, data: &mut [u8]) -> Result<(), FabricError> {
        let refused = |why: String, source| Err(FabricError::Refused { what: what.to_owned(), why, source });
        match send(&self.controller, command, data) {
            Ok(0) => Ok(()),
            Ok(status) => refused(why(status), io::Error::other(format!("NVMe status {status:03x}h"))),
            Err(source) => {
                refused("the command could not be sent; this needs root (CAP_SYS_ADMIN)".to_owned(), source)
            }
        }
    }
}

impl PfDriver for Primary {
    fn describe(&self, details: &mut Details) -> Result<(), FabricError> {
        details.resources = self.resources()?;
        if details.resources.is_some() {
            details.secondaries = self.secondaries()?;
        }
        Ok(())
    }

    fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        Ok(settings(&self.secondary(vf)?))
    }

    fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        if let Some((setting, _)) = foreign(change).describe().first() {
            return Err(self.unsupported(&format!("set {setting} of a VF")));
        }
        let before = self.secondary(vf)?;
        let done = self.go(vf, &before, &steps(&before, change));
        if done.is_err() {
            // Best effort: what the caller needs to know is why the change failed.
            if let Ok(now) = self.secondary(vf) {
                let _ = self.go(vf, &now, &steps(&now, &settings(&before)));
            }
        }
        done
    }

    fn statistics(&self, _: VfId) -> Result<VfStatistics, FabricError> {
        Err(self.unsupported("count the traffic of a VF"))
    }
}

/// The settings of a VF that its secondary controller has.
pub(crate) fn settings(secondary: &NvmeSecondary) -> VfSettings {
    VfSettings {
        queues: Some(secondary.queues),
        interrupts: Some(secondary.interrupts),
        online: Some(secondary.online),
        ..VfSettings::default()
    }
}

/// The part of a change that is no setting of an NVMe VF.
pub(crate) fn foreign(change: &VfSettings) -> VfSettings {
    VfSettings { queues: None, interrupts: None, online: None, ..change.clone() }
}

/// The commands that lead from a secondary controller as it is to one as wanted.
pub(crate) fn steps(present: &NvmeSecondary, change: &VfSettings) -> Vec<Action> {
    let queues = change.queues.unwrap_or(present.queues);
    let interrupts = change.interrupts.unwrap_or(present.interrupts);
    let online = change.online.unwrap_or(present.online);
    let resized = (queues, interrupts) != (present.queues, present.interrupts);
    let must_stop = present.online && (resized || !online);
    let must_start = online && (!present.online || resized);
    // Resources that the change does not name stay: those lost on the way offline are given again.
    let left = if must_stop { (0, 0) } else { (present.queues, present.interrupts) };
    [
        must_stop.then_some(Action::Offline),
        (queues != left.0).then_some(Action::AssignQueues(queues)),
        (interrupts != left.1).then_some(Action::AssignInterrupts(interrupts)),
        must_start.then_some(Action::Online),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a Primary Controller Capabilities structure. `None` when it supports neither kind of flexible resource.
fn resources(bytes: &[u8]) -> Option<NvmeResources> {
    let resource_types = *bytes.get(4)?;
    (resource_types & 0b11 != 0).then_some(())?;
    Some(NvmeResources {
        queues_total: u32_at(bytes, 32)?,
        queues_assigned: u32_at(bytes, 36)?,
        queues_max_per_vf: u16_at(bytes, 44)?,
        interrupts_total: u32_at(bytes, 64)?,
        interrupts_assigned: u32_at(bytes, 68)?,
        interrupts_max_per_vf: u16_at(bytes, 76)?,
    })
}

/// One Secondary Controller List.
#[derive(Debug)]
struct SecondaryList {
    /// Secondary controllers that are VFs.
    virtual_functions: Vec<NvmeSecondary>,
    /// From which controller identifier on there may be more.
    next: Option<u16>,
}

impl SecondaryList {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let count = usize::from(*bytes.first().ok_or("it is empty")?);
        if count > LIST_ENTRIES {
            return Err(format!("{count} entries in a list of {LIST_ENTRIES}"));
        }
        let mut list = Self { virtual_functions: Vec::with_capacity(count), next: None };
        for number in 1..=count {
            let entry = bytes.get(number * ENTRY_BYTES..).and_then(<[u8]>::first_chunk::<ENTRY_BYTES>);
            let entry = entry.ok_or("it is cut off")?;
            let field = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
            let controller_id = field(0);
            if count == LIST_ENTRIES {
                list.next = controller_id.checked_add(1);
            }
            // Virtual Function Number counts from 1; 0 is a secondary controller that is no VF.
            if let Some(index) = field(8).checked_sub(1) {
                let online = entry[4] & 1 == 1;
                let (queues, interrupts) = (field(10), field(12));
                list.virtual_functions.push(NvmeSecondary {
                    controller_id,
                    index,
                    online,
                    queues,
                    interrupts,
                });
            }
        }
        Ok(list)
    }
}

/// The meaning of a status (§3.3.3.2.1 command specific status, Virtualization Management).
pub(crate) fn why(status: u16) -> String {
    match status {
        0x001 | 0x002 => "the controller does not know the command or does not take it: it may have no virtualization enhancements",
        0x11f => "it has no secondary controller of that number",
        0x120 => {
            "the secondary controller is not in a state for it: it must be offline to be given resources, its VF must \
             be enabled, and to go online it needs at least 2 queues and 1 interrupt"
        }
        0x121 => "so many are not free, or more than one VF may have",
        0x122 => "the controller cannot hand out this kind of resource",
        _ => return format!("the controller answered with NVMe status {status:03x}h"),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[[u16; 5]]) -> Vec<u8> {
        let mut bytes = vec![0; IDENTIFY_BYTES];
        bytes[0] = u8::try_from(entries.len()).unwrap();
        for (number, [id, online, function, queues, interrupts]) in entries.iter().enumerate() {
            for (at, value) in [(0, id), (4, online), (8, function), (10, queues), (12, interrupts)] {
                let at = (number + 1) * ENTRY_BYTES + at;
                bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
            }
        }
        bytes
    }

    fn secondary(online: bool, queues: u16, interrupts: u16) -> NvmeSecondary {
        NvmeSecondary { controller_id: 1, index: 0, online, queues, interrupts }
    }

    fn words(present: NvmeSecondary, change: VfSettings) -> Vec<String> {
        let vf = VfId { pf: "0000:02:00.0".parse().unwrap(), index: 0 };
        steps(&present, &change).into_iter().map(|step| step.describe(vf)).collect()
    }

    #[test]
    fn a_secondary_list_gives_vfs_from_0() {
        let found = SecondaryList::read(&list(&[[7, 1, 1, 2, 1], [9, 1, 0, 0, 0], [8, 0, 2, 0, 0]])).unwrap();
        assert_eq!(found.next, None);
        let found = found.virtual_functions;
        assert_eq!(
            found[0],
            NvmeSecondary { controller_id: 7, index: 0, online: true, queues: 2, interrupts: 1 }
        );
        assert_eq!(
            found[1],
            NvmeSecondary { controller_id: 8, index: 1, online: false, queues: 0, interrupts: 0 }
        );
    }

    #[test]
    fn a_full_list_is_followed_by_another() {
        let entries: Vec<_> = (1..=127).map(|number| [number, 0, number, 0, 0]).collect();
        assert_eq!(SecondaryList::read(&list(&entries)).unwrap().next, Some(128));
    }

    #[test]
    fn a_list_that_lies_about_its_length_is_refused() {
        let mut bytes = list(&[]);
        bytes[0] = 128;
        assert!(SecondaryList::read(&bytes).unwrap_err().contains("128 entries"));
        assert!(SecondaryList::read(&list(&[[7, 1, 1, 2, 1]])[..40]).unwrap_err().contains("cut off"));
        assert!(SecondaryList::read(&[]).is_err());
        assert_eq!(resources(&[1; 20]), None);
    }

    #[test]
    fn primary_capabilities_are_read_where_the_specification_puts_them() {
        let mut bytes = vec![0; IDENTIFY_BYTES];
        assert_eq!(resources(&bytes), None, "no flexible resources");
        bytes[4] = 0b11;
        for (at, value) in [(32, 8), (36, 2), (44, 3), (64, 4), (68, 1), (76, 2)] {
            bytes[at] = value;
        }
        let expected = NvmeResources {
            queues_total: 8,
            queues_assigned: 2,
            queues_max_per_vf: 3,
            interrupts_total: 4,
            interrupts_assigned: 1,
            interrupts_max_per_vf: 2,
        };
        assert_eq!(resources(&bytes), Some(expected));
    }

    /// Going offline takes all resources away (action 7h of §5.28): one more queue cost the controller its interrupts, and
    /// it did not come online again.
    #[test]
    fn resources_change_only_while_offline_and_those_that_do_not_are_given_again() {
        let more = VfSettings { queues: Some(3), ..VfSettings::default() };
        assert_eq!(
            words(secondary(true, 2, 1), more.clone()),
            [
                "take the controller of VF 0 of 0000:02:00.0 offline",
                "give 3 queue resources to VF 0 of 0000:02:00.0",
                "give 1 interrupt resources to VF 0 of 0000:02:00.0",
                "bring the controller of VF 0 of 0000:02:00.0 online",
            ]
        );
        let offline = VfSettings { online: Some(false), ..VfSettings::default() };
        assert_eq!(words(secondary(true, 2, 1), offline).len(), 3);
        assert_eq!(words(secondary(false, 2, 1), more).len(), 1);
    }

    #[test]
    fn what_is_so_already_needs_no_command() {
        for online in [true, false] {
            let same = settings(&secondary(online, 2, 1));
            assert!(words(secondary(online, 2, 1), same).is_empty());
        }
    }

    #[test]
    fn settings_of_a_network_vf_are_foreign() {
        let change = VfSettings { queues: Some(2), trust: Some(true), ..VfSettings::default() };
        assert_eq!(foreign(&change).describe(), [("trust", "on".to_owned())]);
        assert!(foreign(&settings(&secondary(true, 2, 1))).is_empty());
    }

    #[test]
    fn a_command_carries_controller_resource_and_action() {
        let command = Action::AssignInterrupts(5).command(0x0102);
        assert_eq!((command.cdw10, command.cdw11), (0x0102_0108, 5));
        assert_eq!(Action::Online.command(3).cdw10, 0x0003_0009);
    }
}
