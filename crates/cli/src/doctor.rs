//! `ioward doctor`: whether this host can do SR-IOV at all. No daemon is asked.

use std::{io, path::Path, process::Stdio, time::Duration};

use ioward_fabric::linux::{
    HostRoot,
    doctor::{self, Emulator, Facts, Finding, Verdict},
};
use serde::Serialize;
use tokio::{io::AsyncReadExt, process::Command};

use crate::{
    error::{CliError, plain, with_causes},
    present, terminal,
};

/// The emulator that the daemon runs unless told otherwise.
const EMULATOR: &str = "qemu-system-x86_64";
/// How long it may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);
/// As much as is read of what it says, in bytes.
const MAX_ANSWER: u64 = 4096;

/// The JSON form.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether nothing that is needed is missing.
    able: bool,
    findings: &'a [Finding],
}

/// Looks at this host, or at a copied tree, and says what is missing.
///
/// # Errors
/// When it can't be looked at, or something that is needed is missing: that has been shown then.
pub async fn doctor(root: Option<&Path>, json: bool) -> Result<(), CliError> {
    let (tree, emulator) = match root {
        None => (HostRoot::live(), ask_emulator(EMULATOR).await),
        Some(root) => (HostRoot::open(root), Emulator::NotAsked),
    };
    let tree = tree.map_err(|error| CliError::NoRoot(with_causes(&error)))?;
    let facts = Facts::read(&tree, emulator).map_err(|error| CliError::Identify(with_causes(&error)))?;
    let findings = doctor::examine(&facts);
    let missing = findings.iter().filter(|finding| finding.verdict == Verdict::Missing).count();
    if json {
        terminal::print_json(&Report { able: missing == 0, findings: &findings })?;
    } else {
        terminal::print_signs(&present::doctor::findings(&findings, terminal::page_width()))?;
    }
    if missing == 0 { Ok(()) } else { Err(CliError::Missing(missing)) }
}

async fn ask_emulator(program: &str) -> Emulator {
    let spawned = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Emulator::Missing,
        Err(error) => return Emulator::Broken(plain(&error)),
    };
    let Some(stdout) = child.stdout.take() else { return Emulator::Says(String::new()) };
    let mut said = Vec::new();
    let asked = tokio::time::timeout(PATIENCE, stdout.take(MAX_ANSWER).read_to_end(&mut said)).await;
    match asked {
        Ok(Ok(_)) => Emulator::Says(String::from_utf8_lossy(&said).into_owned()),
        Ok(Err(error)) => Emulator::Broken(plain(&error)),
        Err(_) => Emulator::Broken(format!("it does not say its version within {} s", PATIENCE.as_secs())),
    }
}
