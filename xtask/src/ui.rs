//! The page (ui/, docs/ui.md): builds the files that `ioward` holds, which are committed, and tests it: that they are what the sources
//! give, its pure parts, and the whole of it in a real browser, against the embedded machine, by itself and in Debian's
//! Cockpit, and in the lab.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::apt::Apt;
use crate::error::{Error, Result};
use crate::process::{output, run};
use crate::workspace::Workspace;
use crate::{cockpit, lab, package, packages};

/// The first Node.js that the page is built with.
const NODE: u32 = 20;
/// Debian's browser, and what its text is drawn with.
const BROWSER: [&str; 2] = ["chromium", "fonts-dejavu-core"];

/// Installs what is missing, and runs all of them. The `ioward` that serves the page is that of the dev profile.
pub fn test(workspace: &Workspace) -> Result<()> {
    let mut apt = prepare(workspace)?;
    let cockpit = {
        let _lock = workspace.lock_cache()?;
        cockpit::prepare(&workspace.cache, &mut apt)?
    };
    let package = unpacked_package()?;
    run(npm(workspace).args(["run", "--silent", "check"]))?;
    let mut tests = npm(workspace);
    tests.args(["run", "--silent", "test"]).env("IOWARD", workspace.binaries.join("ioward"));
    tests.env("IOWARD_COCKPIT", cockpit).env("IOWARD_PACKAGE", package);
    run(tests.env("IOWARD_XTASK", workspace.binaries.join("xtask")))
}

/// Builds the Debian package, and gives the folder that it is unpacked in.
fn unpacked_package() -> Result<PathBuf> {
    let package = package::build(true)?;
    let root = package.with_extension("unpacked");
    let _ = fs::remove_dir_all(&root);
    run(Command::new("dpkg-deb").arg("--extract").args([&package, &root]))?;
    Ok(root)
}

/// Builds the files that the binary holds, from their sources.
pub fn build(workspace: &Workspace) -> Result<()> {
    prepare(workspace)?;
    run(npm(workspace).args(["run", "--silent", "build"]))
}

/// Installs what is missing, and gives the apt that knows of it.
fn prepare(workspace: &Workspace) -> Result<Apt> {
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
    run(npm(workspace).args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]))?;
    Ok(apt)
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
