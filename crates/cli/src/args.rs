//! The command line. Values are checked here, so that a wrong one never leaves this process.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use ioward_api::{ChangeId, DEFAULT_SOCKET};
use ioward_imp::IMP_COMMAND;
use ioward_model::{DomainRef, Name, NameError, Owner};

use crate::{
    change_args::{Allow, ApplyArg, AssignArgs, How},
    events_filter::{self, Since},
    pf_ref::PfRef,
    tls_args::{ToTls, UI_HELP, UiArgs},
    vf_args::VfArgs,
};

/// Finds SR-IOV adapters, gives their virtual functions to KVM guests, and lets each guest configure its own.
#[derive(Debug, Parser)]
#[command(name = "ioward", version, max_term_width = 80, after_help = EXIT_STATUS)]
pub struct Cli {
    /// Unix socket of the daemon [env: IOWARD_SOCKET] [default: /run/ioward/api.sock]
    // Below what the command itself takes. The environment is read here: clap would change its usage lines with it.
    #[arg(long, global = true, value_name = "PATH", display_order = 900)]
    pub socket: Option<PathBuf>,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The daemon's socket: from the command line, the environment, or where it is by default.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        let named = self.socket.clone().or_else(|| std::env::var_os("IOWARD_SOCKET").map(PathBuf::from));
        named.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| DEFAULT_SOCKET.into())
    }
}

const EXIT_STATUS: &str = "Exit status: 0 done; 1 failed; 2 wrong usage or invalid Spec; \
    3 refused (policy, compatibility, disruption); \
    4 there is something to change (plan --detailed-exitcode)";

