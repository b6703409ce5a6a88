//! Which functions suit a partition, and why the others do not (`ioward compatible`).

use ioward_api::{Candidate, Compatible};
use ioward_model::{Reason, Rule};
use ioward_pci::Bdf;

use super::{
    table::{Align, Table},
    text,
};

/// A table for each request: functions that suit, best first; below them those that don't, with every reason.
#[must_use]
pub fn compatible(requests: &[Compatible], width: usize) -> String {
    let tables: Vec<_> = requests.iter().map(|request| table(request, width)).collect();
    tables.join("\n")
}

fn table(request: &Compatible, width: usize) -> String {
    let heading = format!("{}\n", request.request);
    if request.candidates.is_empty() {
        return heading
            + &text::wrap("no PCI function of this host has the SR-IOV capability", width, "  ", "  ");
    }
    let mut table = Table::new([
        ("SUITS", Align::Left),
        ("PF", Align::Left),
        ("VFS", Align::Left),
        ("NOTE", Align::Left),
    ]);
    for run in runs(&request.candidates) {
        let suits = if run.first().reasons.is_empty() { "yes" } else { "no" };
        table.row([suits.to_owned(), run.first().vf.pf.to_string(), run.indexes(), run.note()]);
        for reason in &run.first().reasons {
            table.note(&reason_line(reason, &run));
        }
    }
    heading + &table.render(width)
}

/// Candidates one after the other of one PF, of which the same is to be said.
struct Run<'a>(Vec<&'a Candidate>);

impl<'a> Run<'a> {
    fn first(&self) -> &'a Candidate {
        self.0[0]
    }

    fn last(&self) -> &'a Candidate {
        self.0[self.0.len() - 1]
    }

    /// Whether of a further candidate the same is to be said.
    fn takes(&self, next: &Candidate) -> bool {
        let last = self.last();
        last.vf.pf == next.vf.pf
            && last.vf.index.checked_add(1) == Some(next.vf.index)
            && last.address.is_some() == next.address.is_some()
            && last.reasons.len() == next.reasons.len()
            && self.first().reasons.iter().zip(&next.reasons).all(|(one, other)| alike(one, other))
    }

    fn indexes(&self) -> String {
        let (first, last) = (self.first().vf.index, self.last().vf.index);
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    }

    fn note(&self) -> String {
        let count = self.0.len();
        match (self.first().address, self.last().address) {
            (Some(address), _) if count == 1 => format!("there now, at {address}"),
            (Some(first), Some(last)) => format!("there now, at {first} to {last}"),
            _ if !self.first().reasons.is_empty() => String::new(),
            _ if count == 1 => "has to be made".to_owned(),
            _ => "have to be made".to_owned(),
        }
    }
}

fn runs(candidates: &[Candidate]) -> Vec<Run<'_>> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    for candidate in candidates {
        match runs.last_mut().filter(|run| run.takes(candidate)) {
            Some(run) => run.0.push(candidate),
            None => runs.push(Run(vec![candidate])),
        }
    }
    runs
}

/// Whether two VFs of a PF are refused for the same thing. Two rules name the VF's own index in what they found.
fn alike(one: &Reason, other: &Reason) -> bool {
    let by_index = matches!(one.rule, Rule::VfIndex | Rule::Disruption);
    one.rule == other.rule && one.required == other.required && (by_index || one.found == other.found)
}

/// The rule, then what was required and what was found. Whose request it is and on which function stands above.
fn reason_line(reason: &Reason, run: &Run<'_>) -> String {
    let said: [Option<Bdf>; 2] = [Some(run.first().vf.pf), run.first().address];
    let elsewhere = reason.function.filter(|function| !said.contains(&Some(*function)));
    let text = Reason { request: None, function: elsewhere, ..reason.clone() };
    let of_all =
        run.0.iter().all(|candidate| candidate.reasons.iter().any(|other| same_words(reason, other)));
    let of_first = if of_all { String::new() } else { format!(" (here of VF {})", run.first().vf.index) };
    format!("{}{of_first}: {text}", reason.rule)
}

fn same_words(one: &Reason, other: &Reason) -> bool {
    one.rule == other.rule && one.found == other.found && one.remedy == other.remedy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vfs_with_one_verdict_are_one_row() {
        let requests: Vec<Compatible> =
            serde_json::from_str(include_str!("../../tests/data/compatible.json")).unwrap();
        let expected = "\
web/net0
SUITS  PF            VFS  NOTE
yes    0000:01:00.0  1    there now, at 0000:01:10.2
yes    0000:03:00.0  0-2  have to be made
no     0000:01:00.0  0    there now, at 0000:01:10.0
  vf-free: required a VF that nobody has; found db/net0 has it
no     0000:01:00.0  2-3
  disruption (here of VF 2): required that nothing that runs loses a VF; found
    going from 2 to 3 VFs leads through 0: db loses net0 (0000:01:10.0); use a
    VF of another PF
no     0000:02:00.0  0-1
  management-nic: required a PF that the host does not use; found eth2 has
    address 192.0.2.7/24; use another adapter, or allow it with
    --allow-management-nic
  link-speed: required a link of 10Gbit or faster; found one of 1Gbit

web/disk0
  no PCI function of this host has the SR-IOV capability
";
        assert_eq!(compatible(&requests, 80), expected);
    }
}
