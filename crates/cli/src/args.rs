//! What can be written on the command line. Values are checked here, so that a wrong one never leaves this process.

use std::path::PathBuf;

use clap::{
    ArgAction, Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ioward_imp::api::DEFAULT_SOCKET;
use ioward_model::{
    BitRate, Class, GuestMay, LinkState, MacAddress, Name, Options, UnitError, VfRequest, Vlan,
};
use ioward_pci::Bdf;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Finds SR-IOV adapters, gives their virtual functions to KVM guests, and lets each guest configure its own.
#[derive(Debug, Parser)]
#[command(name = "ioward", version, max_term_width = 80, after_help = EXIT_STATUS)]
pub struct Cli {
    /// Unix socket of the daemon
    #[arg(
        long,
        global = true,
        env = "IOWARD_SOCKET",
        hide_env_values = true,
        default_value = DEFAULT_SOCKET,
        value_name = "PATH",
        // Below what the command itself takes.
        display_order = 900
    )]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done; 1 failed; 2 wrong usage or invalid Spec; \
    3 refused (policy, compatibility, disruption)";

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
    /// Show the virtual functions there are, with owners and settings
    Vfs {
        /// Only those of this physical function, as 0000:01:00.0
        pf: Option<Bdf>,
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
    Plan {
        /// The Spec.
        #[command(flatten)]
        spec: SpecArg,
        /// What is allowed.
        #[command(flatten)]
        allow: Allow,
        /// Plan for a host that was recorded by 'ioward snapshot': no daemon, and nothing to apply
        #[arg(long, value_name = "FILE")]
        host: Option<PathBuf>,
        /// Also write the plan to a file, for 'ioward apply --plan'
        #[arg(short, long, value_name = "FILE", conflicts_with = "host")]
        output: Option<PathBuf>,
        /// Print the plan as JSON
        #[arg(long)]
        json: bool,
    },
    /// Carry a Spec or a plan out: all of it or nothing
    #[command(
        after_help = "The plan is shown and, on a terminal, asked about before it is carried out. Ctrl-C has \
        the daemon undo what was done so far, and does not wait for that."
    )]
    Apply {
        /// The Spec or the plan.
        #[command(flatten)]
        what: ApplyArg,
        /// What is allowed.
        #[command(flatten)]
        allow: Allow,
        /// Do not show the plan and ask: only whom it disturbs is shown before
        #[arg(short, long)]
        yes: bool,
        /// Print the events as JSON, one a line; the plan goes to stderr
        #[arg(long)]
        json: bool,
    },
    /// Show the client partitions
    Partitions {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Start a stopped partition
    Start {
        /// The partition
        name: Name,
        /// What is allowed.
        #[command(flatten)]
        allow: Allow,
    },
    /// Stop a running partition; it keeps its VFs
    Stop {
        /// The partition
        name: Name,
        /// Turn it off without asking its guest
        #[arg(long)]
        force: bool,
        /// What is allowed.
        #[command(flatten)]
        allow: Allow,
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
        /// What is allowed.
        #[command(flatten)]
        allow: Allow,
    },
    /// Give one more VF to a partition, also while it runs
    Attach {
        /// The partition
        name: Name,
        /// The VF it is to have.
        #[command(flatten)]
        vf: Box<VfArgs>,
        /// What is allowed.
        #[command(flatten)]
        allow: Allow,
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
        /// What is allowed.
        #[command(flatten)]
        allow: Allow,
    },
    /// Show what happened
    Events {
        /// Go on showing what happens
        #[arg(long)]
        follow: bool,
        /// Print events as JSON, one a line
        #[arg(long)]
        json: bool,
    },
    /// Show what partitions asked for, and what became of it
    Audit {
        /// Print entries as JSON, one a line
        #[arg(long)]
        json: bool,
    },
    /// Print a manual page as troff: of ioward, or of one command
    #[command(hide = true)]
    Man {
        /// The command
        command: Option<String>,
    },
}

/// What the demonstration is to show.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Apply this Spec instead of asking for a choice
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,
    /// Ask nothing: take the built-in choice, and apply it
    #[arg(long, short)]
    pub yes: bool,
    /// Stay up after applying, for other 'ioward' commands to use
    #[arg(long)]
    pub serve: bool,
    /// What the simulated machine's chance begins with: the same seed, the same run
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
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

/// What to apply.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ApplyArg {
    /// The Spec, a TOML file; - is stdin
    #[arg(short, long, value_name = "SPEC")]
    pub file: Option<PathBuf>,
    /// A plan that 'ioward plan -o' wrote: exactly that one, or nothing; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["allow_management_nic", "allow_disruption"])]
    pub plan: Option<PathBuf>,
}

/// What a person allows beyond the safe.
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

