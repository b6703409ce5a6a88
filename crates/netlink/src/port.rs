//! Ports of bridges: an interface becomes one, and is removed.

use std::io;

use rustix::io::Errno;

use crate::{
    IFLA_IFNAME, NLM_F_ACK, NLM_F_REQUEST, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK, Socket,
    link::ended,
    message::{attribute, request, u32_at},
};

const RTM_DELLINK: u16 = 17;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MASTER: u16 = 10;
const IFLA_IFALIAS: u16 = 20;
const IFF_UP: u32 = 1;
/// The longest alias that the kernel takes: `IFALIASZ` with its final zero.
const LONGEST_ALIAS: usize = 255;

impl Socket {
    /// The number of the interface of this name in the socket's network namespace; `None` when there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn index_of(&self, name: &[u8]) -> io::Result<Option<u32>> {
        let mut message = request(RTM_GETLINK, NLM_F_REQUEST, 0);
        attribute(&mut message, IFLA_IFNAME, &ended(name));
        match self.ask(message, RTM_NEWLINK) {
            Ok(body) => Ok(u32_at(&body, 4)),
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an interface a port of a bridge and puts it up, with this MAC, and with an alias for people, which `ip link` shows: what
    /// is beyond 255 bytes of it is left out.
    ///
    /// # Errors
    /// The kernel's. Some of it may be done then.
    pub fn join_bridge(&self, ifindex: u32, bridge: u32, mac: [u8; 6], alias: &[u8]) -> io::Result<()> {
        self.tell(joining(ifindex, bridge, mac, alias))
    }

    /// Removes an interface that is of a kind that can be removed. One that is not there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_link(&self, ifindex: u32) -> io::Result<()> {
        match self.tell(request(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, ifindex)) {
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(()),
            removed => removed,
        }
    }
}

fn joining(ifindex: u32, bridge: u32, mac: [u8; 6], alias: &[u8]) -> Vec<u8> {
    let mut message = request(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, ifindex);
    // `struct ifinfomsg` ends with the flags and with which of them to change.
    let flags = message.len() - 8;
    message[flags..flags + 4].copy_from_slice(&IFF_UP.to_ne_bytes());
    message[flags + 4..].copy_from_slice(&IFF_UP.to_ne_bytes());
    attribute(&mut message, IFLA_ADDRESS, &mac);
    attribute(&mut message, IFLA_MASTER, &bridge.to_ne_bytes());
    attribute(&mut message, IFLA_IFALIAS, &alias[..alias.len().min(LONGEST_ALIAS)]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{IFINFOMSG, attributes, message_body, seal};

    /// Had it its MAC only afterwards, its bridge would take the first one for its own and change that once more.
    #[test]
    fn a_port_is_made_with_its_mac_and_put_up_in_one_request() {
        let mut message = joining(7, 3, [0xfe, 0x54, 0, 0xaa, 0, 1], &[b'x'; 300]);
        seal(&mut message, 1).unwrap();
        let (kind, body) = message_body(&message).unwrap();
        assert_eq!((kind, u32_at(body, 4)), (RTM_SETLINK, Some(7)));
        assert_eq!((u32_at(body, 8), u32_at(body, 12)), (Some(IFF_UP), Some(IFF_UP)));
        let said: Vec<_> = attributes(&body[IFINFOMSG..]).collect();
        let mac = &[0xfe, 0x54, 0, 0xaa, 0, 1][..];
        let alias = [b'x'; LONGEST_ALIAS];
        assert_eq!(
            said,
            [(IFLA_ADDRESS, mac), (IFLA_MASTER, &3u32.to_ne_bytes()[..]), (IFLA_IFALIAS, &alias[..])]
        );
    }

    #[test]
    fn the_running_kernel_knows_its_loopback_by_name_and_no_other_by_a_wrong_one() {
        let socket = Socket::open().unwrap();
        assert_eq!(socket.index_of(b"lo").unwrap(), Some(1));
        assert_eq!(socket.index_of(b"no-such-link").unwrap(), None);
    }
}
