//! Running text: lines that fit, characters that do no harm, numbers with their nouns.

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `text` as lines of at most `width` columns: the first begins with `first`, the others with `rest`; each ends with a
/// newline. A word that does not fit on any line stays whole.
#[must_use]
pub fn wrap(text: &str, width: usize, first: &str, rest: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() {
        return format!("{first}\n");
    }
    let options = Options::new(width)
        .initial_indent(first)
        .subsequent_indent(rest)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::wrap(&words, options).iter().map(|line| format!("{line}\n")).collect()
}

/// `text` in at most `width` columns; what is left out shows as `…`.
#[must_use]
pub fn elide(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let needed = c.width().unwrap_or(0);
        let fits = needed <= left;
        left = left.saturating_sub(needed);
        fits
    };
    text.chars().take_while(fits).collect::<String>().trim_end().to_owned() + "…"
}

/// `text` with spaces behind it, up to so many columns.
#[must_use]
pub fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// A sort key for names, so that `net2` comes before `net10`: runs of digits count as numbers.
#[must_use]
pub fn natural(text: &str) -> Vec<(bool, usize, String)> {
    let mut parts: Vec<(bool, usize, String)> = Vec::new();
    for c in text.chars() {
        let is_digit = c.is_ascii_digit();
        match parts.last_mut() {
            Some((digits, length, part)) if *digits == is_digit => {
                *length += usize::from(is_digit && (*length > 0 || c != '0'));
                part.push(c);
            }
            _ => parts.push((is_digit, usize::from(is_digit && c != '0'), c.to_string())),
        }
    }
    // Of two numbers without their leading zeros the longer one is the greater.
    for (is_digits, _, part) in &mut parts {
        if *is_digits {
            *part = part.trim_start_matches('0').to_owned();
        }
    }
    parts
}

/// `text` without control characters, but for newlines: those that a guest or a device put there could otherwise write
/// to the terminal's title, its clipboard or over other lines. Nor with characters that turn the direction of writing, by which
/// a name could put itself in the place of what comes after it.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if harms(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The text of JSON with such characters as `\uXXXX` (RFC 8259 §7): serde_json escapes those below U+0020 only. They are in strings,
/// where that means the same.
#[must_use]
pub fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if harms(c) {
            escaped += &format!("\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn harms(c: char) -> bool {
    // Bidi_Control of the Unicode Character Database (UAX #9); all of them have four digits.
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() && c != '\n' || turns
}

/// The same lines; those that begin with the sign of a diff or of a finding are in colour (ECMA-48 SGR).
#[must_use]
pub fn coloured(text: &str) -> String {
    let colour = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let mut rest = line[indent..].chars();
        let colour = match (rest.next(), rest.next()) {
            (Some('+' | '✓'), Some(' ')) => 32,
            (Some('-' | '✗'), Some(' ')) => 31,
            (Some('~' | '!'), Some(' ')) => 33,
            _ => return line.to_owned(),
        };
        let (ended, newline) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        format!("{}\x1b[{colour}m{}\x1b[0m{newline}", &line[..indent], &ended[indent..])
    };
    text.split_inclusive('\n').map(colour).collect()
}

/// `1 step`, `2 steps`.
#[must_use]
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// A text as one word of a shell's command line.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Columns that `text` takes on a terminal.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.width()
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
    fn a_wide_character_takes_two_columns() {
        assert_eq!((columns("日本"), columns("e\u{301}")), (4, 1));
        assert_eq!(wrap("日本 日本", 8, "", ""), "日本\n日本\n");
        assert_eq!(elide("日本語", 4), "日…");
        assert_eq!(pad("日", 4), "日  ");
    }

    #[test]
    fn what_moves_the_cursor_or_turns_the_direction_is_not_passed_on() {
        assert_eq!(printable("a\x1b[2J\u{9b}b\r\n\tc"), "a\u{fffd}[2J\u{fffd}b\u{fffd}\n\u{fffd}c");
        assert_eq!(printable("eth\u{202e}0 \u{2067}x\u{200f}"), "eth\u{fffd}0 \u{fffd}x\u{fffd}");
        assert_eq!(printable("größe 日本 עברית"), "größe 日本 עברית");
    }

    #[test]
    fn json_means_the_same_without_what_a_terminal_acts_upon() {
        let value = serde_json::json!({"a\u{9b}31m": "\u{1b}]0;x\u{7}\u{7f}\u{9d}\u{202e}\n<b>größe"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let escaped = escaped_json(&text);
        assert_ne!(escaped, text);
        assert_eq!(printable(&escaped), escaped);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["net10", "net2", "net", "db", "net02b", "net2a"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["db", "net", "net2", "net2a", "net02b", "net10"]);
    }

    #[test]
    fn lines_with_signs_are_in_colour() {
        let expected =
            "plan\n  \x1b[32m+ new\x1b[0m\n  \x1b[33m~ changed\x1b[0m\n\x1b[31m✗ missing\x1b[0m\n    -5\n";
        assert_eq!(coloured("plan\n  + new\n  ~ changed\n✗ missing\n    -5\n"), expected);
    }

    #[test]
    fn a_hostile_name_is_one_word_for_a_shell() {
        for (text, word) in
            [("web", "web"), ("my web", "'my web'"), ("it's;x", r"'it'\''s;x'"), ("-x", "'-x'"), ("", "''")]
        {
            assert_eq!(shell_word(text), word);
        }
    }

    #[test]
    fn what_is_left_out_shows() {
        assert_eq!(elide("82576 Gigabit", 13), "82576 Gigabit");
        assert_eq!(elide("82576 Gigabit", 7), "82576…", "no space before the dots");
    }
}
