//! `ioward man` and `ioward completions`: made from what the command line takes, so that they cannot say anything else.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{args::Cli, error::CliError, terminal};

/// Prints the page of ioward, or of one of its commands.
///
/// # Errors
/// When there is no such command, or stdout takes nothing.
pub fn page(command: &[String]) -> Result<(), CliError> {
    let mut ioward = Cli::command();
    // Gives each command its full name, as ioward-apply, and the options that all have.
    ioward.build();
    let mut found = &ioward;
    for name in command {
        let missing =
            || CliError::Usage(format!("ioward has no command '{}'; see: ioward help", command.join(" ")));
        found = found.find_subcommand(name).ok_or_else(missing)?;
    }
    // At the foot of a page stands what it belongs to: ioward of this version, for its commands too.
    let source = format!("ioward {}", env!("CARGO_PKG_VERSION"));
    let mut page = Vec::new();
    let man = Man::new(found.clone()).source(source);
    man.render(&mut page).map_err(CliError::Output)?;
    terminal::print_raw(&String::from_utf8_lossy(&page))
}

/// Prints what a shell needs to complete the command line.
///
/// # Errors
/// When stdout takes nothing.
pub fn completions(shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    let all = Cli::command();
    // Hidden commands are left out.
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut typed = Command::new("ioward").args(all.get_arguments().cloned()).subcommands(shown);
    clap_complete::generate(shell, &mut typed, "ioward", &mut script);
    terminal::print_raw(&String::from_utf8_lossy(&script))
}
