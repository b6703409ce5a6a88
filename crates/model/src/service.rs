//! Whether an adapter serves: its state, worked out from what looks at it find. Pure; docs/faults.md.
//!
//! ```text
//!              a fault                       well for QUIET_MS
//!   serving ────────────> frozen ────────────────────────────> recovering ──> serving
//!                          │  ^  least attempt that helps          │    made as noted, by a plan of repairs
//!                          │  └────────────── a fault ─────────────┤
//!                          v                                       v
//!                        failed  (MAX_FAULTS within WINDOW_MS, or MAX_ATTEMPTS): until a person says otherwise
//! ```
//!
//! A fault is an uncorrectable error that a PF has reported by AER (PCIe 6.0 §6.2), that a PF which answered does not answer any more,
//! that its NVMe controller, which took commands, takes none any more, or that a health reporter of its driver (devlink) stays in error.
//! What an adapter showed when it was first looked at is no fault: nobody knows when that was.

use std::{collections::VecDeque, fmt};

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{NvmeState, PhysicalFunction, Reason, Rule, health::WatchedHealth};

/// An adapter has to be well for so long before it is touched again: the kernel's own recovery takes some time, and errors come in
/// bursts. Milliseconds.
pub const QUIET_MS: u64 = 2_000;
/// So many faults within [`WINDOW_MS`] are too many.
pub const MAX_FAULTS: usize = 5;
/// Milliseconds.
pub const WINDOW_MS: u64 = 600_000;
/// So many attempts to recover an adapter, of either kind, are made for one fault.
pub const MAX_ATTEMPTS: u32 = 4;
/// So long a driver may take that is resetting its NVMe controller: most give that up after a minute (CAP.TO, NVMe 2.0 §3.1.3.1, is
/// 127 s at most). Milliseconds.
pub const RESETTING_MS: u64 = 130_000;
/// Before the first attempt: the driver's own recovery is waited for. Doubles with each. Milliseconds.
pub const FIRST_ATTEMPT_MS: u64 = 4_000;

/// Errors of a PF that were reported by AER since the kernel found it: the totals of sysfs `aer_dev_correctable`, `aer_dev_nonfatal` and
/// `aer_dev_fatal`, and of its root port's `aer_rootport_total_err_fatal` (Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorCounts {
    /// Errors that the hardware has corrected. They are counted, and nothing follows from them.
    pub correctable: u64,
    /// Uncorrectable errors after which the link is still reliable.
    pub nonfatal: u64,
    /// Uncorrectable errors after which it is not: the kernel resets the link, and everything below the root port.
    pub fatal: u64,
}

impl ErrorCounts {
    /// What there is more than before, in words; `None`: nothing uncorrectable. A count that is lower began anew.
    fn since(self, before: Self) -> Option<String> {
        let more = |now: u64, before: u64| if now < before { now } else { now - before };
        let counted = |count, kind| match count {
            0 => None,
            1 => Some(format!("1 {kind} error (AER)")),
            count => Some(format!("{count} {kind} errors (AER)")),
        };
        let found = [
            counted(more(self.fatal, before.fatal), "fatal"),
            counted(more(self.nonfatal, before.nonfatal), "non-fatal"),
        ];
        let found: Vec<_> = found.into_iter().flatten().collect();
        (!found.is_empty()).then(|| found.join(" and "))
    }
}

/// The state of an adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Service {
    /// It can be used.
    #[default]
    Serving,
    /// It had a fault, and nobody touches it but who recovers it.
    Frozen {
        /// The fault.
        what: String,
    },
    /// It is well again, and is made as it is noted.
    Recovering {
        /// The fault.
        what: String,
    },
    /// It had too many faults, or could not be recovered. It stays out until a person says otherwise.
    Failed {
        /// Why.
        what: String,
    },
}

impl Service {
    /// The words for the states.
    pub const WORDS: [&str; 4] = ["serving", "frozen", "recovering", "failed"];

    /// Its word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        let [serving, frozen, recovering, failed] = Self::WORDS;
        match self {
            Self::Serving => serving,
            Self::Frozen { .. } => frozen,
            Self::Recovering { .. } => recovering,
            Self::Failed { .. } => failed,
        }
    }

    /// Whether partitions and plans may use the adapter.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self == Self::Serving
    }

    /// What can be done about it; empty where nothing has to be.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Serving => "",
            Self::Frozen { .. } | Self::Recovering { .. } => {
                "wait until it serves again ('ioward events --follow' says so)"
            }
            Self::Failed { .. } => "see to it ('dmesg'), then have it back: ioward return",
        }
    }

    /// What is in the way of using the adapter at this address.
    #[must_use]
    pub fn in_the_way(&self, pf: Bdf) -> Option<Reason> {
        let reason = || Reason::new(Rule::InService, "an adapter that serves", self.to_string());
        (!self.is_serving()).then(|| reason().on(pf).remedy(self.remedy()))
    }

    /// Whether it may serve again by itself, or by what is tried.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        matches!(self, Self::Frozen { .. } | Self::Recovering { .. })
    }

    /// Whether nothing may touch it but who recovers it.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        matches!(self, Self::Frozen { .. } | Self::Failed { .. })
    }
}

