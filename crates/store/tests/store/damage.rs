//! A file that was truncated, zeroed, overwritten or made by a later ioward is refused and left unchanged; a full
//! disk costs the current commit and nothing else.

use std::{sync::LazyLock, time::Instant};

use ioward_store::{Change, Contents, MemoryFile, StateFile, StorageBackend, Store, StoreError};

use crate::{
    disk::Disk,
    values::{file_with, found, open, operation, plan_begun, revision, rows, state, step_done},
};

/// A file in use, as a killed daemon left it.
fn used() -> MemoryFile {
    let mut changes = rows(&state());
    changes.extend([plan_begun(1), step_done(1, 1), Change::OperationBegun(operation())]);
    let file = file_with(&changes);
    open(&file).unwrap().0.commit(&[revision(8)]).unwrap();
    file
}

/// Opens a damaged file: either it is refused and unchanged, or the damage hit unused bytes and all content is
/// found.
fn is_refused(damaged: &MemoryFile, how: &str) -> bool {
    static EXPECTED: LazyLock<Contents> = LazyLock::new(|| found(&used()).unwrap());
    let content = damaged.content();
    match open(damaged) {
        Ok((_, contents)) => {
            assert_eq!(contents, *EXPECTED, "{how}: something else is found");
            false
        }
        Err(StoreError::Corrupt { why, .. }) => {
            assert!(!why.is_empty());
            assert!(damaged.content() == content, "{how}: refused, and changed");
            true
        }
        Err(other) => panic!("{how}: {other}"),
    }
}

#[test]
fn a_file_cut_anywhere_is_refused_and_left_alone() {
    let content = used().content();
    let mut lengths: Vec<_> = (0..512).chain((512..content.len()).step_by(61)).collect();
    lengths.extend(content.len() - 64..content.len());
    let cut = lengths.len();
    let refused = lengths.iter().filter(|length| {
        is_refused(&MemoryFile::new(&content[..**length]), &format!("cut after {length} bytes"))
    });
    assert_eq!(refused.count(), cut, "of so many");
}

#[test]
fn a_file_zeroed_in_part_or_as_a_whole_is_refused_and_left_alone() {
    let content = used().content();
    let zeroed = |from: usize, to: usize| {
        let mut zeroed = content.clone();
        zeroed[from..to].fill(0);
        is_refused(&MemoryFile::new(&zeroed), &format!("zero from {from} to {to}"))
    };
    assert!(zeroed(0, content.len()) && zeroed(0, 4096) && zeroed(0, 64) && zeroed(0, 320));
    let refused = (4096..content.len()).step_by(4096).filter(|from| zeroed(*from, from + 4096)).count();
    assert!(refused > 5, "{refused} pages are of any use");
}

/// Each byte in turn, in the header; every 23rd elsewhere.
#[test]
fn a_file_with_a_wrong_byte_is_refused_unless_the_byte_is_unused() {
    let (started, content) = (Instant::now(), used().content());
    let places: Vec<_> = (0..320).chain((320..content.len()).step_by(23)).collect();
    let mut refused = 0;
    for place in &places {
        // All its bits, then one.
        for flip in [0xff, 1 << (place % 8)] {
            let mut wrong = content.clone();
            wrong[*place] ^= flip;
            refused +=
                usize::from(is_refused(&MemoryFile::new(&wrong), &format!("byte {place} ^ {flip:#x}")));
        }
    }
    println!(
        "wrong bytes: {} files, {refused} refused; in all others everything is found; in {:.1} s",
        2 * places.len(),
        started.elapsed().as_secs_f32()
    );
    assert!(refused > 300);
}

#[test]
fn a_file_without_a_state_is_refused() {
    for content in [&b"{\"version\": 1}"[..], b"redb", &[0xff; 100_000], b"\x7fELF"] {
        assert!(is_refused(&MemoryFile::new(content), "something else"));
    }
}

/// The same tables, with another version in them.
fn of_version(version: u64) -> MemoryFile {
    let file = used();
    let database = redb::Builder::new().create_with_backend(file.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    let numbers = redb::TableDefinition::<&str, u64>::new("numbers");
    transaction.open_table(numbers).unwrap().insert("schema", version).unwrap();
    transaction.commit().unwrap();
    file
}

#[test]
fn a_file_from_the_future_is_refused_and_left_alone() {
    let file = of_version(7);
    let content = file.content();
    let error = open(&file).unwrap_err();
    assert_eq!(
        error.to_string(),
        "state.redb is of version 7; this ioward reads version 6: use the newer one"
    );
    assert!(file.content() == content);
    let error = StateFile::read("state.redb".as_ref(), &file).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 7, .. }), "{error}");
    let error = open(&of_version(0)).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

/// The disk fills up after each write in turn, in a commit and in what follows it.
#[test]
fn a_full_disk_costs_the_commit_and_nothing_else() {
    let mut failed = 0;
    for writes in 0..40 {
        let disk = Disk::with(&used());
        let (store, before) = disk.open().unwrap();
        disk.full_after(Some(writes));
        let result = store.commit(&[revision(9), plan_begun(2), step_done(2, 1)]);
        let again = store.commit(&[revision(10)]);
        match &result {
            Ok(()) => assert_eq!(found(&disk.file()).unwrap().last_plan, 2, "room for {writes} writes"),
            Err(error) => {
                failed += 1;
                assert!(matches!(error, StoreError::Io { .. }), "{error}");
                assert!(again.is_err(), "it is still full");
                assert_eq!(store.export().unwrap().state.revision, 8, "it can still be read");
                assert_eq!(found(&disk.file()).unwrap(), before, "room for {writes} writes");
            }
        }
        // The file is checked again, and used again.
        disk.full_after(None);
        store.commit(&[revision(11)]).unwrap();
        assert_eq!(store.export().unwrap().state.revision, 11);
        drop(store);
        let after = disk.open().unwrap().1;
        assert_eq!(after.last_plan, if result.is_ok() { 2 } else { 1 }, "room for {writes} writes");
    }
    assert!(failed > 5, "{failed}");
}

#[test]
fn a_file_that_cannot_grow_can_still_be_read() {
    let disk = Disk::with(&used());
    disk.full_after(Some(0));
    let export = StateFile::read("state.redb".as_ref(), &disk).unwrap();
    assert_eq!(export.state.revision, 8);
    assert!(disk.deeds().is_empty() && disk.len().unwrap() > 0);
}
