//! Why an operation on a partition failed.

use std::{borrow::Cow, io, path::PathBuf, time::Duration};

use ioward_model::{DomainRef, KindName, Name, Owner};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

/// One variant for each way in which an operation on a partition can end badly. It may have happened in another process.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum HypervisorError {
    /// The machine emulator is missing.
    #[error(
        "{program} is not there; install the package qemu-system-x86 (Debian, Ubuntu) or qemu-kvm (Fedora)"
    )]
    EmulatorMissing {
        /// The program looked for.
        program: PathBuf,
    },
    /// The machine emulator is there and does not work.
    #[error("{program} does not work: {why}")]
    EmulatorBroken {
        /// The program.
        program: PathBuf,
        /// How it ended, and the end of what it wrote to stderr.
        why: String,
    },
    /// The machine emulator ended when it should have started.
    #[error("the machine of partition {partition} ended at once ({status}): {last_words}")]
    EndedAtOnce {
        /// The partition.
        partition: Name,
        /// Exit status in words.
        status: String,
        /// The end of what it wrote to stderr.
        last_words: String,
    },
    /// There is no such partition.
    #[error("there is no partition {0}; 'ioward partitions' lists them")]
    NoSuchPartition(Name),
    /// Nothing here runs partitions of this kind.
    #[error("partition {partition} is to be {kind}, and nothing on this host runs one")]
    NoBackend {
        /// The partition.
        partition: Name,
        /// Which it is to be, in words.
        kind: String,
    },
    /// Nothing here runs machines.
    #[error("nothing on this host runs machines of ioward's own")]
    NoMachines,
    /// Those who run partitions of a kind do not say which they have.
    #[error("nobody says within {} s which partitions of kind {kind} there are; nothing is given out or taken meanwhile", .after.as_secs_f32())]
    Silent {
        /// Of which kind.
        kind: KindName,
        /// The bound.
        after: Duration,
    },
    /// It is there as something else.
    #[error("partition {partition} is a {kind} already; remove it first: ioward remove {partition}")]
    OtherKind {
        /// The partition.
        partition: Name,
        /// Which it is.
        kind: KindName,
    },
    /// Its kind has no such thing.
    #[error("partition {partition} is a {kind}, and that is not {what}")]
    NotForKind {
        /// The partition.
        partition: Name,
        /// Which it is.
        kind: KindName,
        /// What it is not: "started".
        what: Cow<'static, str>,
    },
    /// It has no serial console of ioward's.
    #[error("partition {partition} has no console here: {why}")]
    NoConsole {
        /// The partition.
        partition: Name,
        /// Who has it, or why there is none.
        why: String,
    },
    /// It has to be stopped for this.
    #[error("partition {0} is running; stop it first: ioward stop {0}")]
    Running(Name),
    /// It has to run for this.
    #[error("partition {0} is not running; start it first: ioward start {0}")]
    NotRunning(Name),
    /// It can't be reset.
    #[error("the machine of partition {partition} is not reset: {why}")]
    NoReset {
        /// The partition.
        partition: Name,
        /// What stands in the way.
        why: String,
    },
    /// A VF may not be handed out.
    #[error("{function} is not given to {partition}: {why}")]
    NotAttachable {
        /// The function.
        function: Bdf,
        /// Who was to have it.
        partition: Name,
        /// Which rule forbids it.
        why: String,
    },
    /// A VF gets no standby, or keeps it.
    #[error("the standby of {owner} is left as it is: {why}")]
    NoStandby {
        /// The VF.
        owner: Owner,
        /// What was needed, and what was found.
        why: String,
    },
    /// A partition is not moved to another host, or does not come from one.
    #[error("partition {partition} is not moved: {why}")]
    NotMoved {
        /// The partition.
        partition: Name,
        /// What was needed, what was found, and what to do.
        why: String,
    },
    /// A network namespace is not there, or does not take or give back what it should.
    #[error("the network namespace of {partition} ({namespace}) {why}")]
    Namespace {
        /// The partition.
        partition: Name,
        /// Its namespace, in words.
        namespace: String,
        /// What is with it, from the verb on.
        why: String,
    },
    /// Nobody is there to talk to, and it will be told when somebody is.
    #[error("no agent is connected to the channel of {0}")]
    NoAgent(Name),
    /// The guest did not do its part in time.
    #[error(
        "the guest of {partition} did not {what} within {} s; try again, or turn it off: ioward stop {partition} --force",
        .after.as_secs()
    )]
    GuestUnresponsive {
        /// The partition.
        partition: Name,
        /// The thing it should have done: "let go of net1", "turn itself off".
        what: String,
        /// The bound.
        after: Duration,
    },
    /// The machine emulator refused a command.
    #[error("the machine of partition {partition} refused {command}: {why}")]
    Qmp {
        /// The partition.
        partition: Name,
        /// The QMP command.
        command: String,
        /// Its error description, or what was wrong with its answer.
        why: String,
    },
    /// libvirt can't be asked.
    #[error("{0}")]
    NoLibvirt(String),
    /// What a domain has can't be told.
    #[error("the domain {domain} can't be looked at: {why}")]
    NoSuchDomain {
        /// The domain.
        domain: DomainRef,
        /// What libvirt said.
        why: String,
    },
    /// Something could not be done to a domain of libvirt's.
    #[error("cannot {what} (partition {partition}): {why}")]
    Domain {
        /// The partition that it is, or was to be.
        partition: Name,
        /// The act: "start the domain web".
        what: String,
        /// What libvirt said, or what stood in the way.
        why: String,
    },
    /// libvirt was asked to do something to a domain and has not answered. It may be done all the same, now or later.
    #[error("cannot {what} (partition {partition}): {why}")]
    InDoubt {
        /// The partition that it is.
        partition: Name,
        /// The act: "start the domain web".
        what: String,
        /// How it came about that there is no answer.
        why: String,
    },
    /// A file or socket of a partition could not be used.
    #[error("cannot {what} {path}", path = .path.display())]
    Io {
        /// The operation, as a verb: "create", "connect to".
        what: Cow<'static, str>,
        /// Where.
        path: PathBuf,
        /// Why.
        #[serde(with = "ioward_model::io_error")]
        source: io::Error,
    },
}
