//! Building blocks of the lab's tests. The tests themselves are in the binary `lab-tests` (main.rs).

#![forbid(unsafe_code)]
// Tests fail by panicking.
#![allow(clippy::expect_used, clippy::panic)]

pub mod conformance;
pub mod daemon;
pub mod guest;
pub mod guest_end;
pub mod harness;
pub mod level1;
pub mod told_store;
