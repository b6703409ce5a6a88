//! Recorded hosts: the facts that identify reads of a host, in one file, to examine elsewhere (docs/snapshot.md).
//!
//! ```text
//! HostRoot ─ identify ─> Recording ─ tables ─> what identify needs of it ─┐
//! PF drivers ──────────> Details ────────────────────────────────────────┴> Snapshot ─ mask ─> JSON
//! JSON ─ parse, checked ─> Snapshot ─ Replay ─ identify ─> Inventory
//! ```
//!
//! A snapshot holds questions and answers rather than a tree: a path in it is compared with identify's questions,
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

use ioward_model::{Holder, IntoMap, Inventory, checks};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use self::mask::Mask;
use super::{
    details::Details,
    holders::{self, Found, Wanted},
    identify::{self, pci_ids::Names},
    root::HostRoot,
};
use crate::FabricError;

/// Maximum length of a snapshot, in bytes.
pub const MAX_SNAPSHOT_BYTES: usize = 16 << 20;
/// The version that is written and read here.
const VERSION: u32 = 1;

/// A recorded host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: u32,
    /// Whether addresses and serial numbers are stand-ins.
    masked: bool,
    /// The content of the host's files.
    host: Recording,
    /// The facts from the drivers of its PFs.
    #[serde(default)]
    drivers: BTreeMap<Bdf, Details>,
    /// Who has its VFs: what came of the look at its processes, which are not recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    holders: BTreeMap<Bdf, Holder>,
}

/// Why a file is not a usable snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is longer than the maximum.
    #[error("a snapshot has at most {MAX_SNAPSHOT_BYTES} bytes; this has more")]
    TooLong,
    /// It is not JSON, or truncated, or something else in JSON.
    #[error("this is no snapshot, or not all of one: {0}; 'ioward snapshot' writes them")]
    Form(serde_json::Error),
    /// Its version is unknown here.
    #[error("a snapshot of version {found}; this ioward reads version {VERSION}")]
    Version {
        /// Its version.
        found: u64,
    },
    /// It has too much of something.
    #[error("{what} has {found} {of}; at most {most} can be looked at")]
    TooMany {
        /// The part of the snapshot.
        what: String,
        /// The number found.
        found: usize,
        /// The things counted.
        of: &'static str,
        /// The maximum.
        most: usize,
    },
    /// A path or a name that no host can have.
    #[error("'{0}' is no path or name that 'ioward snapshot' writes")]
    Name(String),
    /// Each part is small enough, but they refer to each other so often that the whole is too large.
    #[error("looking at it takes more than {} MiB of answers; no host is that large", replay::BUDGET >> 20)]
    TooMuch,
    /// The recorded host can't be identified.
    #[error(transparent)]
    Host(#[from] FabricError),
}

impl Snapshot {
    /// Records a copied tree (`sys` and `proc` below `root`); nothing is masked yet.
    ///
    /// # Errors
    /// As [`super::identify()`].
    pub fn of_tree(root: &Path) -> Result<Self, FabricError> {
        let (mut snapshot, mut inventory) = Self::record(HostRoot::open(root)?)?;
        let tree = HostRoot::open(root)?;
        holders::look(&tree, &Wanted::of(&tree, &inventory)).add_to(&mut inventory);
        snapshot.add_holders(&inventory);
        Ok(snapshot)
    }

    /// Records the facts that identify reads below a root, but for who has its VFs; also returns what it found.
    pub(super) fn record(root: HostRoot) -> Result<(Self, Inventory), FabricError> {
        let root = root.recorded();
        let inventory = identify::functions(&root, &Names::default())?;
        let mut host = root.into_recording();
        tables::reduce(&mut host, &inventory);
        let (drivers, holders) = (BTreeMap::new(), BTreeMap::new());
        Ok((Self { version: VERSION, masked: false, host, drivers, holders }, inventory))
    }

    /// Adds who has the VFs.
    pub(super) fn add_holders(&mut self, inventory: &Inventory) {
        let vfs = inventory.physical_functions.iter().flat_map(|pf| &pf.virtual_functions);
        self.holders = vfs.filter_map(|vf| Some((vf.address, vf.holder.clone()?))).into_map();
    }

    /// Adds the facts from the driver of a PF.
    pub(super) fn add_details(&mut self, pf: Bdf, details: Details) {
        if details != Details::default() {
            self.drivers.insert(pf, details);
        }
    }

    /// The same with stand-ins for MAC and IP addresses and for serial numbers: equal values stay equal, networks
    /// stay networks, and the MAC address of a station stays valid for a station.
    #[must_use]
    pub fn masked(mut self) -> Self {
        if !self.masked {
            Mask::default().apply(&mut self.host, &mut self.drivers, &mut self.holders);
            self.masked = true;
        }
        self
    }

    /// Whether [`Snapshot::masked`] was applied.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        self.masked
    }

    /// The content of a snapshot file: JSON, one value per line.
    ///
    /// # Errors
    /// [`SnapshotError::TooLong`] and [`SnapshotError::TooMany`] when it could not be read back.
    pub fn to_json(&self) -> Result<Vec<u8>, SnapshotError> {
        check::check(self)?;
        let mut json = serde_json::to_vec_pretty(self).map_err(SnapshotError::Form)?;
        json.push(b'\n');
        if json.len() > MAX_SNAPSHOT_BYTES { Err(SnapshotError::TooLong) } else { Ok(json) }
    }

    /// Parses a snapshot file.
    ///
    /// # Errors
    /// When it is not a snapshot, has another version, or is larger than any host.
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotError> {
        /// The part common to all versions.
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

    /// The host as recorded: the findings of [`crate::Fabric::identify`] at that time.
    ///
    /// # Errors
    /// When it can't be identified at all. An unreadable function is in the result, with a Reason.
    pub fn identify(mut self) -> Result<Inventory, SnapshotError> {
        let root = HostRoot::replay(Replay::new(self.host));
        let found = identify::functions(&root, &Names::default());
        if root.is_exhausted() {
            return Err(SnapshotError::TooMuch);
        }
        let mut inventory = found?;
        for pf in &mut inventory.physical_functions {
            if let Some(details) = self.drivers.remove(&pf.address) {
                details.add_to(pf);
            }
        }
        Found::known(self.holders).add_to(&mut inventory);
        checks::note_available(&mut inventory);
        inventory.name_adapters();
        Ok(inventory)
    }
}
