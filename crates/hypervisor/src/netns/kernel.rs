//! What this backend asks of the kernel.

use std::{io, path::Path};

use ioward_model::NamespaceRef;
use ioward_netlink::{Link, Namespace, Socket};
use ioward_pci::Bdf;

use super::find::{self, Absent, Place};
use crate::sysfs::Sysfs;

/// The kernel of a host. Nothing here has a bound in time.
pub trait Kernel: Send + Sync + 'static {
    /// A partition's namespace, as it is now.
    fn find(&self, namespace: &NamespaceRef) -> Result<Place, Absent>;

    /// The host's own namespace, in which drivers make interfaces.
    fn home(&self) -> io::Result<Place>;

    /// The interfaces in a namespace.
    fn links(&self, place: &Place) -> io::Result<Vec<Link>>;

    /// Moves an interface between two of them; see [`Socket::move_link`].
    fn move_link(&self, from: &Place, index: u32, to: &Place, name: &[u8]) -> io::Result<()>;

    /// Renames an interface in the host's own namespace.
    fn rename_link(&self, index: u32, name: &[u8]) -> io::Result<()>;

    /// Whether a function has an interface in the host's own namespace. Cheaper than a look at all of them.
    fn is_home(&self, function: Bdf) -> bool;

    /// A function's driver.
    fn driver(&self, function: Bdf) -> io::Result<Option<String>>;

    /// Takes a function from its driver: its interface ends, wherever it is.
    fn unbind(&self, function: Bdf) -> io::Result<()>;
}

/// The kernel that this runs on.
pub struct Linux {
    sysfs: Sysfs,
}

impl Linux {
    pub(super) fn new(sysfs: &Path) -> Self {
        Self { sysfs: Sysfs::new(sysfs) }
    }
}

impl Kernel for Linux {
    fn find(&self, namespace: &NamespaceRef) -> Result<Place, Absent> {
        find::find(namespace)
    }

    fn home(&self) -> io::Result<Place> {
        Ok(Place::named(Namespace::own()?))
    }

    fn links(&self, place: &Place) -> io::Result<Vec<Link>> {
        Socket::open_in(&place.namespace)?.links()
    }

    fn move_link(&self, from: &Place, index: u32, to: &Place, name: &[u8]) -> io::Result<()> {
        Socket::open_in(&from.namespace)?.move_link(index, &to.namespace, name)
    }

    fn rename_link(&self, index: u32, name: &[u8]) -> io::Result<()> {
        Socket::open()?.rename_link(index, name)
    }

    fn is_home(&self, function: Bdf) -> bool {
        self.sysfs.has_interface(function)
    }

    fn driver(&self, function: Bdf) -> io::Result<Option<String>> {
        self.sysfs.driver(function)
    }

    fn unbind(&self, function: Bdf) -> io::Result<()> {
        self.sysfs.unbind(function)
    }
}
