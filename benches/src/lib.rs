//! What the benchmarks share: things done in turns, medians, ratios with the spread that they were seen with, and whether goals are
//! met.
//!
//! A figure alone says little on a machine that others use. So whatever is compared is done in turns (A B A B …) within one run, and what
//! counts is the ratio within each round.

#![forbid(unsafe_code)]

pub mod cpu;
pub mod goals;
pub mod growth;
pub mod parts;
pub mod report;
pub mod row;
pub mod run;
pub mod spread;
