//! What the machine emulator says of itself.

use std::{io, process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt, process::Command};

use super::Emulator;

/// The emulator that the daemon runs unless told otherwise.
const PROGRAM: &str = "qemu-system-x86_64";
/// How long it may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);
/// As much as is read of what it says, in bytes.
const MAX_ANSWER: u64 = 4096;

/// Asks it for its version.
pub async fn ask_emulator() -> Emulator {
    let spawned = Command::new(PROGRAM)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Emulator::Missing,
        Err(error) => return Emulator::Broken(error.to_string()),
    };
    let Some(stdout) = child.stdout.take() else { return Emulator::Says(String::new()) };
    let mut said = Vec::new();
    let asked = tokio::time::timeout(PATIENCE, stdout.take(MAX_ANSWER).read_to_end(&mut said)).await;
    match asked {
        Ok(Ok(_)) => Emulator::Says(String::from_utf8_lossy(&said).into_owned()),
        Ok(Err(error)) => Emulator::Broken(error.to_string()),
        Err(_) => Emulator::Broken(format!("it does not say its version within {} s", PATIENCE.as_secs())),
    }
}
