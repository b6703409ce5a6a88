//! The messages of the two sides, and the table of the operations of [`ioward_fabric::Fabric`] and
//! [`ioward_hypervisor::Hypervisor`] from which both ends are made. Both sides are one program, so there are no versions.

use std::{path::PathBuf, time::Duration};

use ioward_fabric::FabricError;
use ioward_hypervisor::{HypervisorError, HypervisorEvent, StopMode};
use ioward_model::{
    DomainRef, MachineLayout, Name, Owner, PartitionSpec, Recovery, StandbyNic, VfId, VfSettings,
};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{ApiGroups, Confinement};

/// Calls that may be under way at once. The client keeps to it, and the hypervisor side ends a link that does not.
pub(crate) const MAX_CALLS: usize = 512;

/// Told to the management partition first of all. The API's socket goes with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// How it is to confine itself.
    pub confinement: Confinement,
    /// Where its state is.
    pub state_dir: PathBuf,
    /// Where people find the API's socket, for the log.
    pub socket: PathBuf,
    /// The kernel's ID of this boot.
    pub boot: String,
    /// Whose members may use the API.
    pub groups: ApiGroups,
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
        /// Whether it was done, and then the operation's result is behind this message in the same frame; or its error.
        result: Result<(), Failure>,
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
        /// The operation.
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

/// News for the service manager (sd_notify(3)).
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
    /// It was done, and its result can't be sent: why.
    Unsaid(String),
}

/// The operations that a call can be for, each with its result, as the traits have them. `@&` stands before what the method takes
/// by reference. From here come [`Call`], the client's methods and the server's dispatch. What is no plain call is written by hand
/// in each of them: `bind`, `set_vf_count` and `recover`, which are guarded; `connect_channel`, `open_console`, `receive` and `send`, which have
/// a descriptor in their answers; `changes` and `events`.
macro_rules! operations {
    ($make:ident) => {
        $make! {
            fabric {
                Identify identify() -> Inventory;
                SetAutoprobe set_autoprobe(pf: Bdf, on: bool) -> ();
                VfAddress vf_address(vf: VfId) -> Bdf;
                Driver driver(vf: VfId) -> Option<String>;
                Reset reset(vf: VfId) -> ();
                Settings settings(vf: VfId) -> VfSettings;
                Configure configure(vf: VfId, change: @& VfSettings) -> ();
                Statistics statistics(vf: VfId) -> VfStatistics;
                IsOpen is_open(vf: VfId) -> bool;
                Doctor doctor() -> Vec<Finding>;
            }
            hypervisor {
                Check check() -> Accelerator;
                CheckDefinition check_definition(spec: @& PartitionSpec) -> Vec<Obstacle>;
                Define define(spec: @& PartitionSpec) -> ();
                Undefine undefine(partition: @& Name) -> ();
                Start start(partition: @& Name) -> Accelerator;
                Stop stop(partition: @& Name, mode: StopMode) -> ();
                ResetMachine reset(partition: @& Name) -> ();
                AttachVf attach_vf(owner: @& Owner, function: Bdf) -> ();
                DetachVf detach_vf(owner: @& Owner, force: bool) -> ();
                Adoptable adoptable(domain: @& DomainRef) -> Adoptable;
                AdoptVf adopt_vf(owner: @& Owner, function: Bdf) -> ();
                ReleaseVf release_vf(owner: @& Owner) -> ();
                AttachStandby attach_standby(owner: @& Owner, nic: @& StandbyNic) -> ();
                DetachStandby detach_standby(owner: @& Owner) -> ();
                Layout layout(partition: @& Name) -> MachineLayout;
                Migration migration(partition: @& Name) -> Migration;
                Resume resume(partition: @& Name) -> ();
                CreateChannel create_channel(partition: @& Name) -> ();
                DestroyChannel destroy_channel(partition: @& Name) -> ();
                Partitions partitions() -> Vec<PartitionStatus>;
                Domains domains() -> Vec<(Name, Uuid)>;
            }
        }
    };
}

macro_rules! call {
    ($($of:ident {
        $($variant:ident $method:ident($($arg:ident: $(@ $by:tt)? $type:ty),*) -> $result:ty;)*
    })*) => {
        /// One operation, with its arguments.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[expect(
            missing_docs,
            reason = "each is the method of its name of `Fabric` or `Hypervisor`, and is documented there"
        )]
        pub enum Call {
            $($($variant { $($arg: $type),* },)*)*
            Bind { vf: VfId, driver: Option<String> },
            SetVfCount { pf: Bdf, count: u16 },
            Recover { pf: Bdf, how: Recovery },
            ConnectChannel { partition: Name },
            OpenConsole { partition: Name },
            Receive { partition: Name, layout: MachineLayout },
            Send { partition: Name },
        }
    };
}

operations!(call);
pub(crate) use operations;
