//! The rows.

mod channel;
mod machines;
mod rest;
mod vfs;

use ioward_benches::row::Row;

use crate::Result;

/// How often each thing is done.
#[derive(Clone, Copy)]
pub struct Rounds {
    /// What takes a second or less.
    pub short: usize,
    /// What takes as long as a guest's boot.
    pub long: usize,
    /// Operations of a guest in each round.
    pub operations: usize,
    /// How long rest is looked at, in seconds.
    pub rest: u64,
    /// Whether more than one size of the same is measured.
    pub sizes: bool,
}

impl Rounds {
    /// To measure.
    pub const FULL: Self = Self { short: 9, long: 5, operations: 100, rest: 30, sizes: true };
    /// To see that each row works.
    pub const QUICK: Self = Self { short: 1, long: 1, operations: 5, rest: 1, sizes: false };
}

/// A part: rows that are measured together.
pub type Part = fn(Rounds) -> Result<Vec<Row>>;

/// All parts, in the order in which they are run.
pub const ROWS: [(&str, Part); 9] = [
    ("rest", rest::at_rest),
    ("make", vfs::make),
    ("bind", vfs::bind),
    ("set", vfs::set),
    ("overlap", rest::overlap),
    ("start", machines::start),
    ("plug", machines::plug),
    ("channel", channel::operations),
    ("restart", rest::restart),
];
