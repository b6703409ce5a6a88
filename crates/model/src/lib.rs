//! The values that flow through ioward, from what is there to what was done. Pure: no I/O, everything can be printed,
//! stored, compared and sent.
//!
//! ```text
//! Inventory ──┐
//! State ──────┼─> Plan (Steps) ─> Event
//! Intent ─────┘      a "no" is a list of Reasons
//!   (holds a Spec)
//! ```
#![forbid(unsafe_code)]

mod accelerator;
mod adoption;
mod audit;
pub mod checks;
mod choice;
mod conditions;
pub mod doctor;
mod drift;
mod event;
mod failover;
mod function_facts;
mod guest_may;
mod halt;
pub mod handover;
mod health;
mod holder;
mod identity;
mod into_map;
mod inventory;
pub mod io_error;
mod journal;
mod kind;
mod migration;
mod name;
mod nearest;
mod needs;
mod op;
#[cfg(feature = "openapi")]
mod openapi;
mod out_of_service;
mod partition;
mod partition_form;
mod plan;
mod reason;
pub mod risk;
mod row;
mod service;
mod settings;
mod spec;
mod spec_read;
mod spec_rules;
mod spec_text;
mod standby;
mod state;
mod step;
mod units;
pub mod utc;
mod vlan;
mod whereabouts;

pub use accelerator::Accelerator;
pub use adoption::{Adoptable, AdoptableFunction};
pub use audit::{AuditDropped, AuditEntry, AuditKind, Verdict};
pub use choice::{Criterion, Gap, Placement, Relaxation, Way};
pub use conditions::Conditions;
pub use drift::{Difference, Drift, Orphan};
pub use event::{Event, EventKind};
pub use failover::{
    Back, FailedOver, Failover, FailoverCause, FailoverPair, FailoverWatch, HeldStandby, Standby,
    StandbyError, Switch, fault_of,
};
pub use function_facts::FunctionFacts;
pub use guest_may::{Grant, GuestMay, Permission};
pub use halt::{Halt, HaltNews, HaltWatch};
pub use health::{HealthReporter, HealthState, UNRECOVERED_MS};
pub use holder::{Holder, Label, Process, Runs};
pub use identity::{AdapterId, Identity};
pub use into_map::IntoMap;
pub use inventory::{
    Class, HexId, HostUse, Inventory, Link, Netdev, NumaNode, NvmeController, NvmeResources, NvmeSecondary,
    NvmeState, PhysicalFunction, Sriov, Subclass, VfBar, VirtualFunction, is_lending,
};
pub use journal::{Ended, OpenOperation, PlanRecord, StepRecord};
pub use kind::{
    DomainRef, ForeignNameError, KindName, LONGEST_INTERFACE, Machine, NamespaceRef, PartitionKind,
};
pub use migration::{MachineLayout, MachineType, MachineTypeError, Migration};
pub use name::{Name, NameError, Owner, VfRef};
pub use nearest::nearest;
pub use needs::{Apart, Capability, FailureDomain, Guarantee, Guest, GuestOs, NumaPolicy};
pub use op::{OpError, OpErrorKind, OpOutcome, PairRole, PairView, VfOp, VfView};
pub use out_of_service::{OutOfService, Why};
pub use partition::PartitionStatus;
pub use plan::{Disturbance, Intent, Options, Plan, Policy, SettingsBefore, VfId};
pub use reason::{Reason, Rule};
pub use row::{PartitionHead, Row, RowKey};
pub use service::{
    ErrorCounts, FIRST_ATTEMPT_MS, MAX_ATTEMPTS, MAX_FAULTS, MAX_VF_FAULTS, QUIET_MS, Recovery, Service,
    WINDOW_MS, Watched, WatchedVf,
};
pub use settings::{Kind, LinkState, Setting, Value, VfSettings, VfStatistics};
pub use spec::{AdapterSpec, Boot, PartitionSpec, Spec, VfCount, VfRequest};
pub use spec_text::{MAX_SPEC_BYTES, SpecError, SpecPlace, SpecProblem, TextPlace};
pub use standby::{InterfaceName, InterfaceNameError, StandbyNic};
pub use state::{AdapterOriginal, AdapterState, Assignment, PartitionState, State};
pub use step::{
    Aspect, Change, FoundBefore, KeepsOut, Meaning, Observation, Outcome, Step, Subject, Value as AspectValue,
};
pub use units::{BitRate, MacAddress, MemorySize, UnitError};
pub use vlan::{Vlan, VlanProtocol};
pub use whereabouts::{Move, Place, Whereabouts};
