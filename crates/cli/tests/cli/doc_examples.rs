//! The examples of all documents: each command line is run on the embedded machine as it is printed, and prints what the document says,
//! or it is in the list of those that can't be run here. One that is in neither fails.
//!
//! Those of the API's documents are run by `api_examples`. Each heading has a machine of its own, with nothing on it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    api_examples,
    documents::{Block, Document, Example, documents},
    examples::{Running, is},
    served::Served,
    support::{Daemon, Folder, data},
    terminal::Terminal,
};

/// Blocks that are no command lines, by how they begin.
const SHOWN: &[(&str, &str, &str)] = &[
    ("ARCHITECTURE.md", "identify ──>", "a drawing"),
    ("docs/api.md", "id: 1795747200000-812", "events as they are sent"),
    ("docs/libvirt.md", "/run/ioward/domains/", "files"),
    ("docs/placement.md", "possible if", "lines of a refusal"),
    ("docs/plan.md", "without disturbing anyone", "a line of a plan"),
    ("docs/plan.md", "web/net1 is VF 3", "what stays on a terminal"),
    ("docs/privileges.md", "ioward serve, the hypervisor side", "a drawing"),
    ("docs/select.md", "ioward select: ", "screens of a session, which a test of `select` holds"),
    ("docs/simulation.md", "let machine", "Rust"),
    ("docs/simulation.md", "SimFabric", "a drawing"),
    ("docs/start.md", "intel_iommu=on", "the kernel's command line"),
    ("docs/state.md", "/var/lib/ioward/", "a table"),
    ("docs/state.md", "plan begun", "a drawing"),
    ("lab/README.md", "level 0", "a drawing"),
];

/// Command lines that can't be run here, by how they begin, and why.
const NOT_HERE: &[(&str, &str, &str)] = &[
    ("README.md", "cargo build --profile dist", "takes minutes; `cargo xtask package` does it"),
    ("README.md", "sudo target/dist/ioward serve", "takes over the host that this runs on; the lab does it"),
    ("README.md", "cargo xtask", "boots the lab, or runs all tests, this one among them"),
    ("docs/api.md", "usermod", "changes accounts of the host"),
    ("docs/cli.md", "ssh", "needs another host"),
    ("docs/containers.md", "ip netns add", "makes network namespaces; the lab does it"),
    ("docs/containers.md", "ip -n web", "the same"),
    ("docs/containers.md", "systemd-nspawn", "boots a container; the lab does it"),
    ("docs/containers.md", "podman", "needs Podman and an image"),
    ("docs/containers.md", "lxc-start", "needs LXC and a container"),
    ("docs/containers.md", "incus", "needs Incus and a container"),
    ("docs/fuzzing.md", "export", "is for what is below it"),
    ("docs/fuzzing.md", "cargo", "builds with another compiler's options, and takes ten minutes each"),
    ("docs/libvirt.md", "ioward adopt", "needs a domain of libvirt's; `cargo xtask lab libvirt` does it"),
    ("docs/libvirt.md", "systemctl", "restarts a service of the host"),
    ("docs/evacuate.md", "ioward evacuate --host --to", "needs another host; `migrating` has two daemons"),
    ("docs/migration.md", "ioward migrate", "needs another host; `migrating` has two daemons"),
    ("docs/privileges.md", "chgrp ioward", "gives a file to the account that the package makes"),
    ("docs/privileges.md", "chmod o+x", "opens a folder to it"),
    ("docs/service.md", "systemd-analyze", "says another figure with each systemd; the lab asks for it"),
    ("docs/service.md", "cargo xtask package", "takes minutes; the tests of packages do it"),
    ("docs/service.md", "sudo apt", "installs on the host; the tests of packages do it within folders"),
    ("docs/simulation.md", "IOWARD_SEED", "runs cargo, for minutes"),
    ("docs/simulation.md", "cargo test", "runs cargo, for minutes"),
    ("docs/start.md", "sudo apt", "installs on the host"),
    ("docs/start.md", "sudo chgrp", "gives a file to the account that the package makes"),
    ("docs/ui.md", "apt install", "installs on the host"),
    ("docs/ui.md", "xdg-open", "needs a desktop"),
    ("docs/ui.md", "cargo xtask", "runs npm and Chromium"),
    ("docs/ui.md", "cd ui; npm", "the same"),
    ("docs/ui.md", "npm", "the same"),
    ("docs/ui.md", "node dev/proxy.mjs", "the same"),
    ("docs/ui.md", "ioward ui --listen", "`tls_examples` runs it"),
    ("docs/ui.md", "curl", "`tls_examples` runs it"),
    ("docs/ui.md", "openssl", "`tls_examples` runs it"),
    ("docs/ui.md", "printf", "`tls_examples` runs it"),
    ("lab/README.md", "cargo xtask", "boots the lab"),
];

