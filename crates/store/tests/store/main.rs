//! The state file: every committed value is read back, whatever happens in between.

// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod damage;
mod disk;
mod folder;
mod migration;
mod power_loss;
mod rows;
mod values;
