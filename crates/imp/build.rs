//! Writes the OpenAPI document without the blanks that people read it by: 122 kB in the binary in place of 232.

// What stops a build is said by what ends it.
#![allow(clippy::expect_used)]

use std::{env, fs, path::PathBuf};

fn main() {
    let folder = |name| env::var_os(name).map(PathBuf::from).expect("cargo says where things are");
    let document = folder("CARGO_MANIFEST_DIR").join("../api/openapi.json");
    println!("cargo::rerun-if-changed={}", document.display());
    let text = fs::read_to_string(&document).expect("crates/api/openapi.json can be read");
    let written = fs::write(folder("OUT_DIR").join("openapi.json"), without_blanks(&text));
    written.expect("the document can be written");
}

/// The same JSON without what is blank outside of strings (RFC 8259 §2).
fn without_blanks(text: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    let is_kept = |c: &char| {
        let is_blank = !in_string && c.is_ascii_whitespace();
        if *c == '"' && !is_escaped {
            in_string = !in_string;
        }
        is_escaped = *c == '\\' && !is_escaped;
        !is_blank
    };
    text.chars().filter(is_kept).collect()
}
