//! [`Story`]: the events in lines. It is printed on failure, even if code below panics.

/// The lines so far.
#[derive(Debug)]
pub struct Story {
    title: String,
    lines: Vec<String>,
    aloud: bool,
}

impl Story {
    /// With `aloud` every line is printed at once.
    pub fn new(title: String, aloud: bool) -> Self {
        Self { title, lines: Vec::new(), aloud }
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let line = without_times(line());
        if self.aloud {
            println!("{line}");
        }
        self.lines.push(line);
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// Without the times that reasons tell: what repeats from a seed is not when.
fn without_times(mut line: String) -> String {
    const FORM: &str = "0000-00-00T00:00:00Z";
    let is_time = |text: &str| {
        let fits = |(found, form): (char, char)| found == form || found.is_ascii_digit() && form == '0';
        text.len() == FORM.len() && text.chars().zip(FORM.chars()).all(fits)
    };
    let begins = |line: &str| {
        let ends = line.match_indices('Z').filter_map(|(at, _)| (at + 1).checked_sub(FORM.len()));
        ends.into_iter().find(|begin| {
            line.get(*begin..begin + FORM.len()).is_some_and(|text| text != FORM && is_time(text))
        })
    };
    while let Some(begin) = begins(&line) {
        line.replace_range(begin..begin + FORM.len(), FORM);
    }
    line
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.aloud {
            println!("{}\n{}", self.title, self.lines.join("\n"));
        }
    }
}
