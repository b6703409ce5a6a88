//! The API, measured from outside: an inventory of 4,096 VFs, against `lspci -vv` and against a look without a daemon; a look when one of
//! them has changed; and 1,000 subscribers to events.
//!
//! ```text
//!   bench ── makes a copied tree of up to 33 adapters (sysfs as files) ──> lspci, look
//!         ── serve FOLDER ─────> a daemon whose host is that tree
//!         ── ask FOLDER ───────> what `ioward host --json` does with a daemon
//!         ── look FOLDER ──────> what `ioward host --json --root` does without
//!         ── subscribe FOLDER ─> up to 1,000 connections that follow the events
//! ```
//!
//! All read the same files. Those are on a disk: a real sysfs takes longer to read, for each of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

mod daemon;
mod http;
mod inventory;
mod process;
mod subscribers;
mod tree;

use std::{env, path::Path, process::ExitCode};

use ioward_benches::run::Run;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", folder] => daemon::serve(Path::new(folder)),
        ["ask", folder] => inventory::ask(Path::new(folder)),
        ["look", folder] => inventory::look(Path::new(folder)),
        ["subscribe", folder, count] => subscribers::follow(Path::new(folder), count.parse().unwrap()),
        _ => return bench(),
    }
    ExitCode::SUCCESS
}

fn bench() -> ExitCode {
    let mut run = match Run::asked_for("api", &["inventory", "subscribers"]) {
        Ok(run) => run,
        Err(status) => return status,
    };
    if run.wants("inventory") {
        inventory::measure(&mut run);
    }
    if run.wants("subscribers") {
        subscribers::measure(&mut run);
    }
    run.end()
}
