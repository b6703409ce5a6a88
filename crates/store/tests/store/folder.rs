//! The state folder: one daemon at a time, and a clear error where nothing can be written.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use ioward_model::State;
use ioward_store::{MemoryFile, Store, StoreError, export, open};

use crate::values::{revision, rows, state};

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// All files in a folder, by name.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read =
        |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap())).collect();
    files.sort();
    files
}

#[test]
fn the_state_survives_its_daemon() {
    let folder = scratch();
    let at = folder.path().join("new/state");
    let (store, contents) = open(&at).unwrap();
    assert_eq!(contents.state, State::default());
    store.commit(&rows(&state())).unwrap();
    drop(store);
    assert_eq!(open(&at).unwrap().1.state, state());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&at), mode(&at.join("state.redb"))), (0o700, 0o600), "it is nobody else's business");
}

#[test]
fn two_daemons_do_not_share_a_folder() {
    let folder = scratch();
    let (first, _) = open(folder.path()).unwrap();
    let second = open(folder.path()).unwrap_err();
    assert!(matches!(second, StoreError::Locked { .. }), "{second}");
    assert!(second.to_string().contains("another ioward works on"), "{second}");
    drop(first);
    open(folder.path()).unwrap();
}

#[test]
fn an_export_needs_no_daemon_and_changes_nothing() {
    let folder = scratch();
    let (store, _) = open(folder.path()).unwrap();
    store.commit(&rows(&state())).unwrap();
    let refused = export(folder.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    let live = store.export().unwrap();
    drop(store);
    let before = files(folder.path());
    assert_eq!(export(folder.path()).unwrap(), live);
    assert!(files(folder.path()) == before);
    let none = scratch();
    let error = export(none.path()).unwrap_err();
    assert!(error.to_string().starts_with("cannot open ") && files(none.path()).is_empty(), "{error}");
}

/// A killed daemon leaves its file in use. Such a file can be exported, and the next daemon continues with it.
#[test]
fn the_file_of_a_killed_daemon_is_used() {
    let folder = scratch();
    let (store, _) = open(folder.path()).unwrap();
    store.commit(&rows(&state())).unwrap();
    store.commit(&[revision(9)]).unwrap();
    let left = fs::read(folder.path().join("state.redb")).unwrap();
    drop(store);
    fs::write(folder.path().join("state.redb"), &left).unwrap();
    assert_eq!(export(folder.path()).unwrap().state.revision, 9);
    assert!(fs::read(folder.path().join("state.redb")).unwrap() == left, "an export repairs nothing");
    assert_eq!(open(folder.path()).unwrap().1.state.revision, 9);
}

/// The power failed while the very first file was being made: the file does not have its name yet.
#[test]
fn an_unfinished_file_is_made_again() {
    let folder = scratch();
    fs::write(folder.path().join("state.redb.new"), MemoryFile::new(&[7; 5000]).content()).unwrap();
    assert_eq!(open(folder.path()).unwrap().1.state, State::default());
    assert!(!folder.path().join("state.redb.new").exists());
}

#[test]
fn a_damaged_file_is_refused_and_left_alone() {
    let folder = scratch();
    open(folder.path()).unwrap().0.commit(&rows(&state())).unwrap();
    let path = folder.path().join("state.redb");
    for damaged in [Vec::new(), vec![0; 73_728], fs::read(&path).unwrap()[..40_000].to_vec()] {
        fs::write(&path, &damaged).unwrap();
        let error = open(folder.path()).unwrap_err();
        let words = format!("{} is damaged (", path.display());
        assert!(error.to_string().starts_with(&words), "{error}");
        assert!(error.to_string().ends_with("put a copy back"), "{error}");
        assert!(fs::read(&path).unwrap() == damaged);
        assert!(matches!(export(folder.path()).unwrap_err(), StoreError::Corrupt { .. }));
    }
}

/// An unwritable folder is named in the error and not used. Root can write everywhere but below a missing folder.
#[test]
fn an_unwritable_folder_is_named_in_the_error() {
    let folder = scratch();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file.join("state")).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot create {}", file.join("state").display()));
}
