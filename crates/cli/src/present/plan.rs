//! A plan before it is carried out (`ioward plan`, `ioward apply`).

use ioward_model::{Plan, Step};

use super::text;

/// The steps, numbered, under headings; then who is disturbed.
#[must_use]
pub fn plan(plan: &Plan, width: usize) -> String {
    if plan.steps.is_empty() {
        return "nothing to do: everything is as it is wanted\n".to_owned();
    }
    let mut out = format!("plan {}: {}\n", plan.id, text::counted(plan.steps.len(), "step"));
    let mut heading = "";
    for (n, step) in plan.steps.iter().enumerate() {
        if subject(step) != heading {
            heading = subject(step);
            out += &format!("\n{heading}\n");
        }
        out += &text::wrap(&step.to_string(), width, &format!("{:>4}. ", n + 1), "      ");
    }
    out += "\n";
    out += &if plan.disturbs.is_empty() { "disturbs nobody\n".to_owned() } else { disturbed(plan, width) };
    out
}

/// Who is disturbed, a line each under a heading; nothing when nobody is.
#[must_use]
pub fn disturbed(plan: &Plan, width: usize) -> String {
    let mut out = String::new();
    for disturbance in &plan.disturbs {
        if out.is_empty() {
            out += "disturbs\n";
        }
        let line = format!("{}, on {}: {}", disturbance.who, disturbance.function, disturbance.what);
        out += &text::wrap(&line, width, "  ", "    ");
    }
    out
}

/// What a step works on. Steps keep their order; a heading stands where this changes.
fn subject(step: &Step) -> &'static str {
    match step {
        Step::HoldAdapter { .. }
        | Step::ReleaseAdapter { .. }
        | Step::SetAutoprobe { .. }
        | Step::SetVfCount { .. } => "adapters",
        Step::Assign { .. }
        | Step::Unassign { .. }
        | Step::ConfigureVf { .. }
        | Step::BindDriver { .. }
        | Step::ResetVf { .. } => "virtual functions",
        Step::DefinePartition { .. }
        | Step::UndefinePartition { .. }
        | Step::CreateChannel { .. }
        | Step::DestroyChannel { .. }
        | Step::AttachVf { .. }
        | Step::DetachVf { .. }
        | Step::StartPartition { .. }
        | Step::StopPartition { .. } => "partitions",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_at_60_columns() {
        let mut value: Plan = serde_json::from_str(include_str!("../../tests/data/plan.json")).unwrap();
        let expected = "\
plan 3: 5 steps

adapters
   1. set the number of VFs of 0000:01:00.0 from 0 to 2

virtual functions
   2. assign VF 0 of 0000:01:00.0 to web/net0
   3. configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:01
      vlan=100
   4. bind VF 0 of 0000:01:00.0 to vfio-pci

partitions
   5. start partition web

disturbs
  db, on 0000:01:10.2: loses its VF while the number of VFs
    changes
";
        assert_eq!(plan(&value, 60), expected);
        assert!(
            expected.ends_with(&disturbed(&value, 60))
                && disturbed(&value, 60).starts_with("disturbs\n  db,")
        );
        value.disturbs.clear();
        assert_eq!(disturbed(&value, 60), "");
        assert!(plan(&value, 60).ends_with("\ndisturbs nobody\n"));
        value.steps.clear();
        assert!(plan(&value, 60).starts_with("nothing to do"));
    }
}
