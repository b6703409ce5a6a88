//! `ioward doctor`: whether this host can do SR-IOV at all. No daemon is asked.

use std::path::Path;

use ioward_fabric::linux::{
    HostRoot,
    doctor::{self, Emulator, Facts, Verdict, ask_emulator},
};
use ioward_model::doctor::Report;

use crate::{
    error::{CliError, with_causes},
    present, terminal,
};

/// Looks at this host, or at a copied tree, and says what is missing.
///
/// # Errors
/// When it can't be looked at, or something that is needed is missing: that has been shown then.
pub async fn doctor(root: Option<&Path>, json: bool) -> Result<(), CliError> {
    let (tree, emulator) = match root {
        None => (HostRoot::live(), ask_emulator().await),
        Some(root) => (HostRoot::open(root), Emulator::NotAsked),
    };
    let tree = tree.map_err(|error| CliError::NoRoot(with_causes(&error)))?;
    let facts = Facts::read(&tree, emulator).map_err(|error| CliError::Identify(with_causes(&error)))?;
    let report = Report::new(doctor::examine(&facts));
    let missing = report.findings.iter().filter(|finding| finding.verdict == Verdict::Missing).count();
    if json {
        terminal::print_json(&report)?;
    } else {
        terminal::print_signs(&present::doctor::findings(&report.findings, terminal::page_width()))?;
    }
    if report.able { Ok(()) } else { Err(CliError::Missing(missing)) }
}
