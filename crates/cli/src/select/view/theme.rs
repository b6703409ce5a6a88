//! How things look: with colours, or by bold, reversed and dim alone.

use ratatui::style::{Color, Modifier, Style};

use crate::terminal;

/// Whether there are colours. What they say is said in words or signs too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    colours: bool,
}

impl Theme {
    /// The theme that the environment asks for: NO_COLOR (no-color.org) and TERM.
    #[must_use]
    pub fn of(no_color: Option<&str>, term: Option<&str>) -> Self {
        Self { colours: terminal::has_colours(no_color, term) }
    }

    fn coloured(self, colour: Color, plain: Style) -> Style {
        if self.colours { Style::new().fg(colour) } else { plain }
    }

    /// The first line.
    pub(super) fn title(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Over a list; that which the cursor is in stands out.
    pub(super) fn heading(self, is_focus: bool) -> Style {
        let focus = if is_focus { Modifier::UNDERLINED } else { Modifier::empty() };
        Style::new().add_modifier(Modifier::BOLD | focus)
    }

    /// Under the cursor.
    pub(super) fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Rows that can't be chosen.
    pub(super) fn grey(self) -> Style {
        self.coloured(Color::DarkGray, Style::new().add_modifier(Modifier::DIM))
    }

    /// A word on what was done, or why not.
    pub(super) fn note(self) -> Style {
        self.coloured(Color::Yellow, Style::new().add_modifier(Modifier::BOLD))
    }

    /// The last line.
    pub(super) fn help(self) -> Style {
        self.coloured(Color::Cyan, Style::new())
    }

    /// A line that begins with a sign of a diff.
    pub(super) fn of_sign(self, sign: Option<char>) -> Style {
        match sign {
            Some('+') => self.coloured(Color::Green, Style::new()),
            Some('~') => self.coloured(Color::Yellow, Style::new()),
            Some('-') => self.coloured(Color::Red, Style::new()),
            _ => Style::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_colours_unless_somebody_says_no() {
        for (no_color, term, colours) in [
            (None, Some("xterm-256color"), true),
            (Some(""), Some("linux"), true),
            (Some("1"), Some("xterm-256color"), false),
            (None, Some("dumb"), false),
            (None, Some("vt220"), false),
            (None, None, false),
        ] {
            assert_eq!(Theme::of(no_color, term), Theme { colours }, "{no_color:?} {term:?}");
        }
    }
}
