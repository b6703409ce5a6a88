//! Decisions of the planner, told as stories, and laws that hold for every host and every wish.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the builders are test code too: what they cannot build is a broken test"
)]

mod adopting;
mod applying;
mod changing;
mod checking;
mod choosing;
mod evacuating;
mod failing_over;
mod giving_back;
mod kinds;
mod laws;
mod linting;
mod losing;
mod needing;
mod reconciling;
mod refusing;
mod relaxations;
mod repairing;
mod reserving;
mod resizing;
mod world;
