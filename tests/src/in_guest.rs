//! `lab-guest PARTITION COMMAND`: runs a command in a guest through its console, and ends with its exit status. For
//! shell scripts in level 1 (lab/*.sh, `cargo xtask lab shell`). The console of a domain is where its definition has it: its
//! path takes the place of the partition.

#![forbid(unsafe_code)]

use std::{path::Path, process::ExitCode, time::Duration};

use ioward_tests::guest::Guest;

/// How long a guest may stay silent before its shell answers.
const SILENCE: Duration = Duration::from_secs(300);
/// Bound for a command.
const COMMAND: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [partition, command] = words.as_slice() else {
        eprintln!("usage: lab-guest PARTITION|CONSOLE COMMAND");
        return ExitCode::from(2);
    };
    let console = match Path::new(partition) {
        path if path.is_absolute() => path.to_owned(),
        name => Path::new("/run/ioward/partitions").join(name).join("console.sock"),
    };
    match Guest::connect(&console, SILENCE).and_then(|mut guest| guest.try_run(command, COMMAND)) {
        Ok((status, printed)) => {
            println!("{printed}");
            ExitCode::from(status)
        }
        Err(error) => {
            eprintln!("lab-guest: {partition}: {error}");
            ExitCode::FAILURE
        }
    }
}
