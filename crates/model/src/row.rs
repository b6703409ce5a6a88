//! The state as rows, which are stored one by one, so that a small change is a small write.
//!
//! A change is computed on a [`State::part`] that holds only the rows it may touch; the rows that differ are
//! written, and only then [`State::put`] into the whole.

use std::collections::BTreeMap;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{
    AdapterState, Assignment, Intent, Name, OutOfService, Owner, PartitionSpec, PartitionState, Plan, Spec,
    StandbyNic, State, VfId, handover::Move,
};

/// The key of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// The number of plans carried out.
    Revision,
    /// An adapter that ioward holds.
    Adapter(Bdf),
    /// A partition, without its VFs.
    Partition(Name),
    /// A VF of a partition.
    Assignment(Owner),
    /// An adapter that is out of service.
    OutOfService(Bdf),
    /// A move of a partition.
    Move(Name),
    /// The Spec that was last applied.
    Wanted,
}

/// A row: its key and its value; `None` where there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// The number of plans carried out.
    Revision(u64),
    /// An adapter that ioward holds.
    Adapter(Bdf, Option<AdapterState>),
    /// A partition, without its VFs.
    Partition(Name, Option<PartitionHead>),
    /// A VF of a partition.
    Assignment(Owner, Option<Assignment>),
    /// An adapter that is out of service.
    OutOfService(Bdf, Option<OutOfService>),
    /// A move of a partition.
    Move(Name, Option<Move>),
    /// The Spec that was last applied.
    Wanted(Option<Box<Spec>>),
}

/// A partition, without its VFs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionHead {
    /// Its Spec.
    pub spec: PartitionSpec,
    /// Whether it was started and has not been stopped since.
    pub running: bool,
    /// Whether it has a channel.
    pub channel: bool,
    /// [`PartitionState::channel_in_doubt`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub channel_in_doubt: bool,
    /// [`PartitionState::standbys`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub standbys: BTreeMap<Name, StandbyNic>,
}

impl State {
    /// The row with this key.
    #[must_use]
    pub fn row(&self, key: &RowKey) -> Row {
        match key {
            RowKey::Revision => Row::Revision(self.revision),
            RowKey::Adapter(pf) => Row::Adapter(*pf, self.adapters.get(pf).cloned()),
            RowKey::Partition(name) => {
                let head = self.partitions.get(name).map(|partition| PartitionHead {
                    spec: partition.spec.clone(),
                    running: partition.running,
                    channel: partition.channel,
                    channel_in_doubt: partition.channel_in_doubt,
                    standbys: partition.standbys.clone(),
                });
                Row::Partition(name.clone(), head)
            }
            RowKey::Assignment(owner) => {
                let partition = self.partitions.get(&owner.partition);
                let held = partition.and_then(|partition| partition.vfs.get(&owner.vf));
                Row::Assignment(owner.clone(), held.cloned())
            }
            RowKey::OutOfService(pf) => Row::OutOfService(*pf, self.out_of_service.get(pf).cloned()),
            RowKey::Move(name) => Row::Move(name.clone(), self.moves.get(name).cloned()),
            RowKey::Wanted => Row::Wanted(self.wanted.clone()),
        }
    }

    /// The keys of all rows, a partition before its VFs.
    pub fn keys(&self) -> impl Iterator<Item = RowKey> {
        let partitions = self.partitions.iter().flat_map(|(name, partition)| {
            let owner = |vf: &Name| Owner { partition: name.clone(), vf: vf.clone() };
            let vfs = partition.vfs.keys().map(move |vf| RowKey::Assignment(owner(vf)));
            std::iter::once(RowKey::Partition(name.clone())).chain(vfs)
        });
        std::iter::once(RowKey::Revision)
            .chain(self.adapters.keys().copied().map(RowKey::Adapter))
            .chain(partitions)
            .chain(self.out_of_service.keys().copied().map(RowKey::OutOfService))
            .chain(self.moves.keys().cloned().map(RowKey::Move))
            .chain(self.wanted.as_ref().map(|_| RowKey::Wanted))
    }

