//! A table of what each step means to those who carry it out.

use std::time::Duration;

use ioward_pci::Bdf;

use super::Step;
use crate::{MacAddress, Name, Owner, VfId};

/// All that has to be known of a step in order to carry it out beside others, to finish it, and to roll it back.
#[derive(Clone, Debug, PartialEq)]
pub struct Meaning<'a> {
    /// The part of the host that it is about.
    pub subject: Subject<'a>,
    /// The value to look up before it: its inverse needs it, and it can't be seen any more afterwards.
    pub found_before: FoundBefore,
    /// When operations of partitions are kept away from its adapter.
    pub keeps_out: KeepsOut,
    /// It is about what is known, and changes nothing on the host.
    pub is_a_note: bool,
    /// The host does it in a moment, and waits for nobody: it is written down that it is done together with others of its kind.
    pub is_short: bool,
    /// Those of its kind on one adapter are carried out one after the other: they draw on what the adapter has, and one that does not
    /// answer is asked once.
    pub takes_turns: bool,
    /// It asks a guest to do its part. The guest may still do so later, so this can't be withdrawn: a step that was cut off
    /// is finished first, and rolled back then.
    pub asks_guest: bool,
    /// It only waits for a guest and changes nothing itself, so that it may be given up while it waits.
    pub may_be_given_up: bool,
    /// It is undone by the end of its VF: no driver and no settings outlive that.
    pub ends_with_vf: bool,
    /// The hypervisor may have written its effect down, so that it outlives a boot of the host.
    pub outlives_boot: bool,
    /// It may be half done although a look finds it done. It is carried out again to make sure.
    pub may_be_half_done: bool,
    /// The MAC that it gives to a VF, or takes from one.
    pub mac: Option<MacAddress>,
    /// How long it may take where nothing that it rests on keeps a shorter limit.
    pub time_limit: Duration,
}

/// The part of a host that a step is about: an adapter as a whole, a VF, a partition, or both of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The adapter as a whole.
    pub pf: Option<Bdf>,
    /// The VF.
    pub vf: Option<VfId>,
    /// The partition.
    pub partition: Option<&'a Name>,
    /// The VF as one of the partition.
    pub owner: Option<&'a Owner>,
}

/// The value to look up before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBefore {
    /// Nothing: its inverse knows all it needs.
    Nothing,
    /// The address of its VF.
    Address,
    /// The address and the settings of its VF.
    Settings,
    /// The address and the driver of its VF.
    Driver,
}

/// When a step keeps operations of partitions away from its adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepsOut {
    /// Never.
    Never,
    /// From before it begins until it is noted.
    Throughout,
    /// From when it has been carried out until it is noted. It waits for a guest, which must not be kept waiting in turn.
    AtLast,
}

impl Subject<'_> {
    /// The adapter that it is about, as a whole or one VF of it.
    #[must_use]
    pub fn adapter(&self) -> Option<Bdf> {
        self.pf.or(self.vf.map(|vf| vf.pf))
    }
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

impl<'a> Meaning<'a> {
    /// A step that changes the host at once, and has nothing special about it.
    fn about(subject: Subject<'a>) -> Self {
        Self {
            subject,
            found_before: FoundBefore::Nothing,
            keeps_out: if subject.adapter().is_some() { KeepsOut::Throughout } else { KeepsOut::Never },
            is_a_note: false,
            is_short: false,
            takes_turns: false,
            asks_guest: false,
            may_be_given_up: false,
            ends_with_vf: false,
            outlives_boot: false,
            may_be_half_done: false,
            mac: None,
            time_limit: minutes(5),
        }
    }

    fn adapter(pf: Bdf) -> Self {
        Self::about(Subject { pf: Some(pf), ..Subject::default() })
    }

    fn vf(vf: VfId) -> Self {
        Self::about(Subject { vf: Some(vf), ..Subject::default() })
    }

    fn owned(owner: &'a Owner, vf: VfId) -> Self {
        let partition = Some(&owner.partition);
        Self::about(Subject { vf: Some(vf), partition, owner: Some(owner), pf: None })
    }

