//! The apt source of a release's backports, derived from the machine's own sources: same place, same keys, another
//! suite. Formats: sources.list(5).

/// The suite that has a release's backports.
pub fn suite(codename: &str) -> String {
    format!("{codename}-backports")
}

/// Derives from a file in deb822 style; empty when nothing in it gives the release from one of `origins`.
///
/// The stanza is kept as it is, keys and options included, but for its suites. Security sources have none: their
/// suite is `<codename>-security` and does not match.
pub fn from_deb822(text: &str, codename: &str, origins: &[String]) -> String {
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let mut derived = String::new();
    for stanza in without_comments.split(|line| line.trim().is_empty()) {
        let field = |name: &str| {
            stanza.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then_some(value)
            })
        };
        let has =
            |name, wanted: &str| field(name).is_some_and(|v| v.split_whitespace().any(|word| word == wanted));
        let enabled = !field("Enabled").is_some_and(|value| value.trim().eq_ignore_ascii_case("no"));
        let from_origin =
            field("URIs").is_some_and(|uris| uris.split_whitespace().any(|uri| is_in(uri, origins)));
        if !(enabled && from_origin && has("Types", "deb") && has("Suites", codename)) {
            continue;
        }
        for line in stanza {
            let key = line.split(':').next().unwrap_or_default();
            if key.eq_ignore_ascii_case("Suites") {
                derived += &format!("Suites: {}\n", suite(codename));
            } else if key.eq_ignore_ascii_case("Types") {
                derived += "Types: deb\n";
            } else {
                derived += &format!("{line}\n");
            }
        }
        derived.push('\n');
    }
    derived
}

/// Derives from a file in one-line style; empty when nothing in it gives the release from one of `origins`.
pub fn from_one_line(text: &str, codename: &str, origins: &[String]) -> String {
    let mut derived = String::new();
    for line in text.lines() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = entry.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t'])) else {
            continue;
        };
        let (options, rest) = match rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']'))
        {
            Some((options, rest)) => (format!("[{options}] "), rest),
            None => (String::new(), rest),
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        if let [uri, entry_suite, components @ ..] = words.as_slice()
            && *entry_suite == codename
            && is_in(uri, origins)
        {
            derived += &format!("deb {options}{uri} {} {}\n", suite(codename), components.join(" "));
        }
    }
    derived
}

fn is_in(uri: &str, origins: &[String]) -> bool {
    origins.iter().any(|origin| origin.trim_end_matches('/') == uri.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Vec<String> {
        vec!["http://mirror.example/debian".into()]
    }

    #[test]
    fn deb822_keeps_everything_but_the_suites() {
        let text = "# a comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian/\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By:\n a key\n of two lines\n\n\
                    Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n\
                    Components: main\n";
        assert_eq!(
            from_deb822(text, "bookworm", &origins()),
            "Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm-backports\nComponents: main\n\
             Signed-By:\n a key\n of two lines\n\n"
        );
    }

    #[test]
    fn deb822_passes_over_other_vendors_and_what_is_switched_off() {
        let other = "Types: deb\nURIs: http://vendor.example/apt\nSuites: bookworm\nComponents: main\n";
        let off = "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n";
        let sources =
            "Types: deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n";
        for text in [other, off, sources, "", "no stanza at all"] {
            assert_eq!(from_deb822(text, "bookworm", &origins()), "", "{text}");
        }
    }

    #[test]
    fn one_line_keeps_options_and_components() {
        let text = "# deb http://mirror.example/debian bookworm main\n\
                    deb-src http://mirror.example/debian bookworm main\n\
                    deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm main contrib # ours\n\
                    deb http://mirror.example/debian bookworm-updates main\n\
                    deb http://vendor.example/apt bookworm main\n";
        assert_eq!(
            from_one_line(text, "bookworm", &origins()),
            "deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm-backports main contrib\n"
        );
    }
}
