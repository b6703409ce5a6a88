//! The management partition beside guests, clients and disks that mean harm or do not answer: what one of them does is never
//! another one's loss.

// Tests say what must be so by panicking when it is not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod adapters;
mod adopting;
mod channels;
mod disk;
mod events;
mod failover;
mod halts;
mod looks;
mod meanwhile;
mod operations;
mod others;
mod prepare;
mod scene;
mod standby;
