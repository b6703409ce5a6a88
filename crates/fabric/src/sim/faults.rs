//! Faults and latencies, both from a seed.

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
    /// `recover`.
    Recover,
}

impl Operation {
    /// Whether it changes the machine.
    #[must_use]
    pub fn is_change(self) -> bool {
        !matches!(self, Self::Identify | Self::VfAddress | Self::Driver | Self::Settings | Self::Statistics)
    }

    /// Whether it ends in an access to the function, or its driver, that fails while nothing answers there.
    pub(super) fn reaches_the_function(self) -> bool {
        match self {
            Self::SetVfCount
            | Self::Bind
            | Self::Reset
            | Self::Settings
            | Self::Configure
            | Self::Statistics => true,
            Self::Identify | Self::SetAutoprobe | Self::VfAddress | Self::Driver | Self::Recover => false,
        }
    }

    /// Whether it is a question to the PF's driver about a VF, or a change that that makes.
    pub(super) fn asks_the_driver(self) -> bool {
        matches!(self, Self::Settings | Self::Configure | Self::Statistics)
    }

    /// Its duration, beyond the kernel's own waits: the minimum, and the maximum addition.
    fn takes(self) -> (Time, Time) {
        match self {
            Self::Identify => (5 * MS, 20 * MS),
            Self::VfAddress | Self::Driver => (MS / 50, MS / 50),
            Self::Settings | Self::Statistics => (MS / 10, MS),
            Self::SetAutoprobe => (MS / 20, MS / 10),
            Self::SetVfCount => (2 * MS, 30 * MS),
            Self::Bind => (5 * MS, 80 * MS),
            Self::Reset => (MS, 5 * MS),
            Self::Recover => (100 * MS, 500 * MS),
            Self::Configure => (MS, 10 * MS),
        }
    }
}

/// Planned faults.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    next: BTreeMap<Operation, VecDeque<Errno>>,
    /// Failures per million changes.
    per_million: u32,
    random: Random,
    latency: Random,
}

/// A driver's answers when it fails without a foreseeable reason.
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

    /// The error of this operation, if it fails now.
    pub(super) fn strike(&mut self, operation: Operation) -> Option<Errno> {
        if let Some(errno) = self.next.get_mut(&operation).and_then(VecDeque::pop_front) {
            return Some(errno);
        }
        let strikes = operation.is_change() && self.random.below(1_000_000) < u64::from(self.per_million);
        let which = usize::try_from(self.random.below(ERRNOS.len() as u64)).unwrap_or(0);
        strikes.then(|| ERRNOS[which])
    }

    /// The duration of this operation.
    pub(super) fn latency(&mut self, operation: Operation) -> Time {
        let (least, more) = operation.takes();
        least + self.latency.below(more)
    }
}
