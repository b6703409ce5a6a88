//! Keys, as the model of the screen knows them.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A key that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Esc,
    /// To the next thing.
    Tab,
    /// To the thing before.
    BackTab,
    /// One up.
    Up,
    /// One down.
    Down,
    /// Left.
    Left,
    /// Right.
    Right,
    /// To the first.
    Home,
    /// To the last.
    End,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// Takes the character before the cursor.
    Backspace,
    /// Takes the character under the cursor.
    Delete,
    /// Ctrl-C.
    Interrupt,
}

impl Key {
    /// The key of a terminal's event, where it has a meaning here.
    #[must_use]
    pub fn of(event: KeyEvent) -> Option<Self> {
        if event.kind == KeyEventKind::Release {
            return None;
        }
        if event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            let ctrl_c = event.modifiers == KeyModifiers::CONTROL && event.code == KeyCode::Char('c');
            return ctrl_c.then_some(Self::Interrupt);
        }
        Some(match event.code {
            KeyCode::Char(c) => Self::Char(c),
            KeyCode::Enter => Self::Enter,
            KeyCode::Esc => Self::Esc,
            KeyCode::Tab => Self::Tab,
            KeyCode::BackTab => Self::BackTab,
            KeyCode::Up => Self::Up,
            KeyCode::Down => Self::Down,
            KeyCode::Left => Self::Left,
            KeyCode::Right => Self::Right,
            KeyCode::Home => Self::Home,
            KeyCode::End => Self::End,
            KeyCode::PageUp => Self::PageUp,
            KeyCode::PageDown => Self::PageDown,
            KeyCode::Backspace => Self::Backspace,
            KeyCode::Delete => Self::Delete,
            _ => return None,
        })
    }

    /// Where a cursor in a list of `length` goes, with so many lines to a page; `None`: this key does not move it.
    /// The letters are those of vi and less.
    #[must_use]
    pub fn moves(self, at: usize, length: usize, page: usize) -> Option<usize> {
        let last = length.saturating_sub(1);
        let to = match self {
            Self::Up | Self::Char('k') => at.saturating_sub(1),
            Self::Down | Self::Char('j') => at.saturating_add(1),
            Self::PageUp => at.saturating_sub(page.max(1)),
            Self::PageDown => at.saturating_add(page.max(1)),
            Self::Home | Self::Char('g') => 0,
            Self::End | Self::Char('G') => last,
            _ => return None,
        };
        Some(to.min(last))
    }
}
