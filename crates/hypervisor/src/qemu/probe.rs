//! Whether the machine emulator works here, and on what: asked of the emulator itself, as whom machines are run, since that a file /dev/kvm is
//! there, or can even be opened, does not say that KVM takes a machine.

use std::{
    io::{self, Read, Seek},
    os::fd::OwnedFd,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use rustix::fs::MemfdFlags;
use serde_json::Value;
use tokio::{net::UnixStream, process::Command};

use super::{
    qmp::{Qmp, QmpError},
    users::User,
};
use crate::{Accelerator, HypervisorError, text};

/// Starts the emulator without a machine and asks it.
pub(super) async fn accelerator(
    emulator: &Path,
    accelerators: &[&str],
    user: Option<User>,
    bound: Duration,
) -> Result<Accelerator, HypervisorError> {
    let broken = |why: String| HypervisorError::EmulatorBroken { program: emulator.to_owned(), why };
    let (ours, stdin, stdout, mut stderr) = streams().map_err(|error| broken(error.to_string()))?;
    let errors = stderr.try_clone().map_err(|error| broken(error.to_string()))?;
    let mut command = Command::new(emulator);
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    let mut child = command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "none"])
        .args(accelerators.iter().flat_map(|accelerator| ["-accel", accelerator]))
        .args(["-qmp", "stdio"])
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(errors))
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => HypervisorError::EmulatorMissing { program: emulator.to_owned() },
            _ => broken(error.to_string()),
        })?;
    // It holds the other end of our stream, whose end is to be seen.
    drop(command);
    let answer = async {
        let mut qmp = Qmp::over(ours, Arc::default(), bound).await?;
        qmp.execute("query-kvm", &Value::Null, bound).await
    };
    let answer: Result<Value, QmpError> = answer.await;
    // It has nothing to lose. `wait` cannot last: nothing but the kernel is asked any more.
    let _ = child.kill().await;
    match answer {
        Ok(kvm) if kvm["enabled"] == true => Ok(Accelerator::Kvm),
        Ok(_) => Ok(Accelerator::Tcg),
        Err(error) => {
            let mut said = Vec::new();
            let read = stderr.rewind().and_then(|()| stderr.take(2048).read_to_end(&mut said));
            let said = read.map(|_| text::last_words(&said, said.len())).unwrap_or_default();
            Err(broken(if said.is_empty() { error.to_string() } else { said }))
        }
    }
}

/// Our end of a stream, the other end twice, and a file for what goes to stderr.
fn streams() -> io::Result<(UnixStream, OwnedFd, OwnedFd, std::fs::File)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let stdin = OwnedFd::from(theirs);
    let stdout = stdin.try_clone()?;
    let stderr = rustix::fs::memfd_create("stderr", MemfdFlags::CLOEXEC)?;
    Ok((UnixStream::from_std(ours)?, stdin, stdout, stderr.into()))
}
