//! A line of text that is typed.

use super::key::Key;

/// The most characters that are taken: a path may be long.
const MOST: usize = 4096;

/// A line of text with a cursor in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    characters: Vec<char>,
    /// Before which character the cursor stands.
    cursor: usize,
}

impl Input {
    /// A line that has this text already, the cursor behind it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let characters: Vec<char> = text.chars().collect();
        Self { cursor: characters.len(), characters }
    }

    /// The text typed so far, trimmed.
    #[must_use]
    pub fn text(&self) -> String {
        self.characters.iter().collect::<String>().trim().to_owned()
    }

    /// The visible part in so many columns, which contains the cursor, and the cursor's column.
    #[must_use]
    pub fn visible(&self, columns: usize) -> (String, usize) {
        let first = (self.cursor + 1).saturating_sub(columns);
        (self.characters.iter().skip(first).take(columns).collect(), self.cursor - first)
    }

    /// Takes a key that edits.
    pub fn key(&mut self, key: Key) {
        match key {
            Key::Char(c) if !c.is_control() && self.characters.len() < MOST => {
                self.characters.insert(self.cursor, c);
                self.cursor += 1;
            }
            Key::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.characters.remove(self.cursor);
            }
            Key::Delete if self.cursor < self.characters.len() => {
                self.characters.remove(self.cursor);
            }
            Key::Left => self.cursor = self.cursor.saturating_sub(1),
            Key::Right => self.cursor = (self.cursor + 1).min(self.characters.len()),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.characters.len(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_edited_where_the_cursor_stands() {
        let mut input = Input::new("vmlinz");
        for key in
            [Key::Left, Key::Char('u'), Key::Home, Key::Char('/'), Key::Delete, Key::Backspace, Key::End]
        {
            input.key(key);
        }
        assert_eq!(input.text(), "mlinuz");
        input.key(Key::Delete);
        input.key(Key::Char('\u{1b}'));
        assert_eq!((input.text(), input.visible(80)), ("mlinuz".to_owned(), ("mlinuz".to_owned(), 6)));
        assert_eq!(input.visible(4), ("nuz".to_owned(), 3), "the cursor stays in sight");
    }
}
