//! Lists the files of ui/dist, the page as it was built, for `src/ui/files.rs` to embed.
//!
//! Where `app.js.gz` is beside `app.js`, or alone, that is what is embedded: the binary holds a file once.

// What stops a build is said by what ends it.
#![allow(clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    env, fs,
    hash::Hasher,
    path::{Path, PathBuf},
};

fn main() {
    let root = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).expect("cargo says where this crate is");
    let dist = root.join("../../ui/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut files = BTreeMap::new();
    find(&dist, "", &mut files);
    let mut list = String::from("&[\n");
    for (name, (path, gzip)) in &files {
        let content =
            fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let mut hash = DefaultHasher::new();
        hash.write(&content);
        list += &format!(
            "    File {{ name: {name:?}, gzip: {gzip}, tag: \"\\\"{:016x}\\\"\", content: include_bytes!({:?}) }},\n",
            hash.finish(),
            path.display().to_string(),
        );
    }
    list += "]\n";
    let out = env::var_os("OUT_DIR").map(PathBuf::from).expect("cargo says where to write");
    fs::write(out.join("ui_files.rs"), list).expect("the list of the page's files can be written");
}

/// Adds the files of a folder and of those in it, by their name in a URL.
fn find(folder: &Path, prefix: &str, files: &mut BTreeMap<String, (PathBuf, bool)>) {
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot read {}, where the page is: {error}", folder.display()));
    for entry in entries {
        let path = entry.unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display())).path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            find(&path, &format!("{name}/"), files);
        } else if let Some(plain) = name.strip_suffix(".gz") {
            files.insert(plain.to_owned(), (path, true));
        } else {
            files.entry(name).or_insert((path, false));
        }
    }
}
