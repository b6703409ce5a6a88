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

/// The time of a simulated machine, by which its adapters are recovered: it passes as the test says.
#[must_use]
pub fn clock_of(machine: &ioward_fabric::sim::SimMachine) -> ioward_imp::Clock {
    let machine = machine.clone();
    ioward_imp::Clock::by(move || u64::try_from(machine.now().as_millis()).unwrap_or(u64::MAX))
}
