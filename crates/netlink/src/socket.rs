//! A socket to the kernel's network configuration, or to another part of it that speaks netlink.

use std::{cell::Cell, io, thread, time::Duration};

use rustix::{
    fd::OwnedFd,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::SocketAddrNetlink,
        recv, sendto, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{
    Namespace,
    message::{i32_at, invalid, message_body, messages, seal, sequence_of},
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// No answer of the kernel is larger: 65535 VFs, the most that PCIe can count, need about 20 MiB.
const MAX_ANSWER: usize = 32 << 20;
/// How long the kernel may take for one message: it waits for its network configuration lock meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);

/// A socket to the kernel's network configuration, of the network namespace that it was opened in.
///
/// The kernel answers in the call that asks, for which there is no bound: whoever needs one asks on a thread of its own.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    sequence: Cell<u32>,
}

impl Socket {
    /// In the network namespace of this thread.
    ///
    /// # Errors
    /// When the kernel has no rtnetlink, or no descriptor is left.
    pub fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0.
        Self::open_to(None)
    }

    /// To another part of the kernel than its interfaces, in the network namespace of this thread.
    pub(crate) fn open_to(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))?;
        Ok(Self { socket, sequence: Cell::new(0) })
    }

    /// In another network namespace, which this thread does not enter.
    ///
    /// # Errors
    /// As [`Socket::open`], and without the right to enter that namespace.
    pub fn open_in(namespace: &Namespace) -> io::Result<Self> {
        // Only of a thread can the namespace be changed, and one that has changed it is of no further use. The socket stays
        // where it was opened.
        let open = || {
            move_into_link_name_space(namespace.fd(), Some(LinkNameSpaceType::Network))?;
            Self::open()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("ioward-netns".to_owned()).spawn_scoped(scope, open)?;
            thread.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
        })
    }

    /// Sends a request and returns the body of its one answer, which is of this type.
    ///
    /// # Errors
    /// The kernel's, or that its answer makes no sense.
    pub fn ask(&self, message: Vec<u8>, expected: u16) -> io::Result<Vec<u8>> {
        let sequence = self.send(message)?;
        loop {
            let answer = self.receive()?;
            // One that came too late for the question before.
            if sequence_of(&answer) != Some(sequence) {
                continue;
            }
            let (kind, body) = message_body(&answer)?;
            return match (kind, i32_at(body, 0)) {
                (NLMSG_ERROR, Some(error)) if error != 0 => Err(refusal(error)),
                _ if kind == expected => Ok(body.to_vec()),
                _ => Err(invalid("the kernel answered something else than was asked")),
            };
        }
    }

    /// Sends a request that has [`crate::NLM_F_ACK`], and waits until the kernel has done it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tell(&self, message: Vec<u8>) -> io::Result<()> {
        self.ask(message, NLMSG_ERROR).map(drop)
    }

    /// Sends a request that has [`crate::NLM_F_DUMP`], and calls `each` with the body of every answer of this type.
    ///
    /// # Errors
    /// The kernel's.
    pub fn dump(&self, message: Vec<u8>, expected: u16, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let sequence = self.send(message)?;
        loop {
            let answer = self.receive()?;
            for (sequence_of, kind, body) in messages(&answer) {
                match (kind, i32_at(body, 0)) {
                    _ if sequence_of != sequence => {}
                    (NLMSG_DONE, Some(error)) if error < 0 => return Err(refusal(error)),
                    (NLMSG_DONE, _) => return Ok(()),
                    (NLMSG_ERROR, Some(error)) => return Err(refusal(error)),
                    _ if kind == expected => each(body),
                    _ => {}
                }
            }
        }
    }

    /// Sends a request; returns the number that its answers carry.
    fn send(&self, mut message: Vec<u8>) -> io::Result<u32> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        seal(&mut message, sequence)?;
        sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(sequence)
    }

    /// One datagram, whatever its length.
    fn receive(&self) -> io::Result<Vec<u8>> {
        let (_, length) = recv(&self.socket, &mut [0; 0][..], RecvFlags::PEEK | RecvFlags::TRUNC)?;
        if length > MAX_ANSWER {
            return Err(invalid("the answer is too large"));
        }
        let mut answer = vec![0; length];
        recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        Ok(answer)
    }
}

/// The kernel says why as a negative errno.
fn refusal(error: i32) -> io::Error {
    io::Error::from_raw_os_error(error.saturating_neg())
}
