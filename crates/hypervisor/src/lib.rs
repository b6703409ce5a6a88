//! Client partitions: starting and stopping them, giving VFs to them, making their communication structures.
//!
//! [`Hypervisor`] is the seam; [`qemu`] is QEMU with KVM, [`libvirt`] has domains of libvirt's, [`netns`] has network
//! namespaces, and [`sim`] runs processes instead of machines. A [`Router`] makes one of several, and a [`Guard`] around all sees
//! to what must never happen. Partitions outlive the daemon: a new [`Hypervisor`] over the same runtime folder finds every
//! partition that the one before it had. Simulated ones end with it.

mod backends;
mod boot_files;
pub mod cgroup;
mod error;
mod file;
mod guard;
pub mod libvirt;
mod lock;
pub mod netns;
mod opening;
pub mod qemu;
mod router;
pub mod sim;
mod sysfs;
mod text;

pub use backends::on_this_host;
pub use error::HypervisorError;
pub use guard::{Claim, Guard};
pub use router::Router;

use std::os::fd::OwnedFd;

use async_trait::async_trait;
use ioward_channel::shared::EndFds;
pub use ioward_model::{Accelerator, Adoptable, AdoptableFunction, PartitionStatus};
use ioward_model::{DomainRef, MachineLayout, Migration, Name, Owner, PartitionSpec, StandbyNic};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::libvirt::Uuid;

/// The management partition's end of a channel.
#[derive(Debug)]
pub enum ChannelEnd {
    /// A connected stream socket.
    Stream(OwnedFd),
    /// Shared memory with two doorbells, that nobody has used at this end yet.
    Shared(EndFds),
}

/// How to stop a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopMode {
    /// Press the power button and wait until the guest has turned itself off.
    Graceful,
    /// Turn it off.
    Force,
}

/// What stands in the way of a partition's definition on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// What there must be: "a file to boot from at /boot/vmlinuz", "a domain web".
    pub required: String,
    /// The thing that is there instead: "a folder", "No such file or directory".
    pub found: String,
    /// How to put it right.
    pub remedy: String,
}

/// An event that a hypervisor reports unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HypervisorEvent {
    /// A partition runs no longer, and ioward had not asked for that.
    Ended {
        /// The partition.
        partition: Name,
        /// How it ended: "the guest turned itself off", "killed by signal 9".
        why: String,
    },
    /// A partition's machine has halted, or executes again: [`Hypervisor::partitions`] says which.
    Halted {
        /// The partition.
        partition: Name,
    },
    /// A partition runs, and somebody else has started it.
    Started {
        /// The partition.
        partition: Name,
    },
    /// A partition runs no longer and can't start again as it is: its domain was undefined, its namespace is removed. The hypervisor
    /// keeps its own record of it, with its VFs, until it is told otherwise.
    Gone {
        /// The partition.
        partition: Name,
        /// What has become of it.
        why: String,
    },
    /// Somebody else has taken a VF out of a partition.
    Detached {
        /// The VF.
        owner: Owner,
        /// Who, or how, as far as that is known.
        why: String,
    },
    /// An agent has connected to the channel of a partition, and waits to be served: [`Hypervisor::connect_channel`] gives it. Told
    /// again now and then, as long as it waits.
    AgentConnected {
        /// The partition.
        partition: Name,
    },
}

impl HypervisorEvent {
    /// The partition it is about.
    #[must_use]
    pub fn partition(&self) -> &Name {
        match self {
            Self::Ended { partition, .. }
            | Self::Started { partition }
            | Self::Gone { partition, .. }
            | Self::Halted { partition }
            | Self::AgentConnected { partition } => partition,
            Self::Detached { owner, .. } => &owner.partition,
        }
    }

    /// Whether it makes `older` old news: it is about the same VF, or about how the same partition is.
    #[must_use]
    pub fn replaces(&self, older: &Self) -> bool {
        match (self, older) {
            (Self::Detached { owner, .. }, Self::Detached { owner: other, .. }) => owner == other,
            (Self::Detached { .. }, _) | (_, Self::Detached { .. }) => false,
            (Self::AgentConnected { partition }, Self::AgentConnected { partition: other }) => {
                partition == other
            }
            (Self::AgentConnected { .. }, _) | (_, Self::AgentConnected { .. }) => false,
            (Self::Halted { partition }, Self::Halted { partition: other }) => partition == other,
            (Self::Halted { .. }, _) | (_, Self::Halted { .. }) => false,
            _ => self.partition() == older.partition(),
        }
    }
}

