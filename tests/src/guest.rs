//! A guest's serial console, used as a person would: type a command, read its output.
//!
//! The boot time of a guest depends on the load of the machine: 7 s to several minutes were seen. So progress
//! decides: a guest that keeps printing is waited for, one that has been silent for long has hung. The error then
//! shows the end of its console and what its QEMU was doing.

use std::error::Error;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::level1::sh;

/// How long to wait for a shell before asking again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How long a guest may keep printing without a shell.
const NOISE: Duration = Duration::from_secs(20 * 60);
/// Number of console lines in an error.
const TAIL: usize = 40;

/// A connection to a guest's console: the Unix socket behind its ttyS0, with a root shell at the other end.
pub struct Guest {
    console: UnixStream,
    /// QEMU's log of the console, if any: it includes output from before anybody listened.
    log: PathBuf,
    /// Output not yet examined.
    unread: String,
    /// Numbers the commands, so that the output of each can be identified.
    commands: u32,
}

impl Guest {
    /// Connects to a console and waits until the shell there answers. The guest may stay silent for at most
    /// `silence`.
    ///
    /// # Errors
    /// When nothing listens on the socket, or no shell answers: with the output, and what QEMU was doing.
    pub fn connect(socket: &Path, silence: Duration) -> Result<Self, Box<dyn Error>> {
        let started = Instant::now();
        let console = loop {
            match UnixStream::connect(socket) {
                Ok(console) => break console,
                Err(error) if started.elapsed() > silence => {
                    return Err(format!("can't connect to {}: {error}", socket.display()).into());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let log = socket.with_extension("log");
        let mut guest = Self { console, log, unread: String::new(), commands: 0 };
        let mut signs = Signs { printed: 0, last: Instant::now() };
        // A line typed before the shell is there may be lost, or be answered much later: ask until there is any
        // answer.
        while !guest.unread.contains("<ready>") {
            let silent = signs.silence(guest.printed(), Instant::now());
            if silent > silence || started.elapsed() > NOISE {
                let (all, silent) = (started.elapsed().as_secs(), silent.as_secs());
                let why =
                    format!("no shell on the console after {all} s, the last {silent} s of them in silence");
                return Err(guest.hung(&why).into());
            }
            // The console echoes input, too; the backslashes keep the echo from looking like the answer. No quotes:
            // if the beginning of the line is lost, an open quote would swallow everything typed after it.
            guest.console.write_all(b"echo \\<rea\\dy\\>\n")?;
            let deadline = Instant::now() + ASK_AGAIN;
            while !guest.unread.contains("<ready>") && guest.read_more(deadline)? {}
        }
        Ok(guest)
    }

    /// Runs a command and returns its output, stdout and stderr combined, trimmed.
    ///
    /// # Errors
    /// When it has not ended within `bound`, or its exit status is not 0: shows its output.
    pub fn run(&mut self, command: &str, bound: Duration) -> Result<String, Box<dyn Error>> {
        match self.try_run(command, bound)? {
            (0, printed) => Ok(printed),
            (status, printed) => {
                Err(format!("`{command}` in the guest ended with {status}: {printed}").into())
            }
        }
    }

    /// The same, with the exit status, whatever it is.
    ///
    /// # Errors
    /// When it has not ended within `bound`.
    pub fn try_run(&mut self, command: &str, bound: Duration) -> Result<(u8, String), Box<dyn Error>> {
        self.commands += 1;
        let (begin, end) = (format!("<begin{}>", self.commands), format!("<end{}:", self.commands));
        // The console echoes input, too: the quotes keep the echo from looking like the markers.
        let (typed_begin, typed_end) = (begin.replace('>', "''>"), end.replace(':', "'':"));
        // One line, so that no other input shows up between them.
        let command_word = command.replace('\'', r"'\''");
        let line = format!("echo '{typed_begin}'; eval '{command_word}'; echo '{typed_end}'$?'>'\n");
        self.console.write_all(line.as_bytes())?;

        let deadline = Instant::now() + bound;
        loop {
            if let Some((answer, used)) = find_answer(&self.unread, &begin, &end) {
                self.unread.drain(..used);
                return Ok(answer);
            }
            if !self.read_more(deadline)? {
                let seconds = bound.as_secs();
                return Err(self.hung(&format!("`{command}` has not ended after {seconds} s")).into());
            }
        }
    }

    /// Waits for the machine to end: the end of file on its console.
    ///
    /// # Errors
    /// When it runs longer than `bound`.
    pub fn wait_until_off(mut self, bound: Duration) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + bound;
        loop {
            match self.read_more(deadline) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(self.hung(&format!("still on after {} s", bound.as_secs())).into());
                }
                Err(_) => return Ok(()),
            }
        }
    }

