//! A pseudo-terminal, for what depends on one.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

/// Far above what anything here takes: whoever waits this long has found a bug, which is not to hang the test.
const LONG: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };

/// A terminal with a person (the test) before it.
pub struct Terminal {
    person: File,
    process: File,
}

impl Terminal {
    pub fn new() -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let process = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        Self { person: person.into(), process }
    }

    pub fn start(&self, mut command: Command) -> Child {
        let stream = || Stdio::from(self.process.try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap()
    }

    /// Reads until this text has come; gives all that came.
    pub fn wait_for(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(text.as_bytes()) {
            let something = poll(&mut [PollFd::new(&self.person, PollFlags::IN)], Some(&LONG)).unwrap() == 1;
            assert!(something, "no {text:?} after {}", String::from_utf8_lossy(&seen));
            let mut byte = [0];
            self.person.read_exact(&mut byte).unwrap();
            seen.extend(byte);
        }
        String::from_utf8(seen).unwrap()
    }

    pub fn type_in(&mut self, text: &[u8]) {
        self.person.write_all(text).unwrap();
    }

    /// Writes as a process on the terminal does.
    pub fn echo(&mut self, text: &str) {
        self.process.write_all(text.as_bytes()).unwrap();
    }

    /// Gives the terminal a size.
    pub fn resize(&self, columns: u16, lines: u16) {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.process, size).unwrap();
    }

    /// Reads until the screen shows this, but for spaces at the ends of lines.
    pub fn wait_for_screen(&mut self, screen: &mut vt100::Parser, text: &str) {
        let shown = |screen: &vt100::Parser| {
            let contents = screen.screen().contents();
            contents.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
        };
        while !shown(screen).contains(text.trim_end()) {
            let something = poll(&mut [PollFd::new(&self.person, PollFlags::IN)], Some(&LONG)).unwrap() == 1;
            assert!(something, "no {text:?} on\n{}", screen.screen().contents());
            let mut bytes = [0; 4096];
            let count = self.person.read(&mut bytes).unwrap();
            screen.process(&bytes[..count]);
        }
    }

    pub fn is_raw(&self) -> bool {
        !tcgetattr(&self.process).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }
}
