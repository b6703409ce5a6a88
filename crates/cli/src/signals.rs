//! The signals by which a command is ended from outside.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal of Ctrl-C.
pub const INTERRUPT: u8 = 2;
const HANG_UP: u8 = 1;
const TERMINATE: u8 = 15;

/// The signals that end a command which has something to put right before it goes. As long as this is there none of
/// them ends the process by itself.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from here on.
    ///
    /// # Errors
    /// When the kernel has no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The number of the signal that has come.
    pub async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.terminate.recv() => TERMINATE,
            _ = self.hang_up.recv() => HANG_UP,
        }
    }
}
