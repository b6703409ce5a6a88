//! Client partitions (`ioward partitions`).

use ioward_api::{AssignedVf, KindView, PartitionView};
use ioward_hypervisor::Accelerator;
use ioward_model::{PairRole, PairView, PartitionSpec};

use super::{
    table::{Align, Table},
    text,
};

/// The most columns for the text by which a guest names its agent.
const AGENT_COLUMNS: usize = 20;

/// The most columns for the domain or the namespace that a partition is.
const KIND_COLUMNS: usize = 30;

/// The partitions, and for each VF a line with where it comes from and what the guest may change.
#[must_use]
pub fn partitions(partitions: &[PartitionView], width: usize) -> String {
    if partitions.is_empty() {
        return "no partitions; a Spec creates them, see 'ioward apply'\n".to_owned();
    }
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("KIND", Align::Left),
        ("STATE", Align::Left),
        ("CPUS", Align::Right),
        ("MEMORY", Align::Right),
        ("PID", Align::Right),
        ("CHANNEL", Align::Left),
        ("AGENT", Align::Left),
    ]);
    let mut partitions: Vec<_> = partitions.iter().collect();
    partitions.sort_by_key(|partition| text::natural(partition.name.as_str()));
    for partition in partitions {
        let nothing = || "-".to_owned();
        let (cpus, memory) = match partition.kind {
            KindView::Machine { cpus, memory } => (Some(cpus), Some(memory)),
            KindView::Domain { .. } | KindView::Namespace { .. } => (None, None),
        };
        table.row([
            partition.name.to_string(),
            kind(&partition.kind),
            state(partition),
            cpus.map_or_else(nothing, |cpus| cpus.to_string()),
            memory.map_or_else(nothing, |memory| memory.to_string()),
            partition.pid.map_or_else(nothing, |pid| pid.to_string()),
            if partition.channel { "yes" } else { "no" }.to_owned(),
            partition.agent.as_ref().map_or_else(nothing, |agent| text::elide(agent, AGENT_COLUMNS)),
        ]);
        for vf in in_order(&partition.vfs) {
            let address = vf.address.map(|address| format!(" at {address}")).unwrap_or_default();
            let may = may(vf);
            let pair = pair(vf).map(|pair| format!("; {pair}")).unwrap_or_default();
            table.note(&format!("{}: {} {}{address}; the guest may {may}{pair}", vf.name, vf.class, vf.vf));
        }
    }
    table.render(width)
}

/// The part of a VF in a failover pair, in words.
fn pair(vf: &AssignedVf) -> Option<String> {
    if let Some(bridge) = &vf.standby_bridge {
        return Some(match &vf.failed_over {
            Some(over) => format!("failed over to bridge {bridge}: {}", over.describe()),
            None => format!("its standby is on bridge {bridge}"),
        });
    }
    let PairView { role, partner, active } = vf.failover.as_ref()?;
    Some(match (role, &vf.failed_over) {
        (PairRole::Primary, Some(over)) => format!("failed over to {partner}: {}", over.describe()),
        (PairRole::Primary, None) => format!("{partner} is its standby"),
        (PairRole::Standby, _) if *active => format!("standby of {partner}, and active"),
        (PairRole::Standby, _) => format!("standby of {partner}"),
    })
}

/// One partition: what it has, what it starts from, and its VFs with all that is set and asked for.
#[must_use]
pub fn partition(partition: &PartitionView, spec: Option<&PartitionSpec>, width: usize) -> String {
    let mut out = format!("{}\n", partition.name);
    let mut line = |what: &str, said: &str| {
        out += &text::wrap(said, width, &text::pad(&format!("  {what}"), 14), &" ".repeat(14));
    };
    let process = partition.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    line("state", &format!("{}{process}", state(partition)));
    let node = spec.and_then(|spec| spec.numa_node).map(|node| format!(", on NUMA node {node}"));
    let node = node.unwrap_or_default();
    match partition.kind {
        KindView::Machine { cpus, memory } => {
            line("resources", &format!("{}, {memory}{node}", text::counted(cpus.into(), "CPU")));
        }
        KindView::Domain { .. } | KindView::Namespace { .. } => {
            line("is", &format!("{}{node}", kind(&partition.kind)));
        }
    }
    if let Some(machine) = spec.and_then(PartitionSpec::machine) {
        let boot = &machine.boot;
        let files = [("kernel", &boot.kernel), ("initrd", &boot.initrd), ("disk", &boot.disk)];
        let files =
            files.into_iter().filter_map(|(what, file)| Some(format!("{what} {}", file.as_ref()?.display())));
        let cmdline = boot.cmdline.iter().map(|cmdline| format!("command line {cmdline}"));
        line("boots from", &files.chain(cmdline).collect::<Vec<_>>().join(", "));
        line("autostart", if machine.autostart { "yes: started when the host has booted" } else { "no" });
    }
    let agent = partition.agent.as_ref().map(|agent| format!(", {agent}")).unwrap_or_default();
    line("channel", &format!("{}{agent}", if partition.channel { "yes" } else { "no" }));
    if let Some(console) = &partition.console {
        line("console", &console.display().to_string());
    }
    for vf in in_order(&partition.vfs) {
        let address = vf.address.map(|address| format!(" at {address}")).unwrap_or_default();
        out += &format!("\n  {}: {} {}{address}\n", vf.name, vf.class, vf.vf);
        let mut line = |what: &str, said: &str| {
            out += &text::wrap(said, width, &text::pad(&format!("      {what}"), 18), &" ".repeat(18));
        };
        let words: Vec<_> =
            vf.settings.describe().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        line("is set", if words.is_empty() { "nothing".to_owned() } else { words.join(" ") }.as_str());
        line("guest may", &may(vf));
    }
    out
}

