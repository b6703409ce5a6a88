//! A guest seen through its serial console, as a person would use it: type a command, read what it prints.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a shell may take to answer before it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection to a guest's console: the Unix socket behind its ttyS0, with a root shell at the other end.
pub struct Guest {
    console: UnixStream,
    /// What was read and not yet looked at.
    unread: String,
    /// Numbers the commands, so that each one's output can be told from any other's.
    commands: u32,
}

impl Guest {
    /// Connects to a console and waits until the shell there answers, at most `bound`.
    ///
    /// # Errors
    /// When nothing listens on the socket, or no shell answers in time.
    pub fn connect(socket: &Path, bound: Duration) -> Result<Self, Box<dyn Error>> {
        let started = Instant::now();
        let console = loop {
            match UnixStream::connect(socket) {
                Ok(console) => break console,
                Err(error) if started.elapsed() > bound => {
                    return Err(format!("can't connect to {}: {error}", socket.display()).into());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let mut guest = Self { console, unread: String::new(), commands: 0 };
        // What is typed before the shell is there may be lost, or be answered much later: ask until there is any answer.
        while !guest.unread.contains("<ready>") {
            if started.elapsed() > bound {
                let seconds = bound.as_secs();
                return Err(format!("no shell on the console after {seconds} s: {}", guest.unread).into());
            }
            // The console shows what is typed, too; the backslashes keep that from looking like the answer. No quotes:
            // of a line whose beginning was lost, one would be left open, and take in all that is typed after it.
            guest.console.write_all(b"echo \\<rea\\dy\\>\n")?;
            let deadline = Instant::now() + PATIENCE;
            while !guest.unread.contains("<ready>") && guest.read_more(deadline)? {}
        }
        Ok(guest)
    }

    /// Runs a command and gives what it printed, stdout and stderr as they come, without the space around it.
    ///
    /// # Errors
    /// When it has not ended within `bound`, or ended with another status than 0: shows what it printed.
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
        // The console shows what is typed, too: the quotes in it keep that from looking like the markers.
        let (typed_begin, typed_end) = (begin.replace('>', "''>"), end.replace(':', "'':"));
        // One line, so that nothing else that is typed shows up between them.
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
                return Err(format!(
                    "`{command}` in the guest has not ended after {} s; the console shows: {}",
                    bound.as_secs(),
                    self.unread
                )
                .into());
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
                    return Err(format!("still on after {} s: {}", bound.as_secs(), self.unread).into());
                }
                Err(_) => return Ok(()),
            }
        }
    }

    /// Reads what is there; false at the deadline, an error when the console is gone.
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

/// The status and the output between two markers, and how much of the text was used up; none until it is whole.
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
    use super::*;

    #[test]
    fn what_is_typed_is_not_taken_for_the_answer() {
        let typed = "# echo '<begin1''>'; eval 'ls'; echo '<end1'':'$?'>'\r\n";
        assert_eq!(find_answer(typed, "<begin1>", "<end1:"), None);
        let whole = format!("{typed}<begin1>\r\na\r\n<end1:0>\r\n# ");
        let ((status, printed), used) = find_answer(&whole, "<begin1>", "<end1:").unwrap();
        assert_eq!((status, printed.as_str()), (0, "a"));
        assert_eq!(&whole[used..], "\r\n# ");
    }

    #[test]
    fn half_an_answer_is_waited_for() {
        assert_eq!(find_answer("<begin1>\r\na\r\n<end1:12", "<begin1>", "<end1:"), None);
    }
}
