//! Two privileges (docs/privileges.md): the hypervisor side, which is root and small, and the management partition (IMP), which
//! parses what guests and people send and may do next to nothing.
//!
//! ```text
//!   ioward serve (root)                                 ioward imp (user ioward, no capability, nothing but its state)
//!     server ── LinuxFabric, Guard ── backends Unix      client: Fabric, Hypervisor ── executor, channels, HTTP API
//!       └ protocol ── link ──────────────────> socket <── link ── protocol ┘
//! ```
//! Plain data crosses the socket and, for a channel, its open descriptor. The IMP is not believed: [`Server`] gives it nothing that
//! it may not have, whatever it says.

mod account;
mod client;
mod confine;
mod link;
mod news;
mod protocol;
mod server;
mod syscalls;

pub use account::{Account, ApiGroups, MACHINES, hand_over};
pub use client::{Remote, Told, connect};
pub use confine::{ConfineError, Confinement, confine};
pub use link::{
    Decoder, Frame, LinkError, MAX_FROM_HOST, MAX_FROM_IMP, Received, receive_hello, send_hello, write_frame,
};
pub use protocol::{Call, Hello, Life, ToHost, ToImp};
pub use server::{Server, Word};
