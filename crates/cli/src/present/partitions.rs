//! Client partitions (`ioward partitions`).

use ioward_api::PartitionView;
use ioward_hypervisor::Accelerator;

use super::{
    table::{Align, Table},
    text,
};

/// What a guest says of itself gets no more room than this, in columns.
const AGENT_COLUMNS: usize = 20;

/// The partitions, and for each VF a line with where it comes from and what the guest may change.
#[must_use]
pub fn partitions(partitions: &[PartitionView], width: usize) -> String {
    if partitions.is_empty() {
        return "no partitions; a Spec creates them, see 'ioward apply'\n".to_owned();
    }
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("CPUS", Align::Right),
        ("MEMORY", Align::Right),
        ("PID", Align::Right),
        ("CHANNEL", Align::Left),
        ("AGENT", Align::Left),
    ]);
    for partition in partitions {
        let nothing = || "-".to_owned();
        table.row([
            partition.name.to_string(),
            state(partition).to_owned(),
            partition.cpus.to_string(),
            partition.memory.to_string(),
            partition.pid.map_or_else(nothing, |pid| pid.to_string()),
            if partition.channel { "yes" } else { "no" }.to_owned(),
            partition.agent.as_ref().map_or_else(nothing, |agent| text::elide(agent, AGENT_COLUMNS)),
        ]);
        for vf in &partition.vfs {
            let address = vf.address.map(|address| format!(" at {address}")).unwrap_or_default();
            let may = match vf.guest_may.as_slice() {
                [] => "change nothing".to_owned(),
                words => format!("change {}", words.join(", ")),
            };
            table.note(&format!("{}: {} {}{address}; the guest may {may}", vf.name, vf.class, vf.vf));
        }
    }
    table.render(width)
}

fn state(partition: &PartitionView) -> &'static str {
    match (partition.running, partition.accelerator) {
        (false, _) => "stopped",
        (true, Some(Accelerator::Tcg)) => "running, no KVM",
        (true, _) => "running",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_at_80_columns() {
        let text = include_str!("../../tests/data/partitions.json");
        let expected = "\
NAME  STATE            CPUS  MEMORY   PID  CHANNEL  AGENT
web   running, no KVM     2  512MiB  4711  yes      ioward-agent 0.1.0
  net0: network VF 0 of 0000:01:00.0 at 0000:01:10.0; the guest may change mac,
    vlan 100-110
db    stopped             1    2GiB     -  no       -
  disk0: nvme VF 0 of 0000:03:00.0; the guest may change nothing
";
        assert_eq!(partitions(&serde_json::from_str::<Vec<_>>(text).unwrap(), 80), expected);
        assert!(partitions(&[], 80).starts_with("no partitions;"));
    }
}
