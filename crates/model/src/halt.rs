//! Machines that are there and execute nothing: why.
//!
//! An uncorrectable error that an adapter reports (AER) reaches all functions below its port, and vfio-pci tells whoever has one of them
//! open. QEMU stops its machine for that, with the state `internal-error`, and only a reset leads out of it (`runstate_needs_reset` in
//! QEMU's system/runstate.c).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Name;

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

#[cfg(test)]
mod tests {
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
}
