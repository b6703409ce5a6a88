//! The conformance suite on the Linux kernel; the simulated machine runs it in `tests/conformance_sim.rs`.

use ioward_fabric::linux::LinuxFabric;
use ioward_tests::{
    conformance::{Body, Machine, SUITE},
    harness::Test,
    level1::{NIC0, NVME},
};

/// The suite as lab tests, `conformance_on_linux::…`.
pub fn conformance() -> Vec<Test> {
    let test = |&(name, body): &Body| Test {
        name: format!("conformance_on_linux::{name}"),
        run: Box::new(move || {
            body(&Machine {
                fabric: Box::new(LinuxFabric::new()),
                nic: NIC0.parse()?,
                nvme: NVME.parse()?,
                runtime: tokio::runtime::Runtime::new()?,
            });
            Ok(())
        }),
    };
    SUITE.iter().map(test).collect()
}
