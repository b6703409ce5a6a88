//! A plan before it is carried out (`ioward plan`, `ioward apply`, `ioward select`).

use ioward_model::{Owner, Placement, Plan, Step};

use super::{
    diff::{self, Change},
    text,
};

/// Optional parts of a plan's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// The criterion that decided each placement.
    pub explain: bool,
    /// The steps, in order.
    pub steps: bool,
}

/// The changes by function and by partition; then who is disturbed, and how nobody would be.
#[must_use]
pub fn plan(plan: &Plan, detail: Detail, width: usize) -> String {
    let mut out = String::new();
    if plan.steps.is_empty() {
        out += "nothing to do: everything is as it is wanted\n";
    } else {
        // It has a number only once it is begun.
        out += &format!("plan: {}\n", text::counted(plan.steps.len(), "step"));
        let diff = diff::of(plan);
        for (heading, changes) in [("functions", &diff.functions), ("partitions", &diff.partitions)] {
            if !changes.is_empty() {
                out += &format!("\n{heading}\n");
                out += &lines(changes, 2, width);
            }
        }
    }
    if detail.explain && !plan.placements.is_empty() {
        out += "\nwhy\n";
        for placement in &plan.placements {
            out += &text::wrap(&why(placement), width, "  ", "    ");
        }
    }
    if let Some(gap) = plan.gap {
        out += "\n";
        out += &text::wrap(&gap.to_string(), width, "", "  ");
    }
    if plan.steps.is_empty() {
        return out;
    }
    if detail.steps {
        out += "\nsteps\n";
        out += &steps(&plan.steps, width);
    }
    if !plan.left_out.is_empty() {
        out += "\nleft out, and left alone\n";
        out += &plan
            .left_out
            .iter()
            .map(|reason| text::wrap(&reason.to_string(), width, "  ", "    "))
            .collect::<String>();
    }
    out += "\n";
    out += &if plan.disturbs.is_empty() { "disturbs nobody\n".to_owned() } else { disturbed(plan, width) };
    let [made, changed, taken] = diff::of(plan).counts();
    out + &format!("{made} to make, {changed} to change, {taken} to take\n")
}

/// The results of a plan that was carried out, a line each: who has which VF now, and who runs.
#[must_use]
pub fn results(plan: &Plan) -> String {
    let result = |step: &Step| match step {
        Step::SetVfCount { pf, to, .. } if *to > 0 => {
            Some(format!("{pf} gives {} now", text::counted((*to).into(), "VF")))
        }
        Step::Assign { owner, to } => Some(format!("{owner} is {}", to.vf)),
        Step::Unassign { owner, from } if releases(plan, owner) => {
            Some(format!("{}, which was {owner}, stays as it is", from.vf))
        }
        Step::Unassign { owner, from } => Some(format!("{}, which was {owner}, is as it was found", from.vf)),
        Step::UndefinePartition { from } => Some(format!("{} {}", from.name, diff::forgotten(from))),
        Step::StartPartition { partition } => Some(format!("{partition} runs")),
        Step::StopPartition { partition, .. } => Some(format!("{partition} is stopped")),
        _ => None,
    };
    plan.steps.iter().filter_map(result).map(|line| line + "\n").collect()
}

/// Whether a plan leaves a VF with the domain that has it.
fn releases(plan: &Plan, vf: &Owner) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::ReleaseVf { owner, .. } if owner == vf))
}

/// Who is disturbed, a line each under a heading, and how nobody would be; nothing when nobody is.
#[must_use]
pub fn disturbed(plan: &Plan, width: usize) -> String {
    if plan.disturbs.is_empty() {
        return String::new();
    }
    let mut out = "disturbs\n".to_owned();
    for disturbance in &plan.disturbs {
        let line = format!("{}, on {}: {}", disturbance.who, disturbance.function, disturbance.what);
        out += &text::wrap(&line, width, "  ", "    ");
    }
    for way in &plan.instead {
        out += &text::wrap(&format!("without disturbing anyone: if {way}"), width, "", "  ");
    }
    out
}