/// How a command line ends that does not end by itself, with success.
enum Ends {
    /// By itself, with one of these statuses.
    With(&'static [i32]),
    /// It is ended once it has printed this.
    After(&'static str),
    /// On a terminal: once there is this, that is typed.
    Typed(&'static str, &'static [u8]),
    /// Enter is the answer to all that it asks.
    Enter,
}

const ENDS: &[(&str, &str, Ends)] = &[
    ("README.md", "cargo run --release -- demo", Ends::Enter),
    // The host that this runs on may lack whatever it likes.
    ("README.md", "sudo target/dist/ioward doctor", Ends::With(&[0, 1])),
    ("README.md", "sudo target/dist/ioward select", Ends::Typed("keys", b"q")),
    ("README.md", "sudo target/dist/ioward ui", Ends::After("\nhttp://127.0.0.1:")),
    ("docs/cli.md", "ioward ui", Ends::After("\nhttp://127.0.0.1:")),
    ("docs/libvirt.md", "ioward doctor", Ends::With(&[0, 1])),
    ("docs/libvirt.md", "ioward release", Ends::Typed("[y/N] ", b"y\n")),
    ("docs/plan.md", "ioward plan -f fast.toml", Ends::With(&[3])),
    ("docs/spec.md", "ioward plan -f typo.toml", Ends::With(&[2])),
    ("docs/start.md", "cargo run --release -- demo --yes --serve", Ends::After("== It stays up")),
    ("docs/start.md", "ioward --socket … console web", Ends::Typed("Ctrl-] leaves", b"\x1d")),
    ("docs/start.md", "printf", Ends::After("[3] web# ")),
    ("docs/start.md", "sudo ioward doctor", Ends::With(&[0, 1])),
    ("docs/start.md", "sudo ioward ui", Ends::After("\nhttp://127.0.0.1:")),
];

/// What is done before a command line, beside what the document says: a shell's command.
const BEFORE: &[(&str, &str, &str)] = &[
    ("docs/plan.md", "ioward plan -f new.toml", "ioward apply --yes -f old.toml && ioward stop --yes web"),
    ("docs/plan.md", "ioward host --risks", "ioward apply --yes -f two.toml"),
    ("docs/snapshot.md", "ioward host --host", "cp lab.json host.json"),
    ("docs/spec.md", "ioward plan -f typo.toml", "sed 's/^mac .*/vlna  = 100/' web.toml >typo.toml"),
];

/// What stands for something of the reader's, and for what here. `~` is the folder of the examples.
const STANDS_FOR: &[(&str, &str)] = &[
    ("--socket …", "--socket $IOWARD_SOCKET"),
    ("cargo run --release --", "ioward"),
    ("target/dist/ioward", "ioward"),
    ("sudo ", ""),
    (" DIR", " tree"),
    (" SPEC", " web.toml"),
    (" /var/lib/ioward", " ~/state"),
    (">/etc/", ">~/etc/"),
    (">/usr/", ">~/usr/"),
    ("\"/images/", "\"images/"),
    ("\"/boot/", "\"boot/"),
];

/// Files beside the examples of docs/plan.md.
fn plan_file(guest_may: &str, more: &str) -> String {
    format!(
        r#"version = 1
adapter = [{{ pf = "0000:01:00.0", vfs = 4 }}]

[[partition]]
name   = "web"
cpus   = 2
memory = "512MiB"
boot   = {{ kernel = "boot/vmlinuz-6.1" }}

[[partition.vf]]
name  = "net0"
class = "network"
mac   = "52:54:00:aa:00:01"
vlan  = 100
guest_may = {guest_may}
{more}"#
    )
}

#[test]
fn every_example_of_the_documents_is_run_or_listed() {
    let mut used = Used::default();
    let mut ran = 0;
    let all = documents();
    let specs = |document: &Document| {
        let (blocks, _) = document.parts();
        blocks
            .iter()
            .map(Block::text)
            .find(|text| text.starts_with("version = 1") && text.contains("[[partition]]"))
    };
    let usual = all.iter().find(|document| document.name == "README.md").and_then(specs).unwrap();
    for document in &all {
        let is_of_the_api = api_examples::DOCUMENTS.contains(&document.name.as_str());
        let mut here: Option<Here> = None;
        let (blocks, _) = document.parts();
        for block in blocks {
            let of = |name: &str, begins: &str| name == block.document && block.begins().starts_with(begins);
            if block.is_data()
                || used.shown(|name, begins| of(name, begins))
                || is_of_the_api && block.has_prompts()
            {
                continue;
            }
            for example in block.examples() {
                let of =
                    |name: &str, begins: &str| name == block.document && example.command.starts_with(begins);
                if used.not_here(of) {
                    continue;
                }
                let spec = specs(document).unwrap_or_else(|| usual.clone());
                if here.as_ref().is_none_or(|here| here.section != block.section) {
                    here = Some(Here::new(&block.document, &block.section, &spec));
                }
                let here = here.as_mut().unwrap();
                if let Some(command) = used.before(of) {
                    here.prepare(command);
                }
                let ends = used.ends(of);
                here.run(example, ends);
                ran += 1;
            }
        }
    }
    assert!(ran > 40, "{ran}");
    used.all();
}

/// Which entries of the lists an example was found for: one that has none is old.
#[derive(Default)]
struct Used(Vec<(&'static str, &'static str)>);

impl Used {
    fn find<T>(
        &mut self,
        list: &'static [(&'static str, &'static str, T)],
        is: impl Fn(&str, &str) -> bool,
    ) -> Option<&'static T> {
        // One that says more is meant rather than one that says less.
        let found = list.iter().filter(|(name, begins, _)| is(name, begins));
        let (name, begins, entry) = found.max_by_key(|(_, begins, _)| begins.len())?;
        self.0.push((name, begins));
        Some(entry)
    }

    fn shown(&mut self, is: impl Fn(&str, &str) -> bool) -> bool {
        self.find(SHOWN, is).is_some()
    }

    fn not_here(&mut self, is: impl Fn(&str, &str) -> bool) -> bool {
        self.find(NOT_HERE, is).is_some()
    }

    fn before(&mut self, is: impl Fn(&str, &str) -> bool) -> Option<&'static str> {
        self.find(BEFORE, is).copied()
    }

