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
        let line = line();
        if self.aloud {
            println!("{line}");
        }
        self.lines.push(line);
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.aloud {
            println!("{}\n{}", self.title, self.lines.join("\n"));
        }
    }
}
