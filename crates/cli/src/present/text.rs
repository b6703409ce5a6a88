//! Running text: lines that fit, characters that do no harm, numbers with their nouns.

/// `text` as lines of at most `width` columns: the first begins with `first`, the others with `rest`; each ends with a
/// newline. A word that does not fit on any line stays whole.
#[must_use]
pub fn wrap(text: &str, width: usize, first: &str, rest: &str) -> String {
    let (mut out, mut line, mut words_on_line) = (String::new(), first.to_owned(), 0);
    for word in text.split_whitespace() {
        let needed = columns(&line) + usize::from(words_on_line > 0) + columns(word);
        if words_on_line > 0 && needed > width {
            out += &line;
            out.push('\n');
            line = rest.to_owned();
            words_on_line = 0;
        }
        if words_on_line > 0 {
            line.push(' ');
        }
        line += word;
        words_on_line += 1;
    }
    out + &line + "\n"
}

/// `text` in at most `width` columns; what is left out shows as `…`.
#[must_use]
pub fn elide(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}

/// `text` without control characters, but for newlines: those that a guest or a device put there could otherwise write
/// to the terminal's title, its clipboard or over other lines.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// `1 step`, `2 steps`.
#[must_use]
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Columns that `text` takes. Names here are ASCII or nearly so: a character is a column.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 9, "- ", "    "), "- one two\n    three\n");
        assert_eq!(wrap("0123456789", 4, "", "  "), "0123456789\n", "nothing to break at");
        assert_eq!(wrap("", 9, "x", ""), "x\n");
    }

    #[test]
    fn what_is_left_out_shows() {
        assert_eq!(elide("82576 Gigabit", 13), "82576 Gigabit");
        assert_eq!(elide("82576 Gigabit", 7), "82576…", "no space before the dots");
    }
}
