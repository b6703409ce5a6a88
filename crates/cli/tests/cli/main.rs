//! The real binary, against a scripted daemon that stands for the API's contract, and against none.
#![forbid(unsafe_code)]
// Helpers of tests are tests too, which the lints do not see.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod adopting;
mod api_examples;
mod asking;
mod assign;
mod bad_spec;
mod beside_plans;
mod cases;
mod certificates;
mod change;
mod choosing;
mod command_line;
mod console;
mod daemon;
mod demo;
mod doc_examples;
mod documents;
mod evacuating;
mod examples;
mod failing_over;
mod hook;
mod migrating;
mod plans;
mod recorded;
mod risks;
mod select;
mod served;
mod show;
mod state;
mod support;
mod terminal;
mod tls_examples;
mod ui;
mod ui_remote;
