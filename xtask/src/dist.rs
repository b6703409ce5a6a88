//! How the binaries of the package are built: with the profile `dist`, and `ioward` linked to be small.
//!
//! How `ioward` is linked is said here alone: what `cargo build --profile dist` gives does the same, and is larger.

use std::{fs, path::Path, process::Command};

use crate::error::{Error, Result};

/// What `ioward` must be smaller than, in bytes.
pub const LIMIT: u64 = 10_000_000;

/// What the linker is told for `ioward`. Read by lld and by GNU ld. To pack relative relocations as well would save 0.26 MB, and ask for
/// glibc 2.36, which hosts of 2022 have not.
const LINKED: [&str; 1] = [
    // The tables for unwinding: a panic ends the process, so nobody unwinds. `-C force-unwind-tables=no` leaves them all in:
    // the standard library was compiled with them, and its debug information makes LLVM write those of everybody else, too.
    "link-arg=-Wl,-T,xtask/dist.ld",
];

/// Has a `cargo` build `ioward` as the package has it.
pub fn ioward(mut cargo: Command) -> Command {
    cargo.args(["rustc", "--profile", "dist", "--package", "ioward", "--bin", "ioward", "--"]);
    for option in LINKED {
        cargo.args(["-C", option]);
    }
    cargo
}

/// Has a `cargo` build `ioward-agent` as the package has it. It is linked as ever: guests have older versions of glibc.
pub fn agent(mut cargo: Command) -> Command {
    // Named beside it, `ioward` gives the crates that both have the features that it is built with. Else they were built twice.
    cargo.args(["build", "--profile", "dist", "--package", "ioward", "--package", "ioward-agent"]);
    cargo.args(["--bin", "ioward-agent"]);
    cargo
}

/// The size of a stripped `ioward` in bytes. An error where it is too large for the package.
pub fn size_of(ioward: &Path) -> Result<u64> {
    within_limit(fs::metadata(ioward).map_err(Error::file("read", ioward))?.len())
}

fn within_limit(size: u64) -> Result<u64> {
    if size < LIMIT {
        return Ok(size);
    }
    Err(Error::Other(format!(
        "ioward has {size} bytes, and is to have fewer than {LIMIT}: what takes the room shows `nm -CS --size-sort` of a \
         build with `--profile dist --config profile.dist.strip=false`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ioward_that_is_too_large_is_refused_with_its_size() {
        assert_eq!(within_limit(9_999_999).unwrap(), 9_999_999);
        let refused = within_limit(10_000_000).unwrap_err().to_string();
        assert!(refused.starts_with("ioward has 10000000 bytes"), "{refused}");
    }
}
