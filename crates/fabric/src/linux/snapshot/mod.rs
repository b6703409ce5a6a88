//! Recorded hosts: what identify reads of a host, in one file, to be looked at again elsewhere (docs/snapshot.md).
//!
//! ```text
//! HostRoot ─ identify ─> Recording ─ tables ─> what identify needs of it ─┐
//! PF drivers ──────────> Details ────────────────────────────────────────┴> Snapshot ─ mask ─> JSON
//! JSON ─ parse, checked ─> Snapshot ─ Replay ─ identify ─> Inventory
//! ```
//!
//! What is recorded are questions and answers, not a tree: a path in a snapshot is compared with what identify asks for,
//! and never opened or followed. So nothing in it can lead anywhere, and it can only be wrong or too large. The
//! bounds of [`check`] and the budget of [`Replay`] keep what a hostile one costs in time and memory small.

mod check;
mod content;
mod mask;
mod recording;
mod replay;
mod tables;

pub(super) use recording::Recording;
pub(super) use replay::Replay;

use std::{collections::BTreeMap, path::Path};

use ioward_model::Inventory;
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use self::mask::Mask;
use super::{details::Details, identify, root::HostRoot};
use crate::FabricError;

/// The greatest length of a snapshot, in bytes.
pub const MAX_SNAPSHOT_BYTES: usize = 16 << 20;
/// The version of the form that is written and read here.
const VERSION: u32 = 1;

/// A recorded host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: u32,
    /// Whether addresses and serial numbers are stand-ins.
    masked: bool,
    /// What the files of the host say.
    host: Recording,
    /// What the drivers of its PFs say besides.
    #[serde(default)]
    drivers: BTreeMap<Bdf, Details>,
}

/// Why a file is no snapshot that can be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is longer than any.
    #[error("a snapshot has at most {MAX_SNAPSHOT_BYTES} bytes; this has more")]
    TooLong,
    /// It is no JSON, only half of it, or something else in JSON.
    #[error("this is no snapshot, or not all of one: {0}; 'ioward snapshot' writes them")]
    Form(serde_json::Error),
    /// A form that is not known here.
    #[error("a snapshot of version {found}; this ioward reads version {VERSION}")]
    Version {
        /// What it says.
        found: u64,
    },
    /// There is more of something than can be.
    #[error("{what} has {found} {of}; at most {most} can be looked at")]
    TooMany {
        /// Of which part.
        what: String,
        /// How many there are.
        found: usize,
        /// Of what.
        of: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// A path or a name that no host has.
    #[error("'{0}' is no path or name that 'ioward snapshot' writes")]
    Name(String),
    /// Each of its parts is small enough, and they refer to each other so often that the whole is not.
    #[error("looking at it takes more than {} MiB of answers; no host is that large", replay::BUDGET >> 20)]
    TooMuch,
    /// The host that was recorded can't be looked at.
    #[error(transparent)]
    Host(#[from] FabricError),
}

impl Snapshot {
    /// Records a copied tree (`sys` and `proc` below `root`); nothing is masked yet.
    ///
    /// # Errors
    /// As [`identify()`].
    pub fn of_tree(root: &Path) -> Result<Self, FabricError> {
        Self::record(HostRoot::open(root)?).map(|(snapshot, _)| snapshot)
    }

    /// Records what identify reads below a root; also gives the PFs it found.
    pub(super) fn record(root: HostRoot) -> Result<(Self, Vec<Bdf>), FabricError> {
        let root = root.recorded();
        let inventory = identify(&root)?;
        let mut host = root.into_recording();
        tables::reduce(&mut host, &inventory);
        let pfs = inventory.physical_functions.iter().map(|pf| pf.address).collect();
        Ok((Self { version: VERSION, masked: false, host, drivers: BTreeMap::new() }, pfs))
    }

    /// Adds what the driver of a PF tells.
    pub(super) fn add_details(&mut self, pf: Bdf, details: Details) {
        if details != Details::default() {
            self.drivers.insert(pf, details);
        }
    }

    /// The same with stand-ins for MAC and IP addresses and for serial numbers: equal ones for what was equal, a network
    /// for a network, and for the MAC address of a station another that a station may have.
    #[must_use]
    pub fn masked(mut self) -> Self {
        if !self.masked {
            Mask::default().apply(&mut self.host, &mut self.drivers);
            self.masked = true;
        }
        self
    }

    /// Whether [`Snapshot::masked`] was applied.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        self.masked
    }

    /// As a file holds it: JSON, a line for each value.
    ///
    /// # Errors
    /// [`SnapshotError::TooLong`] and [`SnapshotError::TooMany`] when it could not be read again.
    pub fn to_json(&self) -> Result<Vec<u8>, SnapshotError> {
        check::check(self)?;
        let mut json = serde_json::to_vec_pretty(self).map_err(SnapshotError::Form)?;
        json.push(b'\n');
        if json.len() > MAX_SNAPSHOT_BYTES { Err(SnapshotError::TooLong) } else { Ok(json) }
    }

    /// From the bytes of a file.
    ///
    /// # Errors
    /// When they are no snapshot, one of another version, or larger than any host.
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotError> {
        /// What all versions have.
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }
        if bytes.len() > MAX_SNAPSHOT_BYTES {
            return Err(SnapshotError::TooLong);
        }
        let Head { version: found } = serde_json::from_slice(bytes).map_err(SnapshotError::Form)?;
        if found != u64::from(VERSION) {
            return Err(SnapshotError::Version { found });
        }
        let snapshot = serde_json::from_slice(bytes).map_err(SnapshotError::Form)?;
        check::check(&snapshot)?;
        Ok(snapshot)
    }

    /// The host as it was: what [`crate::Fabric::identify`] found when it was recorded.
    ///
    /// # Errors
    /// When it can't be looked at at all. A function that can't be read is in the result, with a Reason.
    pub fn identify(mut self) -> Result<Inventory, SnapshotError> {
        let root = HostRoot::replay(Replay::new(self.host));
        let found = identify(&root);
        if root.is_exhausted() {
            return Err(SnapshotError::TooMuch);
        }
        let mut inventory = found?;
        for pf in &mut inventory.physical_functions {
            if let Some(details) = self.drivers.remove(&pf.address) {
                details.add_to(pf);
            }
        }
        inventory.name_adapters();
        Ok(inventory)
    }
}