/// By name; `net2` before `net10`.
fn in_order(vfs: &[AssignedVf]) -> Vec<&AssignedVf> {
    let mut vfs: Vec<_> = vfs.iter().collect();
    vfs.sort_by_key(|vf| text::natural(vf.name.as_str()));
    vfs
}

fn may(vf: &AssignedVf) -> String {
    match vf.guest_may.as_slice() {
        [] => "change nothing".to_owned(),
        words => format!("change {}", words.join(", ")),
    }
}

/// What it is, in a person's words.
fn kind(kind: &KindView) -> String {
    let words = match kind {
        KindView::Machine { .. } => "machine".to_owned(),
        KindView::Domain { libvirt } => format!("domain {libvirt}"),
        KindView::Namespace { netns } => format!("namespace {netns}"),
    };
    text::elide(&words, KIND_COLUMNS)
}

fn state(partition: &PartitionView) -> String {
    match (partition.running, partition.halted, partition.accelerator) {
        (false, ..) => "stopped".to_owned(),
        (true, Some(halt), _) => format!("halted: {halt}"),
        (true, None, Some(Accelerator::Tcg)) => "running, no KVM".to_owned(),
        (true, None, _) => "running".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_at_80_columns() {
        let text = include_str!("../../tests/data/partitions.json");
        let expected = "\
NAME  KIND     STATE            CPUS  MEMORY   PID  CHANNEL  AGENT
db    machine  stopped             1    2GiB     -  no       -
  disk0: nvme VF 0 of 0000:03:00.0; the guest may change nothing
web   machine  running, no KVM     2  512MiB  4711  yes      ioward-agent 0.1.0
  net0: network VF 0 of 0000:01:00.0 at 0000:01:10.0; the guest may change mac,
    vlan 100-110
";
        assert_eq!(partitions(&serde_json::from_str::<Vec<_>>(text).unwrap(), 80), expected);
        assert!(partitions(&[], 80).starts_with("no partitions;"));
    }

    #[test]
    fn what_a_partition_is_is_shown() {
        let text = include_str!("../../tests/data/partitions.json");
        let mut all: serde_json::Value = serde_json::from_str(text).unwrap();
        for (n, kind, value) in [(0, "libvirt", "shop"), (1, "netns", "blue")] {
            let partition = all[n].as_object_mut().unwrap();
            partition.retain(|key, _| !["cpus", "memory"].contains(&key.as_str()));
            partition.insert(kind.to_owned(), value.into());
            partition["console"] = serde_json::Value::Null;
        }
        let all: Vec<PartitionView> = serde_json::from_value(all).unwrap();
        let shown = partitions(&all, 100);
        assert!(shown.contains("db    namespace blue  stopped             -       -     -  no"), "{shown}");
        assert!(shown.contains("web   domain shop     running, no KVM     -       -  4711  yes"), "{shown}");
        let spec = serde_json::from_str(r#"{"name": "web", "libvirt": "shop", "numa_node": 1}"#).unwrap();
        let shown = partition(&all[0], Some(&spec), 80);
        assert!(shown.starts_with("web\n  state       running, no KVM, process 4711\n"), "{shown}");
        assert!(shown.contains("  is          domain shop, on NUMA node 1\n"), "{shown}");
        assert!(!shown.contains("console") && !shown.contains("boots from"), "{shown}");
    }

    /// It was said to run, and executed nothing.
    #[test]
    fn one_that_has_halted_is_said_to_have_with_why() {
        let text = include_str!("../../tests/data/partitions.json");
        let mut all: Vec<PartitionView> = serde_json::from_str(text).unwrap();
        all[0].halted = Some(ioward_model::Halt::InternalError);
        let shown = partitions(&all, 100);
        assert!(shown.contains("web   machine  halted: internal-error     2"), "{shown}");
        assert!(partition(&all[0], None, 80).contains("state       halted: internal-error, process 4711"));
    }

    #[test]
    fn a_partition_in_detail() {
        let text = include_str!("../../tests/data/partitions.json");
        let partitions: Vec<PartitionView> = serde_json::from_str(text).unwrap();
        let spec = r#"{"name": "web", "cpus": 2, "numa_node": 1, "autostart": true,
            "boot": {"kernel": "/boot/vmlinuz", "cmdline": "quiet"}}"#;
        let shown = partition(&partitions[0], Some(&serde_json::from_str(spec).unwrap()), 80);
        let expected = "\
web
  state       running, no KVM, process 4711
  resources   2 CPUs, 512MiB, on NUMA node 1
  boots from  kernel /boot/vmlinuz, command line quiet
  autostart   yes: started when the host has booted
  channel     yes, ioward-agent 0.1.0
  console     /run/ioward/web/console.sock

  net0: network VF 0 of 0000:01:00.0 at 0000:01:10.0
      is set      mac=52:54:00:aa:00:01
      guest may   change mac, vlan 100-110
";
        assert_eq!(shown, expected);
    }
}
