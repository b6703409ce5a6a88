//! The devices that ioward gives to domains, as XML.

use ioward_model::Name;
use ioward_pci::Bdf;

use super::{CHANNEL_ALIAS, CHANNEL_NAME, CONTROLLER_ALIAS, XmlError, port_alias, vf_alias};

/// `sun_path` has 108 bytes, of which the last is 0 (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// A VF. libvirt is to leave its driver and its settings alone (`managed='no'`): those are ioward's.
#[must_use]
pub fn hostdev(vf: &Name, function: Bdf) -> String {
    with_alias(function, &format!("<alias name='{}'/>", vf_alias(vf)))
}

/// The device by which libvirt finds a VF under any alias, or none: it goes by the function (`virDomainHostdevFind`).
#[must_use]
pub fn hostdev_like(function: Bdf) -> String {
    with_alias(function, "")
}

fn with_alias(function: Bdf, alias: &str) -> String {
    let [bus, devfn] = function.routing_id().to_be_bytes();
    let (domain, slot, number) = (function.domain(), devfn >> 3, devfn & 7);
    format!(
        "<hostdev mode='subsystem' type='pci' managed='no'>\
         <source><address domain='0x{domain:04x}' bus='0x{bus:02x}' slot='0x{slot:02x}' function='0x{number:x}'/></source>\
         {alias}</hostdev>"
    )
}

/// The channel. libvirt makes the socket at this path, and so for each start at the same one; left to itself it would
/// choose one that changes with each.
///
/// # Errors
/// When it can't be the path of a socket.
pub fn channel(socket: &str) -> Result<String, XmlError> {
    if !socket.starts_with('/') || socket.len() > MAX_SOCKET_PATH || socket.contains(char::is_control) {
        return Err(XmlError::SocketPath(socket.chars().take(200).collect()));
    }
    let path = socket.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;");
    Ok(format!(
        "<channel type='unix'><source mode='bind' path='{path}'/>\
         <target type='virtio' name='{CHANNEL_NAME}'/><alias name='{CHANNEL_ALIAS}'/></channel>"
    ))
}

/// A controller for channels, with this number.
#[must_use]
pub fn serial_controller(index: u32) -> String {
    format!(
        "<controller type='virtio-serial' index='{index}'><alias name='{CONTROLLER_ALIAS}'/></controller>"
    )
}

/// A PCIe root port with this number, for a definition in which no other is free. It is to be the next number: libvirt adds ports
/// of its own for those that are left out. libvirt adds one by itself where a device needs it, too, but then nobody could tell
/// whose it is when the device is gone. Model and target have to be there (libvirt 11.3 does not fill them in when a controller is
/// attached); chassis are told apart by their number, and libvirt gives each that of its port.
#[must_use]
pub fn root_port(index: u32) -> String {
    let (chassis, port, alias) = (index, index & 0xff, port_alias(index));
    format!(
        "<controller type='pci' index='{index}' model='pcie-root-port'><model name='pcie-root-port'/>\
         <target chassis='{chassis}' port='0x{port:x}'/><alias name='{alias}'/></controller>"
    )
}
