//! IOMMU groups: the functions that the IOMMU can't isolate from each other. Numbered as by the kernel, lowest free
//! number first, so that numbers change between boots and hot-plugs as on a real host.

use std::collections::BTreeMap;

use ioward_pci::Bdf;

/// The groups of a host with their functions.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    members: BTreeMap<u32, Vec<Bdf>>,
}

impl Groups {
    /// A new, empty group.
    pub(super) fn add(&mut self) -> u32 {
        let taken = (0..).zip(self.members.keys());
        let free = taken.take_while(|(number, key)| number == *key).count();
        let number = u32::try_from(free).unwrap_or(u32::MAX);
        self.members.insert(number, Vec::new());
        number
    }

    /// Puts a function into a group.
    pub(super) fn join(&mut self, group: u32, function: Bdf) {
        self.members.entry(group).or_default().push(function);
    }

    /// Removes a function from its group; a group ends with its last function.
    pub(super) fn leave(&mut self, function: Bdf) {
        self.members.retain(|_, members| {
            members.retain(|member| *member != function);
            !members.is_empty()
        });
    }

    /// The group of every function, sorted by function.
    pub(super) fn all(&self) -> Vec<(Bdf, u32)> {
        let members = |(group, members): (&u32, &Vec<Bdf>)| -> Vec<_> {
            members.iter().map(|member| (*member, *group)).collect()
        };
        let mut all: Vec<_> = self.members.iter().flat_map(members).collect();
        all.sort_unstable();
        all
    }

    /// The functions of a group.
    pub(super) fn members(&self, group: u32) -> &[Bdf] {
        self.members.get(&group).map_or(&[], Vec::as_slice)
    }
}
