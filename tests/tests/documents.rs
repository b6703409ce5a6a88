//! Checks that claims of the documents hold in the code.

// Test helpers are tests too, which the lints do not know.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

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
