//! Power loss during a commit: the last committed state or the one before is found, and never another.

use std::time::Instant;

use ioward_model::{Row, RowKey};
use ioward_store::{Change, Export, MemoryFile, StateFile, StorageBackend, Store};

use crate::{
    disk::{Deed, Disk},
    values::{audit, file_with, operation, plan_begun, plan_done, rows, state, step_begun, step_done},
};

/// Commits as the management partition makes them, in order.
fn commits() -> Vec<(&'static str, Vec<Change>)> {
    let mut head = state().row(&RowKey::Partition("db".parse().unwrap()));
    if let Row::Partition(_, Some(head)) = &mut head {
        head.running = true;
    }
    let many = (0..400).map(|time| Change::Audit(audit(time))).collect();
    let mut anew = vec![Change::Clear];
    anew.extend(rows(&state()));
    vec![
        ("a plan begins", vec![plan_begun(1)]),
        ("a step begins", vec![step_begun(1, 1)]),
        ("a step is done", vec![step_done(1, 1), Change::Row(head)]),
        ("a plan ends", vec![step_done(1, 2), Change::Row(Row::Revision(8)), plan_done(1)]),
        ("an operation", vec![Change::OperationBegun(operation()), Change::Audit(audit(1))]),
        ("the file grows", many),
        ("everything anew", anew),
    ]
}

fn everything(file: &MemoryFile) -> Result<Export, String> {
    StateFile::read("state.redb".as_ref(), file).map_err(|error| error.to_string())
}

/// A commit, and the states before and after it.
struct Moment {
    name: &'static str,
    before: Export,
    after: Export,
    /// The disk before any write of the commit.
    disk: MemoryFile,
    deeds: Vec<Deed>,
}

fn moments() -> Vec<Moment> {
    let disk = Disk::with(&file_with(&rows(&state())));
    let (store, _) = disk.open().unwrap();
    // The first commit after opening also marks the file as in use, which belongs to none of these.
    store.commit(&[]).unwrap();
    let mut moments = Vec::new();
    for (name, changes) in commits() {
        let (file, before) = (disk.file(), store.export().unwrap());
        disk.deeds();
        store.commit(&changes).unwrap();
        let (deeds, after) = (disk.deeds(), store.export().unwrap());
        assert_ne!(before, after, "{name}");
        moments.push(Moment { name, before, after, disk: file, deeds });
    }
    moments
}

impl Moment {
    fn check(&self, file: &MemoryFile, how: &str, committed: &mut [usize; 2]) {
        match everything(file) {
            Ok(found) if found == self.before => committed[0] += 1,
            Ok(found) if found == self.after => committed[1] += 1,
            found => panic!("{}: {how}: {found:?}", self.name),
        }
    }
}

/// Writes reach the disk in order, and the power fails during one: after each byte of the header, which locates
/// everything, and of the very last write; after every 16th byte of the others.
#[test]
fn the_last_write_is_torn_at_every_byte() {
    let (started, mut images, mut found) = (Instant::now(), 0, [0; 2]);
    for moment in moments() {
        let file = moment.disk.copy();
        let last = moment.deeds.iter().rposition(|deed| matches!(deed, Deed::Write(..))).unwrap();
        for (n, deed) in moment.deeds.iter().enumerate() {
            if let Deed::Write(offset, content) = deed {
                let each = if *offset == 0 || n == last { 1 } else { 16 };
                let mut there = vec![0; content.len()];
                // Bytes by which the write extends the file were not there.
                let _ = file.read(*offset, &mut there);
                let torn = file.copy();
                for (at, (byte, there)) in content.iter().zip(there).enumerate() {
                    torn.write(offset + at as u64, &[*byte]).unwrap();
                    // A byte that is there already gives the same file.
                    if at % each == 0 && there != *byte {
                        images += 1;
                        moment.check(&torn, &format!("write {n} ends after byte {at}"), &mut found);
                    }
                }
            }
            deed.done_to(&file);
        }
        assert_eq!(everything(&file).unwrap(), moment.after, "{}: when all is written", moment.name);
    }
    let [before, after] = found;
    println!(
        "power loss, torn: {images} different files: {before} times the state before, {after} times the last one, in \
         {:.1} s",
        started.elapsed().as_secs_f32()
    );
    assert!(before > 10_000 && after > 1_000);
}

/// Between two syncs a disk writes in any order, and any part of the unfinished writes may be there.
#[test]
fn any_part_of_the_unsynced_writes_is_on_the_disk() {
    let (started, mut images, mut found) = (Instant::now(), 0, [0; 2]);
    let mut chance = 1_u64;
    let mut below = |bound: usize| {
        // Knuth's MMIX generator; use its upper bits.
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(chance >> 33).unwrap() % bound
    };
    for moment in moments() {
        let mut synced = moment.disk.copy();
        let mut unsynced: Vec<Deed> = Vec::new();
        for deed in &moment.deeds {
            if !matches!(deed, Deed::Sync) {
                unsynced.push(deed.clone());
                continue;
            }
            for _ in 0..300 {
                let file = synced.copy();
                // In some runs nearly everything is there, in others nearly nothing.
                let of = [2, 3, 30][below(3)];
                for deed in &unsynced {
                    match (below(of), deed) {
                        (0, _) => {}
                        (1, Deed::Write(offset, content)) => {
                            // Some of the sectors of 512 bytes are there.
                            for (n, sector) in content.chunks(512).enumerate().filter(|_| below(2) == 0) {
                                file.write(offset + 512 * n as u64, sector).unwrap();
                            }
                        }
                        (_, deed) => deed.done_to(&file),
                    }
                }
                images += 1;
                moment.check(&file, "any part of what was not synced", &mut found);
            }
            for deed in unsynced.drain(..) {
                deed.done_to(&synced);
            }
            synced = synced.copy();
        }
        assert!(unsynced.is_empty(), "{}: what was committed has been synced", moment.name);
        assert_eq!(everything(&synced).unwrap(), moment.after, "{}", moment.name);
    }
    let [before, after] = found;
    println!(
        "power loss, reordered: {images} files: {before} times the state before, {after} times the last one, in \
         {:.1} s",
        started.elapsed().as_secs_f32()
    );
    assert!(before > 100 && after > 10);
}