impl fmt::Display for Service {
    /// As `frozen: 1 fatal error (AER)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving => f.write_str(self.word()),
            Self::Frozen { what } | Self::Recovering { what } | Self::Failed { what } => {
                write!(f, "{}: {what}", self.word())
            }
        }
    }
}

/// A way to recover an adapter, the least disturbing first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Recovery {
    /// Its driver is asked to recover from what its health reporters have in error (devlink).
    Health,
    /// The kernel resets the PF (sysfs `reset`): its configuration is saved and restored, its driver prepares for it.
    Reset,
    /// Its driver is taken from it and bound anew. All its VFs go.
    Rebind,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Health => "have its driver recover it",
            Self::Reset => "reset it",
            Self::Rebind => "bind its driver anew",
        })
    }
}

/// An adapter that is watched.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    service: Service,
    /// Of the latest look.
    errors: Option<ErrorCounts>,
    /// Whether it has answered to any look.
    has_answered: bool,
    /// Whether its NVMe controller has taken commands in any look since its driver has it.
    was_live: bool,
    /// Its driver is resetting its NVMe controller.
    is_resetting: bool,
    /// Its health reporters.
    health: WatchedHealth,
    /// When it last had a fault, in milliseconds.
    struck_at: u64,
    /// The driver that it had while it served.
    driver: Option<String>,
    /// When there were faults, in milliseconds.
    faults: VecDeque<u64>,
    /// Whether the latest look found it so that it can't be used.
    is_unwell: bool,
    /// The first look since its last fault that found it otherwise.
    well_since: Option<u64>,
    attempts: u32,
    /// The latest attempt, or the fault before the first.
    attempted_at: u64,
}

impl Watched {
    /// One that is looked at for the first time, and may be known to have answered.
    #[must_use]
    pub fn new(has_answered: bool) -> Self {
        Self { has_answered, ..Self::default() }
    }

    /// Its state.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Takes in what a look has found, at a time in milliseconds that never goes back. Whether the state has changed.
    pub fn see(&mut self, pf: &PhysicalFunction, now_ms: u64) -> bool {
        let before = self.service.clone();
        let answers = !pf.conditions.no_answer;
        let nvme = pf.nvme.as_ref().and_then(|controller| controller.state);
        self.health.see(pf.health.as_deref(), now_ms);
        let fault = self.fault(pf, answers, nvme, now_ms);
        self.is_resetting = answers && nvme.is_some_and(NvmeState::is_coming);
        self.was_live = nvme == Some(NvmeState::Live) || (self.was_live && nvme.is_some());
        // A driver that somebody has taken from it is no fault. One that does not come back after a fault is not well.
        let has_driver = pf.driver.is_some() || self.driver.is_none();
        let is_down = self.is_resetting || nvme == Some(NvmeState::Dead) || self.health.is_in_error();
        self.is_unwell = !answers || is_down || (!has_driver && !self.service.is_serving());
        self.well_since = match (self.is_unwell, &fault) {
            (true, _) => None,
            (false, Some(_)) => Some(now_ms),
            (false, None) => self.well_since.or(Some(now_ms)),
        };
        self.errors = pf.errors.or(self.errors);
        self.has_answered |= answers;
        if self.service.is_serving() && fault.is_none() {
            self.driver.clone_from(&pf.driver);
        }
        if let Some(what) = fault {
            self.strike(what, now_ms);
        } else if let Service::Frozen { what } = &self.service
            && self.well_since.is_some_and(|since| now_ms.saturating_sub(since) >= QUIET_MS)
        {
            self.service = Service::Recovering { what: what.clone() };
            self.attempted_at = now_ms;
        }
        self.service != before
    }

