//! The `ioward` command: parses arguments, calls the API over the daemon's Unix socket, prints. No logic of its own.
//!
//! ```text
//! args ──> spec_file, plan_file ──> show, compatible, assign, change, select, console ──> client ──> the daemon
//!                               │
//!                               └──> present ──> terminal          error: what stderr says, and the exit status
//! ```
#![forbid(unsafe_code)]

mod adopt;
mod args;
mod ask;
mod assign;
mod change;
mod change_args;
mod changes;
mod client;
mod compatible;
mod console;
mod daemon;
mod demo;
mod doctor;
#[cfg(test)]
mod documented;
// As the tests around the program have it, which use more of it. Helpers of tests are tests too, which the lints do not see.
#[cfg(test)]
#[allow(dead_code, clippy::expect_used, clippy::panic)]
#[path = "../tests/cli/documents.rs"]
mod documents;
mod error;
mod evacuate;
mod events;
mod events_filter;
mod hook;
mod man;
mod migrate;
mod pf_ref;
mod plan_file;
mod present;
mod recorded;
mod select;
mod serve;
mod show;
mod signals;
mod spec_file;
mod terminal;
mod tls_args;
mod ui;
mod vf_args;

use std::{path::Path, process::ExitCode};

use args::{Cli, Command, StateCommand};
use change::{Asks, Show};
use change_args::{ApplyArg, How};
use clap::Parser;
use client::Client;
use error::CliError;
use events_filter::EventsFilter;
use ioward_model::{Intent, Options, Owner};
use present::plan::Detail;
use spec_file::SpecFile;
use tls_args::ToTls;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return error::usage(&error),
    };
    let mut builder = match cli.command {
        // It has the descriptors of a partition, and waits for nothing but those.
        Command::SimulatedPartition => return ioward_agent::simulated::main(),
        // It gives up most rights first, which takes a process with one thread.
        Command::Imp => return serve::imp().map_or_else(|error| error.report(), |()| ExitCode::SUCCESS),
        Command::Serve(_) | Command::Demo(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CliError::Start(error).report(),
    };
    let wants_json = cli.command.wants_json();
    let result = runtime.block_on(run(cli));
    // A read from stdin cannot be taken back: waiting for it would hold a console open until the next key.
    runtime.shutdown_background();
    let error = match result {
        Ok(status) => return status,
        Err(error) => error,
    };
    if let Some(body) = error.as_json().filter(|_| wants_json) {
        // Whether or not anybody reads it: stderr says the same.
        let _ = terminal::print_raw(&format!("{body}\n"));
    }
    error.report()
}

/// The exit status of `ioward plan --detailed-exitcode` where there is something to change.
const CHANGES: u8 = 4;

async fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let socket = cli.socket();
    let client = Client::new(&socket);
    match cli.command {
        Command::Serve(args) => serve::serve(socket, args).await,
        Command::Demo(args) => demo::demo(args, cli.socket).await,
        Command::Ui(args) => ui::ui(&socket, args).await,
        // Taken care of before there was a runtime.
        Command::SimulatedPartition | Command::Imp => Ok(()),
        Command::LibvirtHook(args) => hook::hook(&client, args).await,
        Command::Host { json, risks: true, .. } => show::risks(&client, json).await,
        Command::Host { json, root, host, risks: false } => {
            show::host(&client, root.as_deref(), host.as_deref(), json).await
        }
        Command::Snapshot { file, unmasked, root } => {
            recorded::snapshot(&file, root.as_deref(), unmasked).await
        }
        Command::Doctor { root, json } => doctor::doctor(root.as_deref(), json).await,
        Command::Compatible { name, spec, host, json } => {
            let SpecFile { spec, source } = spec_file::read(&spec.file)?;
            let shown = compatible::compatible(&client, host.as_deref(), name, spec, json).await;
            shown.map_err(|error| source.place(error))
        }
        Command::Vfs { pf, json } => show::vfs(&client, pf.as_ref(), json).await,
        Command::Partitions { name: None, json } => show::partitions(&client, json).await,
        Command::Partitions { name: Some(name), json } => show::partition(&client, &name, json).await,
        Command::Spec { json } => show::spec(&client, json).await,
        Command::Events { follow, since, partition, kind, json } => {
            events::events(&client, follow, EventsFilter::new(since, partition, kind), json).await
        }
        Command::Changes { id: None, json, .. } => changes::list(&client, json).await,
        Command::Changes { id: Some(id), follow: false, json } => changes::one(&client, id, json).await,
        Command::Changes { id: Some(id), follow: true, json } => changes::follow(&client, id, json).await,
        Command::Cancel { id, json } => changes::cancel(&client, id, json).await,
        Command::Drift { json } => show::drift(&client, json).await,
        Command::Orphans { reap, json } => show::orphans(&client, reap, json).await,
        Command::Audit { json } => show::audit(&client, json).await,
        Command::State { command: StateCommand::Export { state_dir } } => {
            show::state(&client, state_dir.as_deref()).await
        }
        Command::Man { command } => man::page(&command),
        Command::Completions { shell } => man::completions(shell),
        Command::Console { name } => console::console(&client, name).await,
        Command::Plan { spec, allow, host, output, detailed_exitcode, explain, steps, what_if, json } => {
            let SpecFile { spec, source } = spec_file::read(&spec.file)?;
            let (intent, options) = (Intent::Apply { spec }, allow.options(false));
            let show = if json { Show::Json } else { Show::Text(Detail { explain, steps }) };
            let shown = match host {
                Some(host) => recorded::plan(&host, intent, options, show),
                None => {
                    change::plan(&client, intent, options, output.as_deref(), show, what_if.as_ref()).await
                }
            };
            let changes = shown.map_err(|error| source.place(error))?;
            return Ok(ExitCode::from(if detailed_exitcode && changes { CHANGES } else { 0 }));
        }
        Command::Apply { what: ApplyArg { file: spec, plan, plan_option }, allow, how } => {
            let file = |file: &Path| (file.to_owned(), How { stdin_is_read: file == Path::new("-"), ..how });
            match plan.or(plan_option) {
                Some(plan) => {
                    let (plan, how) = file(&plan);
                    change::apply_plan(&client, plan_file::read(&plan)?, how).await
                }
                None => {
                    let (spec, how) =
                        file(&spec.unwrap_or_else(|| unreachable!("clap asks for one of them")));
                    let SpecFile { spec, source } = spec_file::read(&spec)?;
                    let intent = Intent::Apply { spec };
                    let applied =
                        change::change(&client, intent, allow.options(false), Asks::Always, how).await;
                    applied.map_err(|error| source.place(error))
                }
            }
        }
        Command::Start { name, allow, how } => {
            let intent = Intent::Start { partition: name };
            change::change(&client, intent, allow.options(false), Asks::IfItDisturbs, how).await
        }
        Command::Stop { name, force, allow, how } => {
            let intent = Intent::Stop { partition: name };
            change::change(&client, intent, allow.options(force), Asks::IfItDisturbs, how).await
        }
        Command::Remove { name, force, allow, how } => {
            let intent = Intent::Remove { partition: name };
            change::change(&client, intent, allow.options(force), Asks::Always, how).await
        }
        Command::Adopt { domain, name, output, how } => {
            adopt::adopt(&client, domain, name, output, how).await
        }
        Command::Release { name, how } => {
            let intent = Intent::Release { partition: name };
            change::change(&client, intent, Options::default(), Asks::Surely, how).await
        }
        Command::Evacuate { to: Some(to), tls, allow, how, .. } => {
            let target = ToTls::daemon(&to, tls)?;
            migrate::all(&client, &target, allow.options(false), how).await
        }
        Command::Evacuate { pf, leave_out, force, allow, how, .. } => {
            evacuate::evacuate(&client, pf.as_ref(), leave_out, allow.options(force), how).await
        }
        Command::Return { pf, allow, how } => {
            evacuate::bring_back(&client, &pf, allow.options(false), how).await
        }
        Command::Migrate { name, to: Some(to), tls, allow, how, .. } => {
            let target = ToTls::daemon(&to, tls)?;
            migrate::migrate(&client, &name, &target, allow.options(false), how).await
        }
        Command::Migrate { name, to: None, .. } => migrate::accept(&client, &name).await,
        Command::Failover { vf: Owner { partition, vf }, back, how } => {
            let intent = Intent::Failover { partition, vf, back };
            change::change(&client, intent, Options::default(), Asks::IfItDisturbs, how).await
        }
        Command::Select { file } => select::select(client, file).await,
        Command::Assign(args) => assign::assign(&client, args).await,
        Command::Attach { name, vf, what, allow, how } => {
            let pf = pf_ref::address(&client, what.pf.as_ref()).await?;
            let vf = what.into_request(vf, pf).map_err(|error| CliError::Usage(error.to_string()))?;
            let intent = Intent::Attach { partition: name, vfs: vec![vf] };
            change::change(&client, intent, allow.options(false), Asks::IfItDisturbs, how).await
        }
        Command::Detach { name, vf, force, allow, how } => {
            let intent = Intent::Detach { partition: name, vf };
            change::change(&client, intent, allow.options(force), Asks::IfItDisturbs, how).await
        }
    }
    .map(|()| ExitCode::SUCCESS)
}
