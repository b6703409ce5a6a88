//! The output of the commands: tables for people, within 80 columns, and JSON for programs.

use std::io::{self, Write};

use ioward_model::{Name, PairRole, PairView, VfStatistics, VfView};
use serde::Serialize;
use serde_json::json;

use crate::{Notice, WatchEvent};

/// The maximum width of tables.
const COLUMNS: usize = 80;

/// Prints to `out`, for people or programs.
pub(crate) struct Printer<W> {
    /// The output.
    pub out: W,
    /// For programs rather than people.
    pub json: bool,
}

impl<W: Write> Printer<W> {
    /// All VFs.
    pub fn list(&mut self, views: &[VfView]) -> io::Result<()> {
        if self.json {
            return self.line(&views);
        }
        if views.is_empty() {
            return writeln!(self.out, "This partition holds no VF.");
        }
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let mut rows = vec![["NAME", "CLASS", "HOST ADDRESS", "MAC", "VLAN", "GUEST MAY"].map(str::to_owned)];
        rows.extend(views.iter().map(|view| {
            [
                view.name.to_string(),
                view.class.to_string(),
                view.host_address.to_string(),
                text(view.settings.mac.map(|mac| mac.to_string())),
                text(view.settings.vlan.map(|vlan| vlan.to_string())),
                may(view),
            ]
        }));
        let lines = table(&rows);
        lines.iter().try_for_each(|line| writeln!(self.out, "{line}"))
    }

    /// One VF with its settings.
    pub fn vf(&mut self, view: &VfView) -> io::Result<()> {
        if self.json {
            return self.line(view);
        }
        writeln!(self.out, "{}: {} VF, {} on the host", view.name, view.class, view.host_address)?;
        let mut rows: Vec<_> =
            view.settings.describe().into_iter().map(|(key, value)| [key.to_owned(), value]).collect();
        rows.extend(view.failover.as_ref().map(|pair| ["failover".to_owned(), part(pair)]));
        rows.extend(view.fault.as_ref().map(|fault| ["fault".to_owned(), fault.clone()]));
        rows.push(["guest may".to_owned(), may(view)]);
        table(&rows).iter().try_for_each(|line| writeln!(self.out, "  {line}"))
    }

    /// Something about a bond.
    pub fn bonded(&mut self, what: &str) -> io::Result<()> {
        if self.json {
            self.line(&json!({ "bond": what }))?;
        } else {
            writeln!(self.out, "{what}")?;
        }
        self.out.flush()
    }

    /// A VF has been reset.
    pub fn reset(&mut self, vf: &Name) -> io::Result<()> {
        if self.json {
            self.line(&json!({ "vf": vf, "reset": true }))
        } else {
            writeln!(self.out, "{vf}: reset")
        }
    }

    /// Traffic counters.
    pub fn stats(&mut self, vf: &Name, counters: &VfStatistics) -> io::Result<()> {
        if self.json {
            return self.line(counters);
        }
        let c = counters;
        let rows = [
            [String::new(), "PACKETS".into(), "BYTES".into(), "DROPPED".into()],
            ["received".into(), c.rx_packets.to_string(), c.rx_bytes.to_string(), c.rx_dropped.to_string()],
            ["sent".into(), c.tx_packets.to_string(), c.tx_bytes.to_string(), c.tx_dropped.to_string()],
        ];
        writeln!(
            self.out,
            "{vf}, since it was made ({} broadcast, {} multicast):",
            c.broadcast, c.multicast
        )?;
        table(&rows).iter().try_for_each(|line| writeln!(self.out, "  {line}"))
    }

    /// One event of a watch: a line, printed at once.
    pub fn watched(&mut self, event: &WatchEvent) -> io::Result<()> {
        match (event, self.json) {
            (WatchEvent::Present(views), true) => self.line(&json!({ "event": "present", "vfs": views })),
            (WatchEvent::Notice(Notice::Added(view)), true) => {
                self.line(&json!({ "event": "added", "vf": view }))
            }
            (WatchEvent::Notice(Notice::Changed(view)), true) => {
                self.line(&json!({ "event": "changed", "vf": view }))
            }
            (WatchEvent::Notice(Notice::Removed(name)), true) => {
                self.line(&json!({ "event": "removed", "name": name }))
            }
            (WatchEvent::Present(views), false) if views.is_empty() => writeln!(self.out, "present  no VF"),
            (WatchEvent::Present(views), false) => {
                views.iter().try_for_each(|view| self.event("present", view))
            }
            (WatchEvent::Notice(Notice::Added(view)), false) => self.event("added", view),
            (WatchEvent::Notice(Notice::Changed(view)), false) => self.event("changed", view),
            (WatchEvent::Notice(Notice::Removed(name)), false) => writeln!(self.out, "removed  {name}"),
        }?;
        self.out.flush()
    }

