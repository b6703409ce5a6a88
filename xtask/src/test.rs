//! `cargo xtask test`: the one test command.

use crate::error::Result;
use crate::error_suites::ErrorSuites;
use crate::process::{run as run_program, run_and_tell};
use crate::workspace::Workspace;
use crate::{Only, lab, lab_tests, lint, schema, ui};

/// Runs the tests, cheapest first, until some fail. Ends with how many of those about errors of hardware have passed, suite by suite. Gives
/// the status to exit with.
///
/// `only` and `filter` are for work on one thing: lint is left out then.
pub fn run(only: Option<Only>, filter: Option<&str>) -> Result<u8> {
    let mut suites = ErrorSuites::default();
    let status = run_all(only, filter, &mut suites);
    if !suites.is_empty() {
        println!("{suites}");
    }
    status
}

fn run_all(only: Option<Only>, filter: Option<&str>, suites: &mut ErrorSuites) -> Result<u8> {
    if only.is_none() && filter.is_none() {
        lint::run()?;
    }
    if matches!(only, None | Some(Only::Unit)) {
        let workspace = Workspace::find()?;
        // Tests of this machine start its QEMU too.
        lab::install_packages(&workspace)?;
        let mut cargo = workspace.cargo();
        run_and_tell(cargo.args(["test", "--workspace"]).args(filter), |line| suites.line(line))?;
        if filter.is_none() {
            check_interleavings(&workspace)?;
            check_fuzz_targets(&workspace)?;
            check_openapi(&workspace)?;
        }
    }
    if only == Some(Only::Schema) || (only.is_none() && filter.is_none()) {
        schema::test(&Workspace::find()?)?;
    }
    if only == Some(Only::Ui) || (only.is_none() && filter.is_none()) {
        ui::test(&Workspace::find()?)?;
    }
    if !matches!(only, None | Some(Only::Lab)) {
        return Ok(0);
    }
    let (status, passed) = lab_tests::run(filter)?;
    passed.iter().for_each(|name| suites.passed_in_the_lab(name));
    Ok(status)
}

/// Has loom try the interleavings of the lock-free rings of a shared-memory channel. It replaces the atomics by its own,
/// so that all is built once more, in a folder of its own.
fn check_interleavings(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--package", "ioward-channel", "--profile", "bench", "--lib", "loom"]);
    cargo.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", workspace.root.join("target/loom"));
    run_program(&mut cargo)
}

/// Checks that the fuzz targets, which are a workspace of their own, still build. Nothing is linked, so that libFuzzer itself,
/// which takes a C++ compiler, is not built: whoever names a ready one (CUSTOM_LIBFUZZER_PATH) is spared that.
fn check_fuzz_targets(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["check", "--manifest-path", "fuzz/Cargo.toml", "--all-targets"]);
    cargo.env("CUSTOM_LIBFUZZER_PATH", "/nonexistent/libfuzzer.a");
    cargo.env("CARGO_TARGET_DIR", workspace.root.join("target/fuzz"));
    run_program(&mut cargo)
}

/// Holds the committed OpenAPI document against the routes and the types. A build of its own, so that no other has the schemas
/// in it.
fn check_openapi(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--package", "ioward-api", "--features", "openapi", "--test", "openapi"]);
    run_program(&mut cargo)
}
