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
//! A fault is an uncorrectable error that a PF has reported by AER (PCIe 6.0 §6.2), that a PF which answered does not answer any more, or
//! that its NVMe controller, which took commands, takes none any more.
//! What an adapter showed when it was first looked at is no fault: nobody knows when that was.

use std::{collections::VecDeque, fmt};

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{NvmeState, PhysicalFunction, Reason, Rule};

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
    /// The kernel resets the PF (sysfs `reset`): its configuration is saved and restored, its driver prepares for it.
    Reset,
    /// Its driver is taken from it and bound anew. All its VFs go.
    Rebind,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
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
        let fault = self.fault(pf, answers, nvme);
        self.is_resetting = answers && nvme.is_some_and(NvmeState::is_coming);
        self.was_live = nvme == Some(NvmeState::Live) || (self.was_live && nvme.is_some());
        // A driver that somebody has taken from it is no fault. One that does not come back after a fault is not well.
        let has_driver = pf.driver.is_some() || self.driver.is_none();
        let is_down = self.is_resetting || nvme == Some(NvmeState::Dead);
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

    fn fault(&self, pf: &PhysicalFunction, answers: bool, nvme: Option<NvmeState>) -> Option<String> {
        let reported = self.errors.zip(pf.errors).and_then(|(before, now)| now.since(before));
        if reported.is_some() || self.service.is_frozen() {
            return reported;
        }
        if !answers {
            return self.has_answered.then(|| "it does not answer any more".to_owned());
        }
        // One that has just been found, or been given to its driver, is not live at once.
        let is_lost = |state: &NvmeState| *state == NvmeState::Dead || self.was_live && state.is_coming();
        nvme.filter(is_lost).map(|state| format!("its NVMe controller is {state}"))
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
        Some(if self.attempts % 2 == 1 { Recovery::Reset } else { Recovery::Rebind })
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
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// As a look finds it: so many fatal errors so far, or no answer.
    fn pf(fatal: u64, answers: bool) -> PhysicalFunction {
        serde_json::from_value(json!({
            "address": "0000:01:00.0", "vendor_id": "8086", "device_id": "10c9", "name": "a NIC", "class": "network",
            "driver": "igb", "in_use_by_host": [], "vfs_assigned": 0, "vfs_available": 7, "virtual_functions": [],
            "conditions": {"no_answer": !answers},
            "errors": {"correctable": 9, "nonfatal": 0, "fatal": fatal},
        }))
        .unwrap()
    }

    fn state(watched: &Watched) -> String {
        watched.service().to_string()
    }

    #[test]
    fn an_error_freezes_an_adapter_until_it_was_quiet_and_is_made_as_it_is_noted() {
        let mut watched = Watched::default();
        assert!(!watched.see(&pf(7, true), 0), "what was before the first look is no fault");
        assert!(watched.see(&pf(8, true), 1_000));
        assert_eq!(state(&watched), "frozen: 1 fatal error (AER)");
        assert!(!watched.see(&pf(8, true), 2_999), "not yet quiet for long enough");
        assert!(watched.see(&pf(8, true), 3_000));
        assert_eq!(state(&watched), "recovering: 1 fatal error (AER)");
        assert!(watched.repaired(true, 3_100));
        assert!(watched.service().is_serving());
        assert_eq!(watched.attempt(100_000), None, "nothing was to be attempted");
    }

    #[test]
    fn a_burst_of_errors_is_one_fault_and_a_count_that_begins_anew_is_none() {
        let mut watched = Watched::default();
        watched.see(&pf(3, true), 0);
        watched.see(&pf(1_003, true), 10);
        assert_eq!(state(&watched), "frozen: 1000 fatal errors (AER)");
        let mut watched = Watched::default();
        watched.see(&pf(3, true), 0);
        // The kernel has found the adapter anew.
        assert!(!watched.see(&pf(0, true), 10));
    }

    #[test]
    fn an_adapter_that_falls_silent_is_reset_then_bound_anew_and_fails_when_nothing_helps() {
        let mut watched = Watched::default();
        watched.see(&pf(0, true), 0);
        watched.see(&pf(0, false), 1_000);
        assert_eq!(state(&watched), "frozen: it does not answer any more");
        let mut made = Vec::new();
        for second in 1..=200 {
            watched.see(&pf(0, false), second * 1_000);
            made.extend(watched.attempt(second * 1_000).map(|attempt| (second, attempt)));
        }
        let (reset, rebind) = (Recovery::Reset, Recovery::Rebind);
        assert_eq!(made, [(5, reset), (13, rebind), (29, reset), (61, rebind)]);
        assert_eq!(state(&watched), "failed: it does not answer any more; 4 attempts did not help");
        assert!(!watched.see(&pf(0, true), 900_000), "it stays out, though it answers again");
    }

    /// As a look finds one whose NVMe controller is in this state; `None`: no driver has it.
    fn nvme(state: Option<&str>) -> PhysicalFunction {
        let state = state.map(|word| NvmeState::of_word(word).unwrap());
        let controller = state.map(|state| json!({"name": "nvme0", "resources": null, "state": state}));
        let mut pf = pf(0, true);
        pf.driver = controller.is_some().then(|| "nvme".to_owned());
        pf.nvme = controller.map(|controller| serde_json::from_value(controller).unwrap());
        pf
    }

    #[test]
    fn an_nvme_controller_that_its_driver_resets_is_left_to_it_and_then_made_as_it_is_noted() {
        let mut watched = Watched::default();
        for (second, state) in [(0, "new"), (1, "connecting"), (2, "live")] {
            assert!(!watched.see(&nvme(Some(state)), second * 1_000), "it is just being found: {state}");
        }
        watched.see(&nvme(Some("resetting")), 3_000);
        assert_eq!(state(&watched), "frozen: its NVMe controller is resetting");
        for second in 4..60 {
            watched.see(&nvme(Some("connecting")), second * 1_000);
            assert_eq!(watched.attempt(second * 1_000), None, "its driver has it in hand");
        }
        watched.see(&nvme(Some("live")), 60_000);
        watched.see(&nvme(Some("live")), 62_000);
        assert_eq!(state(&watched), "recovering: its NVMe controller is resetting");
        assert!(watched.repaired(true, 62_000) && watched.service().is_serving());
    }

    #[test]
    fn an_nvme_controller_whose_driver_does_not_come_to_an_end_or_gives_it_up_is_recovered_and_fails() {
        for (word, first) in [("resetting", 131), ("dead", 5)] {
            let mut watched = Watched::default();
            watched.see(&nvme(Some("live")), 0);
            let mut made = Vec::new();
            for second in 1..=400 {
                watched.see(&nvme(Some(word)), second * 1_000);
                made.extend(watched.attempt(second * 1_000).map(|_| second));
            }
            assert_eq!((made.len(), made[0]), (4, first), "{word}");
            assert_eq!(
                state(&watched),
                format!("failed: its NVMe controller is {word}; 4 attempts did not help")
            );
        }
    }

    /// Somebody has bound the VF's PF anew, or taken its driver: nobody resets it.
    #[test]
    fn an_nvme_controller_that_its_driver_lets_go_of_is_no_fault() {
        let mut watched = Watched::default();
        for (second, state) in
            (0..).zip([Some("live"), Some("deleting"), None, Some("new"), Some("connecting")])
        {
            assert!(!watched.see(&nvme(state), second * 1_000), "{state:?}");
        }
    }

    #[test]
    fn one_that_never_answered_is_no_fault() {
        let mut watched = Watched::default();
        for second in 0..100 {
            assert!(!watched.see(&pf(0, false), second * 1_000));
        }
    }

    #[test]
    fn too_many_faults_lock_an_adapter_out() {
        let mut watched = Watched::default();
        watched.see(&pf(0, true), 0);
        for fault in 1..=5_u64 {
            let at = fault * 60_000;
            watched.see(&pf(fault, true), at);
            watched.see(&pf(fault, true), at + QUIET_MS);
            watched.repaired(true, at + QUIET_MS);
        }
        assert_eq!(state(&watched), "failed: 5 faults within 10 minutes, the last one: 1 fatal error (AER)");
        let mut rare = Watched::default();
        rare.see(&pf(0, true), 0);
        for fault in 1..=50_u64 {
            let at = fault * WINDOW_MS / 4;
            rare.see(&pf(fault, true), at);
            rare.see(&pf(fault, true), at + QUIET_MS);
            assert!(rare.repaired(true, at + QUIET_MS), "fault {fault}");
        }
    }

    #[test]
    fn a_vf_that_reports_errors_again_and_again_is_locked_out() {
        let errors = |nonfatal| Some(ErrorCounts { correctable: 9, nonfatal, fatal: 0 });
        let mut watched = WatchedVf::default();
        assert_eq!(watched.see(errors(70), 0), None, "what was before the first look is no fault");
        assert_eq!(watched.see(errors(1_070), 1_000), None, "a burst is one");
        assert_eq!(watched.see(None, 2_000), None, "nor is it one that it can't be read for a while");
        assert_eq!(watched.see(errors(1_071), 3_000), None);
        assert_eq!(watched.see(errors(1_071), 4_000), None);
        let why = watched.see(errors(1_072), 5_000).unwrap();
        assert_eq!(why, "3 faults within 10 minutes, the last one: 1 non-fatal error (AER)");
        let mut rare = WatchedVf::default();
        assert!((0..50).all(|n| rare.see(errors(n), n * WINDOW_MS / 2).is_none()));
    }

    proptest! {
        /// Whatever an adapter does, it serves or has failed within a bound after it has done the last thing.
        #[test]
        fn nothing_is_recovered_for_ever(
            looks in proptest::collection::vec((0..3_u64, any::<bool>(), 1..9_000_u64, 0..5_usize), 0..80),
            ends_well in any::<bool>(),
            last in 0..5_usize,
            is_repaired in any::<bool>(),
        ) {
            let with = |fatal, answers, state: usize| {
                let word = ["live", "resetting", "connecting", "dead"].get(state).copied();
                PhysicalFunction { nvme: nvme(word).nvme, ..pf(fatal, answers) }
            };
            let (mut watched, mut now, mut fatal) = (Watched::default(), 0, 0);
            for (more, answers, takes, state) in looks {
                fatal += more;
                now += takes;
                watched.see(&with(fatal, answers, state), now);
                watched.attempt(now);
                watched.repaired(answers, now);
            }
            for _ in 0..400 {
                now += 1_000;
                watched.see(&with(fatal, ends_well, last), now);
                watched.attempt(now);
                watched.repaired(is_repaired, now);
            }
            let is_at_rest = matches!(watched.service(), Service::Serving | Service::Failed { .. });
            prop_assert!(is_at_rest, "{}", watched.service());
        }
    }
}
