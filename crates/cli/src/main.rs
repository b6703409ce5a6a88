//! The `ioward` command: parses arguments, calls the API over the daemon's Unix socket, prints. No logic of its own.
//!
//! ```text
//! args ──> spec_file, plan_file ──> show, compatible, change, console ──> client ──> the daemon
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
mod serve;
mod show;
mod spec_file;
mod terminal;
mod vf_args;

use std::process::ExitCode;

use args::{ApplyArg, Cli, Command};
use clap::Parser;
use client::Client;
use error::CliError;
use ioward_model::Intent;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut builder = match cli.command {
        // It has the descriptors of a partition, and waits for nothing but those.
        Command::SimulatedPartition => return ioward_agent::simulated::main(),
        Command::Serve(_) | Command::Demo(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CliError::Start(error).report(),
    };
    let result = runtime.block_on(run(cli));
    // A read from stdin cannot be taken back: waiting for it would hold a console open until the next key.
    runtime.shutdown_background();
    result.map_or_else(|error| error.report(), |()| ExitCode::SUCCESS)
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let client = Client::new(&cli.socket);
    match cli.command {
        Command::Serve(args) => serve::serve(cli.socket, args).await,
        Command::Demo(args) => demo::demo(args).await,
        // Taken care of before there was a runtime.
        Command::SimulatedPartition => Ok(()),
        Command::Host { json, root, host } => {
            show::host(&client, root.as_deref(), host.as_deref(), json).await
        }
        Command::Snapshot { file, unmasked, root } => {
            recorded::snapshot(&file, root.as_deref(), unmasked).await
        }
        Command::Doctor { root, json } => doctor::doctor(root.as_deref(), json).await,
        Command::Compatible { name, spec, host, json } => {
            let spec = spec_file::read(&spec.file)?;
            compatible::compatible(&client, host.as_deref(), name, spec, json).await
        }
        Command::Vfs { pf, json } => show::vfs(&client, pf, json).await,
        Command::Partitions { json } => show::partitions(&client, json).await,
        Command::Events { follow, json } => show::events(&client, follow, json).await,
        Command::Audit { json } => show::audit(&client, json).await,
        Command::Man { command } => man::page(command.as_deref()),
        Command::Console { name } => console::console(&client, name).await,
        Command::Plan { spec, allow, host, output, json } => {
            let intent = Intent::Apply { spec: spec_file::read(&spec.file)? };
            let options = allow.options(false);
            match (host, output) {
                (Some(host), _) => recorded::plan(&host, intent, options, json),
                (None, Some(file)) => change::plan_to_file(&client, intent, options, &file, json).await,
                (None, None) => change::plan(&client, intent, options, json).await,
            }
        }
        Command::Apply { what: ApplyArg { file, plan }, allow, yes, json } => match (file, plan) {
            (Some(file), _) => {
                let intent = Intent::Apply { spec: spec_file::read(&file)? };
                change::apply(&client, intent, allow.options(false), yes, json).await
            }
            (None, Some(plan)) => change::apply_plan(&client, plan_file::read(&plan)?, yes, json).await,
            (None, None) => unreachable!("clap asks for one of them"),
        },
        Command::Start { name, allow } => {
            change::at_once(&client, Intent::Start { partition: name }, allow.options(false)).await
        }
        Command::Stop { name, force, allow } => {
            change::at_once(&client, Intent::Stop { partition: name }, allow.options(force)).await
        }
        Command::Remove { name, force, allow } => {
            change::at_once(&client, Intent::Remove { partition: name }, allow.options(force)).await
        }
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