    fn event(&mut self, what: &str, view: &VfView) -> io::Result<()> {
        write!(self.out, "{what:<7}  {}  {}  {}", view.name, view.class, view.host_address)?;
        view.settings.describe().iter().try_for_each(|(key, value)| write!(self.out, "  {key}={value}"))?;
        if let Some(pair) = &view.failover {
            write!(self.out, "  {}", part(pair))?;
        }
        if let Some(fault) = &view.fault {
            write!(self.out, "  {fault}")?;
        }
        writeln!(self.out)
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        writeln!(self.out)
    }
}

/// The part of a VF in its pair, in words.
fn part(pair: &PairView) -> String {
    let PairView { partner, .. } = pair;
    let role = match pair.role {
        PairRole::Primary => format!("primary, with the standby {partner}"),
        PairRole::Standby => format!("standby of {partner}"),
    };
    if pair.active { format!("{role}: active") } else { role }
}

fn may(view: &VfView) -> String {
    if view.may.is_empty() { "only read".to_owned() } else { view.may.join(", ") }
}

/// Rows in columns; wraps the last column between words at the maximum width.
fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N - 1).map(width).collect();
    let indent = widths.iter().map(|width| width + 2).sum::<usize>();
    // Two columns are the margin of some tables. Names of 40 characters leave little room: one word a line, then.
    let room = COLUMNS.saturating_sub(indent + 2);
    let mut lines = Vec::new();
    for row in rows {
        let mut line: String =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        let mut used = 0;
        for word in row[N - 1].split(' ') {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
                used = 0;
            }
            if used > 0 {
                line.push(' ');
            }
            line.push_str(word);
            used += length + 1;
        }
        lines.push(line);
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use ioward_model::{Class, VfSettings, Vlan};

    use super::*;

    fn view() -> VfView {
        VfView {
            name: "net0".parse().unwrap(),
            class: Class::Network,
            host_address: "0000:01:10.0".parse().unwrap(),
            settings: VfSettings {
                mac: Some("52:54:00:aa:00:01".parse().unwrap()),
                vlan: Vlan::new(5),
                ..VfSettings::default()
            },
            may: ["mac", "vlan 100-110", "max_tx_rate <=500Mbit", "reset", "stats"]
                .map(str::to_owned)
                .to_vec(),
            failover: None,
            fault: None,
        }
    }

    fn printed(print: impl FnOnce(&mut Printer<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        print(&mut Printer { out: &mut bytes, json: false }).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_list_fits_on_a_terminal_of_80_columns() {
        let disk = VfView {
            name: "disk0".parse().unwrap(),
            class: Class::Nvme,
            settings: VfSettings::default(),
            may: vec![],
            failover: None,
            fault: None,
            ..view()
        };
        let text = printed(|p| p.list(&[view(), disk]));
        assert_eq!(
            text,
            "\
NAME   CLASS    HOST ADDRESS  MAC                VLAN  GUEST MAY
net0   network  0000:01:10.0  52:54:00:aa:00:01  5     mac, vlan 100-110,
                                                       max_tx_rate <=500Mbit,
                                                       reset, stats
disk0  nvme     0000:01:10.0  -                  -     only read
"
        );
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS));
    }

    #[test]
    fn a_vf_and_its_counters_are_printed_in_columns() {
        assert_eq!(
            printed(|p| p.vf(&view())),
            "\
net0: network VF, 0000:01:10.0 on the host
  mac        52:54:00:aa:00:01
  vlan       5
  guest may  mac, vlan 100-110, max_tx_rate <=500Mbit, reset, stats
"
        );
        let counters = VfStatistics {
            rx_packets: u64::MAX,
            rx_bytes: u64::MAX,
            rx_dropped: u64::MAX,
            ..Default::default()
        };
        let text = printed(|p| p.stats(&"net0".parse().unwrap(), &counters));
        assert!(text.contains("  sent      0"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    }
}
