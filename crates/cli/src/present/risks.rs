//! What a single failure would take, and whom it would cut off (`ioward host --risks`, `ioward plan --what-if`).

use std::collections::BTreeSet;

use ioward_model::{
    Class, FailureDomain,
    risk::{CutOff, Risk},
};

use super::text::wrap;

/// Each failure, and before them all whom a single one would cut off.
#[must_use]
pub fn risks(risks: &[Risk], width: usize) -> String {
    if risks.is_empty() {
        return "no risks: no partition holds a VF\n".to_owned();
    }
    let cut_off: BTreeSet<_> =
        risks.iter().flat_map(|risk| &risk.cuts_off).map(|cut| cut.partition.to_string()).collect();
    let summary = match cut_off.len() {
        0 => "no failure of a single port or adapter cuts a partition off".to_owned(),
        _ => {
            let names = cut_off.into_iter().collect::<Vec<_>>().join(", ");
            format!("a single failure would cut off {names}")
        }
    };
    wrap(&summary, width, "", "") + "\n" + &each(risks, width)
}

/// Each failure alone.
#[must_use]
pub fn each(risks: &[Risk], width: usize) -> String {
    risks.iter().map(|risk| one(risk, width)).collect()
}

fn one(risk: &Risk, width: usize) -> String {
    let pfs = risk.pfs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut text = match risk.fails {
        FailureDomain::Adapter => wrap(&format!("the whole adapter of {pfs} fails:"), width, "", "  "),
        _ => wrap(&format!("{pfs} fails:"), width, "", "  "),
    };
    let mut line = |what: &str, list: Vec<String>| {
        if !list.is_empty() {
            text += &wrap(&format!("{what} {}", list.join(", ")), width, "  ", "    ");
        }
    };
    line("cuts off", risk.cuts_off.iter().map(in_words).collect());
    line("takes", risk.loses.iter().map(ToString::to_string).collect());
    if risk.loses.is_empty() {
        text += "  takes nothing from anybody\n";
    }
    text
}

fn in_words(CutOff { partition, class }: &CutOff) -> String {
    let from = match class {
        Class::Network => "the network",
        Class::Nvme => "its NVMe storage",
        Class::Display => "its GPU",
        Class::Accelerator => "its accelerator",
        Class::Other => "its other devices",
    };
    format!("{partition} from {from}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_single_failure_cuts_off_comes_first() {
        let found: Vec<Risk> = serde_json::from_str(
            r#"[{"fails": "port", "pfs": ["0000:01:00.0"], "loses": ["db/net0", "web/net0"],
                 "cuts_off": [{"partition": "web", "class": "network"}]},
                {"fails": "adapter", "pfs": ["0000:02:00.0", "0000:02:00.1"], "loses": ["db/net1"], "cuts_off": []},
                {"fails": "port", "pfs": ["0000:03:00.0"], "loses": [], "cuts_off": []}]"#,
        )
        .unwrap();
        let expected = "\
a single failure would cut off web

0000:01:00.0 fails:
  cuts off web from the network
  takes db/net0, web/net0
the whole adapter of 0000:02:00.0, 0000:02:00.1 fails:
  takes db/net1
0000:03:00.0 fails:
  takes nothing from anybody
";
        assert_eq!(risks(&found, 80), expected);
        assert!(
            risks(&found[1..], 80)
                .starts_with("no failure of a single port or adapter cuts a partition off\n")
        );
        assert_eq!(risks(&[], 80), "no risks: no partition holds a VF\n");
    }
}