    /// Whether it is to be looked at again soon, though it serves: what was found may be a fault by then.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.service.is_serving() && self.health.is_in_error()
    }

    fn fault(
        &self,
        pf: &PhysicalFunction,
        answers: bool,
        nvme: Option<NvmeState>,
        now_ms: u64,
    ) -> Option<String> {
        let reported = self.errors.zip(pf.errors).and_then(|(before, now)| now.since(before));
        if reported.is_some() || self.service.is_frozen() {
            return reported;
        }
        if !answers {
            return self.has_answered.then(|| "it does not answer any more".to_owned());
        }
        // One that has just been found, or been given to its driver, is not live at once.
        let is_lost = |state: &NvmeState| *state == NvmeState::Dead || self.was_live && state.is_coming();
        let lost = nvme.filter(is_lost).map(|state| format!("its NVMe controller is {state}"));
        lost.or_else(|| self.health.stays_in_error(now_ms).map(str::to_owned))
    }

    fn strike(&mut self, what: String, now_ms: u64) {
        if matches!(self.service, Service::Failed { .. }) {
            return;
        }
        self.faults.push_back(now_ms);
        self.faults.retain(|at| now_ms.saturating_sub(*at) < WINDOW_MS);
        if self.service.is_serving() {
            self.attempts = 0;
        }
        (self.attempted_at, self.struck_at) = (now_ms, now_ms);
        self.service = if self.faults.len() < MAX_FAULTS {
            Service::Frozen { what }
        } else {
            let minutes = WINDOW_MS / 60_000;
            Service::Failed {
                what: format!("{MAX_FAULTS} faults within {minutes} minutes, the last one: {what}"),
            }
        };
    }

    /// The next attempt to recover it, if one is due: it is frozen, and not well by itself. After the last one it has failed, which
    /// [`Watched::service`] says then.
    pub fn attempt(&mut self, now_ms: u64) -> Option<Recovery> {
        let Service::Frozen { what } = &self.service else { return None };
        let is_left_to_its_driver = self.is_resetting && now_ms < self.struck_at.saturating_add(RESETTING_MS);
        if !self.is_unwell || is_left_to_its_driver || now_ms < self.due_at() {
            return None;
        }
        if self.attempts == MAX_ATTEMPTS {
            self.service = Service::Failed { what: format!("{what}; {MAX_ATTEMPTS} attempts did not help") };
            return None;
        }
        (self.attempts, self.attempted_at) = (self.attempts + 1, now_ms);
        // The least first, then by turns.
        let before_resets = u32::from(self.health.is_in_error());
        Some(match self.attempts.checked_sub(1 + before_resets) {
            None => Recovery::Health,
            Some(turn) if turn % 2 == 0 => Recovery::Reset,
            Some(_) => Recovery::Rebind,
        })
    }

    fn due_at(&self) -> u64 {
        self.attempted_at.saturating_add(FIRST_ATTEMPT_MS << self.attempts)
    }

    /// It has been made as it is noted, or could not be. One that can't be, again and again, has failed. Whether the state has changed.
    pub fn repaired(&mut self, is_done: bool, now_ms: u64) -> bool {
        let Service::Recovering { what } = &self.service else { return false };
        if is_done {
            self.service = Service::Serving;
            return true;
        }
        if now_ms < self.due_at() {
            return false;
        }
        (self.attempts, self.attempted_at) = (self.attempts + 1, now_ms);
        let has_failed = self.attempts >= MAX_ATTEMPTS;
        if has_failed {
            self.service =
                Service::Failed { what: format!("{what}; what is noted of it can't be made again") };
        }
        has_failed
    }
}

/// So many looks within [`WINDOW_MS`] that find new errors of a VF are too many. Each error halts the machines of all VFs below its port.
pub const MAX_VF_FAULTS: usize = 3;

/// A VF that is watched: for errors of its own.
#[derive(Clone, Debug, Default)]
pub struct WatchedVf {
    /// Of the latest look.
    errors: Option<ErrorCounts>,
    /// When there were new ones, in milliseconds.
    faults: VecDeque<u64>,
}

impl WatchedVf {
    /// Takes in a look, at a time in milliseconds that never goes back. Why the VF is to be locked out, if it is. What it showed when it was
    /// first looked at is no fault.
    pub fn see(&mut self, errors: Option<ErrorCounts>, now_ms: u64) -> Option<String> {
        let what = self.errors.zip(errors).and_then(|(before, now)| now.since(before));
        self.errors = errors.or(self.errors);
        let what = what?;
        self.faults.push_back(now_ms);
        self.faults.retain(|at| now_ms.saturating_sub(*at) < WINDOW_MS);
        let minutes = WINDOW_MS / 60_000;
        (self.faults.len() >= MAX_VF_FAULTS)
            .then(|| format!("{MAX_VF_FAULTS} faults within {minutes} minutes, the last one: {what}"))
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
