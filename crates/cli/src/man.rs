//! `ioward man`: manual pages, made from what the command line takes, so that they cannot say anything else.

use clap::CommandFactory;
use clap_mangen::Man;

use crate::{args::Cli, error::CliError, terminal};

/// Prints the page of ioward, or of one of its commands.
///
/// # Errors
/// When there is no such command, or stdout takes nothing.
pub fn page(command: Option<&str>) -> Result<(), CliError> {
    let mut ioward = Cli::command();
    // Gives each command its full name, as ioward-apply, and the options that all have.
    ioward.build();
    let found = match command {
        None => Some(&ioward),
        Some(name) => ioward.find_subcommand(name),
    };
    let missing = || {
        CliError::Usage(format!("ioward has no command '{}'; see: ioward help", command.unwrap_or_default()))
    };
    // At the foot of a page stands what it belongs to: ioward of this version, for its commands too.
    let source = format!("ioward {}", env!("CARGO_PKG_VERSION"));
    let mut page = Vec::new();
    let man = Man::new(found.ok_or_else(missing)?.clone()).source(source);
    man.render(&mut page).map_err(CliError::Output)?;
    terminal::print_raw(&String::from_utf8_lossy(&page))
}
