//! The I/O virtualization management partition: the one crate that knows the others.
//!
//! ```text
//!   http ──> imp ─┬─> planning ──> planner
//!                 ├─> executor ──> order, step ──> fabric, hypervisor
//!                 │      ↑  └─> rollback       └────> journal, notes ──> store
//!   host ─────────┼─> reconciler ──> relocation, planner
//!   start ────────┴─> recovery ──> rollback
//!   guest ──> channels ──> operations ──> macs, notes, fabric
//! ```
//!
//! [`Imp`] is made of parts that it hands to each other when it is made, in `imp.rs`. None knows `Imp`, and none knows one that
//! knows it:
//!
//! ```text
//!   notes, events, ownership                     state and store; what is told; one lock for each adapter
//!    └─ looks                                    looks at the host
//!        ├─ planning, orphans, relocation
//!        └─ stuck ── operations                  what guests ask for
//!                     └─ channels
//!                         ├─ machines            when they end
//!                         └─ step runner ── executor ─┬─ recovery
//!                                                     └─ reconciler
//! ```

mod access;
mod as_before;
mod asked;
mod cached;
mod changes;
mod changing;
mod channels;
mod claims;
mod clock;
mod compatible;
mod confined;
mod consoles;
mod course;
mod error;
mod events;
mod executor;
mod failovers;
mod faults;
mod halts;
mod host;
mod http;
mod imp;
mod journal;
mod look;
mod machines;
mod macs;
mod metrics;
mod moves;
mod notes;
mod operations;
mod order;
mod orphans;
mod ownership;
mod peer;
mod planning;
mod prepare;
mod quarantine;
mod reconcile;
mod recovery;
mod relocation;
mod rollback;
mod runs;
mod serve;
mod service;
mod step;
mod stuck;
mod transport;
mod undefined;
mod workers;

pub use clock::Clock;
pub use compatible::compatible;
pub use confined::{ConfinedError, confined};
pub use error::ImpError;
pub use host::{IMP_COMMAND, ServeConfig, serve};
pub use imp::{Imp, Run};
pub use ioward_privsep::ApiGroups;
pub use planning::plan_for;
pub use serve::{ServeError, serve_on};
pub use undefined::Undefined;