    /// How much the guest has printed, in bytes.
    fn printed(&self) -> u64 {
        let unread = self.unread.len() as u64;
        fs::metadata(&self.log).map_or(unread, |log| log.len().max(unread))
    }

    /// The text of an error about a guest that does not do what the test waits for.
    fn hung(&self, why: &str) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let console = last_lines(if log.is_empty() { &self.unread } else { &log }, TAIL);
        format!("{why}\n--- its console:\n{console}\n--- its machine:\n{}", machines())
    }

    /// Reads available output; false at the deadline, an error when the console is closed.
    fn read_more(&mut self, deadline: Instant) -> Result<bool, Box<dyn Error>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        self.console.set_read_timeout(Some(left))?;
        let mut buffer = [0; 4096];
        match self.console.read(&mut buffer) {
            Ok(0) => Err("the console is closed: the guest's machine has ended".into()),
            Ok(count) => {
                self.unread += &String::from_utf8_lossy(&buffer[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The guest's latest sign of life.
struct Signs {
    /// How much it had printed by then.
    printed: u64,
    last: Instant,
}

impl Signs {
    /// How long it has been silent at `now`, with this much printed.
    fn silence(&mut self, printed: u64, now: Instant) -> Duration {
        if printed > self.printed {
            *self = Self { printed, last: now };
        }
        now.duration_since(self.last)
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The state of this host's machines: each of their threads twice, a second apart. A spinning thread has used CPU
/// time in between; a waiting one shows where in the kernel it waits.
fn machines() -> String {
    let look = "ps -L -C qemu-system-x86_64 -o pid,lwp,stat,cputimes,wchan:24,comm";
    sh(&format!("cat /proc/loadavg; {look}; sleep 1; {look}")).unwrap_or_else(|error| error.to_string())
}

/// The status and the output between two markers, and the length of text used; `None` until it is complete.
fn find_answer(text: &str, begin: &str, end: &str) -> Option<((u8, String), usize)> {
    let after_begin = text.find(begin)? + begin.len();
    let at_end = after_begin + text[after_begin..].find(end)?;
    let after_end = at_end + end.len();
    let used = after_end + text[after_end..].find('>')? + 1;
    let status = text[after_end..used - 1].parse().ok()?;
    let printed = text[after_begin..at_end].replace('\r', "").trim().to_owned();
    Some(((status, printed), used))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_echo_is_not_taken_for_the_answer() {
        let typed = "# echo '<begin1''>'; eval 'ls'; echo '<end1'':'$?'>'\r\n";
        assert_eq!(find_answer(typed, "<begin1>", "<end1:"), None);
        let whole = format!("{typed}<begin1>\r\na\r\n<end1:0>\r\n# ");
        let ((status, printed), used) = find_answer(&whole, "<begin1>", "<end1:").unwrap();
        assert_eq!((status, printed.as_str()), (0, "a"));
        assert_eq!(&whole[used..], "\r\n# ");
    }

    /// A guest that took 120 s to reach its shell on a busy machine failed the demo, although it made progress.
    #[test]
    fn silence_counts_from_the_last_output() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut signs = Signs { printed: 0, last: start };
        assert_eq!(signs.silence(10, after(170)), Duration::ZERO);
        assert_eq!(signs.silence(10, after(300)), Duration::from_secs(130));
        assert_eq!(signs.silence(11, after(340)), Duration::ZERO);
    }

    /// It failed with "no shell on the console after 180 s", without a sign whether it had hung.
    #[test]
    fn a_hung_guest_is_reported_with_its_output() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("console.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        fs::write(folder.path().join("console.log"), "[    0.1] its last line\r\n").unwrap();
        let error = Guest::connect(&socket, Duration::ZERO).err().unwrap().to_string();
        assert!(error.contains("no shell on the console") && error.contains("its last line"), "{error}");
    }

    #[test]
    fn a_partial_answer_is_waited_for() {
        assert_eq!(find_answer("<begin1>\r\na\r\n<end1:12", "<begin1>", "<end1:"), None);
    }
}
