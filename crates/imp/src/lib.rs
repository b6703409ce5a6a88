//! The I/O virtualization management partition: the one crate that knows the others.
//!
//! ```text
//!   http ──> imp ──> planner            one change at a time (changing)
//!             ├────> executor ──> order, step ──> fabric, hypervisor
//!             │      ↑  └─> rollback       └────> journal, notes ──> store
//!   host ─────┼─> reconcile ──> relocation, planner
//!   start ────┴─> recovery ──> rollback
//!   guest ──> channels ──> operations ──> macs, notes, fabric
//! ```

mod as_before;
mod changes;
mod changing;
mod channels;
mod claims;
mod compatible;
mod confined;
mod error;
mod events;
mod executor;
mod host;
mod http;
mod imp;
mod journal;
mod look;
mod macs;
mod notes;
mod operations;
mod order;
mod orphans;
mod ownership;
mod quarantine;
mod reconcile;
mod recovery;
mod relocation;
mod rollback;
mod serve;
mod service;
mod step;
mod stuck;
mod transport;

pub use compatible::compatible;
pub use confined::{ConfinedError, confined};
pub use error::ImpError;
pub use host::{IMP_COMMAND, ServeConfig, serve};
pub use imp::{Imp, Run, plan_for};
pub use serve::{ServeError, serve_on};
