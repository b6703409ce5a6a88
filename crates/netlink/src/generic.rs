//! Generic netlink: families that have a name, and a number that the kernel gives them when it boots.
//!
//! include/uapi/linux/genetlink.h, ctrl_getfamily() in net/netlink/genetlink.c.

use std::io;

use rustix::io::Errno;
use rustix::net::netlink::GENERIC;

use crate::{
    NLM_F_REQUEST, Socket,
    link::ended,
    message::{GENLMSG, attribute, attributes, generic, invalid, text, u16_at, u32_at},
};

/// The family that knows the others.
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

/// A family, and a socket to it.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) socket: Socket,
    pub(crate) described: Described,
}

/// What the kernel says of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// The type of its messages.
    pub(crate) id: u16,
    /// The number of the group of news that was asked for, if it has it.
    pub(crate) group: Option<u32>,
}

impl Family {
    /// The family of this name, with this one of its groups, in the network namespace of this thread; `None`: the kernel has none of the name.
    pub(crate) fn open(name: &[u8], group: &[u8]) -> io::Result<Option<Self>> {
        let socket = match Socket::open_to(Some(GENERIC)) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTONOSUPPORT) => return Ok(None),
            socket => socket?,
        };
        let mut message = generic(GENL_ID_CTRL, NLM_F_REQUEST, CTRL_CMD_GETFAMILY);
        attribute(&mut message, CTRL_ATTR_FAMILY_NAME, &ended(name));
        match socket.ask(message, GENL_ID_CTRL) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(None),
            answer => Ok(Some(Self { described: Described::parse(&answer?, group)?, socket })),
        }
    }
}

impl Described {
    /// From the body of a `CTRL_CMD_NEWFAMILY`.
    pub(crate) fn parse(body: &[u8], group: &[u8]) -> io::Result<Self> {
        let told = || attributes(body.get(GENLMSG..).unwrap_or_default());
        let find = |wanted: u16| told().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let id = find(CTRL_ATTR_FAMILY_ID).and_then(|value| u16_at(value, 0));
        let id = id.filter(|id| *id >= GENL_ID_CTRL).ok_or_else(|| invalid("a family without a number"))?;
        let mut groups = attributes(find(CTRL_ATTR_MCAST_GROUPS).unwrap_or_default());
        let group = groups.find_map(|(_, told)| {
            let find = |wanted: u16| attributes(told).find(|(kind, _)| *kind == wanted);
            let is_it = find(CTRL_ATTR_MCAST_GRP_NAME).is_some_and(|(_, name)| text(name) == group);
            find(CTRL_ATTR_MCAST_GRP_ID).filter(|_| is_it).and_then(|(_, id)| u32_at(id, 0))
        });
        Ok(Self { id, group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_knows_its_controller_and_no_family_of_a_wrong_name() {
        let found = Family::open(b"nlctrl", b"notify").unwrap().unwrap();
        assert_eq!((found.described.id, found.described.group), (GENL_ID_CTRL, Some(16)));
        assert!(Family::open(b"no-such-family", b"notify").unwrap().is_none());
    }

    #[test]
    fn a_family_that_is_cut_off_has_no_number_that_could_be_another_ones() {
        let mut body = vec![0; GENLMSG];
        attribute(&mut body, CTRL_ATTR_FAMILY_ID, &20_u16.to_ne_bytes());
        assert_eq!(Described::parse(&body, b"config").unwrap(), Described { id: 20, group: None });
        for length in 0..body.len() - 2 {
            assert!(Described::parse(&body[..length], b"config").is_err(), "{length}");
        }
        let mut low = vec![0; GENLMSG];
        attribute(&mut low, CTRL_ATTR_FAMILY_ID, &3_u16.to_ne_bytes());
        assert!(Described::parse(&low, b"config").is_err(), "3 is the end of a dump, and no family");
    }
}
