//! The documents of the project, as blocks of code and the command lines in them. Read by the tests of the command, inside the program
//! and around it.

use std::{fs, path::Path};

/// A document: its path from the project's folder, and its text.
pub struct Document {
    pub name: String,
    pub text: String,
}

/// All documents that users and developers read, in the order of their names.
pub fn documents() -> Vec<Document> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut names: Vec<String> =
        ["ARCHITECTURE.md", "README.md", "SECURITY.md", "lab/README.md"].map(str::to_owned).into();
    for file in fs::read_dir(root.join("docs")).expect("a folder docs") {
        let name = file.expect("an entry of docs").file_name().into_string().expect("a name in UTF-8");
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    let read = |name: String| {
        let text = fs::read_to_string(root.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Document { name, text }
    };
    names.into_iter().map(read).collect()
}

/// A block of code: lines that are indented by four, or between fences.
pub struct Block {
    /// The document's name.
    pub document: String,
    /// The latest heading before it.
    pub section: String,
    /// Its lines with their numbers in the document.
    pub lines: Vec<(usize, String)>,
    /// Whether its fence says that it is no command line: `text`, `json`.
    has_language: bool,
}

/// A command line, and what is printed below it.
pub struct Example {
    /// Where it stands, for people.
    pub place: String,
    /// All its lines, each with its end.
    pub command: String,
    /// The same of what is printed. Empty where the document prints nothing.
    pub answer: String,
}

impl Document {
    /// The blocks, and the other lines with their numbers.
    pub fn parts(&self) -> (Vec<Block>, Vec<(usize, &str)>) {
        let (mut blocks, mut prose) = (Vec::<Block>::new(), Vec::new());
        let (mut section, mut in_fence, mut in_block, mut after_empty) = (String::new(), false, false, true);
        for (number, line) in (1..).zip(self.text.lines()) {
            let begin = |blocks: &mut Vec<Block>, language: &str| {
                let (document, section) = (self.name.clone(), section.clone());
                blocks.push(Block {
                    document,
                    section,
                    lines: Vec::new(),
                    has_language: !language.is_empty(),
                });
            };
            if let Some(language) = line.strip_prefix("```") {
                if !in_fence {
                    begin(&mut blocks, language);
                }
                (in_fence, in_block) = (!in_fence, false);
            } else if in_fence {
                blocks.last_mut().expect("it was begun").lines.push((number, line.to_owned()));
            } else if let Some(code) = line.strip_prefix("    ").filter(|_| in_block || after_empty) {
                if !in_block {
                    begin(&mut blocks, "");
                }
                in_block = true;
                blocks.last_mut().expect("it was begun").lines.push((number, code.to_owned()));
            } else if line.is_empty() {
                if let Some(block) = blocks.last_mut().filter(|_| in_block) {
                    block.lines.push((number, String::new()));
                }
            } else {
                if let Some(heading) = line.strip_prefix('#') {
                    section = heading.trim_matches(['#', ' ']).to_owned();
                }
                in_block = false;
                prose.push((number, line));
            }
            after_empty = line.is_empty();
        }
        (blocks, prose)
    }
}

impl Block {
    /// What it says first, other than a comment.
    pub fn begins(&self) -> &str {
        let lines = self.lines.iter().map(|(_, line)| line.as_str());
        lines.into_iter().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default()
    }

    /// Its lines as the text of a file.
    pub fn text(&self) -> String {
        self.lines.iter().map(|(_, line)| format!("{line}\n")).collect()
    }

    /// Whether it is a file, or a part of one (TOML, JSON, a unit of systemd's), and no command lines.
    pub fn is_data(&self) -> bool {
        let begins = self.begins();
        let key = begins.split_once(" = ").or_else(|| begins.split_once(" =")).map(|(key, _)| key.trim_end());
        self.has_language
            || begins.starts_with(['[', '{'])
            || key.is_some_and(|key| key.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c)))
    }

    /// Whether it says what is printed: its command lines begin with `$ `.
    pub fn has_prompts(&self) -> bool {
        self.lines.iter().any(|(_, line)| line.starts_with("$ "))
    }

    /// Its command lines. Where one begins with `$ `, those do that begin so, and the other lines are what is printed. Elsewhere every line
    /// is one that is no comment; nothing is printed.
    pub fn examples(&self) -> Vec<Example> {
        let has_prompts = self.has_prompts();
        let mut found: Vec<Example> = Vec::new();
        let mut goes_on = false;
        for (number, line) in &self.lines {
            let command = if has_prompts { line.strip_prefix("$ ") } else { Some(line.as_str()) };
            match (command.filter(|_| !goes_on), found.last_mut()) {
                (Some(comment), _) if !has_prompts && (comment.is_empty() || comment.starts_with('#')) => {
                    continue;
                }
                (Some(command), _) => {
                    let place = format!("{}: line {number}", self.document);
                    found.push(Example { place, command: format!("{command}\n"), answer: String::new() });
                }
                (None, Some(example)) if goes_on => example.command += &format!("{line}\n"),
                (None, Some(example)) => {
                    example.answer += &format!("{line}\n");
                    continue;
                }
                (None, None) => panic!("{}: line {number}: printed before any command", self.document),
            }
            goes_on = line.ends_with('\\');
        }
        found
    }
}
