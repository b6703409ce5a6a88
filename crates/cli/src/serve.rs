//! `ioward serve`: runs the daemon, with its log on stderr. `ioward imp`: the part of it that people and guests speak with, in a
//! process of its own.

use std::{io, path::PathBuf};

use ioward_imp::ServeConfig;
use tracing_subscriber::EnvFilter;

use crate::{
    args::ServeArgs,
    error::{CliError, with_causes},
};

/// Which parts of the log are wanted, as `info` or `ioward_imp=debug`.
const LOG_VARIABLE: &str = "IOWARD_LOG";

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When the daemon can't start.
pub async fn serve(socket: PathBuf, args: ServeArgs) -> Result<(), CliError> {
    log();
    let ServeArgs { runtime_dir, state_dir, emulator } = args;
    let served = ioward_imp::serve(ServeConfig { socket, runtime_dir, state_dir, emulator }).await;
    served.map_err(|error| CliError::Serve(with_causes(&error)))
}

/// Is the management partition's process.
///
/// # Errors
/// When it can't begin.
pub fn imp() -> Result<(), CliError> {
    log();
    ioward_imp::confined().map_err(|error| CliError::Serve(with_causes(&error)))
}

fn log() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let on_terminal = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(on_terminal).init();
}
