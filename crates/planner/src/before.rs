//! The settings that a plan changes, as they are before it: a person who reads the plan sees both.

use std::collections::BTreeMap;

use ioward_model::{Assignment, IntoMap, Inventory, SettingsBefore, State, Step, VfId, VfSettings};

/// For each VF that is held and configured by these steps, what those settings are now: as noted, and as found where nothing
/// is noted.
pub(crate) fn settings(inventory: &Inventory, state: &State, steps: &[Step]) -> Vec<SettingsBefore> {
    let mut changed: BTreeMap<VfId, VfSettings> = BTreeMap::new();
    for step in steps {
        if let Step::ConfigureVf { vf, to } = step {
            let settings = changed.entry(*vf).or_default();
            *settings = to.or(settings);
        }
    }
    // One that changes hands is cleared on the way, and begins anew.
    for step in steps {
        if let Step::Unassign { from, .. } = step {
            changed.remove(&from.vf);
        }
    }
    if changed.is_empty() {
        return Vec::new();
    }
    let held = state.partitions.values().flat_map(|partition| partition.vfs.values());
    let mut held: BTreeMap<VfId, &Assignment> =
        held.filter(|held| changed.contains_key(&held.vf)).map(|held| (held.vf, held)).into_map();
    let before = changed.into_iter().filter_map(|(vf, changed)| {
        let noted = held.remove(&vf)?.effective_settings();
        let found = inventory.physical_function(vf.pf).and_then(|pf| pf.virtual_function(vf.index));
        let now = found.map_or_else(|| noted.clone(), |found| noted.or(&found.settings));
        let settings = changed.restored_from(&now);
        (!settings.is_empty()).then_some(SettingsBefore { vf, settings })
    });
    before.collect()
}