    fn partition(name: &'a Name) -> Self {
        Self::about(Subject { partition: Some(name), ..Subject::default() })
    }
}

impl Step {
    /// The meaning of the step for those who carry it out.
    #[must_use]
    pub fn meaning(&self) -> Meaning<'_> {
        match self {
            Self::HoldAdapter { pf, .. }
            | Self::ReleaseAdapter { pf, .. }
            | Self::TakeOutOfService { pf, .. }
            | Self::ReturnToService { pf, .. } => Meaning { is_a_note: true, ..Meaning::adapter(*pf) },
            Self::SetAutoprobe { pf, .. } => Meaning::adapter(*pf),
            // A VF may take two seconds to come or go, and there may be 256 of them and more.
            Self::SetVfCount { pf, .. } => Meaning { time_limit: minutes(60), ..Meaning::adapter(*pf) },
            Self::Assign { owner, to } => Meaning { is_a_note: true, ..Meaning::owned(owner, to.vf) },
            Self::Unassign { owner, from } => Meaning {
                is_a_note: true,
                mac: from.effective_settings().mac,
                ..Meaning::owned(owner, from.vf)
            },
            Self::ConfigureVf { vf, to } => Meaning {
                found_before: FoundBefore::Settings,
                is_short: true,
                takes_turns: true,
                ends_with_vf: true,
                mac: to.mac,
                ..Meaning::vf(*vf)
            },
            Self::BindDriver { vf, to } => Meaning {
                found_before: FoundBefore::Driver,
                is_short: true,
                takes_turns: true,
                ends_with_vf: true,
                may_be_half_done: to.is_none(),
                ..Meaning::vf(*vf)
            },
            Self::ResetVf { vf } => Meaning { is_short: true, takes_turns: true, ..Meaning::vf(*vf) },
            Self::DefinePartition { to, .. } => {
                Meaning { outlives_boot: true, may_be_half_done: true, ..Meaning::partition(&to.name) }
            }
            Self::UndefinePartition { from } => {
                Meaning { outlives_boot: true, ..Meaning::partition(&from.name) }
            }
            Self::CreateChannel { partition } => {
                Meaning { outlives_boot: true, may_be_half_done: true, ..Meaning::partition(partition) }
            }
            Self::DestroyChannel { partition } => Meaning::partition(partition),
            Self::AttachVf { owner, vf } => Meaning {
                found_before: FoundBefore::Address,
                keeps_out: KeepsOut::Never,
                outlives_boot: true,
                may_be_half_done: true,
                ..Meaning::owned(owner, *vf)
            },
            Self::DetachVf { owner, vf, .. } => {
                Meaning { keeps_out: KeepsOut::AtLast, asks_guest: true, ..Meaning::owned(owner, *vf) }
            }
            Self::AdoptVf { owner, vf } => Meaning {
                found_before: FoundBefore::Address,
                outlives_boot: true,
                ..Meaning::owned(owner, *vf)
            },
            Self::ReleaseVf { owner, vf } => Meaning { outlives_boot: true, ..Meaning::owned(owner, *vf) },
            Self::AttachStandby { owner, .. } => Meaning {
                outlives_boot: true,
                may_be_half_done: true,
                ..Meaning::partition(&owner.partition)
            },
            Self::DetachStandby { owner, .. } => {
                Meaning { asks_guest: true, ..Meaning::partition(&owner.partition) }
            }
            // A note: what becomes of the VF's adapter does not matter to it.
            Self::SwitchOver { owner, .. } => Meaning {
                is_a_note: true,
                ..Meaning::about(Subject {
                    partition: Some(&owner.partition),
                    owner: Some(owner),
                    ..Subject::default()
                })
            },
            Self::StartPartition { partition } => {
                Meaning { time_limit: minutes(10), ..Meaning::partition(partition) }
            }
            Self::StopPartition { partition, force } => Meaning {
                asks_guest: true,
                may_be_given_up: !force,
                time_limit: minutes(10),
                ..Meaning::partition(partition)
            },
        }
    }

    /// The part of the host that the step is about.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        self.meaning().subject
    }
}
