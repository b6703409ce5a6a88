//! What a definition says that matters to ioward.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::Name;
use ioward_pci::Bdf;
use roxmltree::Node;

use super::{
    CHANNEL_ALIAS, CHANNEL_NAME, CONTROLLER_ALIAS, DomainName, PORT_ALIAS, VF_ALIAS, XmlError, alias, child,
    children, devices, is_ours, parse,
};
use crate::{Accelerator, libvirt::Uuid};

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: DomainName,
    /// Its UUID. libvirt gives it one when its definition has none.
    pub uuid: Option<Uuid>,
    /// The number of its run, in the definition of a machine that runs.
    pub id: Option<u32>,
    /// The engine that executes its instructions; `None` for one that ioward does not know.
    pub accelerator: Option<Accelerator>,
    /// Bytes of memory it has at most.
    pub memory: u64,
    /// vCPUs it has at most.
    pub vcpus: u32,
    /// PCI functions of the host's, whoever gave them.
    pub host_devices: Vec<HostDevice>,
    /// ioward's channel, when it has that.
    pub channel: Option<Channel>,
    /// Its controllers for channels.
    pub serial_controllers: Vec<Controller>,
    /// Its slots for hot-plug, free or not.
    pub root_ports: Vec<RootPort>,
    /// The number that a root port that is added gets. `None` where the machine has no PCI Express.
    pub next_port: Option<u32>,
    /// Devices under an alias of ioward's that ioward did not make. They are told of and never touched.
    pub foreign: Vec<Foreign>,
}

/// A PCI function of the host's that a domain has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    /// Its address on the host. `None` when the definition names a device that can't be.
    pub function: Option<Bdf>,
    /// Whether libvirt binds it to its driver, and back.
    pub managed: bool,
    /// Whether it is an `<interface type='hostdev'>`.
    pub interface: bool,
    /// Its alias; libvirt makes one up for a machine that runs.
    pub alias: Option<String>,
    /// The MAC address, of an `<interface type='hostdev'>`. libvirt sets it through the PF.
    pub mac: Option<String>,
    /// The name of the VF, of one that ioward gave.
    pub vf: Option<Name>,
}

impl HostDevice {
    /// Whether its driver and its settings are left to others than libvirt.
    pub fn is_plain(&self) -> bool {
        !self.managed && !self.interface
    }
}

/// ioward's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The path of its socket. Somebody may have taken that out of the definition of a domain that does not run.
    pub socket: Option<String>,
}

/// A controller for channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// Its number.
    pub index: u32,
    /// Whether ioward added it.
    pub is_ours: bool,
    /// Whether a device that is not ioward's is plugged into it.
    pub serves_others: bool,
}

/// A PCIe root port, which takes one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPort {
    /// Its number, which is that of the bus behind it.
    pub index: u32,
    /// Whether nothing is plugged into it, and something can be while the machine runs.
    pub free: bool,
    /// Whether ioward added it.
    pub is_ours: bool,
}

/// A device that is not ioward's, and named as if.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The alias.
    pub alias: String,
    /// The element's name.
    pub element: String,
}

impl Facts {
    /// The same, with names for VFs that are known by their functions, and none for those that are `released`.
    #[must_use]
    pub fn with_names(mut self, adopted: &BTreeMap<Name, Bdf>, released: &BTreeSet<Bdf>) -> Self {
        for device in self.host_devices.iter_mut().filter(|device| device.is_plain()) {
            let Some(function) = device.function else { continue };
            if let Some((name, _)) = adopted.iter().find(|(_, adopted)| **adopted == function) {
                device.vf = Some(name.clone());
            } else if released.contains(&function) {
                device.vf = None;
            }
        }
        self
    }

    /// Whether it has this function of the host's.
    #[must_use]
    pub fn has(&self, function: Bdf) -> bool {
        self.host_devices.iter().any(|device| device.function == Some(function))
    }

    /// The numbers of the root ports that a device can be plugged into now.
    pub fn free_root_ports(&self) -> impl Iterator<Item = u32> {
        self.root_ports.iter().filter(|port| port.free).map(|port| port.index)
    }

