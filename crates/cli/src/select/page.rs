//! A text that is read: what the keys do, why something is not possible.

use super::key::Key;
use crate::present::text;

/// A text that is longer than the screen, perhaps.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its title.
    pub title: String,
    text: String,
    /// The line that stands first.
    pub scroll: usize,
}

impl Page {
    /// This text, from its beginning.
    #[must_use]
    pub fn new(title: impl Into<String>, text: impl Into<String>) -> Self {
        Self { title: title.into(), text: text.into(), scroll: 0 }
    }

    /// The list of keys.
    #[must_use]
    pub fn keys() -> Self {
        Self::new("Keys", KEYS)
    }

    /// Its lines in so many columns.
    #[must_use]
    pub fn lines(&self, columns: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for line in self.text.lines() {
            if text::columns(line) <= columns {
                lines.push(line.to_owned());
                continue;
            }
            let indent: String = line.chars().take_while(|c| *c == ' ').collect();
            lines.extend(
                text::wrap(line, columns, &indent, &format!("{indent}  ")).lines().map(str::to_owned),
            );
        }
        lines
    }

    /// Takes a key. Whether the text is still read.
    pub fn key(&mut self, key: Key, page: usize, columns: usize) -> bool {
        match scrolled(key, self.scroll, self.lines(columns).len(), page) {
            Some(to) => self.scroll = to,
            None => return !matches!(key, Key::Esc | Key::Enter | Key::Char('q' | '?')),
        }
        true
    }
}

/// Where a key leads in a text of so many lines; `None`: it is not a key for that. The last page is a full one.
#[must_use]
pub fn scrolled(key: Key, at: usize, lines: usize, page: usize) -> Option<usize> {
    let key = if key == Key::Char(' ') { Key::PageDown } else { key };
    let places = lines.saturating_sub(page) + 1;
    key.moves(at, places, page)
}

const KEYS: &str = "\
Adapters
  VFS can be given at most, ON are there now, GIVEN belong to partitions, FREE
  could still be given; TO BE is how many there are to be.
  Enter       set how many VFs it is to give: a number, max, +2 for as many more
              than are assigned, or nothing for as many as are assigned
Partitions
  n           a new partition
  v           one more VF for the partition under the cursor
  Enter       on a VF: choose the function for it; on a partition: change it
  e           change what the partition or the VF is to be
  d           take a new partition or a VF away; on a VF that is to be given
              back: keep it after all
Functions for a VF
  Enter       take it; where it does not suit: all that is said about that
  right left  show the VFs of an adapter one by one, or not
Everywhere
  Tab         from the adapters to the partitions and back
  p           the plan: what would change, and whom that would disturb; from
              there a applies it
  s           save the choice as a Spec, for 'ioward apply -f'
  r           look at the host again
  up down, k j, PgUp PgDn, Home End, g G   move
  Esc         back
  q           leave
  Ctrl-C      leave, and be asked first where something would be lost; while a
              plan is carried out: have it undone
A sign before a name: + is new, ~ changes, - is given back.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_scrolls_to_its_last_page_and_no_further() {
        let mut page = Page::new("numbers", "1\n2\n3\n4\n5");
        assert!(page.key(Key::End, 2, 80));
        assert_eq!(page.scroll, 3);
        assert!(page.key(Key::Down, 2, 80) && page.scroll == 3);
        assert!(page.key(Key::Up, 2, 80) && page.scroll == 2);
        assert!(page.key(Key::Char('x'), 2, 80), "a key that means nothing");
        assert!(!page.key(Key::Esc, 2, 80));
        assert!(Page::keys().lines(80).iter().all(|line| text::columns(line) <= 80));
        assert_eq!(Page::new("", "  one two three").lines(10), ["  one two", "    three"]);
    }
}
