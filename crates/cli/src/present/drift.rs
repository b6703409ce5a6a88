//! How the host differs from what the daemon holds (`ioward drift`), and VFs that are nobody's (`ioward orphans`).

use ioward_api::Reaped;
use ioward_model::{Drift, Orphan};

/// Each difference, what it breaks, and what becomes of it.
#[must_use]
pub fn drift(drifts: &[Drift]) -> String {
    if drifts.is_empty() {
        return "no drift: the host is as the daemon holds it\n".to_owned();
    }
    let mut text = String::new();
    for drift in drifts {
        text += &format!("{}\n", drift.what);
        for owner in &drift.breaks {
            text += &format!("  breaks {owner}\n");
        }
        text += &match &drift.left_because {
            Some(why) => format!("  left as it is: {why}\n"),
            None => "  is being repaired\n".to_owned(),
        };
    }
    text
}

/// The orphans, a line each.
#[must_use]
pub fn orphans(orphans: &[Orphan]) -> String {
    if orphans.is_empty() {
        return "no orphans: nothing is bound to vfio-pci that nobody owns or has open\n".to_owned();
    }
    let lines = orphans.iter().map(|Orphan { vf, address }| format!("{address}  {vf}\n"));
    lines.collect::<String>() + "'ioward orphans --reap' resets them and leaves them without a driver\n"
}

/// The outcome for each orphan, a line each.
#[must_use]
pub fn reaped(reaped: &[Reaped]) -> String {
    if reaped.is_empty() {
        return orphans(&[]);
    }
    let line = |Reaped { orphan: Orphan { vf, address }, error }: &Reaped| match error {
        None => format!("{address}  {vf}: reset, and without a driver\n"),
        Some(error) => format!("{address}  {vf}: {error}\n"),
    };
    reaped.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drift_says_what_it_breaks_and_what_becomes_of_it() {
        let text = r#"[{"drift": "vf-count", "pf": "0000:01:00.0", "noted": 2, "found": 0,
            "breaks": ["web/net0", "db/net0"], "left_because": "somebody has changed it"},
            {"drift": "driver", "vf": {"pf": "0000:03:00.0", "index": 1}, "found": null, "breaks": ["web/net1"]}]"#;
        let expected = "\
0000:01:00.0 has 0 VFs and is to have 2
  breaks web/net0
  breaks db/net0
  left as it is: somebody has changed it
VF 1 of 0000:03:00.0 has no driver and is to be bound to vfio-pci
  breaks web/net1
  is being repaired
";
        assert_eq!(drift(&serde_json::from_str::<Vec<_>>(text).unwrap()), expected);
        assert!(drift(&[]).starts_with("no drift:"));
    }
}
