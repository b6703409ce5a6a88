//! Snapshots: parsed, looked at, masked. What was parsed, and what was masked, is written and read again, and is the same.
#![no_main]

use ioward_fabric::linux::{Snapshot, SnapshotError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(snapshot) = Snapshot::parse(bytes) else { return };
    let masked = snapshot.clone().masked();
    for snapshot in [&snapshot, &masked] {
        match snapshot.to_json() {
            Ok(json) => assert_eq!(Snapshot::parse(&json).unwrap(), *snapshot),
            // Written out in full it is longer.
            Err(error) => assert!(matches!(error, SnapshotError::TooLong), "{error}"),
        }
    }
    let (found, stands_in) = (snapshot.identify(), masked.identify());
    assert_eq!(found.is_ok(), stands_in.is_ok());
});