    /// Whether no device can be plugged in, on a machine with PCI Express. Nothing shows it of others.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.next_port.is_some() && self.free_root_ports().next().is_none()
    }
}

/// Reads a definition.
///
/// # Errors
/// When it is no definition of a domain, and when two devices have one alias of ioward's.
pub fn read(xml: &str) -> Result<Facts, XmlError> {
    let document = parse(xml)?;
    let domain = document.root_element();
    let name = child(domain, "name").and_then(|node| node.text()?.parse().ok());
    let name = name.ok_or(XmlError::Missing("<name>"))?;
    let uuid = match child(domain, "uuid").and_then(|node| node.text()) {
        Some(text) => Some(text.trim().parse().map_err(|_| XmlError::Missing("<uuid>"))?),
        None => None,
    };
    let vcpus = child(domain, "vcpu").and_then(|node| number(node.text()?));
    let devices = devices(&document)?;
    check_aliases(devices)?;

    let mut facts = Facts {
        name,
        uuid,
        id: domain.attribute("id").and_then(number),
        accelerator: match domain.attribute("type") {
            Some("kvm") => Some(Accelerator::Kvm),
            Some("qemu") => Some(Accelerator::Tcg),
            _ => None,
        },
        memory: child(domain, "memory").and_then(memory).ok_or(XmlError::Missing("<memory>"))?,
        // A definition without it is one of one vCPU.
        vcpus: vcpus.unwrap_or(1),
        host_devices: Vec::new(),
        channel: None,
        serial_controllers: Vec::new(),
        root_ports: Vec::new(),
        next_port: next_port(devices),
        foreign: Vec::new(),
    };
    let taken: BTreeSet<u32> = devices.children().filter_map(bus).collect();
    let serving: BTreeSet<u32> = devices.children().filter_map(serial_bus_of_others).collect();
    for device in devices.children().filter(Node::is_element) {
        let is_ours = is_made_by_ioward(device);
        match device.tag_name().name() {
            "hostdev" | "interface" => facts.host_devices.extend(host_device(device)),
            "channel" if is_ours => {
                let socket = child(device, "source").and_then(|source| source.attribute("path"));
                facts.channel = Some(Channel { socket: socket.map(str::to_owned) });
            }
            "controller" => match (device.attribute("type"), device.attribute("model")) {
                (Some("virtio-serial"), _) => {
                    let index = device.attribute("index").and_then(number).unwrap_or(0);
                    let serves_others = serving.contains(&index);
                    facts.serial_controllers.push(Controller { index, is_ours, serves_others });
                }
                (Some("pci"), Some("pcie-root-port")) => {
                    let target = child(device, "target");
                    let hotplug = target.and_then(|target| target.attribute("hotplug")) != Some("off");
                    let index = device.attribute("index").and_then(number);
                    let free = |index: u32| hotplug && !taken.contains(&index);
                    facts.root_ports.extend(index.map(|index| RootPort {
                        index,
                        free: free(index),
                        is_ours,
                    }));
                }
                _ => {}
            },
            _ => {}
        }
        facts.foreign.extend(foreign(device));
    }
    Ok(facts)
}

/// Whether a device has the alias and the kind of something that ioward makes.
pub(super) fn is_made_by_ioward(device: Node<'_, '_>) -> bool {
    let Some(alias) = alias(device) else { return false };
    let (element, kind) = (device.tag_name().name(), device.attribute("type"));
    match (element, kind) {
        ("channel", Some("unix")) => {
            let target = child(device, "target");
            let name = target.and_then(|target| target.attribute("name"));
            alias == CHANNEL_ALIAS && name == Some(CHANNEL_NAME)
        }
        ("controller", Some("virtio-serial")) => alias == CONTROLLER_ALIAS,
        ("controller", Some("pci")) => {
            alias.starts_with(PORT_ALIAS) && device.attribute("model") == Some("pcie-root-port")
        }
        ("hostdev", Some("pci")) => vf_name(alias).is_some() && !is_managed(device),
        _ => false,
    }
}

