//! Partitions as a hypervisor knows them: [`PartitionStatus`].

use std::path::PathBuf;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{Accelerator, Halt, KindName, Name};

/// How a partition is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The partition.
    pub name: Name,
    /// What it is.
    pub kind: KindName,
    /// Whether its machine or domain runs, or its namespace is there.
    pub running: bool,
    /// Why its machine executes nothing, while it is there and does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halt>,
    /// The engine that executes its instructions, while it runs.
    pub accelerator: Option<Accelerator>,
    /// Process ID of its machine, while it runs.
    pub pid: Option<u32>,
    /// Where its serial console can be reached: a Unix stream socket. `None`: a domain's is libvirt's, a namespace has none.
    pub console: Option<PathBuf>,
    /// The VFs handed to it.
    pub vfs: Vec<(Name, Bdf)>,
    /// Those of them that it does not have, and would take at once: its namespace was made anew, or libvirt ended in the middle.
    pub lacks: Vec<Name>,
    /// The names of those VFs for which it has a standby ([`crate::StandbyNic`]), whether the VF is there or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standbys: Vec<Name>,
    /// Whether its domain was undefined: what it holds is of no use to anybody.
    pub gone: bool,
    /// Whether it has a channel.
    pub channel: bool,
}
