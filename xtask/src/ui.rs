//! The page (ui/, docs/ui.md): builds the files that `ioward` holds, which are committed, and tests it: that they are what the sources
//! give, its pure parts, and the whole of it in a real browser, against the embedded machine.

use std::process::Command;

use crate::error::{Error, Result};
use crate::process::{output, run};
use crate::workspace::Workspace;
use crate::{lab, packages};

/// The first Node.js that the page is built with.
const NODE: u32 = 20;
/// Debian's browser, and what its text is drawn with.
const BROWSER: [&str; 2] = ["chromium", "fonts-dejavu-core"];

/// Installs what is missing, and runs all of them. The `ioward` that serves the page is that of the dev profile.
pub fn test(workspace: &Workspace) -> Result<()> {
    prepare(workspace)?;
    run(workspace.cargo().args(["build", "--package", "ioward"]))?;
    run(npm(workspace).args(["run", "--silent", "check"]))?;
    let ioward = workspace.binaries.join("ioward");
    run(npm(workspace).args(["run", "--silent", "test"]).env("IOWARD", ioward))
}

/// Builds the files that the binary holds, from their sources.
pub fn build(workspace: &Workspace) -> Result<()> {
    prepare(workspace)?;
    run(npm(workspace).args(["run", "--silent", "build"]))
}

fn prepare(workspace: &Workspace) -> Result<()> {
    let mut apt = lab::install_packages(workspace)?;
    let mut wanted = BROWSER.to_vec();
    if version_of_node().is_none() {
        wanted.extend(["nodejs", "npm"]);
    }
    packages::install(&mut apt, &wanted)?;
    match version_of_node() {
        Some(version) if version >= NODE => {}
        found => {
            let found = found.map_or("none".to_owned(), |version| version.to_string());
            return Err(Error::Other(format!(
                "the page is built with Node.js {NODE} or later, and {found} is here: install a later one, with npm"
            )));
        }
    }
    run(npm(workspace).args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]))
}

/// The major version of the Node.js that is installed.
fn version_of_node() -> Option<u32> {
    let version = output(Command::new("node").arg("--version")).ok()?;
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn npm(workspace: &Workspace) -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(workspace.root.join("ui"));
    npm
}
