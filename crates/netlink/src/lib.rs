//! Netlink: rtnetlink as far as ioward needs it: messages about interfaces ([`message`]), a socket to the kernel in this network namespace
//! or another one ([`Socket`]), and what both sides of VFs in namespaces have in common ([`Namespace`], [`Link`]).
//!
//! And devlink, which is generic netlink, as far as the health of adapters goes ([`devlink`]).
//!
//! Written by hand: a PF with some 220 VFs answers with more than 64 KiB, for which the usual readers' buffers are too small.
//!
//! include/uapi/linux/{netlink,rtnetlink,if_link,genetlink,devlink}.h.

#![forbid(unsafe_code)]

pub mod devlink;
mod generic;
mod link;
pub mod message;
mod namespace;
mod port;
mod socket;

pub use link::Link;
pub use namespace::Namespace;
pub use socket::Socket;

/// `RTM_NEWLINK`: the kernel tells of an interface.
pub const RTM_NEWLINK: u16 = 16;
/// `RTM_GETLINK`.
pub const RTM_GETLINK: u16 = 18;
/// `RTM_SETLINK`.
pub const RTM_SETLINK: u16 = 19;
/// Every message to the kernel has it.
pub const NLM_F_REQUEST: u16 = 0x1;
/// The kernel is to say that it is done.
pub const NLM_F_ACK: u16 = 0x4;
/// All of them.
pub const NLM_F_DUMP: u16 = 0x300;

/// The name of an interface, ended by a zero.
pub const IFLA_IFNAME: u16 = 3;
/// What not to tell, and what else to.
pub const IFLA_EXT_MASK: u16 = 29;
/// Leave the counters of VFs out; they are half of the answer.
pub const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
