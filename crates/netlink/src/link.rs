//! Interfaces of PCI functions: which there are in a network namespace, and how one gets into another.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use ioward_pci::Bdf;

use crate::{
    IFLA_EXT_MASK, IFLA_IFNAME, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Namespace, RTEXT_FILTER_SKIP_STATS,
    RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK, Socket,
    message::{IFINFOMSG, attribute, attributes, request, text, u32_at},
};

const IFLA_NET_NS_FD: u16 = 28;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;

/// Most interfaces that are taken from one network namespace.
const MAX_LINKS: usize = 1 << 16;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name there: bytes that somebody has chosen.
    pub name: Vec<u8>,
    /// Other names that it has there.
    pub other_names: Vec<Vec<u8>>,
    /// The PCI function that it is of.
    pub function: Option<Bdf>,
}

impl Link {
    /// Whether nothing else in its namespace can have this name.
    #[must_use]
    pub fn is_called(&self, name: &[u8]) -> bool {
        self.name == name || self.other_names.iter().any(|other| other == name)
    }

    /// From the body of an `RTM_NEWLINK`.
    fn parse(body: &[u8]) -> Option<Self> {
        let attributes_of = body.get(IFINFOMSG..)?;
        let find = |wanted: u16| attributes(attributes_of).find(|(kind, _)| *kind == wanted);
        let text_of = |wanted: u16| find(wanted).map(|(_, value)| text(value));
        let is_pci = text_of(IFLA_PARENT_DEV_BUS_NAME) == Some(b"pci");
        let parent = text_of(IFLA_PARENT_DEV_NAME).filter(|_| is_pci);
        let function = parent.and_then(|parent| std::str::from_utf8(parent).ok()?.parse().ok());
        let listed = attributes(find(IFLA_PROP_LIST).map_or(&[][..], |(_, list)| list));
        let other_names = listed.filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
        Some(Self {
            index: u32_at(body, 4)?,
            name: text_of(IFLA_IFNAME)?.to_vec(),
            other_names: other_names.map(|(_, name)| text(name).to_vec()).collect(),
            function,
        })
    }
}

impl Socket {
    /// The interfaces of the socket's network namespace. Which function one is of is known since Linux 5.14.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&self) -> io::Result<Vec<Link>> {
        let mut message = request(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 0);
        attribute(&mut message, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        let mut links = Vec::new();
        self.dump(message, RTM_NEWLINK, |body| {
            if links.len() < MAX_LINKS {
                links.extend(Link::parse(body));
            }
        })?;
        Ok(links)
    }

    /// Moves an interface into another namespace and gives it a name there; `eth%d` has the kernel choose the number. It is down then,
    /// and has no address.
    ///
    /// The kernel may have moved it and then find the name taken (do_setlink() in net/core/rtnetlink.c): after an error the
    /// interface can be in either of the two, and in the other one it has the name that it had.
    ///
    /// # Errors
    /// The kernel's.
    pub fn move_link(&self, ifindex: u32, to: &Namespace, name: &[u8]) -> io::Result<()> {
        self.tell(moving(ifindex, to.fd(), name))
    }

    /// Gives an interface another name in its namespace. Older kernels want it to be down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rename_link(&self, ifindex: u32, name: &[u8]) -> io::Result<()> {
        let mut message = request(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, ifindex);
        attribute(&mut message, IFLA_IFNAME, &ended(name));
        self.tell(message)
    }
}

fn moving(ifindex: u32, to: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut message = request(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, ifindex);
    attribute(&mut message, IFLA_NET_NS_FD, &to.as_raw_fd().to_ne_bytes());
    attribute(&mut message, IFLA_IFNAME, &ended(name));
    message
}

pub(crate) fn ended(name: &[u8]) -> Vec<u8> {
    [name, &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{message_body, messages, seal};

    const NLMSG_DONE: u16 = 3;

    /// A message of a dump: `struct nlmsghdr`, and an interface of a function with this parent.
    fn dumped(sequence: u32, kind: u16, bus: &[u8], parent: &[u8], name: &[u8]) -> Vec<u8> {
        let mut message = request(kind, 0, 7);
        let mut others = Vec::new();
        attribute(&mut others, IFLA_ALT_IFNAME, b"enp1s16\0");
        for (kind, value) in [
            (IFLA_IFNAME, name),
            (IFLA_PROP_LIST, &others),
            (IFLA_PARENT_DEV_NAME, parent),
            (IFLA_PARENT_DEV_BUS_NAME, bus),
        ] {
            attribute(&mut message, kind, value);
        }
        seal(&mut message, sequence).unwrap();
        message
    }

    #[test]
    fn interfaces_are_taken_from_a_dump_with_the_functions_they_are_of() {
        let dump = [
            dumped(1, RTM_NEWLINK, b"pci\0", b"0000:01:10.0\0", b"eth1\0"),
            dumped(1, RTM_NEWLINK, b"virtio\0", b"0000:01:10.1\0", b"eth2\0"),
            dumped(1, RTM_NEWLINK, b"pci\0", b"\x1b[2J\0", b"eth3\0"),
            dumped(2, NLMSG_DONE, b"", b"", b""),
        ]
        .concat();
        let seen: Vec<_> = messages(&dump).map(|(sequence, kind, _)| (sequence, kind)).collect();
        assert_eq!(seen, [(1, RTM_NEWLINK), (1, RTM_NEWLINK), (1, RTM_NEWLINK), (2, NLMSG_DONE)]);
        let links: Vec<_> = messages(&dump).filter_map(|(_, _, body)| Link::parse(body)).collect();
        let functions: Vec<_> = links.iter().map(|link| (&link.name[..], link.function)).collect();
        let function = Some("0000:01:10.0".parse().unwrap());
        assert_eq!(functions[..3], [(&b"eth1"[..], function), (b"eth2", None), (b"eth3", None)]);
        assert!(
            links[0].is_called(b"eth1") && links[0].is_called(b"enp1s16") && !links[0].is_called(b"eth2")
        );
        for length in 0..dump.len() {
            assert!(messages(&dump[..length]).filter_map(|(_, _, body)| Link::parse(body)).count() <= 4);
        }
    }

    /// Two requests, one to move and one to rename, would leave a moment in which its old name can clash.
    #[test]
    fn an_interface_is_moved_and_named_in_one_request() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let descriptor = null.as_raw_fd();
        let mut message = moving(7, std::os::fd::AsFd::as_fd(&null), b"net0");
        seal(&mut message, 1).unwrap();
        let (kind, body) = message_body(&message).unwrap();
        assert_eq!((kind, u32_at(body, 4)), (RTM_SETLINK, Some(7)));
        let said: Vec<_> = attributes(&body[IFINFOMSG..]).collect();
        assert_eq!(said, [(IFLA_NET_NS_FD, &descriptor.to_ne_bytes()[..]), (IFLA_IFNAME, b"net0\0")]);
    }

    #[test]
    fn the_running_kernel_answers() {
        let socket = Socket::open().unwrap();
        let links = socket.links().unwrap();
        assert!(links.iter().any(|link| link.name == b"lo" && link.index == 1));
    }
}
