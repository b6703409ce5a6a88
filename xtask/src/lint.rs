//! `cargo xtask lint`: format, clippy, and what the dependencies may be.

use std::process::Stdio;

use crate::error::Result;
use crate::licences;
use crate::process::run as run_program;
use crate::workspace::Workspace;

/// Checks everything that can be checked without running it.
pub fn run() -> Result<()> {
    let workspace = Workspace::find()?;
    run_program(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    run_program(workspace.cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // The schemas for the OpenAPI document, which no other build has.
    let openapi = ["--package", "ioward-api", "--features", "openapi"];
    let clippy = ["clippy", "--all-targets"];
    run_program(workspace.cargo().args(clippy).args(openapi).args(["--", "-D", "warnings"]))?;
    // cargo-deny knows more (advisories, duplicates), and takes longer to build than all of ioward.
    let mut probe = workspace.cargo();
    let has_deny = probe
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if has_deny {
        run_program(workspace.cargo().args(["deny", "check", "bans", "licenses", "sources"]))
    } else {
        licences::check(&workspace)
    }
}