/// The hidden command by which a simulated partition is started.
pub const SIMULATED_PARTITION: &str = "simulated-partition";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole job on a simulated machine: no hardware, no root
    Demo(DemoArgs),
    /// Play a client partition of the demonstration.
    #[command(name = SIMULATED_PARTITION, hide = true)]
    SimulatedPartition,
    /// Run the management partition (the daemon)
    Serve(ServeArgs),
    /// Serve the page for a browser, with your own rights
    #[command(after_help = UI_HELP)]
    Ui(UiArgs),
    /// Be the process of the management partition that 'ioward serve' starts.
    #[command(name = IMP_COMMAND, hide = true)]
    Imp,
    /// Have the VFs of a domain ready before libvirt starts it: libvirt runs this as its hook, with the definition on stdin.
    #[command(hide = true)]
    LibvirtHook(HookArgs),
    /// Show the SR-IOV adapters of this host
    Host {
        /// Print the inventory as JSON
        #[arg(long)]
        json: bool,
        /// Look at a copied tree (DIR/sys, DIR/proc) instead: no daemon, no privilege
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
        /// Look at a host that was recorded by 'ioward snapshot' instead
        #[arg(long, value_name = "FILE", conflicts_with = "root")]
        host: Option<PathBuf>,
        /// Show instead what the failure of each port and adapter would take, and which partitions it would cut off
        #[arg(long, conflicts_with_all = ["root", "host"])]
        risks: bool,
    },
    /// Record what ioward sees of this host in one file, for a bug report or a test
    #[command(
        after_help = "The file is JSON and can be read and compared; --host FILE of other commands looks at it. It has \
        names of drivers, interfaces and mount points as they are. Root sees more than others, and so does its recording."
    )]
    Snapshot {
        /// Where to write it; - is stdout
        file: PathBuf,
        /// Leave MAC and IP addresses and serial numbers as they are
        #[arg(long)]
        unmasked: bool,
        /// Record a copied tree (DIR/sys, DIR/proc) instead
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Show the virtual functions there are: whose each is, and its settings
    #[command(
        after_help = "OWNER is the partition and the VF's name there. Below it is who else has the VF: a machine of libvirt or Proxmox, \
        a pod, a container, another program, a network namespace, or a driver of the host. None of these is ever touched."
    )]
    Vfs {
        /// Only those of this physical function, as 0000:01:00.0 or enp1s0
        pf: Option<PfRef>,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Check whether this host can do SR-IOV at all, and how to get what is missing
    Doctor {
        /// Check a copied tree (DIR/sys, DIR/proc, DIR/lib/modules) instead
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show which functions suit a partition of a Spec, and why the others do not
    #[command(
        after_help = "Those that suit come first, best first. Each VF that the partition asks for is looked at by \
        itself: two may suit the same function, which 'ioward plan' gives to one of them."
    )]
    Compatible {
        /// The partition
        name: Name,
        /// The Spec.
        #[command(flatten)]
        spec: SpecArg,
        /// Look at a host that was recorded by 'ioward snapshot' instead
        #[arg(long, value_name = "FILE")]
        host: Option<PathBuf>,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a Spec would change, and whom that would disturb
    #[command(
        after_help = "A line begins with + for what is made or given, ~ for what changes, - for what is taken or goes. \
        A refusal names the rule, and the place in the Spec that asks for it."
    )]
    Plan {
        /// The Spec.
        #[command(flatten)]
        spec: SpecArg,
        /// Options beyond the safe.
        #[command(flatten)]
        allow: Allow,
        /// Plan for a host that was recorded by 'ioward snapshot': no daemon, and nothing to apply
        #[arg(long, value_name = "FILE")]
        host: Option<PathBuf>,
        /// Also write the plan to a file, for 'ioward apply FILE'; - writes it to stdout instead of showing it
        #[arg(short, long, value_name = "FILE", conflicts_with = "host")]
        output: Option<PathBuf>,
        /// End with exit status 4 where the plan changes anything, 0 where there is nothing to do
        #[arg(long)]
        detailed_exitcode: bool,
        /// Say of each VF what decided that it is that one
        #[arg(long, conflicts_with = "json")]
        explain: bool,
        /// Show the steps too, in order
        #[arg(long, conflicts_with = "json")]
        steps: bool,
        /// Say too what the failure of this adapter would take once the plan is carried out, and whom it would cut off
        #[arg(long, value_name = "PF", conflicts_with_all = ["json", "host"])]
        what_if: Option<PfRef>,
        /// Print the plan as JSON, all of it
        #[arg(long)]
        json: bool,
    },
    /// Carry a Spec or a plan out: all of it or nothing
    #[command(
        after_help = "The plan is shown and asked about before it is carried out: on stdin, or on the terminal where \
        the Spec comes from stdin. Ctrl-C has the daemon undo what was done so far, and does not wait for that."
    )]
    Apply {
        /// The Spec or the plan.
        #[command(flatten)]
        what: ApplyArg,
        /// Options beyond the safe.
        #[command(flatten)]
        allow: Allow,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Show the client partitions, or all of one
    Partitions {
        /// Only this one, in detail
        name: Option<Name>,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Start a stopped partition
    Start {
        /// The partition
        name: Name,
        /// Options beyond the safe.
        #[command(flatten)]
        allow: Allow,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Stop a running partition; it keeps its VFs
    Stop {
        /// The partition
        name: Name,
        /// Turn it off without asking its guest
        #[arg(long)]
        force: bool,
        /// Options beyond the safe.
        #[command(flatten)]
        allow: Allow,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Connect to a partition's serial console; Ctrl-] leaves
    #[command(
        after_help = "Input from a file or a pipe is sent as it is; after its end, output goes on until the \
        partition ends."
    )]
    Console {
        /// The partition
        name: Name,
    },
    /// Stop and forget a partition; its VFs become as they were found
    Remove {
        /// The partition
        name: Name,
        /// Turn it off without asking its guest
        #[arg(long)]
        force: bool,
        /// Options beyond the safe.
        #[command(flatten)]
        allow: Allow,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Choose on the terminal how many VFs there are to be and who gets which
    #[command(
        after_help = "Begins from the Spec, or from what the daemon holds. The choice ends in a plan that is looked at \
        and applied, or in a Spec that is saved. Keys are shown at the bottom; ? shows them all. It needs a terminal of \
        80 columns and 24 lines; without one, use 'ioward assign'. NO_COLOR is respected."
    )]
    Select {
        /// Begin from this Spec, a TOML file
        #[arg(short, long, value_name = "SPEC")]
        file: Option<PathBuf>,
    },
    /// Give more VFs to a partition in one plan, also while it runs
    #[command(
        after_help = "The VFs are named after their class, with the next free number: net0, net1, … The plan is \
        shown and, on a terminal, asked about before it is carried out: all of it or nothing."
    )]
    Assign(AssignArgs),
    /// Give one more VF to a partition at once, also while it runs
    Attach {
        /// The partition
        name: Name,
        /// The VF's name in the partition
        vf: Name,
        /// The VF's requirements and settings.
        #[command(flatten)]
        what: Box<VfArgs>,
        /// Options beyond the safe.
        #[command(flatten)]
        allow: Allow,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Take a VF from a partition, also while it runs
    Detach {
        /// The partition
        name: Name,
        /// The VF's name in the partition
        vf: Name,
        /// Take it from a guest that does not let go, where that can be done: QEMU cannot
        #[arg(long)]
        force: bool,
        /// Options beyond the safe.
        #[command(flatten)]
        allow: Allow,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Make a partition of a libvirt domain that has VFs already, as it is, and print its Spec
    #[command(
        after_help = "Neither the domain nor its VFs change, whether it runs or not. VFs of <hostdev managed='no'> are taken over; the \
        plan says what else the domain has, and why that is left out. 'ioward release' is the way back."
    )]
    Adopt {
        /// The domain, by its name or its UUID
        domain: DomainRef,
        /// The partition's name [default: the domain's]
        #[arg(long, value_name = "NAME")]
        name: Option<Name>,
        /// Also write the Spec to a file
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Forget a partition that is a libvirt domain: the domain keeps its VFs, as they are
    #[command(
        after_help = "The channel is taken out of the domain again, and nothing else. Adapters go on giving as many VFs as they do. \
        'ioward remove' takes the VFs back instead."
    )]
    Release {
        /// The partition
        name: Name,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Take an adapter out of service: its VFs go to other adapters, also under partitions that run; or empty the host
    #[command(
        group(clap::ArgGroup::new("what").required(true)),
        after_help = "The adapter is free then, for new firmware or a screwdriver: it gives no VFs and none are made, until 'ioward \
        return'. MAC, VLAN and whatever else is set for a VF go along. Partitions that run lose each VF for a while, so they are named, \
        and --allow-disruption has to be given. A VF that no other adapter suits is in the way, unless --leave-out is given.\n\n--host stops all machines and domains instead, all \
        or none, so that the host can be turned off: they keep their VFs. Those with autostart are started when it has booted again. With \
        --to, ioward's own machines that run are moved to another host, one after the other, as by 'ioward migrate', and nothing is stopped."
    )]
    Evacuate {
        /// The physical function, as 0000:01:00.0 or enp1s0
        #[arg(group = "what")]
        pf: Option<PfRef>,
        /// The whole host: stop all machines and domains
        #[arg(long, group = "what", conflicts_with = "leave_out")]
        host: bool,
        /// With --host: the API of the daemon of the host that machines are moved to
        #[arg(long, value_name = "URL|SOCKET", requires = "host", conflicts_with = "force")]
        to: Option<String>,
        /// What is shown to a URL, and whom it is taken for.
        #[command(flatten)]
        tls: Option<ToTls>,
        /// Take VFs for which there is none on another adapter from their partitions
        #[arg(long)]
        leave_out: bool,
        /// Take VFs from guests that do not let go, where that can be done: QEMU cannot. With --host: turn off, and do not ask
        #[arg(long)]
        force: bool,
        /// Options beyond the safe.
        #[command(flatten)]
        allow: Allow,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Have an adapter in service again that was taken out of it
    #[command(
        after_help = "Nothing moves back by itself. The Spec that was last applied, applied again, moves back what it pins to the adapter."
    )]
    Return {
        /// The physical function, as 0000:01:00.0 or enp1s0; or a VF that is locked out by itself, by its address
        pf: PfRef,
        /// Options beyond the safe.
        #[command(flatten)]
        allow: Allow,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Move a machine that runs to another host
    #[command(
        group(clap::ArgGroup::new("whither").required(true)),
        after_help = "Its guest goes on, with its memory and its connections. Its VFs are taken out before, so each needs a standby or a \
        bond, and it gets others there. The other host's daemon is reached by 'ioward ui --listen' there, as https://HOST:PORT with the \
        three files; or by its socket, as ssh brings it here: ssh -L /run/there.sock:/run/ioward/api.sock root@HOST. What it starts from has to be on both hosts, under the same path. \
        Until it is decided Ctrl-C has it stay here."
    )]
    Migrate {
        /// The partition
        name: Name,
        /// The API of the other host's daemon
        #[arg(long, value_name = "URL|SOCKET", group = "whither")]
        to: Option<String>,
        /// What is shown to a URL, and whom it is taken for.
        #[command(flatten)]
        tls: Option<ToTls>,
        /// Take it here: it has come wholly, and the host it comes from is gone for good
        #[arg(long, group = "whither")]
        accept: bool,
        /// Options beyond the safe.
        #[command(flatten)]
        allow: Allow,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Have the standby of a VF active in its place
    #[command(
        after_help = "A fault of the primary does the same by itself. It stays so until 'ioward failover PARTITION/VF --back', or until the \
        standby has a fault. The partition sends by the one that is active: its agent bonds the two ('ioward-agent bond')."
    )]
    Failover {
        /// The primary, as web/net0
        #[arg(value_name = "PARTITION/VF", value_parser = owner)]
        vf: Owner,
        /// Have the primary active again
        #[arg(long)]
        back: bool,
        /// How it is changed.
        #[command(flatten)]
        how: How,
    },
    /// Print the Spec of what is held now, as TOML: applying it changes nothing
    Spec {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what happened
    #[command(
        after_help = "Times are those that 'ioward events' shows, in UTC; the rest of one may be left out: 2026-11-27, \
        2026-11-27T03:15. A kind is the word that --json has in \"event\", or how it begins: plan, step, drift."
    )]
    Events {
        /// Show what happens from now on; with --since, also what has happened since then
        #[arg(long)]
        follow: bool,
        /// Only events after this number, this time, or so long ago, as 90s, 10m, 2h or 3d
        #[arg(long, value_name = "NUMBER|TIME|AGE")]
        since: Option<Since>,
        /// Only events of this partition and its VFs; may be repeated
        #[arg(long, value_name = "NAME")]
        partition: Vec<Name>,
        /// Only events of this kind, as plan or partition-ended; may be repeated
        #[arg(long, value_name = "KIND", value_parser = events_filter::kind)]
        kind: Vec<String>,
        /// Print events as JSON, one a line
        #[arg(long)]
        json: bool,
    },
    /// Show the changes that were begun: plans that are carried out, or were
    #[command(
        after_help = "A change outlives the command that began it. The daemon keeps the latest 32 since it was started; of those \
        before, 'ioward state export' has the journal."
    )]
    Changes {
        /// The change, as EPOCH-NUMBER; left out: all
        id: Option<ChangeId>,
        /// Show its events from its beginning, up to its end
        #[arg(long, requires = "id")]
        follow: bool,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Cancel a change: everything it has done is rolled back
    Cancel {
        /// The change, as 'ioward changes' shows it
        id: ChangeId,
        /// Print the change as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how the host differs from what the daemon holds, and whom that breaks
    #[command(
        after_help = "The daemon repairs by itself what is safe to repair, and says so in 'ioward events'. What it \
        leaves to a person is listed here, with the reason. What ioward does not own is no drift."
    )]
    Drift {
        /// Print the differences as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show VFs that are bound to vfio-pci, belong to no partition, and nobody has open
    Orphans {
        /// Reset them and leave them without a driver
        #[arg(long)]
        reap: bool,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what partitions asked for, and what became of it
    Audit {
        /// Print entries as JSON, one a line
        #[arg(long)]
        json: bool,
    },
    /// Look at what the daemon keeps on the disk
    State {
        /// The operation
        #[command(subcommand)]
        command: StateCommand,
    },
    /// Print a manual page as troff: of ioward, or of one command
    #[command(after_help = "To read one: ioward man apply | man -l -")]
    Man {
        /// The command, as apply or state export
        command: Vec<String>,
    },
    /// Print what a shell needs to complete commands and options
    #[command(
        after_help = "For bash: ioward completions bash >/etc/bash_completion.d/ioward; for zsh, into a file _ioward in a folder \
        of $fpath; for fish, into ~/.config/fish/completions/ioward.fish"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Command {
    /// Whether a "no" is wanted as data too.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        match self {
            Self::Host { json, .. }
            | Self::Vfs { json, .. }
            | Self::Doctor { json, .. }
            | Self::Compatible { json, .. }
            | Self::Plan { json, .. }
            | Self::Partitions { json, .. }
            | Self::Spec { json }
            | Self::Events { json, .. }
            | Self::Changes { json, .. }
            | Self::Cancel { json, .. }
            | Self::Drift { json }
            | Self::Orphans { json, .. }
            | Self::Audit { json, .. } => *json,
            Self::Assign(args) => args.how.json,
            Self::Apply { how, .. }
            | Self::Start { how, .. }
            | Self::Stop { how, .. }
            | Self::Remove { how, .. }
            | Self::Attach { how, .. }
            | Self::Detach { how, .. }
            | Self::Adopt { how, .. }
            | Self::Evacuate { how, .. }
            | Self::Return { how, .. }
            | Self::Migrate { how, .. }
            | Self::Failover { how, .. }
            | Self::Release { how, .. } => how.json,
            Self::Demo(_)
            | Self::SimulatedPartition
            | Self::Serve(_)
            | Self::Imp
            | Self::LibvirtHook(_)
            | Self::Select { .. }
            | Self::Snapshot { .. }
            | Self::Console { .. }
            | Self::Ui { .. }
            | Self::State { .. }
            | Self::Man { .. }
            | Self::Completions { .. } => false,
        }
    }
}