/// The VF to attach, as a `[[partition.vf]]` of a Spec has it.
#[derive(Debug, Args)]
pub struct VfArgs {
    /// The VF's name in the partition
    vf: Name,
    /// What it is to be
    #[arg(long, value_parser = one_of::<Class>(&["network", "nvme", "display", "accelerator", "other"]))]
    class: Class,
    /// The slowest link that will do, as 10Gbit
    #[arg(long, value_name = "RATE")]
    min_link_speed: Option<BitRate>,
    /// The physical function it must come from
    #[arg(long)]
    pf: Option<Bdf>,
    /// The VF index it must have
    #[arg(long, requires = "pf", value_name = "N")]
    index: Option<u16>,
    /// MAC address [default: derived from the names]
    #[arg(long, value_parser = unicast)]
    mac: Option<MacAddress>,
    /// VLAN, 1 to 4094; 0 is untagged
    #[arg(long, value_name = "ID")]
    vlan: Option<Vlan>,
    /// Whether it may be promiscuous and change its MAC
    #[arg(long, value_parser = on_off(), value_name = "on|off", hide_possible_values = true)]
    trust: Option<bool>,
    /// Whether frames with a foreign source address are dropped
    #[arg(long, value_parser = on_off(), value_name = "on|off", hide_possible_values = true)]
    spoofchk: Option<bool>,
    /// Guaranteed transmit rate
    #[arg(long, value_name = "RATE")]
    min_tx_rate: Option<BitRate>,
    /// Greatest transmit rate
    #[arg(long, value_name = "RATE")]
    max_tx_rate: Option<BitRate>,
    /// The link it sees
    #[arg(long, value_parser = one_of::<LinkState>(&["auto", "enable", "disable"]))]
    link_state: Option<LinkState>,
    /// NVMe queue resources [default: an even share]
    #[arg(long, value_name = "N")]
    queues: Option<u16>,
    /// NVMe interrupt resources [default: an even share]
    #[arg(long, value_name = "N")]
    interrupts: Option<u16>,
    /// What the guest may change: names (mac,reset) or one narrowed (vlan=100-110); may be repeated
    #[arg(long, value_name = "WHAT", action = ArgAction::Append, value_parser = guest_may_words)]
    guest_may: Vec<Map<String, Value>>,
}

impl VfArgs {
    /// As the API takes it.
    ///
    /// # Errors
    /// When the permissions make no sense together.
    pub fn into_request(self) -> Result<VfRequest, serde_json::Error> {
        let guest_may: GuestMay = serde_json::from_value(self.guest_may.into_iter().flatten().collect())?;
        Ok(VfRequest {
            name: self.vf,
            class: self.class,
            min_link_speed: self.min_link_speed,
            pf: self.pf,
            index: self.index,
            mac: self.mac,
            vlan: self.vlan,
            trust: self.trust,
            spoofchk: self.spoofchk,
            min_tx_rate: self.min_tx_rate,
            max_tx_rate: self.max_tx_rate,
            link_state: self.link_state,
            queues: self.queues,
            interrupts: self.interrupts,
            guest_may,
        })
    }
}

/// The words of a model type that has a fixed set of them; serde knows which word is which value.
fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words).try_map(|word| serde_json::from_value::<T>(Value::String(word)))
}

/// An address that one station can have.
fn unicast(text: &str) -> Result<MacAddress, String> {
    let mac: MacAddress = text.parse().map_err(|error: UnitError| error.to_string())?;
    let wrong = || format!("{mac} is no address for one station (multicast or zero)");
    mac.is_unicast().then_some(mac).ok_or_else(wrong)
}

fn on_off() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["on", "off"]).map(|word| word == "on")
}

/// One `--guest-may`: names without a bound, or one name with its bound (which may itself hold commas).
fn guest_may_words(text: &str) -> Result<Map<String, Value>, String> {
    let words: Map<String, Value> = match text.split_once('=') {
        Some((name, bound)) => [(name.to_owned(), Value::from(bound))].into_iter().collect(),
        None => text.split(',').map(|name| (name.trim().to_owned(), Value::Bool(true))).collect(),
    };
    let checked: Result<GuestMay, _> = serde_json::from_value(Value::Object(words.clone()));
    checked.map(|_| words).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn attach(arguments: &[&str]) -> Result<VfRequest, String> {
        let all = ["ioward", "attach", "web", "net0"].iter().chain(arguments);
        match Cli::try_parse_from(all).map_err(|e| e.to_string())?.command {
            Command::Attach { vf, .. } => Ok(vf.into_request().unwrap()),
            other => panic!("{other:?}"),
        }
    }

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

    #[test]
    fn attach_takes_what_a_spec_takes() {
        let vf = attach(&[
            "--class",
            "network",
            "--pf",
            "01:00.0",
            "--index",
            "2",
            "--mac",
            "52:54:00:aa:00:01",
            "--vlan",
            "7",
            "--trust",
            "on",
            "--guest-may",
            "mac,reset",
            "--guest-may",
            "vlan=100-110,200",
        ]);
        let text = r#"{"name":"net0","class":"network","pf":"0000:01:00.0","index":2,"mac":"52:54:00:aa:00:01","vlan":7,
            "trust":true,"guest_may":{"mac":true,"reset":true,"vlan":"100-110,200"}}"#;
        assert_eq!(vf.unwrap(), serde_json::from_str(text).unwrap());
    }

    #[test]
    fn a_wrong_value_says_what_would_be_right() {
        let wrong: [(&[&str], &str); 8] = [
            (&["--class", "netwrok"], "'network'"),
            (&["--class", "network", "--vlan", "4095"], "use 1 to 4094"),
            (&["--class", "network", "--mac", "52:54"], "write six bytes"),
            (&["--class", "network", "--mac", "01:00:5e:00:00:01"], "multicast"),
            (&["--class", "network", "--index", "1"], "--pf"),
            (&["--class", "network", "--guest-may", "vlna"], "did you mean 'vlan'?"),
            (&["--class", "network", "--guest-may", "vlan=9-5"], "does not narrow vlan"),
            (&["--class", "network", "--trust", "maybe"], "[possible values: on, off]"),
        ];
        for (arguments, remedy) in wrong {
            let error = attach(arguments).unwrap_err();
            assert!(error.contains(remedy), "{error}");
        }
    }
}
