//! `ioward serve`: runs the daemon, with its log on stderr. `ioward imp`: the part of it that people and guests speak with, in a
//! process of its own.

use std::{io, path::PathBuf};

use ioward_imp::ServeConfig;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

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
    let wanted = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let on_terminal = io::IsTerminal::is_terminal(&io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(on_terminal);
    tracing_subscriber::registry().with(lines).with(targets(&wanted)).init();
}

/// From `info`, or `info,ioward_imp=debug`. What makes no sense, or nothing at all, is `info`.
fn targets(wanted: &str) -> Targets {
    let parsed = wanted.parse().ok().filter(|_| !wanted.trim().is_empty());
    parsed.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::targets;

    #[test]
    fn the_log_variable_names_a_level_for_all_or_for_some() {
        let default = |wanted: &str| targets(wanted).default_level();
        assert_eq!(default(""), Some(LevelFilter::INFO));
        assert_eq!(default("ioward_imp=loud"), Some(LevelFilter::INFO));
        assert_eq!(default("warn"), Some(LevelFilter::WARN));
        let some = targets("info,ioward_imp=debug");
        assert_eq!(some.default_level(), Some(LevelFilter::INFO));
        let debug = LevelFilter::DEBUG.into_level().unwrap();
        assert!(some.would_enable("ioward_imp::drift", &debug));
        assert!(!some.would_enable("hyper", &debug));
    }
}
