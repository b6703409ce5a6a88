//! Lines on stderr while the page is served, written by a thread of their own: a terminal that was stopped (Ctrl-S) holds nobody up.
//! What there is no room for is left out.

use std::{
    io::Write,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use crate::present::text;

/// So many wait to be written.
const WAITING: usize = 100;

/// Where lines go.
pub struct Lines(SyncSender<String>);

impl Lines {
    /// Written until dropped.
    pub fn new() -> Self {
        let (sender, lines) = sync_channel::<String>(WAITING);
        // Where there is no thread for it, nothing is told.
        let _ = thread::Builder::new().name("lines".to_owned()).spawn(move || {
            for line in lines {
                let line = format!("ioward: {}\n", text::printable(&line).replace('\n', " "));
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
        });
        Self(sender)
    }

    /// Writes one, as soon as may be.
    pub fn tell(&self, line: String) {
        let _ = self.0.try_send(line);
    }
}
