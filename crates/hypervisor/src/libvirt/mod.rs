//! Domains of libvirt's: [`LibvirtHypervisor`] over a client of libvirt, which speaks its remote protocol over a Unix socket and
//! reads the XML of its domains.
//!
//! libvirt says of its protocol that it is internal and that its C library is to be used. That library would be a second runtime in
//! a process that runs as root. The protocol has kept its numbers and layouts since 2008, because libvirt's own clients and
//! daemons of all versions work together.

mod backend;
mod calls;
mod connection;
mod error;
mod link;
mod wire;
mod xdr;
pub mod xml;

#[cfg(test)]
mod tests;

pub use backend::{Bounds as BackendBounds, LibvirtConfig, LibvirtHypervisor};
pub use calls::{Affects, Definition};
pub use connection::{Bounds, Connection, Events, SOCKETS, sockets};
pub use error::{LibvirtError, Refusal};
pub use link::{Link, News};
#[doc(hidden)]
pub use wire::read_stream;
pub use wire::{Domain, Event, Lifecycle, State, Uuid, UuidError};
pub use xdr::XdrError;
