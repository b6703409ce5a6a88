//! Every command line that the documents name is one that the command takes: in blocks as they are run, and within sentences as far as
//! they say.

use clap::{Parser as _, error::ErrorKind};

use crate::{
    args::Cli,
    documents::{Document, documents},
};

/// What begins with the command's name and is no command line.
const SENTENCES: [&str; 3] = ["ioward is not running", "ioward serve, the hypervisor side", "ioward-page"];

/// What stands for something of the reader's and would be no such value itself.
const STANDS_FOR: [(&str, &str); 6] = [
    ("COMMAND", "apply"),
    ("SECONDS", "5"),
    ("GID", "1000"),
    ("SHELL", "bash"),
    ("cargo run --release --", "ioward"),
    ("target/dist/", ""),
];

#[test]
fn every_command_line_of_the_documents_is_one() {
    let (mut in_blocks, mut in_sentences) = (0, 0);
    let mut wrong = Vec::new();
    for document in documents() {
        let Document { name, .. } = &document;
        let (blocks, prose) = document.parts();
        for (number, line) in blocks.iter().flat_map(|block| &block.lines) {
            for words in commands(line) {
                in_blocks += 1;
                if let Err(error) = Cli::try_parse_from(&words).or_else(help) {
                    wrong.push(format!("{name}: line {number}: {line}\n{error}"));
                }
            }
        }
        for (number, line) in prose {
            for words in
                line.split('`').skip(1).step_by(2).filter(|code| code.contains("ioward ")).flat_map(commands)
            {
                in_sentences += 1;
                if let Err(error) = named(&words) {
                    wrong.push(format!("{name}: line {number}: {words:?}\n{error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(in_blocks > 40 && in_sentences > 60, "{in_blocks}, {in_sentences}");
}

/// A sentence may name a command without what it needs, and an option without its value. What it does say must be right.
fn named(words: &[String]) -> Result<(), clap::Error> {
    let parse =
        |words: &[String]| Cli::try_parse_from(words).map(drop).or_else(|error| help(error).map(drop));
    let Err(error) = parse(words) else { return Ok(()) };
    match error.kind() {
        ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Ok(()),
        ErrorKind::InvalidValue if words.last().is_some_and(|word| word.starts_with('-')) => {
            named(&[words, &["100".to_owned()]].concat())
        }
        _ => Err(error),
    }
}

/// Being asked for help is no mistake.
fn help(error: clap::Error) -> Result<Cli, clap::Error> {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asked { Cli::try_parse_from(["ioward", "doctor"]) } else { Err(error) }
}

/// The command lines of ioward's in a line of a shell, as words. What may be left out is left out in the first, and not in the second.
fn commands(line: &str) -> Vec<Vec<String>> {
    let line = STANDS_FOR.iter().fold(line.to_owned(), |line, (what, here)| line.replace(what, here));
    let line =
        line.split(" # ").next().unwrap_or_default().split("  #").next().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for part in line.split(['|', ';']).flat_map(|part| part.split("&&")) {
        let part = part.trim().trim_start_matches("$ ").trim_start_matches("sudo ");
        let part = part.trim_start_matches("ExecStart=/usr/bin/");
        let part = match part.split_once(" ioward ") {
            Some((before, rest)) if before.starts_with("ssh ") => format!("ioward {rest}"),
            _ => part.to_owned(),
        };
        // A title of a screen is none.
        let is_title = part.split_whitespace().nth(1).is_some_and(|word| word.ends_with(':'));
        if !part.starts_with("ioward ") || is_title || SENTENCES.iter().any(|it| part.starts_with(it)) {
            continue;
        }
        let mut optional = false;
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for word in part.split_whitespace().take_while(|word| !word.starts_with(['>', '&', '<'])) {
            optional |= word.starts_with('[');
            if !optional {
                without.push(word.to_owned());
            }
            with.push(word.trim_matches(['[', ']', '\'']).to_owned());
            optional &= !word.ends_with(']');
        }
        found.push(without.clone());
        if with != without {
            found.push(with);
        }
    }
    found
}
