//! Asking a person, wherever there is one: on stdin, or on the terminal that the command was started from.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, IsTerminal, Write},
    os::fd::AsFd,
};

use rustix::fs::{FileType, fstat};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::CliError;

/// The terminal that a process was started from, whatever its stdin is.
const TERMINAL: &str = "/dev/tty";

/// Asks for a yes or a no; `None` where nobody can be asked. Anything but a clear yes is a no. `stdin_is_read`: something else has
/// come from stdin already, and no answer will.
///
/// # Errors
/// When Ctrl-C comes instead of an answer.
pub async fn agreed(question: &str, stdin_is_read: bool) -> Result<Option<bool>, CliError> {
    let question = format!("\n{question} [y/N] ");
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Start)?;
    // It can't be taken back, and may outlive this process's interest in it.
    let answer = tokio::task::spawn_blocking(move || answer(&question, stdin_is_read));
    tokio::select! {
        answer = answer => Ok(answer.unwrap_or_default().map(|answer| is_yes(&answer))),
        _ = interrupt.recv() => Err(CliError::InterruptedBefore),
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// The line that was typed or piped. The end of a terminal's input is an answer too: an empty one.
fn answer(question: &str, stdin_is_read: bool) -> Option<String> {
    let stdin = io::stdin();
    if stdin.is_terminal() && !stdin_is_read {
        return Some(asked(&mut io::stderr(), question, &mut stdin.lock()));
    }
    if !stdin_is_read && may_hold_an_answer(&stdin) {
        let answer = asked(&mut io::stderr(), question, &mut stdin.lock());
        let _ = io::stderr().write_all(b"\n");
        if !answer.is_empty() {
            return Some(answer);
        }
    }
    let mut terminal = terminal()?;
    let mut reader = BufReader::new(terminal.try_clone().ok()?);
    Some(asked(&mut terminal, question, &mut reader))
}

/// A pipe or a file: `echo n | ioward apply`. What has no end and no writer, as a socket that a service manager leaves there, is
/// not waited for.
fn may_hold_an_answer(stdin: &impl AsFd) -> bool {
    let kind = fstat(stdin).map(|stat| FileType::from_raw_mode(stat.st_mode));
    matches!(kind, Ok(FileType::Fifo | FileType::RegularFile))
}

/// The terminal, where somebody is before it: one of the outputs goes there.
fn terminal() -> Option<File> {
    let is_watched = io::stderr().is_terminal() || io::stdout().is_terminal();
    is_watched.then(|| OpenOptions::new().read(true).write(true).open(TERMINAL).ok())?
}

fn asked(to: &mut impl Write, question: &str, from: &mut impl BufRead) -> String {
    let _ = to.write_all(question.as_bytes()).and_then(|()| to.flush());
    let mut answer = String::new();
    let _ = from.read_line(&mut answer);
    answer
}
