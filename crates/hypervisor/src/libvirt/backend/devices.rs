//! The devices that ioward gives to a domain: into the machine that runs, and into what it starts with next.
//!
//! All is done by libvirt's calls for single devices, and the definitions are only looked at. So whatever else is in them stays
//! as it is, and nothing is lost of what others change meanwhile. No answer is believed: "detached" is said while a paused guest
//! still holds the device. Only what the next look shows counts.

use std::{path::PathBuf, time::Duration};

use ioward_model::{Name, Owner};
use ioward_pci::Bdf;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Shared,
    known::{Devices, Expected, Known},
    look::{Seen, Trouble},
    partition::Partition,
    record::Record,
};
use crate::{
    HypervisorError,
    libvirt::{
        Affects, Domain, LibvirtError, State,
        xml::{self, Facts, XmlError},
    },
};

/// Between two requests to a guest that has not obeyed. QEMU takes the next one after 5 s at the earliest.
const ASK_AGAIN: Duration = Duration::from_secs(6);
/// Between two looks at the files that a process has open.
const POLL: Duration = Duration::from_millis(50);

/// More controllers and ports than ioward adds to a domain.
const MAX_IDLE: usize = 300;

/// A device of ioward's.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Device {
    Vf(Name, Bdf),
    Channel(String),
    /// A controller for channels, with this number.
    Controller(u32),
    /// A PCIe root port, with this number.
    Port(u32),
}

impl Device {
    fn alias(&self) -> String {
        match self {
            Self::Vf(vf, _) => xml::vf_alias(vf),
            Self::Channel(_) => xml::CHANNEL_ALIAS.to_owned(),
            Self::Controller(_) => xml::CONTROLLER_ALIAS.to_owned(),
            Self::Port(index) => xml::port_alias(*index),
        }
    }

    fn xml(&self) -> Result<String, XmlError> {
        match self {
            Self::Vf(vf, function) => Ok(xml::hostdev(vf, *function)),
            Self::Channel(socket) => xml::channel(socket),
            Self::Controller(index) => Ok(xml::serial_controller(*index)),
            Self::Port(index) => Ok(xml::root_port(*index)),
        }
    }

    fn takes_slot(&self) -> bool {
        matches!(self, Self::Vf(..) | Self::Controller(_))
    }

    /// Whether a definition has it, or another one under its alias that ioward made.
    fn is_in(&self, facts: &Facts) -> bool {
        match self {
            Self::Vf(vf, _) => facts.host_devices.iter().any(|device| device.vf.as_ref() == Some(vf)),
            Self::Channel(_) => facts.channel.is_some(),
            Self::Controller(_) => facts.serial_controllers.iter().any(|controller| controller.is_ours),
            Self::Port(index) => facts.root_ports.iter().any(|port| port.is_ours && port.index == *index),
        }
    }

    /// Whether the machine that runs has had it at the last look.
    fn was_in(&self, record: &Record) -> bool {
        let live = &record.known.live;
        match self {
            Self::Vf(vf, _) => live.vfs.iter().any(|(name, _)| name == vf),
            Self::Channel(_) => live.channel.is_some(),
            Self::Controller(_) | Self::Port(_) => false,
        }
    }

    /// Itself and, before it, whatever it takes that a definition lacks. A root port can't be plugged into a machine that runs.
    fn with_what_it_takes(&self, facts: &Facts, affects: Affects) -> Vec<Self> {
        let needs_controller = matches!(self, Self::Channel(_)) && facts.serial_controllers.is_empty();
        let needs_slot = needs_controller || self.takes_slot();
        let port = (affects == Affects::Config && needs_slot && facts.is_full())
            .then_some(facts.next_port)
            .flatten();
        let controller = needs_controller.then_some(Self::Controller(0));
        port.map(Self::Port).into_iter().chain(controller).chain([self.clone()]).collect()
    }

    /// The thing that a guest should let go of.
    fn shown(&self) -> String {
        match self {
            Self::Vf(vf, _) => vf.to_string(),
            _ => "its channel".to_owned(),
        }
    }
}