/// The device, when it has an alias of ioward's and ioward did not make it.
pub(super) fn foreign(device: Node<'_, '_>) -> Option<Foreign> {
    let alias = alias(device).filter(|alias| is_ours(alias))?;
    let element = device.tag_name().name().to_owned();
    (!is_made_by_ioward(device)).then(|| Foreign { alias: alias.to_owned(), element })
}

/// Each of ioward's aliases is given once.
pub(super) fn check_aliases(devices: Node<'_, '_>) -> Result<(), XmlError> {
    let mut seen = BTreeSet::new();
    let mut ours = devices.children().filter_map(alias).filter(|alias| is_ours(alias));
    match ours.find(|alias| !seen.insert(*alias)) {
        Some(twice) => Err(XmlError::DuplicateAlias(twice.to_owned())),
        None => Ok(()),
    }
}

fn vf_name(alias: &str) -> Option<Name> {
    alias.strip_prefix(VF_ALIAS)?.parse().ok()
}

fn is_managed(device: Node<'_, '_>) -> bool {
    device.attribute("managed") == Some("yes")
}

/// A `<hostdev>` that is a PCI function, or an `<interface>` that is one.
fn host_device(device: Node<'_, '_>) -> Option<HostDevice> {
    let is_interface = device.has_tag_name("interface");
    let kind = device.attribute("type");
    let is_pci = if is_interface { kind == Some("hostdev") } else { kind == Some("pci") };
    if !is_pci {
        return None;
    }
    let function = child(device, "source").and_then(|source| child(source, "address")).and_then(function);
    let mac = child(device, "mac").filter(|_| is_interface).and_then(|mac| mac.attribute("address"));
    Some(HostDevice {
        function,
        managed: is_managed(device),
        interface: is_interface,
        alias: alias(device).map(str::to_owned),
        mac: mac.map(str::to_owned),
        vf: alias(device).and_then(vf_name).filter(|_| is_made_by_ioward(device)),
    })
}

/// The function at a `<address domain= bus= slot= function=>` of the host.
fn function(address: Node<'_, '_>) -> Option<Bdf> {
    let part = |name| address.attribute(name).map_or(Some(0), number);
    let byte = |name| part(name).and_then(|number| u8::try_from(number).ok());
    // The one that has to be there.
    address.attribute("bus")?;
    Bdf::new(part("domain")?, byte("bus")?, byte("slot")?, byte("function")?)
}

/// The bus of the guest that a device is plugged into.
fn bus(device: Node<'_, '_>) -> Option<u32> {
    let mut addresses = children(device, "address");
    let address = addresses.find(|address| address.attribute("type") == Some("pci"))?;
    address.attribute("bus").and_then(number)
}

/// The number of the controller for channels that a device which is not ioward's is plugged into.
fn serial_bus_of_others(device: Node<'_, '_>) -> Option<u32> {
    let mut addresses = children(device, "address").filter(|_| !is_made_by_ioward(device));
    let address = addresses.find(|address| address.attribute("type") == Some("virtio-serial"))?;
    address.attribute("controller").map_or(Some(0), number)
}

/// One more than the highest number of a PCI controller, on a machine with PCI Express.
fn next_port(devices: Node<'_, '_>) -> Option<u32> {
    let pci = || children(devices, "controller").filter(|device| device.attribute("type") == Some("pci"));
    let has_express = pci().any(|device| device.attribute("model") == Some("pcie-root"));
    let highest = pci().filter_map(|device| device.attribute("index").and_then(number)).max()?;
    highest.checked_add(1).filter(|_| has_express)
}

/// Bytes, of a number with a unit (libvirt.org, "Memory Allocation").
fn memory(node: Node<'_, '_>) -> Option<u64> {
    let unit: u64 = match node.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    node.text()?.trim().parse::<u64>().ok()?.checked_mul(unit)
}

/// A number as libvirt writes it: decimal, or hexadecimal with `0x`.
fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
