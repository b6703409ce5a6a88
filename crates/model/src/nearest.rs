//! What somebody may have meant who misspelt a word.

/// The word that `unknown` is a misspelling of: the one with the fewest slips (a letter too many, too few, wrong, or two in each
/// other's place), one slip for each three letters at most; failing that, one that begins with the other. `None`: nothing is near.
#[must_use]
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let letters = unknown.chars().count();
    let slips = |word: &str| {
        let allowed = (word.chars().count() / 3).max(1);
        // Words of such different lengths are not compared: the unknown one may be as long as it likes.
        (letters.abs_diff(word.chars().count()) <= allowed)
            .then(|| strsim::damerau_levenshtein(unknown, word))
            .filter(|slips| *slips <= allowed)
    };
    let misspelt = known.clone().into_iter().filter_map(|word| Some((slips(word)?, word))).min();
    let cut_short = |word: &&str| {
        letters.min(word.len()) >= 3 && (word.starts_with(unknown) || unknown.starts_with(word))
    };
    misspelt.map(|(_, word)| word).or_else(|| known.into_iter().find(cut_short))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 7] = ["name", "class", "mac", "vlan", "max_tx_rate", "memory", "cpus"];

    /// 'mca' and 'mac' have one letter in place by the measure that was used before, and no suggestion was made.
    #[test]
    fn two_letters_in_each_others_place_are_one_slip() {
        for (unknown, meant) in [("mca", "mac"), ("vlna", "vlan"), ("memroy", "memory"), ("cpsu", "cpus")] {
            assert_eq!(nearest(unknown, KEYS), Some(meant), "{unknown}");
        }
    }

    #[test]
    fn a_word_that_was_cut_short_or_went_on_is_known_again() {
        for (unknown, meant) in
            [("mem", "memory"), ("mac_address", "mac"), ("cpu", "cpus"), ("clas", "class")]
        {
            assert_eq!(nearest(unknown, KEYS), Some(meant), "{unknown}");
        }
    }

    #[test]
    fn what_is_near_nothing_brings_nothing() {
        let long = "m".repeat(1 << 20);
        for unknown in ["", "m", "colour", "tax", "rate", long.as_str()] {
            assert_eq!(nearest(unknown, KEYS), None, "{unknown:.9}");
        }
    }
}
