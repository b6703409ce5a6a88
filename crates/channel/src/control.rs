//! What a simulated hypervisor and the process that is its partition tell each other beside the channel: what a machine
//! has a bus and a power button for.
//!
//! Lines of text over a Unix stream socket, each at most [`MAX_LINE_BYTES`] long with its end; file descriptors travel
//! with the line that speaks of them (`SCM_RIGHTS`). Unknown lines are ignored, by both sides.

use std::{fmt, str::FromStr};

use ioward_model::Name;
use ioward_pci::Bdf;

/// The greatest length of a line, with the newline that ends it.
pub const MAX_LINE_BYTES: usize = 128;

/// What a hypervisor says to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToPartition {
    /// What the partition is called. Said first.
    Name(Name),
    /// There is a channel, in place of any before it. Comes with three descriptors: those of
    /// [`crate::shared::EndFds`], in their order there.
    Channel,
    /// There is no channel any more.
    NoChannel,
    /// A VF is there now.
    Attach {
        /// What the Spec calls it.
        vf: Name,
        /// Which it is.
        function: Bdf,
    },
    /// Let go of a VF.
    Detach(Name),
    /// All that the machine has at its start has been said: it is to run.
    Boot,
    /// The power button has been pressed.
    PowerButton,
}

/// What a partition says to its hypervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromPartition {
    /// It runs.
    Started,
    /// It has let go of a VF.
    Released(Name),
}

/// A line that says nothing that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such message")]
pub struct UnknownLine;

impl fmt::Display for ToPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "name {name}"),
            Self::Channel => f.write_str("channel"),
            Self::NoChannel => f.write_str("no-channel"),
            Self::Attach { vf, function } => write!(f, "attach {vf} {function}"),
            Self::Detach(vf) => write!(f, "detach {vf}"),
            Self::Boot => f.write_str("boot"),
            Self::PowerButton => f.write_str("power-button"),
        }
    }
}

impl FromStr for ToPartition {
    type Err = UnknownLine;

    fn from_str(line: &str) -> Result<Self, UnknownLine> {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["name", name] => Ok(Self::Name(parse(name)?)),
            ["channel"] => Ok(Self::Channel),
            ["no-channel"] => Ok(Self::NoChannel),
            ["attach", vf, function] => Ok(Self::Attach { vf: parse(vf)?, function: parse(function)? }),
            ["detach", vf] => Ok(Self::Detach(parse(vf)?)),
            ["boot"] => Ok(Self::Boot),
            ["power-button"] => Ok(Self::PowerButton),
            _ => Err(UnknownLine),
        }
    }
}

impl fmt::Display for FromPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Released(vf) => write!(f, "released {vf}"),
        }
    }
}

impl FromStr for FromPartition {
    type Err = UnknownLine;

    fn from_str(line: &str) -> Result<Self, UnknownLine> {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["started"] => Ok(Self::Started),
            ["released", vf] => Ok(Self::Released(parse(vf)?)),
            _ => Err(UnknownLine),
        }
    }
}

fn parse<T: FromStr>(word: &str) -> Result<T, UnknownLine> {
    word.parse().map_err(|_| UnknownLine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_they_were_said() {
        let name: Name = "n".repeat(40).parse().unwrap();
        let function = "0000:01:10.0".parse().unwrap();
        for message in [
            ToPartition::Name(name.clone()),
            ToPartition::Channel,
            ToPartition::NoChannel,
            ToPartition::Attach { vf: name.clone(), function },
            ToPartition::Detach(name.clone()),
            ToPartition::Boot,
            ToPartition::PowerButton,
        ] {
            let line = message.to_string();
            assert!(line.len() < MAX_LINE_BYTES);
            assert_eq!(line.parse(), Ok(message));
        }
        for message in [FromPartition::Started, FromPartition::Released(name)] {
            assert_eq!(message.to_string().parse(), Ok(message));
        }
    }

    #[test]
    fn what_is_no_line_is_no_message() {
        for line in ["", "released", "released ../x", "released a b", "STARTED", "started "] {
            assert_eq!(line.parse::<FromPartition>(), Err(UnknownLine), "{line:?}");
        }
        for line in ["attach net0", "attach net0 1", "channel 3", "name 0"] {
            assert_eq!(line.parse::<ToPartition>(), Err(UnknownLine), "{line:?}");
        }
    }
}
