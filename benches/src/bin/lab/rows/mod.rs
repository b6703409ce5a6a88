//! The rows.

mod channel;
mod machines;
mod rest;
mod restart;
mod vfs;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ioward_benches::{parts::Part, row::Row};

use crate::{Result, host::Host, trio::Trio};

/// How often each thing is done.
#[derive(Clone, Copy)]
pub struct Rounds {
    /// What takes a second or less.
    pub short: usize,
    /// What takes as long as a guest's boot.
    pub long: usize,
    /// Operations of a guest in each round.
    pub operations: usize,
    /// How long rest is looked at, in seconds.
    pub rest: u64,
    /// Whether a row that differs from another in its size alone is measured.
    pub sizes: bool,
    /// How many VFs are bound and set at once, to see how that grows.
    pub vfs: &'static [usize],
    /// How many partitions there are at rest, beside none.
    pub at_rest: &'static [usize],
    /// And when the daemon is started again.
    pub adopted: &'static [usize],
}

impl Rounds {
    /// To measure.
    pub const FULL: Self = Self {
        short: 9,
        long: 5,
        operations: 100,
        rest: 30,
        sizes: true,
        // All that two igbs have.
        vfs: &[1, 4, 14],
        at_rest: &[25, 100],
        adopted: &[1, 4, 16],
    };
    /// To see that each row works.
    pub const QUICK: Self = Self {
        short: 1,
        long: 1,
        operations: 5,
        rest: 1,
        sizes: false,
        vfs: &[1, 4],
        at_rest: &[1, 4],
        adopted: &[1, 4],
    };
}

/// What parts leave for those after them: a daemon, for it and libvirt's take seconds to start; and then three machines, for a guest's boot
/// takes longer than what most rows measure. A part that fails leaves neither.
#[derive(Clone, Default)]
pub struct Shared {
    host: Arc<Mutex<Option<Host>>>,
    trio: Arc<Mutex<Option<Trio>>>,
}

impl Shared {
    /// A daemon: the one that a part before this has kept, or a new one.
    pub fn host(&self) -> Result<Host> {
        take(&self.host).map_or_else(Host::start, Ok)
    }

    /// Keeps it for the next part.
    pub fn keep_host(&self, host: Host) {
        *locked(&self.host) = Some(host);
    }

    /// The three machines, with a daemon that goes with them.
    pub fn trio(&self) -> Result<Trio> {
        take(&self.trio).map_or_else(|| Trio::define(self.host()?), Ok)
    }

    /// Keeps them for the next part.
    pub fn keep(&self, trio: Trio) {
        *locked(&self.trio) = Some(trio);
    }
}

fn locked<T>(kept: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take<T>(kept: &Mutex<Option<T>>) -> Option<T> {
    locked(kept).take()
}

/// What a part does.
pub type Work = fn(&Shared, Rounds) -> Result<Vec<Row>>;

const fn part(name: &'static str, needs: &'static [&'static str], work: Work) -> Part<Work> {
    Part { name, needs, work }
}

/// All parts, in the order in which they are run: each leaves the VFs that the next one begins with, for an igb's link takes a second to come
/// back whenever their number changes. At first there are none.
pub const ROWS: [Part<Work>; 9] = [
    part("rest", &["ioward", "libvirtd", "virsh"], rest::at_rest),
    part("make", &["ioward"], vfs::make),
    part("overlap", &["ioward"], rest::overlap),
    part("bind", &["ioward", "driverctl", "libvirtd", "virsh"], vfs::bind),
    part("set", &["ioward", "ip"], vfs::set),
    part("start", &["ioward", "qemu-system-x86_64", "libvirtd", "virsh"], machines::start),
    part("plug", &["ioward", "qemu-system-x86_64", "libvirtd", "virsh"], machines::plug),
    part("restart", &["ioward", "libvirtd", "virsh"], restart::restart),
    part("channel", &["ioward", "libvirtd", "virsh"], channel::operations),
];
