//! [`Story`]: what happened, in lines. It is printed when it ends badly, a panic somewhere below included.

/// The lines so far.
#[derive(Debug)]
pub struct Story {
    title: String,
    lines: Vec<String>,
    aloud: bool,
}

impl Story {
    /// With `aloud` every line is printed as it is told.
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