    /// Sets a row. Changes nothing and returns false for a VF of a partition that does not exist.
    pub fn put(&mut self, row: Row) -> bool {
        match row {
            Row::Revision(revision) => self.revision = revision,
            Row::Adapter(pf, Some(adapter)) => _ = self.adapters.insert(pf, adapter),
            Row::Adapter(pf, None) => _ = self.adapters.remove(&pf),
            Row::Partition(name, Some(head)) => {
                let PartitionHead { spec, running, channel, channel_in_doubt, standbys } = head;
                let vfs = self.partitions.remove(&name).map(|partition| partition.vfs).unwrap_or_default();
                let partition = PartitionState { spec, running, channel, channel_in_doubt, vfs, standbys };
                self.partitions.insert(name, partition);
            }
            Row::Partition(name, None) => _ = self.partitions.remove(&name),
            Row::Assignment(owner, held) => {
                let Some(partition) = self.partitions.get_mut(&owner.partition) else {
                    return held.is_none();
                };
                match held {
                    Some(held) => partition.vfs.insert(owner.vf, held),
                    None => partition.vfs.remove(&owner.vf),
                };
            }
            Row::OutOfService(pf, Some(out)) => _ = self.out_of_service.insert(pf, out),
            Row::OutOfService(pf, None) => _ = self.out_of_service.remove(&pf),
            Row::Move(name, Some(moving)) => _ = self.moves.insert(name, moving),
            Row::Move(name, None) => _ = self.moves.remove(&name),
            Row::Wanted(spec) => self.wanted = spec,
        }
        true
    }

    /// A state with only these rows, and the partitions of VFs among them.
    #[must_use]
    pub fn part(&self, keys: &[RowKey]) -> Self {
        let mut part = Self { revision: self.revision, ..Self::default() };
        for key in keys {
            if let RowKey::Assignment(owner) = key
                && !part.partitions.contains_key(&owner.partition)
            {
                part.put(self.row(&RowKey::Partition(owner.partition.clone())));
            }
            part.put(self.row(key));
        }
        part
    }

    /// The rows that recording the end of a plan may change.
    #[must_use]
    pub fn rows_of_done(plan: &Plan) -> Vec<RowKey> {
        let wanted = matches!(plan.intent, Intent::Apply { .. }).then_some(RowKey::Wanted);
        std::iter::once(RowKey::Revision).chain(wanted).collect()
    }

    /// The row of a VF; empty while the VF has no owner.
    #[must_use]
    pub fn row_of(&self, vf: VfId) -> Vec<RowKey> {
        self.owner(vf).map(RowKey::Assignment).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdapterOriginal, Boot, Outcome, Step};

    fn state() -> State {
        let spec = |name: &str| PartitionSpec::new(name.parse().unwrap(), Boot::default());
        let wanted = Some(Box::new(Spec { version: 1, ..Spec::default() }));
        let mut state = State { revision: 7, wanted, ..State::default() };
        let pf = "0000:01:00.0".parse().unwrap();
        let original = AdapterOriginal { num_vfs: 2, autoprobe: true };
        let to = AdapterState { original, wanted: None, identity: None };
        state.record(&Step::HoldAdapter { pf, to, from: None }, &Outcome::default());
        for (index, name) in (0..).zip(["web", "db"]) {
            state.record(&Step::DefinePartition { to: spec(name), from: None }, &Outcome::default());
            let owner = Owner { partition: name.parse().unwrap(), vf: "net0".parse().unwrap() };
            let to = Assignment::new(VfId { pf, index });
            state.record(&Step::Assign { owner, to }, &Outcome::default());
        }
        state
    }

    #[test]
    fn all_rows_make_up_the_whole_state() {
        let state = state();
        let mut copy = State::default();
        for key in state.keys() {
            assert!(copy.put(state.row(&key)), "{key:?}");
        }
        assert_eq!(copy, state);
    }

    #[test]
    fn recording_on_a_part_matches_recording_on_the_whole() {
        let state = state();
        let vf = state.partitions[&"web".parse().unwrap()].vfs[&"net0".parse().unwrap()].vf;
        let owner = state.owner(vf).unwrap();
        let from = state.assignment(vf).unwrap().clone();
        let bind = Step::BindDriver { vf, to: Some("vfio-pci".into()) };
        let start = Step::StartPartition { partition: owner.partition.clone() };
        let unassign = Step::Unassign { owner: owner.clone(), from };
        for step in [bind, Step::AttachVf { owner, vf }, start, unassign] {
            let (mut whole, mut copy) = (state.clone(), state.clone());
            whole.record(&step, &Outcome::default());
            let keys = state.rows_of(&step);
            let mut part = state.part(&keys);
            part.record(&step, &Outcome::default());
            for key in &keys {
                copy.put(part.row(key));
            }
            assert!(whole != state && copy == whole, "{step}");
        }
    }

    #[test]
    fn a_vf_of_an_unknown_partition_is_refused() {
        let vf = VfId { pf: "0000:01:00.0".parse().unwrap(), index: 0 };
        let owner: Owner = "web/net0".parse().unwrap();
        let mut state = State::default();
        assert!(!state.put(Row::Assignment(owner.clone(), Some(Assignment::new(vf)))));
        assert!(state.put(Row::Assignment(owner, None)) && state == State::default());
    }
}
