//! Deadlines for blocking calls.

use std::time::{Duration, Instant};

/// The time at which a call gives up.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    /// The timeout it began with.
    pub(crate) bound: Duration,
}

impl Deadline {
    pub(crate) fn after(bound: Duration) -> Self {
        Self { at: Instant::now() + bound, bound }
    }

    /// The time left; `None` once the deadline has passed.
    pub(crate) fn left(self) -> Option<Duration> {
        let left = self.at.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}