fn lines(changes: &[Change], indent: usize, width: usize) -> String {
    let mut out = String::new();
    for change in changes {
        let first = format!("{:indent$}{} ", "", change.sign.as_char());
        out += &text::wrap(&change.text, width, &first, &format!("{:indent$}    ", ""));
        out += &lines(&change.within, indent + 4, width);
    }
    out
}

fn why(placement: &Placement) -> String {
    let Placement { owner, vf, decided_by, over, suited } = placement;
    let over = over.map(|over| format!(" over {over}")).unwrap_or_default();
    format!("{owner}: {vf}{over}: {decided_by}; of {} that suited", text::counted(*suited as usize, "PF"))
}

/// Steps by number, in the order in which they are carried out.
fn steps(steps: &[Step], width: usize) -> String {
    let numbered = (1..).zip(steps);
    numbered.map(|(n, step)| text::wrap(&step.to_string(), width, &format!("{n:>4}. "), "      ")).collect()
}

#[cfg(test)]
mod tests {
    use ioward_model::{Criterion, Gap};

    use super::*;

    fn recorded() -> Plan {
        serde_json::from_str(include_str!("../../tests/data/plan.json")).unwrap()
    }

    const DIFF: &str = "\
plan: 5 steps

functions
  + 0000:01:00.0: 2 VFs made
  + VF 0 of 0000:01:00.0: to web/net0,
      mac=52:54:00:aa:00:01, vlan=100

partitions
  ~ web: starts
      + net0: VF 0 of 0000:01:00.0
";

    const COUNTS: &str = "2 to make, 1 to change, 0 to take\n";

    #[test]
    fn a_plan_at_60_columns() {
        let mut value = recorded();
        let expected = format!(
            "{DIFF}
disturbs
  db, on 0000:01:10.2: loses its VF while the number of VFs
    changes
without disturbing anyone: if web/net0 does without pf
{COUNTS}"
        );
        assert_eq!(plan(&value, Detail::default(), 60), expected);
        value.disturbs.clear();
        assert_eq!(plan(&value, Detail::default(), 60), format!("{DIFF}\ndisturbs nobody\n{COUNTS}"));
        value.steps.clear();
        let nothing = "nothing to do: everything is as it is wanted\n";
        assert_eq!(plan(&value, Detail { steps: true, explain: false }, 60), nothing);
    }

    #[test]
    fn what_decided_and_the_steps_are_there_for_those_who_ask() {
        let mut value = recorded();
        value.disturbs.clear();
        let why = "
why
  web/net0: VF 0 of 0000:01:00.0 over 0000:02:00.0: it has
    the lower address; of 2 PFs that suited
  web/disk0: VF 1 of 0000:03:00.0: it has it already; of 1
    PF that suited
";
        let steps = "
steps
   1. set the number of VFs of 0000:01:00.0 from 0 to 2
   2. assign VF 0 of 0000:01:00.0 to web/net0
   3. configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:01
      vlan=100
   4. bind VF 0 of 0000:01:00.0 to vfio-pci
   5. start partition web
";
        let all = plan(&value, Detail { steps: true, explain: true }, 60);
        assert_eq!(all, format!("{DIFF}{why}{steps}\ndisturbs nobody\n{COUNTS}"));
        let gap = Gap { criterion: Criterion::NumaNode, at_most: 11 };
        let with_gap = plan(&Plan { gap: Some(gap), ..value.clone() }, Detail::default(), 60);
        assert!(with_gap.contains("\n  a better one, by at most 11 of numa-node\n"), "{with_gap}");
        value.steps.clear();
        let explained = plan(&value, Detail { steps: true, explain: true }, 60);
        assert_eq!(explained, format!("nothing to do: everything is as it is wanted\n{why}"));
    }
}
