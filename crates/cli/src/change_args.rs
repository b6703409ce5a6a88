//! The options of commands that change something: what is to be changed, what is allowed for it, and how it goes.

use std::path::PathBuf;

use clap::Args;
use ioward_model::{Name, Options};

use crate::vf_args::VfArgs;

/// The Spec or plan to apply.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ApplyArg {
    /// The Spec, a TOML file; - is stdin
    #[arg(short, long, value_name = "SPEC")]
    pub file: Option<PathBuf>,
    /// A plan that 'ioward plan -o' wrote: exactly that one, or nothing; - is stdin
    #[arg(value_name = "PLAN", conflicts_with_all = ["allow_management_nic", "allow_disruption"])]
    pub plan: Option<PathBuf>,
    /// The same as PLAN
    #[arg(
        long = "plan",
        value_name = "FILE",
        conflicts_with_all = ["allow_management_nic", "allow_disruption"]
    )]
    pub plan_option: Option<PathBuf>,
}

/// Which VFs to give to whom.
#[derive(Debug, Args)]
pub struct AssignArgs {
    /// The partition
    pub name: Name,
    /// How many VFs, 1 to 256
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub count: u16,
    /// The prefix of their names [default: net, disk, gpu, accel or vf, by class]
    #[arg(long = "name", value_name = "PREFIX")]
    pub prefix: Option<Name>,
    /// The requirements and settings of each VF.
    #[command(flatten)]
    pub what: Box<VfArgs>,
    /// Options beyond the safe.
    #[command(flatten)]
    pub allow: Allow,
    /// How it is changed.
    #[command(flatten)]
    pub how: How,
}

/// How a command that changes something goes about it.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct How {
    /// Show the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not show the plan and ask: only whom it disturbs is shown before. Without a terminal to ask on, a change that disturbs
    /// somebody needs it
    #[arg(short, long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// While another change is carried out, wait so long for its end
    #[arg(long, value_name = "SECONDS", conflicts_with = "dry_run")]
    pub wait: Option<u64>,
    /// Print the events as JSON, one a line; the plan goes to stderr. With --dry-run, print the plan as JSON
    #[arg(long)]
    pub json: bool,
    /// Whether stdin is where the Spec or the plan comes from: no answer comes from there too.
    #[arg(skip)]
    pub stdin_is_read: bool,
}

impl How {
    /// Without a question: who calls this has asked, or needs not.
    #[must_use]
    pub fn unasked() -> Self {
        Self { yes: true, ..Self::default() }
    }
}

/// Options that allow more than the safe.
#[derive(Clone, Copy, Debug, Args)]
pub struct Allow {
    /// Change adapters that the host itself uses: its connection may drop
    #[arg(long)]
    pub allow_management_nic: bool,
    /// Take VFs away from running partitions for a while
    #[arg(long)]
    pub allow_disruption: bool,
}

impl Allow {
    /// As the API takes it.
    #[must_use]
    pub fn options(self, force: bool) -> Options {
        let Self { allow_management_nic, allow_disruption } = self;
        Options { allow_management_nic, allow_disruption, force }
    }
}
