//! Cockpit for the tests of the page: downloaded and unpacked into the cache, never installed.

use std::path::{Path, PathBuf};

use crate::apt::Apt;
use crate::error::Result;
use crate::unpacked;

/// Its web server, what runs in a session, and the pages around ours.
const PACKAGES: [&str; 3] = ["cockpit-ws", "cockpit-bridge", "cockpit-system"];

/// The folder that has its packages and what this machine lacks for them; downloaded first when there is none.
pub fn prepare(cache: &Path, apt: &mut Apt) -> Result<PathBuf> {
    unpacked::prepare(&cache.join("cockpit"), "cockpit", apt, |_| Ok(PACKAGES.map(str::to_owned).into()))
}
