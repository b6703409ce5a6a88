//! Text that others wrote (QEMU, and through it a guest), made fit for an error message or a log line.

/// At most `max` characters of `text`, with every control character shown as a space.
pub(crate) fn printable(text: &str, max: usize) -> String {
    text.trim().chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The end of `text`, at most about `max` bytes, as lines joined by "; " without control characters.
pub(crate) fn last_words(text: &[u8], max: usize) -> String {
    let tail = &text[text.len().saturating_sub(max)..];
    let tail = String::from_utf8_lossy(tail);
    let lines: Vec<_> =
        tail.lines().map(|line| printable(line, max)).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\u{9b}c\n", 99), "a [31mb c");
        assert_eq!(printable("abcdef", 3), "abc");
    }

    #[test]
    fn the_last_words_are_the_last_ones() {
        assert_eq!(last_words(b"first\nsecond\r\n\nthird\xff", 15), "second; third\u{fffd}");
        assert_eq!(last_words(b"", 15), "");
    }
}
