//! A partition's console: a Unix socket that one person at a time connects to, as a serial line has one plug, and a log.
//!
//! As on a serial line, what somebody does not read in time is lost: neither side can hold the other up.

use std::{
    fs::File,
    future,
    io::{self, Write},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
    time::sleep,
};

/// Where the log begins anew. A guest decides how much it prints.
const MAX_LOG: u64 = 1 << 20;

/// Before the next try to accept a connection when that is not possible.
const RETRY: Duration = Duration::from_millis(100);

/// Passes on what is said, until the guest's side is closed.
pub(super) async fn relay(mut guest: UnixStream, listener: UnixListener, mut log: File) {
    let mut person: Option<UnixStream> = None;
    let mut from_guest = [0; 4096];
    let mut from_person = [0; 4096];
    loop {
        tokio::select! {
            accepted = listener.accept(), if person.is_none() => match accepted {
                Ok((connected, _)) => person = Some(connected),
                Err(error) => {
                    tracing::warn!("a console can't be connected to: {error}");
                    sleep(RETRY).await;
                }
            },
            read = guest.read(&mut from_guest) => {
                let Some(said) = read.ok().filter(|length| *length > 0).map(|length| &from_guest[..length]) else {
                    return;
                };
                if let Err(error) = note(&mut log, said) {
                    tracing::warn!("a console's log can't be written: {error}");
                }
                if person.as_ref().is_some_and(|person| is_closed(person.try_write(said))) {
                    person = None;
                }
            }
            read = typed(&mut person, &mut from_person) => match read {
                Ok(length @ 1..) => {
                    // A guest that has closed its console is noticed by reading.
                    let _ = guest.try_write(&from_person[..length]);
                }
                Ok(0) | Err(_) => person = None,
            },
        }
    }
}

async fn typed(person: &mut Option<UnixStream>, buffer: &mut [u8]) -> io::Result<usize> {
    match person {
        Some(person) => person.read(buffer).await,
        None => future::pending().await,
    }
}

fn is_closed(written: io::Result<usize>) -> bool {
    written.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock)
}

fn note(log: &mut File, said: &[u8]) -> io::Result<()> {
    if log.metadata()?.len() > MAX_LOG {
        log.set_len(0)?;
    }
    log.write_all(said)
}
