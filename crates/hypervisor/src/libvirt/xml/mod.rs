//! The XML of a domain (libvirt.org, "Domain XML format"): [`read`] what matters to ioward, and [`edit`](insert) a definition.
//!
//! Editing is cutting and joining the text at places that the parser has found: all that ioward does not know stays as it is,
//! byte for byte. The text comes from libvirt, and through that from whoever may define domains.

mod devices;
mod edit;
mod facts;

pub use devices::{channel, hostdev, hostdev_like, root_port, serial_controller};
pub use edit::{insert, remove};
pub use facts::{Channel, Controller, Facts, Foreign, HostDevice, RootPort, read};

use std::{fmt, str::FromStr};

use ioward_model::Name;
use roxmltree::{Document, Node, ParsingOptions};

/// The longest definition read: no longer one comes from libvirt (`REMOTE_STRING_MAX`).
pub const MAX_LENGTH: usize = 4 << 20;
/// The most elements, texts and comments. Domains with hundreds of devices have some 10000.
const MAX_NODES: u32 = 200_000;
/// The most attributes of one element, and namespaces of a whole definition: the parser holds each against all others.
const MAX_ATTRIBUTES: usize = 256;

/// The alias of ioward's channel. libvirt lets users name devices with `ua-`, then letters, digits, `-` and `_`
/// (`USER_ALIAS_CHARS` in libvirt's `src/conf/domain_conf.c`).
pub const CHANNEL_ALIAS: &str = "ua-ioward";
/// The name of ioward's channel in the guest.
pub const CHANNEL_NAME: &str = "org.ioward.0";
/// The alias of the controller that ioward adds to a domain that has none. No VF has it: those go on with a hyphen.
pub const CONTROLLER_ALIAS: &str = "ua-ioward_serial";
/// What the alias of a VF begins with, before the VF's name.
const VF_ALIAS: &str = "ua-ioward-";
/// What the alias of a PCIe root port that ioward adds begins with, before its number.
const PORT_ALIAS: &str = "ua-ioward_port";

/// The alias of a VF of this name.
#[must_use]
pub fn vf_alias(vf: &Name) -> String {
    format!("{VF_ALIAS}{vf}")
}

/// The alias of ioward's root port of this number.
#[must_use]
pub fn port_alias(index: u32) -> String {
    format!("{PORT_ALIAS}{index}")
}

/// Whether an alias is one that only ioward gives.
fn is_ours(alias: &str) -> bool {
    alias == CHANNEL_ALIAS
        || alias == CONTROLLER_ALIAS
        || alias.starts_with(VF_ALIAS)
        || alias.starts_with(PORT_ALIAS)
}

/// Why a definition can't be read or edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// Longer than [`MAX_LENGTH`].
    #[error("the definition has {0} bytes, and {MAX_LENGTH} is the most that libvirt gives")]
    TooLong(usize),
    /// It would take too long to read.
    #[error(
        "the definition has an element with more than {MAX_ATTRIBUTES} attributes, or as many namespaces; remove them: virsh edit"
    )]
    TooManyAttributes,
    /// No XML, or with a DTD, or with too much in it.
    #[error("the definition is not XML as libvirt writes it: {0}")]
    Malformed(String),
    /// Something that every domain has is missing, or makes no sense.
    #[error("the definition has no usable {0}; look at it: virsh dumpxml")]
    Missing(&'static str),
    /// Two devices have one alias of ioward's.
    #[error(
        "two devices of the domain have the alias {0}, which is ioward's; remove one of them: virsh edit"
    )]
    DuplicateAlias(String),
    /// A device that ioward has not made has one of its aliases.
    #[error(
        "a device of the domain (<{element}>) has the alias {alias} and is not one that ioward makes; it is left alone: \
         aliases that begin with ua-ioward are ioward's, so give it another one (virsh edit)"
    )]
    Foreign {
        /// The alias.
        alias: String,
        /// The element's name.
        element: String,
    },
    /// The device is there already.
    #[error("the domain has a device with the alias {0} already")]
    AlreadyThere(String),
    /// A path that can't be that of a socket.
    #[error(
        "{0:?} can't be the socket of a channel; it has to be absolute, of at most 107 bytes, without control characters"
    )]
    SocketPath(String),
}

/// The name of a domain, as libvirt's driver for QEMU allows it: not empty, no `/`, no line break. ioward allows no
/// other control character either, and no name that would be none for a file (`NAME.xml`, `NAME.log`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

