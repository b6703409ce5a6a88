//! Running programs, with errors that show the command.

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
    fn words_survive_a_shell() {
        for word in ["plain", "", "two words", "it's", "$HOME", "a;b", "*", "new\nline"] {
            let read_back =
                output(Command::new("sh").arg("-c").arg(format!("printf %s {}", shell_word(word)))).unwrap();
            assert_eq!(read_back, word);
        }
    }
}