/// A VF of a partition. One that is named without its partition is the likely mistake.
fn owner(text: &str) -> Result<Owner, String> {
    if text.contains('/') {
        return text.parse().map_err(|error: NameError| error.to_string());
    }
    Err("it is named with its partition, as web/net0; 'ioward partitions' lists them".to_owned())
}

/// Operations on the daemon's stored state.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Print it as JSON: state, latest plans with their journals, audit log
    #[command(
        after_help = "The daemon is asked. Where none runs, --state-dir reads its folder, which is not changed; while \
        one runs, that is refused."
    )]
    Export {
        /// Read this folder of a daemon that does not run, as /var/lib/ioward
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
}

/// Options of the demonstration.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Apply this Spec instead of asking for a choice
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,
    /// Ask nothing: take the built-in choice, and apply it
    #[arg(long, short)]
    pub yes: bool,
    /// Stay up after applying, with the page for a browser, and for other 'ioward' commands to use; --socket says where they find it
    #[arg(long)]
    pub serve: bool,
    /// With --serve: the page's port at 127.0.0.1 [default: one that is free]
    #[arg(long, value_name = "N", requires = "serve", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// With --serve: one VF is in the hands of a libvirt domain, and stays there
    #[arg(long, requires = "serve")]
    pub foreign: bool,
    /// With --serve: members of this group, by its number, look and plan, as those of ioward-view do on a host
    #[arg(long, requires = "serve", value_name = "GID", value_parser = clap::value_parser!(u32).range(1..))]
    pub viewers: Option<u32>,
    /// The seed of the simulated machine: the same seed, the same machine, on which the same happens. Only how long
    /// steps take that go side by side is this host's
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
}

