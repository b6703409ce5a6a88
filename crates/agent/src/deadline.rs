//! When to give up.

use std::time::{Duration, Instant};

/// When to give up.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    /// How long that was when it began.
    pub(crate) bound: Duration,
}

impl Deadline {
    pub(crate) fn after(bound: Duration) -> Self {
        Self { at: Instant::now() + bound, bound }
    }

    /// What is left of it; `None` once it has passed.
    pub(crate) fn left(self) -> Option<Duration> {
        let left = self.at.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}
