//! Free text from the channel that reaches a terminal or a log.

/// The text with every control character replaced by a space, cut to at most `max` bytes.
pub fn clean(text: &str, max: usize) -> String {
    let mut cleaned: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cleaned.len() > max {
        let ellipsis = "…";
        cleaned.truncate(cleaned.floor_char_boundary(max.saturating_sub(ellipsis.len())));
        cleaned.push_str(ellipsis);
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn control_characters_are_replaced_and_text_is_cut_between_characters() {
        assert_eq!(clean("a\x1b[2Jb\n", 40), "a [2Jb ");
        assert_eq!(clean("ääää", 7), "ää…");
        assert_eq!(clean("ääää", 8), "ääää");
    }
}
