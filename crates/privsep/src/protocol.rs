//! What the two sides say to each other. One variant for each operation of [`ioward_fabric::Fabric`] and
//! [`ioward_hypervisor::Hypervisor`]; both sides are one program, so there are no versions.

use std::{path::PathBuf, time::Duration};

use ioward_fabric::FabricError;
use ioward_hypervisor::{HypervisorError, HypervisorEvent, StopMode};
use ioward_model::{Boot, Name, Owner, PartitionSpec, VfId, VfSettings};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Confinement;

/// What the management partition is told first. The API's socket goes with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// How it is to confine itself.
    pub confinement: Confinement,
    /// Where its state is.
    pub state_dir: PathBuf,
    /// Where people find the API's socket, for the log.
    pub socket: PathBuf,
    /// What the kernel calls this boot.
    pub boot: String,
    /// How often it is to give a sign of life, if at all.
    pub watchdog_each: Option<Duration>,
}

/// From the hypervisor side to the management partition.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToImp {
    /// First of all.
    Hello(Box<Hello>),
    /// The answer to a call.
    Answer {
        /// [`ToHost::Call`]'s.
        id: u64,
        /// The operation's result as JSON, or its error.
        result: Result<Value, Failure>,
        /// Whether a descriptor goes with it.
        with_fd: bool,
    },
    /// [`ioward_fabric::Fabric::changes`] says something.
    Changed,
    /// [`ioward_hypervisor::Hypervisor::events`] says something.
    Happened(HypervisorEvent),
    /// End, once what is under way is finished.
    Stop,
}

/// From the management partition to the hypervisor side.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToHost {
    /// Do something.
    Call {
        /// Told from others that are under way by this.
        id: u64,
        /// What.
        call: Call,
    },
    /// Nobody waits any more for the call of this number: what it waits for is not waited for either. What the kernel is at is
    /// finished.
    GiveUp {
        /// [`ToHost::Call`]'s.
        id: u64,
    },
    /// How it goes.
    Life(Life),
    /// It can't start or go on, and ends.
    Failed(String),
}

/// What a service manager wants to know (sd_notify(3)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It serves.
    Ready {
        /// So many partitions.
        partitions: usize,
    },
    /// It lives.
    Alive {
        /// As above.
        partitions: usize,
    },
    /// It finishes what is under way.
    Stopping,
}

/// An operation's error.
#[derive(Debug, Serialize, Deserialize)]
pub enum Failure {
    /// Of the PCI side.
    Fabric(FabricError),
    /// Of the hypervisor.
    Hypervisor(HypervisorError),
}

/// One operation, with its arguments.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is the method of its name of `Fabric` or `Hypervisor`, and is documented there"
)]
pub enum Call {
    Identify,
    SetAutoprobe { pf: Bdf, on: bool },
    SetVfCount { pf: Bdf, count: u16 },
    VfAddress { vf: VfId },
    Driver { vf: VfId },
    Bind { vf: VfId, driver: Option<String> },
    Reset { vf: VfId },
    Settings { vf: VfId },
    Configure { vf: VfId, change: VfSettings },
    Statistics { vf: VfId },
    IsOpen { vf: VfId },
    Check,
    CheckBoot { boot: Boot },
    Define { spec: Box<PartitionSpec> },
    Undefine { partition: Name },
    Start { partition: Name },
    Stop { partition: Name, mode: StopMode },
    AttachVf { owner: Owner, function: Bdf },
    DetachVf { owner: Owner, force: bool },
    CreateChannel { partition: Name },
    DestroyChannel { partition: Name },
    ConnectChannel { partition: Name },
    Partitions,
}
