//! Checks that every dependency's licence is one of those that deny.toml allows, on machines without cargo-deny.

use std::fs;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::process::output;
use crate::workspace::Workspace;

/// Reads what cargo knows about all dependencies and holds it against deny.toml.
///
/// # Errors
/// Names every package whose licence is not allowed.
pub fn check(workspace: &Workspace) -> Result<()> {
    let path = workspace.root.join("deny.toml");
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let allowed = allowed_licences(&text)
        .ok_or_else(|| Error::Other(format!("{} has no list `licenses.allow`", path.display())))?;
    // Only what is built for where ioward runs: others' dependencies would be downloaded for nothing.
    let platform = ["--filter-platform", "x86_64-unknown-linux-gnu"];
    let all = ["metadata", "--format-version", "1", "--locked", "--all-features"];
    let metadata = output(workspace.cargo().args(all).args(platform))?;
    let metadata: Value =
        serde_json::from_str(&metadata).map_err(|error| Error::Other(format!("cargo metadata: {error}")))?;
    let refused: Vec<String> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|package| {
            !package["license"].as_str().is_some_and(|expression| is_allowed(expression, &allowed))
        })
        .map(|package| format!("  {} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(Error::Other(format!(
        "dependencies with licences that deny.toml does not allow:\n{}",
        refused.join("\n")
    )))
}

fn allowed_licences(deny_toml: &str) -> Option<Vec<String>> {
    let table: toml::Table = deny_toml.parse().ok()?;
    let allow = table.get("licenses")?.get("allow")?.as_array()?;
    allow.iter().map(|licence| licence.as_str().map(str::to_owned)).collect()
}

/// Whether an SPDX expression can be met with the allowed licences. Of SPDX it knows OR (also written `/`), AND,
/// WITH and brackets; what it does not understand is not allowed.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    parser.alternatives() == Some(true) && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        match self.words {
            [first, rest @ ..] if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    fn alternatives(&mut self) -> Option<bool> {
        let mut met = self.all_of()?;
        while self.take("OR") {
            met |= self.all_of()?;
        }
        Some(met)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut met = self.licence()?;
        while self.take("AND") {
            met &= self.licence()?;
        }
        Some(met)
    }

    fn licence(&mut self) -> Option<bool> {
        if self.take("(") {
            let met = self.alternatives()?;
            return self.take(")").then_some(met);
        }
        let (name, rest) = match self.words {
            [name, "WITH", exception, rest @ ..] => (format!("{name} WITH {exception}"), rest),
            [name, rest @ ..] => ((*name).to_owned(), rest),
            [] => return None,
        };
        self.words = rest;
        Some(self.allowed.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let allowed =
            ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        for (expression, expected) in [
            ("MIT", true),
            ("MIT/GPL-3.0", true),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("MIT AND (GPL-3.0 OR LGPL-3.0)", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0 WITH other-exception", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT)", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
        }
    }

    #[test]
    fn the_list_is_read() {
        assert_eq!(allowed_licences("[licenses]\nallow = [\"MIT\"]\n"), Some(vec!["MIT".to_owned()]));
        assert_eq!(allowed_licences("[licenses]\n"), None);
    }
}