/// Runs client partitions.
///
/// Every operation is idempotent and ends within a bound.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// Whether partitions can run here at all, and on what.
    ///
    /// # Errors
    /// When the machine emulator is missing or does not start: says which package brings it.
    async fn check(&self) -> Result<Accelerator, HypervisorError>;

    /// What stands in the way of a partition of this definition: files that it could not boot from, a domain or a namespace that
    /// is not there or is another partition's. Empty: it can be defined.
    ///
    /// # Errors
    /// When that can't be found out.
    async fn check_definition(&self, spec: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError>;

    /// Creates a partition, or changes what it is to have when it starts next. A domain or a namespace is there already, and is only
    /// noted as a partition. `spec.vfs` is not looked at: VFs come by [`Hypervisor::attach_vf`].
    ///
    /// # Errors
    /// When the partition's folder can't be written, it is there as something else, or its domain or namespace is not there or is
    /// another partition's.
    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError>;

    /// Forgets a partition and removes its folder. A domain or a namespace stays as it is, also one that runs.
    ///
    /// # Errors
    /// When it is a machine that runs.
    async fn undefine(&self, partition: &Name) -> Result<(), HypervisorError>;

    /// Starts a partition with the VFs and the channel it has been given, and returns once its machine executes.
    ///
    /// # Errors
    /// When the machine emulator can't be started or ends at once; its last words are in the error.
    async fn start(&self, partition: &Name) -> Result<Accelerator, HypervisorError>;

    /// Stops a partition and waits until its process is gone.
    ///
    /// # Errors
    /// When the guest does not turn itself off within the bound.
    async fn stop(&self, partition: &Name, mode: StopMode) -> Result<(), HypervisorError>;

    /// Resets a machine that has halted ([`PartitionStatus::halted`]), and has it go on: its guest boots anew, with what it had. One that
    /// executes is left as it is.
    ///
    /// # Errors
    /// When it does not run, is no machine of ioward's own, or does not go on within the bound.
    async fn reset(&self, partition: &Name) -> Result<(), HypervisorError> {
        let why = "only machines of ioward's own are".to_owned();
        Err(HypervisorError::NoReset { partition: partition.clone(), why })
    }

    /// Gives a VF to a partition: at its next start, or at once while it runs. For a machine or domain it is bound to vfio-pci, for a
    /// namespace to a driver of the host's that has made a network interface of it.
    ///
    /// Whether it may be given at all, the [`Guard`] knows.
    ///
    /// # Errors
    /// When the machine has no free slot or does not take it.
    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError>;

    /// Takes a VF from a partition; while it runs, waits until the guest has let go.
    ///
    /// # Errors
    /// When the guest does not let go within the bound. With `force` that is no error where the hypervisor can take
    /// it all the same.
    async fn detach_vf(&self, owner: &Owner, force: bool) -> Result<(), HypervisorError>;

    /// The PCI functions that a domain has, whoever gave them to it. Nothing is changed or noted. Only one who has domains can say.
    ///
    /// # Errors
    /// When there is no such domain, or libvirt can't be asked.
    async fn adoptable(&self, domain: &DomainRef) -> Result<Adoptable, HypervisorError> {
        let why = "nothing on this host has domains".to_owned();
        Err(HypervisorError::NoSuchDomain { domain: domain.clone(), why })
    }

    /// Notes that a domain has had a VF before it was a partition, as `owner`. Nothing of the domain is changed.
    ///
    /// # Errors
    /// When the domain does not have it, or in a way in which it is not ioward's to have.
    async fn adopt_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let why = "only a domain has VFs before it is a partition".to_owned();
        Err(HypervisorError::NotAttachable { function, partition: owner.partition.clone(), why })
    }

    /// Forgets a VF of a domain, which keeps it: nothing of the domain is changed.
    ///
    /// # Errors
    /// When that can't be written down.
    async fn release_vf(&self, owner: &Owner) -> Result<(), HypervisorError> {
        Err(HypervisorError::NoSuchPartition(owner.partition.clone()))
    }

    /// Gives a VF of a partition a standby: a virtio-net adapter on a bridge of the host's, which a guest with `net_failover` uses while
    /// the VF is away. It comes before its VF and goes after it: in a machine that runs, one whose VF is in already is refused.
    ///
    /// A VF that is attached then is the primary of its standby. The hypervisor says yes to it at once, and the guest gets it when it has
    /// negotiated `VIRTIO_NET_F_STANDBY`: one that has no driver for that never does, and the VF is handed to it all the same, until it
    /// is detached.
    ///
    /// # Errors
    /// When the partition is no machine of ioward's own, the bridge is not one, the machine has no free slot, or it has another standby
    /// for this VF.
    async fn attach_standby(&self, owner: &Owner, nic: &StandbyNic) -> Result<(), HypervisorError> {
        let why = format!("only machines of ioward's own have standbys, and it was to be {nic}");
        Err(HypervisorError::NoStandby { owner: owner.clone(), why })
    }

    /// Takes a VF's standby away; while the machine runs, waits until the guest has let go.
    ///
    /// # Errors
    /// When the machine runs and has the VF, or the guest does not let go within the bound.
    async fn detach_standby(&self, owner: &Owner) -> Result<(), HypervisorError> {
        let why = "only machines of ioward's own have standbys".to_owned();
        Err(HypervisorError::NoStandby { owner: owner.clone(), why })
    }

    /// What a running machine is like: so has one to be that takes its state over.
    ///
    /// # Errors
    /// When the partition is no machine of ioward's own, does not run, or its definition was changed since it was started.
    async fn layout(&self, partition: &Name) -> Result<MachineLayout, HypervisorError> {
        Err(not_moved(partition))
    }

    /// Starts the machine of a partition so that it stands still and waits for the state of a running one of this layout, and returns
    /// where that state goes in: a stream socket. The partition has the standbys and the channel of that one, and no VFs: those are given
    /// to it once it runs. [`Hypervisor::resume`] has it run once the state has come, [`Hypervisor::stop`] does away with it.
    ///
    /// # Errors
    /// When the partition is no machine of ioward's own or runs already, the layout is not to be had here, or the machine emulator can't
    /// be started.
    async fn receive(&self, partition: &Name, layout: &MachineLayout) -> Result<OwnedFd, HypervisorError> {
        let _ = layout;
        Err(not_moved(partition))
    }

    /// Begins to send the state of a running machine away, and returns where it comes out: a stream socket. It runs on meanwhile, and
    /// stands still at the end. Where the socket is closed before, it goes on by itself. From the end on, [`Hypervisor::resume`] has it run
    /// on and [`Hypervisor::stop`] ends it: whoever asks for either knows what is settled for the machine with the same state.
    ///
    /// # Errors
    /// When the partition is no machine of ioward's own, does not run, is being moved already, or holds a VF: those do not go along.
    async fn send(&self, partition: &Name) -> Result<OwnedFd, HypervisorError> {
        Err(not_moved(partition))
    }

    /// How far the move of a machine is, away from here or to here.
    ///
    /// # Errors
    /// When the partition is no machine of ioward's own or has none, as where the move failed that it waited for.
    async fn migration(&self, partition: &Name) -> Result<Migration, HypervisorError> {
        Err(not_moved(partition))
    }

    /// Has a machine run whose move has ended, or is to end. One that is being sent away stays here, also if its whole state has gone
    /// out; one whose state has come in goes on. One that runs as ever does so.
    ///
    /// # Errors
    /// When the partition is no machine of ioward's own, has none, or waits for a state that has not come wholly.
    async fn resume(&self, partition: &Name) -> Result<(), HypervisorError> {
        Err(not_moved(partition))
    }

    /// Makes the partition's communication structure; in a running one at once.
    ///
    /// # Errors
    /// When the machine does not take it.
    async fn create_channel(&self, partition: &Name) -> Result<(), HypervisorError>;

    /// Takes the partition's communication structure away.
    ///
    /// # Errors
    /// When the machine does not give it back.
    async fn destroy_channel(&self, partition: &Name) -> Result<(), HypervisorError>;

    /// The management partition's end of a running partition's channel. Whose it is, is known from here and never from
    /// what comes through it. Asked for again, it is a new end that takes the place of the one before.
    ///
    /// # Errors
    /// When the partition does not run or has no channel.
    async fn connect_channel(&self, partition: &Name) -> Result<ChannelEnd, HypervisorError>;

    /// A connection to a running partition's serial console: a stream socket. A console takes one at a time, and the next one waits,
    /// unseen, until that is closed.
    ///
    /// # Errors
    /// When the partition does not run, or has no console of ioward's.
    async fn open_console(&self, partition: &Name) -> Result<OwnedFd, HypervisorError> {
        let why = "what runs it gives none".to_owned();
        Err(HypervisorError::NoConsole { partition: partition.clone(), why })
    }

    /// All partitions, by name, with the VFs that it has been given for them: from its own records, also while what runs them does
    /// not answer. A partition that it leaves out is taken for gone, and its VFs for free.
    ///
    /// # Errors
    /// When the runtime folder can't be read.
    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError>;

    /// The UUID of the domain that each partition is, of those that are domains: from its own records. libvirt is not asked, so that
    /// this may be asked while libvirt waits for the answer.
    ///
    /// # Errors
    /// When nobody can tell.
    async fn domains(&self) -> Result<Vec<(Name, Uuid)>, HypervisorError> {
        Ok(Vec::new())
    }

    /// The events from now on. One receiver; a second call takes the first one's place.
    async fn events(&self) -> mpsc::Receiver<HypervisorEvent>;
}

fn not_moved(partition: &Name) -> HypervisorError {
    let why = "only machines of ioward's own are moved by ioward; a domain is by libvirt's own migration (virsh migrate --live), and a \
               namespace not at all";
    HypervisorError::NotMoved { partition: partition.clone(), why: why.into() }
}
