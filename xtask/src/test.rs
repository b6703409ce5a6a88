//! `cargo xtask test`: the one test command.

use crate::error::Result;
use crate::lab::{self, Lab};
use crate::package;
use crate::process::{run as run_program, shell_word};
use crate::workspace::Workspace;
use crate::{LAB_TESTS_BOUND, Only, lint};

/// Runs the tests, cheapest first, until some fail. Gives the status to exit with.
///
/// `only` and `filter` are for work on one thing: lint is left out then.
pub fn run(only: Option<Only>, filter: Option<&str>) -> Result<u8> {
    if only.is_none() && filter.is_none() {
        lint::run()?;
    }
    if only != Some(Only::Lab) {
        let workspace = Workspace::find()?;
        // Tests of this machine start its QEMU too.
        lab::install_packages(&workspace)?;
        run_program(workspace.cargo().args(["test", "--workspace"]).args(filter))?;
        if filter.is_none() {
            check_interleavings(&workspace)?;
        }
    }
    if only == Some(Only::Unit) { Ok(0) } else { run_lab_tests(filter) }
}

/// Has loom try the interleavings of the lock-free rings of a shared-memory channel. It replaces the atomics by its own,
/// so that all is built once more, in a folder of its own.
fn check_interleavings(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--package", "ioward-channel", "--release", "--lib", "loom"]);
    cargo.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", workspace.root.join("target/loom"));
    run_program(&mut cargo)
}

/// Runs the binary `lab-tests`, which `Lab::prepare` built, in one level 1.
fn run_lab_tests(filter: Option<&str>) -> Result<u8> {
    let lab = Lab::prepare()?;
    let workspace = Workspace::find()?;
    let lab_tests = workspace.binaries.join("lab-tests");
    let package = format!("IOWARD_LAB_PACKAGE={}", package::build(true)?.display());
    let words = [Some("env"), Some(&*package), Some(&*lab_tests.to_string_lossy()), filter];
    let command: Vec<String> = words.into_iter().flatten().map(shell_word).collect();
    lab.run(&format!("exec {}", command.join(" ")), LAB_TESTS_BOUND)
}
