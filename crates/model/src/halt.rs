//! Machines that are there and execute nothing: why, and when they are reset. Pure; docs/faults.md.
//!
//! ```text
//!            internal-error                    its adapters serve, and QUIET_MS have passed
//!   executes ──────────────> halted ────────────────────────────────────────────────────────> reset
//!      ^                       │ ^                                                              │
//!      │                       │ └── it could not be, or halts again: each time after twice as long
//!      └───────────────────────┼────────────────────────────────────────────────────────────────┘
//!                              v
//!                           left so  (MAX_FAULTS resets within WINDOW_MS): until it ends, or somebody has it go on
//! ```
//!
//! An uncorrectable error that an adapter reports (AER) reaches all functions below its port, and vfio-pci tells whoever has one of them
//! open. QEMU stops its machine for that, with the state `internal-error`, and only a reset leads out of it (`runstate_needs_reset` in
//! QEMU's system/runstate.c).

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
};

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{MAX_FAULTS, Name, QUIET_MS, WINDOW_MS};

/// Why a machine executes nothing. The words are QEMU's (qapi/run-state.json, `RunState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Halt {
    /// An error that it can't go on after, mostly an uncorrectable one of an adapter that it has a VF of. Only a reset helps.
    InternalError,
    /// The guest's kernel has panicked. Only a reset helps.
    GuestPanicked,
    /// Its disk could not be read or written.
    IoError,
    /// The guest did not serve its watchdog.
    Watchdog,
    /// Somebody has paused it.
    Paused,
}

impl Halt {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::InternalError, Self::GuestPanicked, Self::IoError, Self::Watchdog, Self::Paused];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::InternalError => "internal-error",
            Self::GuestPanicked => "guest-panicked",
            Self::IoError => "io-error",
            Self::Watchdog => "watchdog",
            Self::Paused => "paused",
        }
    }

    /// What can be done about it.
    #[must_use]
    pub fn remedy(self, partition: &Name) -> String {
        match self {
            Self::InternalError => format!(
                "it is reset once the adapters of its VFs serve; if not: ioward stop {partition} --force, then ioward start {partition}"
            ),
            Self::GuestPanicked | Self::Watchdog => {
                format!("see its console, then ioward stop {partition} --force, and ioward start {partition}")
            }
            Self::IoError => format!(
                "see to its disk ('dmesg'), then ioward stop {partition} --force, and ioward start {partition}"
            ),
            Self::Paused => "whoever has paused it has it go on".to_owned(),
        }
    }

    /// The one of this word; `None`: none, as of a machine that runs, or is just being started or moved.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|halt| halt.word() == word)
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A machine that is watched.
#[derive(Debug, Default)]
pub struct HaltWatch {
    halted: Option<Halt>,
    /// When it was found so. Milliseconds, as all that follows.
    since: u64,
    /// When something was last done about it, or it was found so.
    tried_at: u64,
    /// The adapters that had a fault meanwhile.
    faulty: BTreeSet<Bdf>,
    /// When it was reset, or was to be.
    resets: VecDeque<u64>,
    is_left: bool,
}

/// What there is to say or to do about a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HaltNews {
    /// It has halted.
    Halted,
    /// It executes again, and nobody here has reset it.
    GoesOn,
    /// It was reset too often, and is left as it is.
    Left,
    /// It is to be reset now. [`HaltWatch::was_reset`] is told what came of it.
    Reset,
}

impl HaltWatch {
    /// Takes in a look: whether it has halted, and which of its adapters have a fault. At a time that never goes back.
    pub fn see(&mut self, halted: Option<Halt>, faulty: &[Bdf], now_ms: u64) -> Option<HaltNews> {
        let before = std::mem::replace(&mut self.halted, halted);
        if halted.is_some() && halted == before {
            self.faulty.extend(faulty);
            return None;
        }
        (self.since, self.tried_at, self.is_left) = (now_ms, now_ms, false);
        self.faulty = faulty.iter().copied().collect();
        match (before, halted) {
            (_, Some(_)) => Some(HaltNews::Halted),
            (Some(_), None) => Some(HaltNews::GoesOn),
            (None, None) => None,
        }
    }

    /// What is due about it. `is_well`: all adapters that it has VFs of serve.
    pub fn due(&mut self, is_well: bool, now_ms: u64) -> Option<HaltNews> {
        self.resets.retain(|at| now_ms.saturating_sub(*at) < WINDOW_MS);
        let is_waiting = self.is_waiting() && is_well;
        let wait = QUIET_MS << self.resets.len().min(MAX_FAULTS);
        if !is_waiting || now_ms.saturating_sub(self.tried_at) < wait {
            return None;
        }
        self.is_left = self.resets.len() >= MAX_FAULTS;
        Some(if self.is_left { HaltNews::Left } else { HaltNews::Reset })
    }

