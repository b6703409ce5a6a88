//! From values to text for people: pure functions, laid out for a given number of columns.

pub mod changes;
pub mod compatible;
pub mod diff;
pub mod doctor;
pub mod drift;
pub mod events;
pub mod inventory;
pub mod partitions;
pub mod plan;
pub mod progress;
pub mod risks;
mod spec_diff;
pub mod table;
pub mod text;
