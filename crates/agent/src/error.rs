//! The errors of an agent.

use std::{io, path::PathBuf, time::Duration};

use ioward_model::OpError;

use crate::PORT_NAME;

/// Why an agent's call failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// This machine has no channel.
    #[error(
        "this machine has no port '{PORT_NAME}': it holds no VF of ioward, or its kernel lacks the virtio_console \
         driver (modprobe virtio_console); in a container: its channel is not mounted at /run/ioward"
    )]
    NoPort,
    /// The port can't be opened.
    #[error("{path} can't be opened as the channel (run as root, and with the right --port)", path = path.display())]
    Open {
        /// The port.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A port opens exclusively, and another process keeps it open.
    #[error(
        "{path} is in use by another process, and was for {waited:?}; end that (another ioward-agent?) and ask again",
        path = path.display()
    )]
    InUse {
        /// The port.
        path: PathBuf,
        /// How long the agent waited.
        waited: Duration,
    },
    /// The other end is not connected.
    #[error(
        "the management partition is not connected to {path}, and was not for {waited:?}; ask the host's \
         administrator whether 'ioward serve' runs",
        path = path.display()
    )]
    NotConnected {
        /// The port.
        path: PathBuf,
        /// How long the agent waited.
        waited: Duration,
    },
    /// The other end is connected, and does not answer the request.
    #[error(
        "{path}: the management partition did not answer within {waited:?}; ask again, or ask the host's administrator",
        path = path.display()
    )]
    NoAnswer {
        /// The port.
        path: PathBuf,
        /// How long the agent waited.
        waited: Duration,
    },
    /// The other end of a socket has hung up.
    #[error("the management partition closed the channel {path}; ask again", path = path.display())]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// The port was unplugged.
    #[error(
        "the channel {path} has been taken away: this partition holds no VF any more, or the channel is being made anew",
        path = path.display()
    )]
    Gone {
        /// The port.
        path: PathBuf,
    },
    /// The port can't be read or written.
    #[error("{path} can't be read or written", path = path.display())]
    Io {
        /// The port.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The management partition speaks a version that has no words for a change.
    #[error(
        "the management partition speaks version {spoken} of the channel protocol, which cannot say the protocol or \
         priority of a VLAN ({needs} can); update it, or leave them out"
    )]
    TooOld {
        /// The version that has them.
        needs: u16,
        /// The version that is spoken.
        spoken: u16,
    },
    /// The two ends have no protocol version in common.
    #[error(
        "this agent speaks versions {} to {} of the channel protocol, the management partition {imp_min} to {imp_max}; \
         install the ioward-agent that belongs to the host's ioward",
        ioward_channel::OLDEST_VERSION,
        ioward_channel::VERSION
    )]
    UnsupportedVersion {
        /// The oldest version that the management partition speaks.
        imp_min: u16,
        /// The newest version that the management partition speaks.
        imp_max: u16,
    },
    /// The management partition was restarted between a change and its answer.
    #[error(
        "the management partition restarted during '{op}': it may have been done or not; look with \
         'ioward-agent vf get', then ask again"
    )]
    Interrupted {
        /// The operation.
        op: &'static str,
    },
    /// The answer does not fit the request.
    #[error("the management partition answered what makes no sense: {0}")]
    Nonsense(String),
    /// The management partition refuses.
    #[error(transparent)]
    Operation(#[from] OpError),
}