    /// It was reset, or could not be. How long it had halted, and the adapters that had a fault meanwhile.
    pub fn was_reset(&mut self, is_done: bool, now_ms: u64) -> (u64, Vec<Bdf>) {
        self.resets.push_back(now_ms);
        self.tried_at = now_ms;
        if is_done {
            self.halted = None;
        }
        (now_ms.saturating_sub(self.since), self.faulty.iter().copied().collect())
    }

    /// Whether it is to be reset sooner or later.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.halted == Some(Halt::InternalError) && !self.is_left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_word_is_read_as_it_is_written_and_states_of_machines_that_go_on_are_none() {
        for halt in Halt::ALL {
            assert_eq!(Halt::of_word(halt.word()), Some(halt));
            assert_eq!(serde_json::to_value(halt).unwrap(), halt.word());
        }
        for state in ["running", "prelaunch", "inmigrate", "postmigrate", "suspended", ""] {
            assert_eq!(Halt::of_word(state), None, "{state}");
        }
    }

    const ERROR: Option<Halt> = Some(Halt::InternalError);

    fn nic() -> Bdf {
        "0000:01:00.0".parse().unwrap()
    }

    #[test]
    fn it_is_reset_when_its_adapters_serve_and_it_was_quiet() {
        let mut watch = HaltWatch::default();
        assert_eq!(watch.see(None, &[], 0), None);
        assert_eq!(watch.see(ERROR, &[], 1_000), Some(HaltNews::Halted));
        // The fault is found by a later look.
        assert_eq!(watch.see(ERROR, &[nic()], 2_000), None);
        assert_eq!(watch.due(false, 60_000), None, "its adapter would halt it again");
        assert_eq!(watch.due(true, 2_999), None);
        assert_eq!(watch.due(true, 3_000), Some(HaltNews::Reset));
        assert_eq!(watch.was_reset(true, 4_000), (3_000, vec![nic()]));
        assert_eq!(watch.see(None, &[], 5_000), None, "it is known that it goes on");
    }

    #[test]
    fn what_is_no_error_of_an_adapter_is_not_reset() {
        for halt in Halt::ALL.into_iter().filter(|halt| Some(*halt) != ERROR) {
            let mut watch = HaltWatch::default();
            assert_eq!(watch.see(Some(halt), &[], 0), Some(HaltNews::Halted));
            assert_eq!(watch.due(true, 600_000), None, "{halt}");
            assert_eq!(watch.see(None, &[], 600_000), Some(HaltNews::GoesOn));
        }
    }

    /// One after the other: it is reset, and halts at once.
    fn resets_until_left(watch: &mut HaltWatch, mut now: u64, is_done: bool) -> Vec<u64> {
        let mut at = Vec::new();
        for _ in 0..10_000 {
            now += 1_000;
            watch.see(ERROR, &[], now);
            match watch.due(true, now) {
                Some(HaltNews::Reset) => {
                    at.push(now / 1_000);
                    watch.was_reset(is_done, now);
                }
                Some(HaltNews::Left) => return at,
                _ => {}
            }
        }
        panic!("it is reset for ever: {at:?}");
    }

    #[test]
    fn one_that_halts_again_and_again_is_reset_after_twice_as_long_each_time_and_then_left() {
        let mut watch = HaltWatch::default();
        assert_eq!(resets_until_left(&mut watch, 0, true), [3, 8, 17, 34, 67]);
        assert_eq!(watch.due(true, 100_000_000), None);
        // Somebody has seen to it.
        watch.see(None, &[], 100_000_000);
        assert_eq!(resets_until_left(&mut watch, 100_000_000, true).len(), MAX_FAULTS);
        let mut watch = HaltWatch::default();
        assert_eq!(resets_until_left(&mut watch, 0, false).len(), MAX_FAULTS, "nor is it tried for ever");
    }

    proptest! {
        /// Whatever becomes of it, no machine is reset more often than that, or while an adapter of its does not serve.
        #[test]
        fn nothing_is_reset_too_often(looks in proptest::collection::vec((0..4_u8, any::<bool>(), any::<bool>(), 1..60_000_u64), 0..200)) {
            let (mut watch, mut now, mut resets) = (HaltWatch::default(), 0, Vec::new());
            for (halted, is_well, is_done, takes) in looks {
                now += takes;
                watch.see([None, ERROR, ERROR, Some(Halt::Paused)][usize::from(halted)], &[], now);
                if watch.due(is_well, now) == Some(HaltNews::Reset) {
                    prop_assert!(is_well && matches!(halted, 1 | 2));
                    watch.was_reset(is_done, now);
                    resets.push(now);
                }
            }
            let within = |at: &u64| resets.iter().filter(|other| (*at..at + WINDOW_MS).contains(other)).count();
            prop_assert!(resets.iter().all(|at| within(at) <= MAX_FAULTS), "{resets:?}");
        }
    }
}
