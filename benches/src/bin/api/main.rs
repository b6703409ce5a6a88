//! The API, measured from outside: an inventory of 4,096 VFs, against `lspci -vv` and against a look without a daemon; and 1,000
//! subscribers to events.
//!
//! ```text
//!   bench ── makes a copied tree of 33 adapters (sysfs as files) ──> lspci, look
//!         ── serve FOLDER ─────> a daemon whose host is that tree
//!         ── ask FOLDER ───────> what `ioward host --json` does with a daemon
//!         ── look FOLDER ──────> what `ioward host --json --root` does without
//!         ── subscribe FOLDER ─> 1,000 connections that follow the events
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

use ioward_benches::goals::Goals;

/// VFs of the inventory.
const VFS: usize = 4_096;
/// How often each way to an inventory is measured.
const ROUNDS: usize = 7;
/// Subscribers to events.
const SUBSCRIBERS: usize = 1_000;
/// Plans without steps that are carried out while they listen: two events each.
const PLANS: usize = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => return bench(),
        ["serve", folder] => daemon::serve(Path::new(folder)),
        ["ask", folder] => inventory::ask(Path::new(folder)),
        ["look", folder] => inventory::look(Path::new(folder)),
        ["subscribe", folder] => subscribers::follow(Path::new(folder), SUBSCRIBERS),
        _ => panic!("started by cargo xtask bench api, without arguments"),
    }
    ExitCode::SUCCESS
}

fn bench() -> ExitCode {
    let goals = Goals::default();
    let folder = tempfile::tempdir().unwrap();
    let functions = tree::make(folder.path(), VFS);
    let daemon = process::Daemon::start(folder.path());
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{VFS} VFs, {functions} functions in all, on {cpus} CPUs; in the middle of {ROUNDS} times");
    inventory::compare(folder.path(), &daemon, ROUNDS, &goals);
    println!();
    drop(daemon);
    println!(
        "{SUBSCRIBERS} subscribers to events, {PLANS} plans, on a host without adapters: each plan looks at the host"
    );
    let folder = tempfile::tempdir().unwrap();
    tree::make(folder.path(), 0);
    let daemon = process::Daemon::start(folder.path());
    subscribers::compare(folder.path(), &daemon, SUBSCRIBERS, PLANS, &goals);
    goals.status()
}
