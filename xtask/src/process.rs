//! Running programs, with errors that show the command.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// Runs a program with its output shown.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().map_err(|source| start_error(command, source))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Program { command: line(command), status, said: String::new() })
    }
}

/// The same with its output on our stderr, for what must not get into the output of `lab run`.
pub fn run_aside(command: &mut Command) -> Result<()> {
    run(command.stdout(std::io::stderr()))
}

/// The same, and tells each line that it prints, to either of its outputs. It prints to no terminal then.
pub fn run_and_tell(command: &mut Command, mut tell: impl FnMut(&str)) -> Result<()> {
    let other = |source: std::io::Error| Error::Other(format!("reading what a program prints: {source}"));
    let (reader, writer) = std::io::pipe().map_err(other)?;
    command.stdout(writer.try_clone().map_err(other)?).stderr(writer).stdin(Stdio::null());
    let mut child = command.spawn().map_err(|source| start_error(command, source))?;
    // Our own ends of the pipe, which would keep it open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).map_err(other)? > 0 {
        // Whoever has stopped reading ends no test.
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
        tell(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    let status = child.wait().map_err(other)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Program { command: self::line(command), status, said: String::new() })
}

/// Runs a program and gives what it wrote to stdout.
pub fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().map_err(|source| start_error(command, source))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = format!(":\n{}", String::from_utf8_lossy(&stderr).trim_end());
    Err(Error::Program { command: line(command), status, said })
}

/// The command line, for messages.
pub fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| shell_word(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word as a POSIX shell reads it back.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_program_prints_is_told_and_its_failure_is_one() {
        let mut told = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; printf three; exit 3"]);
        assert!(run_and_tell(&mut command, |line| told.push(line.to_owned())).is_err());
        assert_eq!(told, ["one", "two", "three"]);
    }

    #[test]
    fn words_survive_a_shell() {
        for word in ["plain", "", "two words", "it's", "$HOME", "a;b", "*", "new\nline"] {
            let read_back =
                output(Command::new("sh").arg("-c").arg(format!("printf %s {}", shell_word(word)))).unwrap();
            assert_eq!(read_back, word);
        }
    }
}
