//! The file in which everything is kept: what goes in comes out, whatever happens to it in between.

// Tests say what must be so by panicking when it is not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod damage;
mod disk;
mod folder;
mod migration;
mod power_loss;
mod rows;
mod values;
