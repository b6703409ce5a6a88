//! Checks what must be unchanged after a refusal, an operation, or a rollback.

use std::collections::BTreeSet;

use ioward_fabric::sim::{MachineView, VfView};
use ioward_model::{Inventory, Plan, State, Step, VfId, VfSettings};
use ioward_pci::Bdf;
use ioward_planner::Machine;

use crate::{
    checks,
    world::{World, Wrong},
};

impl World {
    pub fn nothing_changed(&self, what: &str, view: &MachineView, state: &State) -> Result<(), Wrong> {
        let now = self.host.machine.snapshot();
        let differs = checks::differences(view, &now);
        if !differs.is_empty() {
            return Err(format!("{what} changed the machine: {}", differs.join("; ")));
        }
        let now = self.state();
        if now == *state {
            Ok(())
        } else {
            Err(format!("{what} changed the state from {state:?} to {now:?}"))
        }
    }

    /// The order in which concurrent steps were done is as good as the plan's own: a machine of values accepts the
    /// steps in that order, and their inverses in reverse.
    pub fn order_holds(
        &self,
        plan: &Plan,
        inventory: &Inventory,
        state: &State,
        is_sound: bool,
    ) -> Result<(), Wrong> {
        let (mut machine, mut inverses) = (Machine::new(inventory, state), Vec::new());
        for number in &self.done_in_order {
            let step = &plan.steps[number - 1];
            let outcome = machine.carry_out(step);
            let outcome =
                outcome.map_err(|no| format!("in the order {:?}: {step}: {no}", self.done_in_order))?;
            inverses.extend(step.inverse(&outcome));
        }
        for inverse in inverses.iter().rev().filter(|_| is_sound) {
            let undone = machine.carry_out(inverse);
            undone.map_err(|no| format!("back from the order {:?}: {inverse}: {no}", self.done_in_order))?;
        }
        Ok(())
    }

    pub fn only_this_changed(
        &self,
        vf: VfId,
        change: &VfSettings,
        before: &MachineView,
    ) -> Result<(), Wrong> {
        let mut now = self.host.machine.snapshot();
        let vf_of = |view: &mut MachineView| -> Option<VfView> {
            let pf = view.physical_functions.get_mut(&vf.pf)?;
            pf.vfs.get(usize::from(vf.index)).cloned()
        };
        let (mut expected, after) = (before.clone(), vf_of(&mut now));
        let Some(after) = after else { return Err(format!("{vf} is set, and not there")) };
        let missing = change.missing_from(&after.settings);
        if !missing.is_empty() {
            return Err(format!("{vf} is said to be set, and it is not: {:?}", missing.describe()));
        }
        let pf = expected.physical_functions.get_mut(&vf.pf).ok_or("its PF was not there")?;
        let own = pf.vfs.get_mut(usize::from(vf.index)).ok_or("it was not there")?;
        own.settings = change.or(&own.settings);
        own.resets = after.resets;
        own.used = after.used;
        if change.is_empty() {
            // A MAC set by the VF's own driver does not survive a reset.
            own.settings.mac = after.settings.mac;
        }
        let differs = checks::differences(&expected, &now);
        if differs.is_empty() {
            Ok(())
        } else {
            Err(format!("more was changed than asked for: {}", differs.join("; ")))
        }
    }

    /// Everything is as it was before a plan, except for model time and resets.
    pub fn everything_undone(&self, plan: &Plan, view: &MachineView, state: &State) -> Result<(), Wrong> {
        let (mut before, mut now) = (view.clone(), self.host.machine.snapshot());
        let resized: BTreeSet<Bdf> = plan
            .steps
            .iter()
            .filter_map(|step| if let Step::SetVfCount { pf, .. } = step { Some(*pf) } else { None })
            .collect();
        for view in [&mut before, &mut now] {
            for (pf, function) in view.physical_functions.iter_mut().filter(|(pf, _)| resized.contains(pf)) {
                for (index, vf) in (0..).zip(&mut function.vfs) {
                    // The VF was made again: its group has another number. A driver bound by hand is lost, which is
                    // why that requires --allow-disruption.
                    vf.group = vf.group.map(|_| 0);
                    let is_ours = state.owner(VfId { pf: *pf, index }).is_some();
                    if self.loose.foreign.contains(pf) && (!is_ours || self.loose.pfs.contains(pf)) {
                        (vf.driver, vf.driver_override, vf.settings) = (None, None, VfSettings::default());
                    }
                }
            }
        }
        // What somebody had taken out of a domain that runs is in it again when it was put back, and so may be what was in doubt. What
        // somebody has taken out of what it starts with next (seed 146: EditOut, and a stop that was in doubt) is gone when it was.
        let missing = self.hypervisor.missing();
        let may_be_new = state.assignments().filter(|(owner, held)| {
            self.was_missing.contains(owner) || missing.contains(owner) || held.attached_in_doubt
        });
        for (_, held) in may_be_new {
            for view in [&mut before, &mut now] {
                let pf = view.physical_functions.get_mut(&held.vf.pf);
                if let Some(vf) = pf.and_then(|pf| pf.vfs.get_mut(usize::from(held.vf.index))) {
                    vf.held = false;
                }
            }
        }
        let differs = checks::differences(&before, &now);
        if !differs.is_empty() {
            return Err(format!("said to be undone, but {}", differs.join("; ")));
        }
        let now = checks::essence(&self.state());
        let before = checks::essence(&checks::without_settled_doubts(state, &now));
        if now == before {
            Ok(())
        } else {
            Err(format!("said to be undone, but the state was {before:?} and is {now:?}"))
        }
    }
}
