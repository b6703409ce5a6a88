//! The standard streams, and the one way to stdout.

use std::{
    env,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use crate::{error::CliError, present::text};

/// Columns for people where there is no terminal to ask.
pub const DEFAULT_WIDTH: usize = 80;

/// Columns of a terminal; `None` where the stream is none.
#[must_use]
pub fn width(stream: impl IsTerminal + AsFd) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    // A serial console answers 0 columns: it does not know.
    let columns = rustix::termios::tcgetwinsize(stream).map_or(0, |size| usize::from(size.ws_col));
    Some(if columns == 0 { DEFAULT_WIDTH } else { columns.max(40) })
}

/// Columns to lay text for people out in.
#[must_use]
pub fn page_width() -> usize {
    width(io::stdout()).unwrap_or(DEFAULT_WIDTH)
}

/// Prints text for people. What came from devices and guests is in it: control characters are not passed on.
///
/// # Errors
/// When stdout takes nothing; that its reader has gone is one case.
pub fn print(text: &str) -> Result<(), CliError> {
    print_raw(&text::printable(text))
}

/// Terminals without colours, by the beginning of their names.
const PLAIN: [&str; 5] = ["dumb", "vt1", "vt2", "vt3", "xterm-mono"];

/// Whether there are colours, by NO_COLOR (no-color.org) and TERM.
#[must_use]
pub fn has_colours(no_color: Option<&str>, term: Option<&str>) -> bool {
    let wants_none = no_color.is_some_and(|value| !value.is_empty());
    let has_none =
        term.is_none_or(|term| term.is_empty() || PLAIN.iter().any(|plain| term.starts_with(plain)));
    !wants_none && !has_none
}

/// Prints text for people in which lines begin with signs: on a terminal, those are in colour.
///
/// # Errors
/// As [`print`].
pub fn print_signs(text: &str) -> Result<(), CliError> {
    let variable = |name| env::var(name).ok();
    let (no_color, term) = (variable("NO_COLOR"), variable("TERM"));
    let in_colour = io::stdout().is_terminal() && has_colours(no_color.as_deref(), term.as_deref());
    let text = text::printable(text);
    print_raw(&if in_colour { text::coloured(&text) } else { text })
}

/// Prints a value as JSON that is easy on the eye.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value).map_err(|e| CliError::Output(e.into()))?;
    print_json_text(&(json + "\n"))
}

/// Prints the text of JSON; what a terminal would act upon is escaped in it, and means the same.
///
/// # Errors
/// As [`print`].
pub fn print_json_text(json: &str) -> Result<(), CliError> {
    print_raw(&text::escaped_json(json))
}

/// Prints text as it is: for JSON, and for what moves the cursor.
///
/// # Errors
/// As [`print`].
pub fn print_raw(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::Output)
}