/// A text that is not a [`DomainName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a libvirt domain; it has 1 to 200 bytes, no '/' and no control characters, and is not '.' or '..'"
)]
pub struct DomainNameError(String);

impl DomainName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        // libvirt refuses names of white space alone, too (`virDomainDefParseIDs`).
        let is_name = !text.trim().is_empty() && text.len() <= 200 && !matches!(text, "." | "..");
        if is_name && !text.contains(|c: char| c == '/' || c.is_control()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(DomainNameError(text.chars().take(60).collect()))
        }
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Parses a definition whose root is `<domain>`.
fn parse(xml: &str) -> Result<Document<'_>, XmlError> {
    if xml.len() > MAX_LENGTH {
        return Err(XmlError::TooLong(xml.len()));
    }
    // A tag has no `<` within it, and each attribute has a quote after its `=`.
    let attributes = |tag: &str| tag.matches('=').count().min(tag.matches(['"', '\'']).count() / 2);
    if xml.matches("xmlns").count() > MAX_ATTRIBUTES
        || xml.split('<').any(|tag| attributes(tag) > MAX_ATTRIBUTES)
    {
        return Err(XmlError::TooManyAttributes);
    }
    // Without a DTD there are no entities but XML's own five.
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(xml, options)
        .map_err(|error| XmlError::Malformed(crate::text::printable(&error.to_string(), 200)))?;
    if !document.root_element().has_tag_name("domain") {
        return Err(XmlError::Missing("<domain>"));
    }
    Ok(document)
}

/// The devices of a domain.
fn devices<'a, 'input>(document: &'a Document<'input>) -> Result<Node<'a, 'input>, XmlError> {
    let mut devices = children(document.root_element(), "devices");
    match (devices.next(), devices.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(XmlError::Missing("<devices>")),
    }
}

/// The elements of this name right under another.
fn children<'a, 'input>(node: Node<'a, 'input>, name: &str) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.has_tag_name(name))
}

/// The first of them.
fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    children(node, name).next()
}

/// The alias of a device.
fn alias<'a>(device: Node<'a, '_>) -> Option<&'a str> {
    child(device, "alias")?.attribute("name")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn names_that_libvirt_refuses_are_refused() {
        for good in ["web", "7", "web server", "wéb", "-x", ".hidden", &"x".repeat(200)] {
            assert_eq!(good.parse::<DomainName>().unwrap().as_str(), good);
        }
        for bad in ["", " ", ".", "..", "a/b", "a\nb", "a\u{0}", &"x".repeat(201)] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn entities_and_dtds_are_refused() {
        let laughs =
            "<!DOCTYPE domain [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]><domain><name>&b;</name></domain>";
        assert!(matches!(parse(laughs), Err(XmlError::Malformed(_))));
        let file =
            "<!DOCTYPE domain [<!ENTITY f SYSTEM 'file:///etc/hostname'>]><domain><name>&f;</name></domain>";
        let dtd = "<!DOCTYPE domain SYSTEM 'http://192.0.2.1/domain.dtd'><domain/>";
        for text in [file, dtd, "<domain>&unknown;</domain>"] {
            assert!(matches!(parse(text), Err(XmlError::Malformed(_))), "{text}");
        }
        assert!(parse("<domain>&amp;&#65;</domain>").is_ok());
    }

    /// The parser compares each attribute with all others of its element: 700000 of them took it minutes.
    #[test]
    fn what_would_take_long_or_much_memory_is_refused_at_once() {
        let started = Instant::now();
        let long = format!("<domain>{}</domain>", " ".repeat(10 << 20));
        assert_eq!(parse(&long).unwrap_err(), XmlError::TooLong(long.len()));
        let flat = format!("<domain>{}</domain>", "<a/>".repeat(1_000_000));
        assert!(matches!(parse(&flat), Err(XmlError::Malformed(_))));
        let attributes: String = (0..200_000).map(|number| format!(" a{number}='>'")).collect();
        assert_eq!(parse(&format!("<domain{attributes}/>")).unwrap_err(), XmlError::TooManyAttributes);
        let spaces: String = (0..1000).map(|number| format!("<a xmlns:n{number}='x{number}'>")).collect();
        assert_eq!(parse(&format!("<domain>{spaces}")).unwrap_err(), XmlError::TooManyAttributes);
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn depth_is_no_danger() {
        let depth = 90_000;
        let deep = format!("<domain>{}{}</domain>", "<a>".repeat(depth), "</a>".repeat(depth));
        assert_eq!(read(&deep).unwrap_err(), XmlError::Missing("<name>"));
    }
}