/// What libvirt gives to its hooks, after `--`: the name of a domain may begin with a hyphen.
#[derive(Debug, Args)]
pub struct HookArgs {
    /// The most seconds that the start of a domain may be kept waiting
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(3..=600))]
    pub within: u64,
    /// The domain; which it is, is taken from its definition
    pub domain: OsString,
    /// What happens to it, as prepare
    pub operation: OsString,
    /// Which part of that, as begin
    pub sub_operation: OsString,
    /// More about it
    pub extra: Vec<OsString>,
}

/// Where the daemon keeps its things.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Folder for sockets, gone after a reboot
    #[arg(long, default_value = "/run/ioward", value_name = "DIR")]
    pub runtime_dir: PathBuf,
    /// Folder for what must outlive a reboot
    #[arg(long, default_value = "/var/lib/ioward", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// The QEMU to run [default: the one on the PATH]
    #[arg(long, value_name = "PATH")]
    pub emulator: Option<PathBuf>,
}

/// Which Spec.
#[derive(Debug, Args)]
pub struct SpecArg {
    /// The Spec, a TOML file; - is stdin
    #[arg(short, long, value_name = "SPEC")]
    pub file: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_in_80_columns() {
        let mut commands = vec![Cli::command().term_width(80)];
        while let Some(mut command) = commands.pop() {
            let help = command.render_long_help().to_string();
            let longest = help.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(longest.chars().count() <= 80, "{longest}");
            commands.extend(command.get_subcommands().cloned().map(|c| c.term_width(80)));
        }
    }
}
