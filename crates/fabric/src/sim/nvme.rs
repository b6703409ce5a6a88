//! The controller side of an NVMe adapter: a primary controller, its secondary controllers, and the Virtualization
//! Management command (NVMe Base 2.0 §5.28, §8.26).

use ioward_model::{NvmeResources, NvmeSecondary};

use super::family::NvmeLimits;
use crate::linux::nvme::Action;

/// A primary controller with its secondary controllers.
#[derive(Clone, Debug)]
pub(super) struct Controller {
    limits: NvmeLimits,
    secondaries: Vec<NvmeSecondary>,
}

/// Invalid Controller Identifier.
pub(super) const INVALID_CONTROLLER: u16 = 0x11f;
/// Invalid Secondary Controller State.
pub(super) const INVALID_STATE: u16 = 0x120;
/// Invalid Number of Controller Resources.
pub(super) const INVALID_NUMBER: u16 = 0x121;

/// The minimum for a working controller: the admin queue, one I/O queue, and one interrupt.
const LEAST_QUEUES: u16 = 2;
const LEAST_INTERRUPTS: u16 = 1;

impl Controller {
    /// A primary controller with a secondary one for every possible VF; all offline and without resources.
    pub(super) fn new(limits: NvmeLimits, vfs: u16) -> Self {
        let secondary = |index| NvmeSecondary {
            controller_id: index + 1,
            index,
            online: false,
            queues: 0,
            interrupts: 0,
        };
        Self { limits, secondaries: (0..vfs).map(secondary).collect() }
    }

    /// Its secondary controllers, by VF.
    pub(super) fn secondaries(&self) -> &[NvmeSecondary] {
        &self.secondaries
    }

    /// Its flexible resources, total and assigned.
    pub(super) fn resources(&self) -> NvmeResources {
        let sum = |of: fn(&NvmeSecondary) -> u16| self.secondaries.iter().map(|one| u32::from(of(one))).sum();
        NvmeResources {
            queues_total: self.limits.queues,
            queues_assigned: sum(|one| one.queues),
            queues_max_per_vf: self.limits.queues_per_vf,
            interrupts_total: self.limits.interrupts,
            interrupts_assigned: sum(|one| one.interrupts),
            interrupts_max_per_vf: self.limits.interrupts_per_vf,
        }
    }

    /// Virtualization Management. `enabled_vfs` is the number of existing VFs: without its VF a secondary
    /// controller can't go online. The error is the command's status.
    pub(super) fn manage(
        &mut self,
        controller_id: u16,
        action: Action,
        enabled_vfs: usize,
    ) -> Result<(), u16> {
        let resources = self.resources();
        let found = self.secondaries.iter_mut().find(|one| one.controller_id == controller_id);
        let secondary = found.ok_or(INVALID_CONTROLLER)?;
        let fits = |number: u16, present: u16, most: u16, assigned: u32, total: u32| {
            number <= most && assigned - u32::from(present) + u32::from(number) <= total
        };
        match action {
            Action::Offline => go_offline(secondary),
            Action::AssignQueues(_) | Action::AssignInterrupts(_) if secondary.online => {
                return Err(INVALID_STATE);
            }
            Action::AssignQueues(number) => {
                let NvmeResources { queues_max_per_vf, queues_assigned, queues_total, .. } = resources;
                if !fits(number, secondary.queues, queues_max_per_vf, queues_assigned, queues_total) {
                    return Err(INVALID_NUMBER);
                }
                secondary.queues = number;
            }
            Action::AssignInterrupts(number) => {
                let NvmeResources { interrupts_max_per_vf, interrupts_assigned, interrupts_total, .. } =
                    resources;
                if !fits(
                    number,
                    secondary.interrupts,
                    interrupts_max_per_vf,
                    interrupts_assigned,
                    interrupts_total,
                ) {
                    return Err(INVALID_NUMBER);
                }
                secondary.interrupts = number;
            }
            Action::Online => {
                let suffices = secondary.queues >= LEAST_QUEUES && secondary.interrupts >= LEAST_INTERRUPTS;
                if usize::from(secondary.index) >= enabled_vfs || !suffices {
                    return Err(INVALID_STATE);
                }
                secondary.online = true;
            }
        }
        Ok(())
    }

    /// The VFs are gone: their controllers go offline.
    pub(super) fn functions_gone(&mut self) {
        self.secondaries.iter_mut().for_each(go_offline);
    }

    /// Violations of the specification.
    pub(super) fn violations(&self) -> Vec<String> {
        let NvmeResources { queues_total, queues_assigned, interrupts_total, interrupts_assigned, .. } =
            self.resources();
        let mut found = Vec::new();
        if queues_assigned > queues_total || interrupts_assigned > interrupts_total {
            found.push("more NVMe resources are assigned than there are".to_owned());
        }
        let starving = |one: &&NvmeSecondary| {
            one.online && (one.queues < LEAST_QUEUES || one.interrupts < LEAST_INTERRUPTS)
        };
        let online = self.secondaries.iter().filter(starving);
        found
            .extend(online.map(|one| {
                format!("secondary controller {} is online without resources", one.controller_id)
            }));
        found
    }
}

/// A controller that goes offline loses all flexible resources (action 7h of §5.28).
fn go_offline(secondary: &mut NvmeSecondary) {
    *secondary = NvmeSecondary { online: false, queues: 0, interrupts: 0, ..*secondary };
}
