//! `cargo xtask ui`: builds the page (docs/ui.md), whose files are committed, and runs its tests.

use std::{path::Path, process::Command};

use crate::error::Result;
use crate::process::run;
use crate::workspace::Workspace;

/// Builds ui/dist; with `tests`, has it looked at in Debian's Chromium too, on a daemon of the dev profile.
///
/// # Errors
/// When npm is missing, or fails, or a test does.
pub fn build(tests: bool) -> Result<()> {
    let workspace = Workspace::find()?;
    let ui = workspace.root.join("ui");
    npm(&ui, &["ci"])?;
    npm(&ui, &["run", "build"])?;
    if tests {
        // The page that is served is the one that was just built.
        run(workspace.cargo().args(["build", "--package", "ioward"]))?;
        npm(&ui, &["test"])?;
    }
    Ok(())
}

fn npm(folder: &Path, words: &[&str]) -> Result<()> {
    run(Command::new("npm").args(words).current_dir(folder))
}