impl Shared {
    /// Whether a domain's machine has a function open. Functions that are closed together with others of it, in one IOMMU group, tell
    /// nothing by that.
    pub(super) async fn is_open(
        &self,
        known: &Known,
        function: Bdf,
        others: impl IntoIterator<Item = Bdf>,
    ) -> bool {
        let Some(process) = known.run.as_ref().and_then(|run| run.process) else { return false };
        let group = self.sysfs.group(function);
        let is_shared = group.is_some() && others.into_iter().any(|it| self.sysfs.group(it) == group);
        let nodes = self.devices.join("vfio");
        let of_group = group.filter(|_| !is_shared).map(|group| nodes.join(group));
        let its_own = self.sysfs.own_node(function).map(|node| nodes.join("devices").join(node));
        let files: Vec<PathBuf> = of_group.into_iter().chain(its_own).collect();
        !files.is_empty() && self.processes.has_open(process, files).await
    }
}

/// Work on the devices of one domain, while nobody else works on them.
pub(super) struct Work<'a> {
    pub(super) shared: &'a Shared,
    pub(super) partition: &'a Partition,
}

impl Work<'_> {
    /// Gives a VF to the domain.
    pub(super) async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let what = || format!("give {function} to");
        let seen = self.look(what).await?;
        self.domain(&seen, what)?;
        let refuse =
            |why| HypervisorError::NotAttachable { function, partition: owner.partition.clone(), why };
        let device = Device::Vf(owner.vf.clone(), function);
        let seen = self.as_it_has(seen, owner, function).await?;
        for facts in seen.persistent.iter().chain(&seen.live) {
            check_alias(facts, &device).map_err(|error| refuse(error.to_string()))?;
            check_function(facts, owner, function).map_err(refuse)?;
        }
        self.note_in_doubt(&owner.vf, function)?;
        let put = self.put(&seen, &device).await;
        // One that was not answered may be carried out yet.
        if !matches!(put, Err(Trouble::Libvirt(LibvirtError::NoAnswer { .. }))) {
            self.settle(&owner.vf).await;
        }
        match put {
            Ok(()) => Ok(()),
            Err(trouble) if trouble.is_unanswered() => Err(self.in_doubt_whether(what, trouble)),
            Err(trouble) => Err(refuse(match self.unknown_to_libvirt(&owner.vf).await {
                Some(other) => format!(
                    "{trouble}; its machine has {other} too, which libvirt's daemon did not write down before it died; turn \
                     the domain off and on"
                ),
                None => trouble.to_string(),
            })),
        }
    }

    /// A VF that the machine has open, and libvirt knows nothing of: it takes that one's place on the bus for free. But for `vf`.
    async fn unknown_to_libvirt(&self, vf: &Name) -> Option<Name> {
        let seen = self.partition.look(self.shared).await.ok()?;
        let live = seen.live.as_ref()?;
        for (other, function) in self.partition.record().in_doubt {
            let device = Device::Vf(other.clone(), function);
            if other != *vf && !device.is_in(live) && self.is_open(function, &seen).await {
                return Some(other);
            }
        }
        None
    }

    /// Takes a VF from the domain.
    pub(super) async fn detach_vf(&self, owner: &Owner) -> Result<(), HypervisorError> {
        let what = || format!("take {} from", owner.vf);
        let seen = self.look(what).await?;
        if seen.domain.is_none() {
            self.partition.change(|record| _ = record.adopted.remove(&owner.vf))?;
            return self.forget(|had| had.vfs.retain(|(vf, _)| *vf != owner.vf));
        }
        let mut held = seen.live.iter().chain(&seen.persistent).flat_map(|facts| &facts.host_devices);
        let held = held.find(|device| device.vf.as_ref() == Some(&owner.vf));
        let no_address =
            || self.failed(what, "the device has no address on the host; remove it (virsh edit)");
        let function = match held {
            Some(device) => device.function.ok_or_else(no_address)?,
            // One that libvirt has no more may be open yet.
            None => match self.partition.record().in_doubt.get(&owner.vf) {
                Some(function) => *function,
                None => return Ok(()),
            },
        };
        let device = Device::Vf(owner.vf.clone(), function);
        let _expected = self.partition.expect(Expected::Detach(owner.vf.clone()));
        self.note_in_doubt(&owner.vf, function)?;
        if let Err(error) = self.take(&device, what).await {
            self.settle(&owner.vf).await;
            return Err(error);
        }
        let is_out = |record: &mut Record| {
            record.in_doubt.remove(&owner.vf);
            // Given again, it is ioward's by its alias.
            record.adopted.remove(&owner.vf);
        };
        self.partition.change_between_looks(is_out).await
    }

    /// Gives the domain its channel.
    pub(super) async fn create_channel(&self) -> Result<(), HypervisorError> {
        let what = || "make the channel of".to_owned();
        let socket = self.partition.socket.to_string_lossy().into_owned();
        self.shared.folders.create()?;
        let mut seen = self.look(what).await?;
        self.domain(&seen, what)?;
        let device = Device::Channel(socket.clone());
        let is_elsewhere = |facts: &Facts| {
            facts.channel.as_ref().is_some_and(|channel| channel.socket.as_ref() != Some(&socket))
        };
        for facts in seen.persistent.iter().chain(&seen.live) {
            check_alias(facts, &device).map_err(|error| self.failed(what, error))?;
        }
        // A definition that was copied from another domain's has that one's channel.
        if seen.live.iter().chain(&seen.persistent).any(is_elsewhere) {
            self.take(&device, what).await?;
            seen = self.look(what).await?;
        }
        self.put(&seen, &device).await.map_err(|trouble| match trouble.is_unanswered() {
            true => self.in_doubt_whether(what, trouble),
            false => self.failed(what, trouble),
        })?;
        // So that it is known at once.
        let seen = self.partition.look(self.shared).await;
        seen.map(|_| ()).map_err(|trouble| self.in_doubt_whether(what, trouble))
    }

    /// Takes the domain's channel away.
    pub(super) async fn destroy_channel(&self) -> Result<(), HypervisorError> {
        let what = || "take the channel from".to_owned();
        if self.look(what).await?.domain.is_none() {
            self.forget(|had| had.channel = None)?;
        }
        self.take(&Device::Channel(String::new()), what).await?;
        self.partition.remove_socket();
        Ok(())
    }

    /// Puts a device into both definitions, as far as it is not there. One that one of them does not take is in neither of them.
    async fn put(&self, seen: &Seen, device: &Device) -> Result<(), Trouble> {
        let Some(domain) = &seen.domain else { return Ok(()) };
        let mut added = Vec::new();
        for (facts, affects) in [(&seen.persistent, Affects::Config), (&seen.live, Affects::Live)] {
            let Some(facts) = facts.as_ref().filter(|facts| !device.is_in(facts)) else { continue };
            for part in device.with_what_it_takes(facts, affects) {
                let attached = seen.connection.attach(domain, &part.xml()?, affects).await;
                match attached {
                    Ok(()) if affects == Affects::Config => added.push(part),
                    Ok(()) => {}
                    Err(error) if self.has(&part, affects).await == Some(true) => {
                        tracing::debug!("{error}; it is there");
                    }
                    Err(error) => {
                        self.take_back(domain, &added).await?;
                        let is_full = part.takes_slot() && facts.is_full();
                        return Err(if is_full { error.of_a_full_domain() } else { error }.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a definition has a device now. Of a machine that has ended, what it starts with next counts. One that runs has also what
    /// its QEMU has open: libvirt's daemon may have died before it wrote that down, and the next one will never know. `None`: nobody
    /// knows.
    async fn has(&self, device: &Device, affects: Affects) -> Option<bool> {
        let seen = self.partition.look(self.shared).await.ok()?;
        Some(match (affects, &seen.live) {
            (Affects::Live, Some(live)) => {
                device.is_in(live)
                    || matches!(device, Device::Vf(_, function) if self.is_open(*function, &seen).await)
            }
            _ => seen.persistent.as_ref().is_some_and(|facts| device.is_in(facts)),
        })
    }

    /// Takes what was just put into the persistent definition out again. An error where nobody answers whether it is out.
    async fn take_back(&self, domain: &Domain, added: &[Device]) -> Result<(), LibvirtError> {
        if added.is_empty() {
            return Ok(());
        }
        let lost = |error: LibvirtError| LibvirtError::Lost(error.to_string().into());
        let connection = self.shared.line.connection().await.map_err(lost)?;
        for device in added.iter().rev() {
            match connection.detach_alias(domain, &device.alias(), Affects::Config).await {
                Err(error) if error.is_unanswered() => return Err(error),
                Err(error) => {
                    tracing::warn!("partition {}: {} stays: {error}", self.partition.name, device.alias());
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Takes a device out of both definitions, and with it what was only there for it. The machine first: a guest that does not
    /// let go has it at its next start, too. It is done when looks have shown that neither has it any more.
    async fn take(&self, device: &Device, what: impl Fn() -> String) -> Result<(), HypervisorError> {
        self.unplug(device, &what).await?;
        let seen = self.partition.look(self.shared).await;
        let seen = seen.map_err(|trouble| self.in_doubt_whether(&what, trouble))?;
        let (Some(domain), Some(facts)) = (&seen.domain, &seen.persistent) else { return Ok(()) };
        check_alias(facts, device).map_err(|error| self.failed(&what, error))?;
        if device.is_in(facts) {
            let detached = detach(&seen, domain, facts, device, Affects::Config).await;
            if let Err(error) = detached
                && self.has(device, Affects::Config).await != Some(false)
            {
                return Err(self.partition.not_done(&what(), &error));
            }
            let seen = self.partition.look(self.shared).await;
            let seen = seen.map_err(|trouble| self.in_doubt_whether(&what, trouble))?;
            if seen.persistent.is_some_and(|facts| device.is_in(&facts)) {
                return Err(self.failed(&what, "libvirt said that it is out, and has it all the same"));
            }
        }
        if let Err(trouble) = self.tidy().await {
            // It does no harm, and goes with the next device.
            tracing::warn!("partition {}: what is not needed any more stays: {trouble}", self.partition.name);
        }
        Ok(())
    }

    /// Takes what nothing needs any more out of the persistent definition. A machine that runs keeps it: neither can be unplugged.
    async fn tidy(&self) -> Result<(), Trouble> {
        for _ in 0..MAX_IDLE {
            let seen = self.partition.look(self.shared).await?;
            let (Some(domain), Some(facts)) = (&seen.domain, &seen.persistent) else { return Ok(()) };
            let Some(device) = idle(facts) else { return Ok(()) };
            seen.connection.detach_alias(domain, &device.alias(), Affects::Config).await?;
        }
        Ok(())
    }

    /// Takes a device out of the machine that runs: asks the guest, again and again, until it has let go.
    async fn unplug(&self, device: &Device, what: impl Fn() -> String) -> Result<(), HypervisorError> {
        let deadline = Instant::now() + self.shared.bounds.unplug;
        let mut is_asked = false;
        loop {
            let seen = match self.partition.look(self.shared).await {
                Err(trouble) if trouble.is_passing() && Instant::now() < deadline => {
                    sleep(POLL).await;
                    continue;
                }
                Err(trouble) if is_asked => return Err(self.in_doubt_whether(&what, trouble)),
                seen => seen.map_err(|trouble| self.failed(&what, trouble))?,
            };
            let (Some(domain), Some(live)) = (&seen.domain, &seen.live) else { return Ok(()) };
            check_alias(live, device).map_err(|error| self.failed(&what, error))?;
            if !device.is_in(live) {
                return self.closed(device, &seen, deadline).await;
            }
            let asked = detach(&seen, domain, live, device, Affects::Live).await;
            is_asked = true;
            if Instant::now() >= deadline {
                let is_paused =
                    seen.connection.state(domain).await.is_ok_and(|(state, _)| state == State::Paused);
                return Err(match asked {
                    Err(error) => self.partition.not_done(&what(), &error),
                    Ok(()) => self.unresponsive(&device.shown(), is_paused),
                });
            }
            let again = deadline.min(Instant::now() + ASK_AGAIN);
            let _ = timeout_at(again, self.partition.wait_until(|record| !device.was_in(record))).await;
        }
    }

    /// Waits until QEMU has closed a VF that it has let go of: until then nobody else can have it. Those of one IOMMU group are
    /// closed together.
    async fn closed(&self, device: &Device, seen: &Seen, deadline: Instant) -> Result<(), HypervisorError> {
        let Device::Vf(_, function) = device else { return Ok(()) };
        while self.is_open(*function, seen).await {
            if Instant::now() >= deadline {
                return Err(self.unresponsive(&device.shown(), false));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Whether the machine has a function open that its definition lacks.
    async fn is_open(&self, function: Bdf, seen: &Seen) -> bool {
        let others = seen.live.iter().flat_map(|live| &live.host_devices).filter_map(|it| it.function);
        self.shared.is_open(&seen.known, function, others).await
    }

    pub(super) async fn look(&self, what: impl Fn() -> String) -> Result<Seen, HypervisorError> {
        self.partition.look(self.shared).await.map_err(|trouble| self.failed(what, trouble))
    }

    /// Something that is done to a domain that is there.
    pub(super) fn domain(&self, seen: &Seen, what: impl Fn() -> String) -> Result<(), HypervisorError> {
        let gone =
            "libvirt has no such domain any more; define it again (virsh define), or remove the partition";
        seen.domain.as_ref().map(|_| ()).ok_or_else(|| self.failed(what, gone))
    }

    fn note_in_doubt(&self, vf: &Name, function: Bdf) -> Result<(), HypervisorError> {
        self.partition.change(|record| {
            record.in_doubt.insert(vf.clone(), function);
        })
    }

    /// Takes something from a domain that libvirt has no more.
    fn forget(&self, forget: impl FnOnce(&mut Devices)) -> Result<(), HypervisorError> {
        self.partition.change(|record| {
            forget(&mut record.known.persistent);
            record.in_doubt.clear();
        })
    }

    /// What a look has shown after all was done is not in doubt, unless the machine has a VF open that libvirt knows nothing of: its
    /// daemon may end after QEMU has obeyed, and before that is written down.
    async fn settle(&self, vf: &Name) {
        let Ok(seen) = self.partition.look(self.shared).await else { return };
        let Some(function) = self.partition.record().in_doubt.get(vf).copied() else { return };
        let is_seen = seen.known.devices().vfs.iter().any(|(name, _)| name == vf);
        if (is_seen || !self.is_open(function, &seen).await)
            && let Err(error) = self.partition.change(|record| _ = record.in_doubt.remove(vf))
        {
            tracing::warn!("{error}");
        }
    }

    fn failed(&self, what: impl Fn() -> String, why: impl std::fmt::Display) -> HypervisorError {
        self.partition.failed(&what(), why)
    }

    fn in_doubt_whether(&self, what: impl Fn() -> String, why: impl std::fmt::Display) -> HypervisorError {
        self.partition.in_doubt(&what(), why)
    }

    fn unresponsive(&self, shown: &str, is_paused: bool) -> HypervisorError {
        let paused = if is_paused { " (it is paused: virsh resume)" } else { "" };
        HypervisorError::GuestUnresponsive {
            partition: self.partition.name.clone(),
            what: format!("let go of {shown}{paused}"),
            after: self.shared.bounds.unplug,
        }
    }
}

/// Takes a device out of a definition: one that the domain had before it was a partition by what it is, any other by its alias.
async fn detach(
    seen: &Seen,
    domain: &Domain,
    facts: &Facts,
    device: &Device,
    affects: Affects,
) -> Result<(), LibvirtError> {
    let alias = device.alias();
    if let Device::Vf(vf, function) = device
        && facts.host_devices.iter().any(|it| it.vf.as_ref() == Some(vf) && it.alias.as_ref() != Some(&alias))
    {
        return seen.connection.detach(domain, &xml::hostdev_like(*function), affects).await;
    }
    seen.connection.detach_alias(domain, &alias, affects).await
}

/// A controller or a port of ioward's that nothing is plugged into.
fn idle(facts: &Facts) -> Option<Device> {
    let controllers = facts.serial_controllers.iter();
    let mut unused = controllers.filter(|controller| controller.is_ours && !controller.serves_others);
    if facts.channel.is_none()
        && let Some(controller) = unused.next()
    {
        return Some(Device::Controller(controller.index));
    }
    // The last first: libvirt adds ports of its own for numbers that are left out.
    let mut ports = facts.root_ports.iter().rev().filter(|port| port.is_ours && port.free);
    ports.next().map(|port| Device::Port(port.index))
}

/// A device of somebody else's under an alias of ioward's is left alone.
fn check_alias(facts: &Facts, device: &Device) -> Result<(), XmlError> {
    let alias = device.alias();
    match facts.foreign.iter().find(|foreign| foreign.alias == alias) {
        Some(foreign) => {
            Err(XmlError::Foreign { alias: foreign.alias.clone(), element: foreign.element.clone() })
        }
        None => Ok(()),
    }
}

/// Whether a definition can take a function as this VF, or has it as that.
fn check_function(facts: &Facts, owner: &Owner, function: Bdf) -> Result<(), String> {
    for device in &facts.host_devices {
        let is_its = device.vf.as_ref() == Some(&owner.vf);
        match device.function {
            Some(other) if is_its && other != function => {
                return Err(format!("{owner} is {other} already; detach that first"));
            }
            Some(other) if !is_its && other == function => {
                let alias = device.alias.as_deref().unwrap_or("a device without an alias");
                return Err(format!("its domain has it already, as {alias}; take it out first (virsh edit)"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(devices: &str) -> Facts {
        let express = "<controller type='pci' index='0' model='pcie-root'/>";
        xml::read(&format!(
            "<domain><name>web</name><memory>1</memory><devices>{express}{devices}</devices></domain>"
        ))
        .unwrap()
    }

    fn port(index: u32, behind: bool) -> String {
        let port = format!("<controller type='pci' index='{index}' model='pcie-root-port'/>");
        let device = format!("<disk type='file'><address type='pci' bus='0x{index:02x}'/></disk>");
        if behind { port + &device } else { port }
    }

    fn vf() -> Device {
        Device::Vf("net0".parse().unwrap(), "0000:01:10.0".parse().unwrap())
    }

    fn channel() -> Device {
        Device::Channel("/run/ioward/channels/web.sock".into())
    }

    #[test]
    fn what_a_device_takes_is_added_before_it_where_it_is_missing() {
        let takes = |device: &Device, devices: &str, affects| {
            let mut taken = device.with_what_it_takes(&facts(devices), affects);
            assert_eq!(taken.pop().as_ref(), Some(device));
            taken
        };
        let (full, free) = (port(1, true), port(1, true) + &port(2, false));
        assert_eq!(takes(&vf(), &free, Affects::Config), []);
        assert_eq!(takes(&vf(), &full, Affects::Config), [Device::Port(2)]);
        assert_eq!(takes(&vf(), &full, Affects::Live), [], "libvirt says that there is no slot");
        assert_eq!(takes(&channel(), &free, Affects::Config), [Device::Controller(0)]);
        assert_eq!(takes(&channel(), &full, Affects::Config), [Device::Port(2), Device::Controller(0)]);
        assert_eq!(takes(&channel(), &full, Affects::Live), [Device::Controller(0)]);
        let with_controller = full + "<controller type='virtio-serial' index='0'/>";
        assert_eq!(takes(&channel(), &with_controller, Affects::Config), []);
    }

    #[test]
    fn only_what_ioward_added_and_nothing_needs_is_idle() {
        let ours = xml::serial_controller(0);
        assert_eq!(idle(&facts(&ours)), Some(Device::Controller(0)));
        assert_eq!(idle(&facts(&(ours.clone() + &xml::channel("/run/x").unwrap()))), None);
        let agent = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/>\
                     <address type='virtio-serial' controller='0' bus='0' port='1'/></channel>";
        assert_eq!(idle(&facts(&(ours + agent))), None, "somebody else uses it by now");
        assert_eq!(idle(&facts("<controller type='virtio-serial' index='0'/>")), None);

        let (four, five) = (xml::root_port(4), xml::root_port(5));
        assert_eq!(idle(&facts(&(four.clone() + &five))), Some(Device::Port(5)));
        let taken = "<interface type='network'><address type='pci' bus='0x05'/></interface>";
        assert_eq!(idle(&facts(&(four + &five + taken))), Some(Device::Port(4)));
        assert_eq!(idle(&facts(&port(3, false))), None);
    }

    #[test]
    fn a_function_that_the_domain_has_in_another_way_is_refused() {
        let owner = Owner { partition: "web".parse().unwrap(), vf: "net0".parse().unwrap() };
        let check = |devices: &str| check_function(&facts(devices), &owner, "0000:01:10.0".parse().unwrap());
        let ours = |vf: &str, function: &str| xml::hostdev(&vf.parse().unwrap(), function.parse().unwrap());
        assert_eq!(check(&ours("net0", "0000:01:10.0")), Ok(()));
        assert_eq!(check(&ours("net1", "0000:01:10.2")), Ok(()));
        assert!(check(&ours("net0", "0000:01:10.2")).unwrap_err().contains("0000:01:10.2 already"));
        assert!(check(&ours("net1", "0000:01:10.0")).unwrap_err().contains("as ua-ioward-net1"));
        let by_hand =
            "<hostdev type='pci' managed='yes'><source><address bus='1' slot='0x10'/></source></hostdev>";
        assert!(check(by_hand).unwrap_err().contains("virsh edit"));
    }
}
