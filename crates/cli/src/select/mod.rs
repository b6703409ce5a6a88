//! `ioward select`: adapters and partitions on a terminal, and a choice made by keyboard.
//!
//! ```text
//! terminal ──> key ──> screen (edit, apply) ──> effect ──> run ──> the daemon, a file
//!                        │   ^                               │
//!                       view └────────── answer ─────────────┘
//! ```
//!
//! `screen` is a pure model: a key or an answer changes it and says what is to be done. What suits, and what a choice
//! would change, is the daemon's to say.

mod apply;
mod choice;
mod edit;
mod form;
mod input;
mod key;
mod page;
mod rows;
mod run;
mod screen;
#[cfg(test)]
mod tests;
mod view;
mod work;

pub use run::select;
