//! Columns under titles. The last column takes the room that is left and breaks its lines there.

use super::text;

/// How a column stands under its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table, built row by row.
pub struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    lines: Vec<Line<N>>,
}

enum Line<const N: usize> {
    Row([String; N]),
    Note(String),
}

/// Between two columns.
const GAP: &str = "  ";
/// The last column is not made narrower than this, whatever the terminal.
const LAST_COLUMN_MIN: usize = 20;

impl<const N: usize> Table<N> {
    /// An empty table.
    #[must_use]
    pub fn new(columns: [(&'static str, Align); N]) -> Self {
        Self { columns, lines: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; N]) {
        self.lines.push(Line::Row(cells));
    }

    /// Adds a line about the row above.
    pub fn note(&mut self, note: &str) {
        self.lines.push(Line::Note(note.to_owned()));
    }

    /// The table as text.
    #[must_use]
    pub fn render(&self, width: usize) -> String {
        let titles = self.columns.map(|(title, _)| title.to_owned());
        let mut widths = self.columns.map(|(title, _)| text::columns(title));
        for line in &self.lines {
            if let Line::Row(cells) = line {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = (*width).max(text::columns(cell));
                }
            }
        }
        let before_last: usize = widths.iter().rev().skip(1).map(|width| width + GAP.len()).sum();
        let last = width.saturating_sub(before_last).max(LAST_COLUMN_MIN);
        let mut out = self.row_text(&titles, &widths, last);
        for line in &self.lines {
            match line {
                Line::Row(cells) => out += &self.row_text(cells, &widths, last),
                Line::Note(note) => out += &text::wrap(note, width, "  ", "    "),
            }
        }
        out
    }

    fn row_text(&self, cells: &[String; N], widths: &[usize; N], last: usize) -> String {
        let mut line = String::new();
        for (n, ((cell, width), (_, align))) in cells.iter().zip(widths).zip(self.columns).enumerate() {
            let cell_text = match align {
                Align::Right => " ".repeat(width.saturating_sub(text::columns(cell))) + cell,
                Align::Left if n + 1 < N => text::pad(cell, *width),
                Align::Left => {
                    let indent = format!("\n{}", " ".repeat(text::columns(&line)));
                    text::wrap(cell, last, "", "").trim_end().replace('\n', &indent)
                }
            };
            line += &cell_text;
            if n + 1 < N {
                line += GAP;
            }
        }
        line.trim_end().to_owned() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_the_last_column_breaks() {
        let mut table = Table::new([("NAME", Align::Left), ("N", Align::Right), ("WHAT", Align::Left)]);
        table.row(["a".into(), "10".into(), "some words that need more room than there is".into()]);
        table.note("it is new");
        table.row(["longer".into(), "1".into(), String::new()]);
        let expected = "\
NAME     N  WHAT
a       10  some words that need
            more room than there
            is
  it is new
longer   1
";
        assert_eq!(table.render(32), expected);
    }
}
