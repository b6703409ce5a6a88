//! The `ioward` command: parses arguments, calls the API over the daemon's Unix socket, prints. No logic of its own.
//!
//! ```text
//! args ──> spec_file, plan_file ──> show, compatible, assign, change, select, console ──> client ──> the daemon
//!                               │
//!                               └──> present ──> terminal          error: what stderr says, and the exit status
//! ```
#![forbid(unsafe_code)]

mod args;
mod assign;
mod change;
mod client;
mod compatible;
mod console;
mod demo;
mod doctor;
mod error;
mod man;
mod plan_file;
mod present;
mod recorded;
mod select;
mod serve;
mod show;
mod signals;
mod spec_file;
mod terminal;
mod vf_args;

use std::process::ExitCode;

use args::{ApplyArg, Cli, Command, StateCommand};
use change::Show;
use clap::Parser;
use client::Client;
use error::CliError;
use ioward_model::Intent;
use present::plan::Detail;
use spec_file::SpecFile;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = Cli::parse();
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
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(body) = error.as_json().filter(|_| wants_json) {
        // Whether or not anybody reads it: stderr says the same.
        let _ = terminal::print_raw(&format!("{body}\n"));
    }
    error.report()
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let client = Client::new(&cli.socket);
    match cli.command {
        Command::Serve(args) => serve::serve(cli.socket, args).await,
        Command::Demo(args) => demo::demo(args).await,
        // Taken care of before there was a runtime.
        Command::SimulatedPartition | Command::Imp => Ok(()),
        Command::Host { json, root, host } => {
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
        Command::Vfs { pf, json } => show::vfs(&client, pf, json).await,
        Command::Partitions { json } => show::partitions(&client, json).await,
        Command::Events { follow, json } => show::events(&client, follow, json).await,
        Command::Drift { json } => show::drift(&client, json).await,
        Command::Orphans { reap, json } => show::orphans(&client, reap, json).await,
        Command::Audit { json } => show::audit(&client, json).await,
        Command::State { command: StateCommand::Export { state_dir } } => {
            show::state(&client, state_dir.as_deref()).await
        }
        Command::Man { command } => man::page(command.as_deref()),
        Command::Console { name } => console::console(&client, name).await,
        Command::Plan { spec, allow, host, output, explain, steps, json } => {
            let SpecFile { spec, source } = spec_file::read(&spec.file)?;
            let (intent, options) = (Intent::Apply { spec }, allow.options(false));
            let show = if json { Show::Json } else { Show::Text(Detail { explain, steps }) };
            let shown = match host {
                Some(host) => recorded::plan(&host, intent, options, show),
                None => change::plan(&client, intent, options, output.as_deref(), show).await,
            };
            shown.map_err(|error| source.place(error))
        }
        Command::Apply { what: ApplyArg { file, plan, plan_option }, allow, yes, json } => {
            if let Some(plan) = plan.or(plan_option) {
                return change::apply_plan(&client, plan_file::read(&plan)?, yes, json).await;
            }
            let file = file.unwrap_or_else(|| unreachable!("clap asks for one of them"));
            let SpecFile { spec, source } = spec_file::read(&file)?;
            let applied =
                change::apply(&client, Intent::Apply { spec }, allow.options(false), yes, json).await;
            applied.map_err(|error| source.place(error))
        }
        Command::Start { name, allow } => {
            change::at_once(&client, Intent::Start { partition: name }, allow.options(false)).await
        }
        Command::Stop { name, force, allow } => {
            change::at_once(&client, Intent::Stop { partition: name }, allow.options(force)).await
        }
        Command::Remove { name, force, allow } => {
            change::at_once(&client, Intent::Remove { partition: name }, allow.options(force)).await
        }
        Command::Select { file } => select::select(client, file).await,
        Command::Assign(args) => assign::assign(&client, args).await,
        Command::Attach { name, vf, what, allow } => {
            let vf = what.into_request(vf).map_err(|error| CliError::Usage(error.to_string()))?;
            change::at_once(&client, Intent::Attach { partition: name, vfs: vec![vf] }, allow.options(false))
                .await
        }
        Command::Detach { name, vf, force, allow } => {
            change::at_once(&client, Intent::Detach { partition: name, vf }, allow.options(force)).await
        }
    }
}
