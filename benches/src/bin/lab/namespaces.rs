//! Partitions that are network namespaces: many of them fit where one machine does.

use ioward_tests::level1::sh;

use crate::Result;

/// What their names begin with.
pub const NAME: &str = "bench";

/// Has namespaces for so many, and no others of this kind.
pub fn make(count: usize) -> Result<()> {
    sh(&format!(
        "set -e; for n in $(seq {count}); do [ -e /run/netns/{NAME}$n ] || ip netns add {NAME}$n; done"
    ))
    .map(drop)
}

/// Takes them away.
pub fn remove() {
    let _ = sh(&format!("cd /run/netns && for name in {NAME}*; do ip netns del $name; done"));
}

/// The part of a Spec that has so many.
pub fn spec(count: usize) -> String {
    (1..=count)
        .map(|number| format!("\n[[partition]]\nname = \"{NAME}{number}\"\nnetns = \"{NAME}{number}\"\n"))
        .collect()
}
