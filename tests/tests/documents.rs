//! Checks that claims of the documents hold in the code.

// Test helpers are tests too, which the lints do not know.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use ioward_api::{ErrorKind, ROUTES};

/// SECURITY.md names a test for each claim. A test that is renamed or removed would leave a claim without proof.
#[test]
fn every_test_named_in_the_threat_model_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let quoted = document.split('`').skip(1).step_by(2);
    let is_a_test = |word: &&str| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let named: Vec<&str> = quoted.filter(is_a_test).collect();
    assert!(named.len() > 40, "{named:?}");
    let sources = sources(&[root.join("crates"), root.join("tests")]);
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert_eq!(missing, [&""; 0], "SECURITY.md names tests that are not there");
}

/// The table of routes in docs/api.md has the routes there are, with the roles that they take.
#[test]
fn the_documented_routes_are_those_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(root.join("docs/api.md")).unwrap();
    let is_route = |row: &&str| ["GET", "POST", "DELETE"].iter().any(|method| row.starts_with(method));
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")).filter(is_route);
    let cells = |row: &str| row.split('|').take(2).map(|it| it.trim_matches([' ', '`']).to_owned()).collect();
    let mut documented: Vec<Vec<String>> = rows.map(cells).collect();
    let mut there_are: Vec<Vec<String>> = ROUTES
        .iter()
        .map(|route| {
            let segments = route.path.split('/').map(|it| match it.strip_prefix('{') {
                Some(name) => name.trim_end_matches('}').to_uppercase(),
                None => it.to_owned(),
            });
            let path = segments.collect::<Vec<_>>().join("/");
            vec![format!("{} {path}", route.method), route.role.to_string()]
        })
        .collect();
    documented.sort();
    there_are.sort();
    assert_eq!(documented, there_are);
}

/// The table of errors in docs/api.md is the one that the daemon and the command have.
#[test]
fn the_documented_kinds_of_errors_are_those_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(root.join("docs/api.md")).unwrap();
    let errors = document.split("\n## Errors\n").nth(1).unwrap();
    let rows = errors.lines().filter_map(|line| line.strip_prefix("| `")).skip(1);
    let documented: Vec<Vec<&str>> =
        rows.map(|row| row.split('|').take(4).map(|cell| cell.trim_matches([' ', '`'])).collect()).collect();
    let there_are = ErrorKind::ALL.map(|kind| {
        let (status, exit) = (kind.status().to_string(), kind.exit_status().to_string());
        vec![kind.word().to_owned(), kind.title().to_owned(), status, exit]
    });
    assert_eq!(documented, there_are);
    for kind in ErrorKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
    }
}

/// All Rust files below these folders, concatenated.
fn sources(folders: &[PathBuf]) -> String {
    let mut text = String::new();
    let mut left = folders.to_vec();
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}