    fn ends(&mut self, is: impl Fn(&str, &str) -> bool) -> &'static Ends {
        self.find(ENDS, is).unwrap_or(&Ends::With(&[0]))
    }

    fn all(&self) {
        let listed =
            [SHOWN, NOT_HERE, BEFORE].into_iter().flatten().map(|(name, begins, _)| (*name, *begins));
        let listed = listed.chain(ENDS.iter().map(|(name, begins, _)| (*name, *begins)));
        let old: Vec<_> = listed.filter(|entry| !self.0.contains(entry)).collect();
        assert_eq!(old, [], "these are listed, and no document has such an example");
    }
}

/// Where the examples below a heading are run.
struct Here {
    section: String,
    folder: Folder,
    socket: PathBuf,
    _machine: Machine,
}

/// What answers them, for as long as they are run.
enum Machine {
    Embedded { _served: Served },
    Scripted { _daemon: Daemon },
}

impl Here {
    fn new(document: &str, section: &str, spec: &str) -> Self {
        let folder = Folder::new();
        for inner in
            ["bin", "boot", "images", "tree/sys/bus/pci/devices", "tree/proc", "run", "etc/bash_completion.d"]
        {
            fs::create_dir_all(folder.path().join(inner)).unwrap();
        }
        for inner in ["usr/local/share/zsh/site-functions", ".config/fish/completions"] {
            fs::create_dir_all(folder.path().join(inner)).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ioward"), folder.path().join("bin/ioward")).unwrap();
        for file in [
            "boot/vmlinuz-6.1",
            "boot/vmlinuz-6.12",
            "images/web.qcow2",
            "web.qcow2",
            "vmlinuz",
            "initrd.img",
        ] {
            folder.file(file, "");
        }
        let recorded =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/lab-pristine.snapshot.json");
        folder.file("lab.json", fs::read(recorded).unwrap());
        folder.file("web.toml", in_place(spec));
        drop(ioward_store::open(&folder.path().join("state")).unwrap());
        let (machine, socket) = match (document, section) {
            ("docs/vfs.md", _) => {
                let daemon = Daemon::with("200 OK", vfs_of_everybody());
                let socket = daemon.socket();
                (Machine::Scripted { _daemon: daemon }, socket)
            }
            (_, section) => {
                let is_shown = section.contains("simulated machine");
                let served = if is_shown { Served::as_shown() } else { Served::start("version = 1\n") };
                let socket = served.socket();
                (Machine::Embedded { _served: served }, socket)
            }
        };
        if document == "docs/plan.md" {
            folder.file("web.toml", plan_file("[\"mac\"]", ""));
            let old = plan_file("{ mac = true, max_tx_rate = \"<=500Mbit\" }", "");
            let new = plan_file("{ max_tx_rate = true }", "").replace("vlan  = 100", "vlan  = 200");
            folder.file("new.toml", new.replace("512MiB", "1GiB").replace("vmlinuz-6.1", "vmlinuz-6.12"));
            folder.file("old.toml", old);
            let fast = "\n[[partition.vf]]\nname  = \"net1\"\nclass = \"network\"\n\
                        pf    = \"0000:01:00.0\"\nmin_link_speed = \"10Gbit\"\n";
            folder.file("fast.toml", plan_file("[\"mac\"]", fast));
            let vf = |name: &str, pf: &str| {
                format!("[[partition.vf]]\nname = \"{name}\"\nclass = \"network\"\npf = \"{pf}\"\n")
            };
            let shop = format!(
                "version = 1\n[[partition]]\nname = \"shop\"\nlibvirt = \"web\"\n{}",
                vf("net0", "0000:02:00.0")
            );
            folder.file("shop.toml", shop);
            let two = [vf("net0", "0000:02:00.0"), vf("net1", "0000:02:00.1")].concat();
            let two = format!(
                "version = 1\n[[partition]]\nname = \"web\"\nboot = {{ kernel = \"vmlinuz\" }}\n{two}"
            );
            folder.file("two.toml", two);
        }
        Self { section: section.to_owned(), folder, socket, _machine: machine }
    }

    /// What a command is run with.
    fn surround(&self, command: &mut Command) {
        let path = self.folder.path();
        let programs = std::env::var("PATH").unwrap_or_default();
        command.current_dir(path).env("PATH", format!("{}:{programs}", path.join("bin").display()));
        command.env("HOME", path).env("XDG_RUNTIME_DIR", path.join("run")).env("IOWARD_SOCKET", &self.socket);
        command.env("EDITOR", "true").env("TERM", "xterm").env("NO_COLOR", "1");
    }

    fn prepare(&self, line: &str) {
        let mut command = Command::new("bash");
        self.surround(command.args(["-c", line]));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn run(&mut self, example: Example, ends: &Ends) {
        let Example { place, command, answer } = &example;
        let line = in_place(command);
        // What may be left out is left out, and then not.
        if line.contains('[') {
            let without = |line: &str| {
                let (before, rest) = line.split_once('[').unwrap();
                format!("{before}{}", rest.split_once(']').unwrap().1)
            };
            for line in [without(&line), line.replace(['[', ']'], "")] {
                let again =
                    || Example { place: place.clone(), command: line.clone(), answer: answer.clone() };
                self.run(again(), ends);
            }
            return;
        }
        let (place, answer, printed) = (place.clone(), answer.clone(), command.clone());
        if let Ends::Typed(until, keys) = ends {
            let mut terminal = Terminal::new();
            terminal.resize(80, 24);
            let mut shell = Command::new("bash");
            self.surround(shell.args(["-c", &line]));
            let mut child = terminal.start(shell);
            terminal.wait_for(until);
            terminal.type_in(keys);
            let status = child.wait().unwrap();
            assert!(status.success(), "{place}: {printed}: {status}");
            return;
        }
        let line = match ends {
            Ends::Enter => format!("yes '' | {line}"),
            _ => line,
        };
        // What it says to people is on stderr.
        let running =
            Running::start(example, &format!("exec 2>&1\n{line}"), |command| self.surround(command));
        let came = if let Ends::After(until) = ends {
            let came = running.wait_until(|came| format!("\n{came}").contains(until));
            assert!(format!("\n{came}").contains(until), "{place}: {printed}came:\n{came}");
            came
        } else {
            let (came, status) = running.end();
            let allowed = if let Ends::With(statuses) = ends { *statuses } else { &[0] };
            assert!(status.is_some_and(|it| allowed.contains(&it)), "{place}: {printed}{status:?}: {came}");
            came
        };
        let came = came.replace(self.folder.path().to_str().unwrap(), "");
        assert!(answer.is_empty() || is(&answer, &came), "{place}: {printed}printed:\n{answer}came:\n{came}");
    }
}

/// The text with what there is here in place of what stands for it.
fn in_place(text: &str) -> String {
    STANDS_FOR.iter().fold(text.to_owned(), |text, (what, here)| text.replace(what, here))
}

/// The host of docs/vfs.md.
fn vfs_of_everybody() -> Value {
    let mut host = data("inventory.json");
    let vf = |index: u16, driver: &str, more: Value| {
        let mut vf = json!({"index": index, "address": format!("0000:01:10.{}", 2 * index), "driver": driver,
            "iommu_group": 7, "owner": null});
        vf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        vf
    };
    let domain = json!({"kind": "process", "pid": 812, "command": "qemu-system-x86", "runs": {"is": "libvirt-domain", "name": "db"}});
    let address = json!([{"use": "address", "netdev": "eth4", "address": "10.0.0.1/24"}]);
    host["physical_functions"][0]["virtual_functions"] = json!([
        vf(0, "vfio-pci", json!({"owner": "web/net0", "settings": {"mac": "52:54:00:aa:00:01"}})),
        vf(1, "vfio-pci", json!({"holder": domain})),
        vf(2, "igbvf", json!({"holder": {"kind": "network-namespace", "name": "blue", "netdevs": ["eth1"]}})),
        vf(3, "igbvf", json!({"netdevs": ["eth4"], "in_use_by_host": address})),
    ]);
    host
}
