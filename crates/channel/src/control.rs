//! Messages between a simulated hypervisor and its partition's process, beside the channel: they stand for a
//! machine's bus and power button.
//!
//! Lines of text over a Unix stream socket, each at most [`MAX_LINE_BYTES`] long with its end; file descriptors travel
//! with the line that describes them (`SCM_RIGHTS`). Both sides ignore unknown lines.

use std::{fmt, str::FromStr};

use ioward_model::Name;
use ioward_pci::Bdf;

/// Maximum length of a line, including its newline.
pub const MAX_LINE_BYTES: usize = 128;

/// A message from the hypervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToPartition {
    /// The partition's name. Sent first.
    Name(Name),
    /// A new channel, in place of any earlier one. Carries three descriptors: those of [`crate::shared::EndFds`],
    /// in that order.
    Channel,
    /// The channel is gone.
    NoChannel,
    /// A VF has been attached.
    Attach {
        /// Its name in the Spec.
        vf: Name,
        /// Its address.
        function: Bdf,
    },
    /// Release a VF.
    Detach(Name),
    /// The machine's initial configuration is complete: boot.
    Boot,
    /// The power button has been pressed.
    PowerButton,
}

/// A message from the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromPartition {
    /// It runs.
    Started,
    /// It has released a VF.
    Released(Name),
}

/// A line that this version does not know.
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
    fn lines_are_parsed_as_they_were_written() {
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
    fn an_unknown_line_is_refused() {
        for line in ["", "released", "released ../x", "released a b", "STARTED", "started "] {
            assert_eq!(line.parse::<FromPartition>(), Err(UnknownLine), "{line:?}");
        }
        for line in ["attach net0", "attach net0 1", "channel 3", "name 0"] {
            assert_eq!(line.parse::<ToPartition>(), Err(UnknownLine), "{line:?}");
        }
    }
}
