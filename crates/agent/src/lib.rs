//! Runs inside a client partition and asks the management partition to configure the partition's own VFs.
//!
//! ```no_run
//! use ioward_agent::{Agent, Options, find_port};
//!
//! let mut agent = Agent::open(&find_port()?, Options::default())?;
//! for vf in agent.list()? {
//!     println!("{}", vf.name);
//! }
//! # Ok::<(), ioward_agent::AgentError>(())
//! ```
//!
//! Blocking, with a bound on every wait. The binary `ioward-agent` is a thin wrapper of [`command`];
//! [`simulated::main`] is a simulated partition, which is a process rather than a machine.
#![forbid(unsafe_code)]

mod agent;
mod bond;
mod bonding;
mod change;
pub mod command;
mod deadline;
mod error;
mod link;
mod port;
mod region;
mod show;
pub mod simulated;
mod watch;

pub use agent::{Agent, Options};
pub use bond::BondError;
pub use command::command;
pub use error::AgentError;
pub use ioward_channel::Notice;
pub use port::{PORT_NAME, find_port};
pub use watch::{Watch, WatchEvent};
