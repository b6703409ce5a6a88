//! What goes wrong, and how long things take: both from a seed.

use std::collections::{BTreeMap, VecDeque};

use rustix::io::Errno;

use super::{
    device::{MS, Time},
    random::Random,
};

/// An operation of [`crate::Fabric`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `identify`.
    Identify,
    /// `set_autoprobe`.
    SetAutoprobe,
    /// `set_vf_count`.
    SetVfCount,
    /// `vf_address`.
    VfAddress,
    /// `driver`.
    Driver,
    /// `bind`.
    Bind,
    /// `reset`.
    Reset,
    /// `settings`.
    Settings,
    /// `configure`.
    Configure,
    /// `statistics`.
    Statistics,
}

impl Operation {
    /// Whether it changes the machine.
    #[must_use]
    pub fn is_change(self) -> bool {
        !matches!(self, Self::Identify | Self::VfAddress | Self::Driver | Self::Settings | Self::Statistics)
    }

    /// What it takes, beyond what the kernel waits for: the least, and how much more it may be.
    fn takes(self) -> (Time, Time) {
        match self {
            Self::Identify => (5 * MS, 20 * MS),
            Self::VfAddress | Self::Driver => (MS / 50, MS / 50),
            Self::Settings | Self::Statistics => (MS / 10, MS),
            Self::SetAutoprobe => (MS / 20, MS / 10),
            Self::SetVfCount => (2 * MS, 30 * MS),
            Self::Bind => (5 * MS, 80 * MS),
            Self::Reset => (MS, 5 * MS),
            Self::Configure => (MS, 10 * MS),
        }
    }
}

/// Faults to come.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    next: BTreeMap<Operation, VecDeque<Errno>>,
    /// Of a million changes so many fail.
    per_million: u32,
    random: Random,
    latency: Random,
}

/// What a driver answers when it fails for no reason that anyone could have known.
const ERRNOS: [Errno; 4] = [Errno::IO, Errno::BUSY, Errno::TIMEDOUT, Errno::NOMEM];

impl Faults {
    pub(super) fn new(seed: u64, per_million: u32) -> Self {
        Self {
            next: BTreeMap::new(),
            per_million,
            random: Random::new(seed, 2),
            latency: Random::new(seed, 3),
        }
    }

    pub(super) fn fail_next(&mut self, operation: Operation, errno: Errno) {
        self.next.entry(operation).or_default().push_back(errno);
    }

    pub(super) fn set_rate(&mut self, per_million: u32) {
        self.per_million = per_million;
    }

    /// Whether this operation fails now, and with what.
    pub(super) fn strike(&mut self, operation: Operation) -> Option<Errno> {
        if let Some(errno) = self.next.get_mut(&operation).and_then(VecDeque::pop_front) {
            return Some(errno);
        }
        let strikes = operation.is_change() && self.random.below(1_000_000) < u64::from(self.per_million);
        let which = usize::try_from(self.random.below(ERRNOS.len() as u64)).unwrap_or(0);
        strikes.then(|| ERRNOS[which])
    }

    /// How long this operation takes this time.
    pub(super) fn latency(&mut self, operation: Operation) -> Time {
        let (least, more) = operation.takes();
        least + self.latency.below(more)
    }
}
