//! Snapshots: parsed, looked at, masked. What was parsed is written again and read again, and is the same.
#![no_main]

use ioward_fabric::linux::Snapshot;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(snapshot) = Snapshot::parse(bytes) else { return };
    if let Ok(json) = snapshot.to_json() {
        assert_eq!(Snapshot::parse(&json).unwrap(), snapshot);
    }
    let masked = snapshot.clone().masked();
    let (found, stands_in) = (snapshot.identify(), masked.identify());
    assert_eq!(found.is_ok(), stands_in.is_ok());
});
