//! The order of the steps of a plan: a step waits for earlier ones that are about the same adapter, VF or partition.
//! Steps that have nothing in common run side by side.
//!
//! ```text
//!   of an adapter   hold ─ count ─┬─ configure a ┄ configure b ┄ …   bind a ┄ bind b ┄ …
//!   of VF a                       └─ assign a ─ configure a ─ bind a ─┐
//!   of a partition                   assign a ─ channel ───────────── attach a ─ attach b
//!   at last                                                                        start   (when everything else is done)
//! ```
//!
//! Steps of one kind on one adapter take turns (┄): they wait for each other only to be carried out, since what has to be known before
//! them does not change with those of other VFs. Such a step begins after the one before it has begun, so whoever is held up is held up
//! by one that is under way.
//!
//! Any order in which nobody is overtaken by one that waits for them is as good as the plan's own: what a step needs was
//! brought about by steps that it shares something with, and so was what its inverse needs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem::{Discriminant, discriminant},
};

use ioward_model::{MacAddress, Meaning, Name, Policy, Step, VfId};

/// The steps of a plan that are still to be done, by their index in it.
pub(crate) struct Order {
    /// For each step, how many of those that it waits for are not done yet.
    waits_for: Vec<usize>,
    /// For each step, those that wait until it is done.
    holds_up: Vec<Vec<usize>>,
    /// For each step, the one whose turn is after its own: it begins once this one has begun, and is carried out once this one has been.
    next_turn: Vec<Option<usize>>,
    /// For each step, the one whose turn is before its own, until that has been carried out.
    turn_before: Vec<Option<usize>>,
    /// Steps that wait for nobody and have not begun.
    ready: BTreeSet<usize>,
}

/// A slot with an adapter in it: the ports of one share what their VFs are made of, so they are one adapter here. A PCIe
/// port has a bus of its own below it, with one device on it.
type Slot = (u32, u8);

/// The latest steps about an adapter.
#[derive(Default)]
struct OfAdapter {
    /// The latest that was about all of it.
    whole: Option<usize>,
    /// The latest since `whole` of each kind that takes turns.
    turns: HashMap<Discriminant<Step>, usize>,
    /// Those since `whole` that were about its VFs.
    uses: Vec<usize>,
}

/// The latest steps about something.
#[derive(Default)]
struct Latest<'a> {
    adapters: BTreeMap<Slot, OfAdapter>,
    vfs: BTreeMap<VfId, usize>,
    partitions: BTreeMap<&'a Name, usize>,
    /// A MAC is given to a VF only once the one that had it has been cleaned.
    macs: BTreeMap<MacAddress, usize>,
    /// Those that nobody waits for, but partitions that start.
    loose: BTreeSet<usize>,
}

impl Order {
    /// The order of steps that are rolled back when one of them fails, or are not. A partition starts when nothing else can fail
    /// any more; in a plan that is not rolled back, as soon as what it has is ready.
    pub(crate) fn of(steps: &[Step], policy: Policy) -> Self {
        let start_last = policy == Policy::AllOrNothing;
        let mut order = Self {
            waits_for: vec![0; steps.len()],
            holds_up: vec![Vec::new(); steps.len()],
            next_turn: vec![None; steps.len()],
            turn_before: vec![None; steps.len()],
            ready: BTreeSet::new(),
        };
        let mut latest = Latest::default();
        for (n, step) in steps.iter().enumerate() {
            let (waits_for, after) = latest.before(n, step, start_last);
            let after = after.filter(|earlier| !waits_for.contains(earlier));
            order.waits_for[n] = waits_for.len() + usize::from(after.is_some());
            if order.waits_for[n] == 0 {
                order.ready.insert(n);
            }
            if let Some(earlier) = after {
                order.next_turn[earlier] = Some(n);
                order.turn_before[n] = Some(earlier);
            }
            for earlier in waits_for {
                order.holds_up[earlier].push(n);
            }
        }
        order
    }

    /// Whether a step could begin now.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The first step that can begin; it has begun then.
    pub(crate) fn begin(&mut self) -> Option<usize> {
        let n = self.ready.pop_first()?;
        if let Some(next) = self.next_turn[n] {
            self.wait_for_one_less(next);
        }
        Some(n)
    }

    /// Whether a step that has begun may be carried out.
    pub(crate) fn may_be_carried_out(&self, n: usize) -> bool {
        self.turn_before[n].is_none()
    }

    /// A step has been carried out, or is not going to be: the one whose turn is next may be.
    pub(crate) fn carried_out(&mut self, n: usize) {
        if let Some(next) = self.next_turn[n] {
            self.turn_before[next] = None;
        }
    }

    /// A step is done: those that waited for it alone can begin.
    pub(crate) fn done(&mut self, n: usize) {
        for later in std::mem::take(&mut self.holds_up[n]) {
            self.wait_for_one_less(later);
        }
    }

    fn wait_for_one_less(&mut self, n: usize) {
        self.waits_for[n] -= 1;
        if self.waits_for[n] == 0 {
            self.ready.insert(n);
        }
    }
}

impl<'a> Latest<'a> {
    /// The steps that this one waits for until they are done, and the one whose turn is before its own; it is one of the latest then.
    fn before(&mut self, n: usize, step: &'a Step, start_last: bool) -> (BTreeSet<usize>, Option<usize>) {
        let (mut before, mut after) = (BTreeSet::new(), None);
        let Meaning { subject: about, mac, takes_turns, .. } = step.meaning();
        if let Some(pf) = about.adapter() {
            let adapter = self.adapters.entry((pf.domain(), pf.bus())).or_default();
            if about.pf.is_some() {
                before.extend(adapter.whole.replace(n));
                before.extend(adapter.uses.drain(..));
                adapter.turns.clear();
            } else {
                before.extend(adapter.whole);
                adapter.uses.push(n);
                if takes_turns {
                    after = adapter.turns.insert(discriminant(step), n);
                }
            }
        }
        before.extend(about.vf.and_then(|vf| self.vfs.insert(vf, n)));
        before.extend(about.partition.and_then(|partition| self.partitions.insert(partition, n)));
        before.extend(mac.and_then(|mac| self.macs.insert(mac, n)));
        if start_last && matches!(step, Step::StartPartition { .. }) {
            // One that has run can't be rolled back without a trace: it comes when nothing else can fail any more.
            before.extend(&self.loose);
        } else {
            self.loose.retain(|earlier| !before.contains(earlier));
            self.loose.insert(n);
        }
        (before, after)
    }
}

#[cfg(test)]
mod tests {
    use ioward_model::{AdapterOriginal, AdapterState, Assignment, Boot, Owner, PartitionSpec, VfSettings};
    use ioward_pci::Bdf;

    use super::*;

    fn pf(text: &str) -> Bdf {
        text.parse().unwrap()
    }

    fn count(pf: Bdf) -> Step {
        Step::SetVfCount { pf, to: 2, from: 0 }
    }

    fn vf(pf: Bdf, index: u16) -> VfId {
        VfId { pf, index }
    }

    fn owner(text: &str) -> Owner {
        text.parse().unwrap()
    }

    fn assign(text: &str, vf: VfId) -> Step {
        Step::Assign { owner: owner(text), to: Assignment::new(vf) }
    }

    fn configure(vf: VfId, mac: Option<&str>) -> Step {
        let mac = mac.map(|mac| mac.parse().unwrap());
        Step::ConfigureVf { vf, to: VfSettings { mac, trust: Some(true), ..VfSettings::default() } }
    }

    fn attach(text: &str, vf: VfId) -> Step {
        Step::AttachVf { owner: owner(text), vf }
    }

    fn start(partition: &str) -> Step {
        Step::StartPartition { partition: partition.parse().unwrap() }
    }

    /// In rounds: what can begin at once, when everything of the round before is done.
    fn rounds(steps: &[Step]) -> Vec<Vec<usize>> {
        let mut order = Order::of(steps, Policy::AllOrNothing);
        let mut rounds = Vec::new();
        while order.has_ready() {
            let round: Vec<_> = std::iter::from_fn(|| order.begin()).collect();
            round.iter().for_each(|n| order.done(*n));
            rounds.push(round);
        }
        assert_eq!(rounds.iter().map(Vec::len).sum::<usize>(), steps.len(), "nobody waits for ever");
        rounds
    }

    #[test]
    fn adapters_and_partitions_are_worked_on_side_by_side() {
        let (a, b) = (pf("0000:01:00.0"), pf("0000:02:00.0"));
        let steps = [
            count(a),
            count(b),
            assign("web/net0", vf(a, 0)),
            configure(vf(a, 0), None),
            assign("db/net0", vf(b, 0)),
            configure(vf(b, 0), None),
            attach("web/net0", vf(a, 0)),
            attach("db/net0", vf(b, 0)),
            start("db"),
            start("web"),
        ];
        assert_eq!(rounds(&steps), [vec![0, 1], vec![2, 4], vec![3, 5], vec![6, 7], vec![8, 9]]);
    }

    #[test]
    fn what_is_about_all_of_an_adapter_or_about_one_partition_is_done_in_order() {
        let a = pf("0000:01:00.0");
        let changes =
            [configure(vf(a, 0), None), configure(vf(a, 1), None), count(a), configure(vf(a, 0), None)];
        assert_eq!(rounds(&changes), [vec![0, 1], vec![2], vec![3]]);
        let given =
            [attach("web/a", vf(a, 0)), attach("web/b", vf(a, 1)), attach("db/a", vf(a, 2)), count(a)];
        assert_eq!(rounds(&given), [vec![0, 2], vec![1], vec![3]]);
    }

    /// Each step was written down by itself, before and after it: of 30 steps for seven VFs the disk had 61 commits. Those that change
    /// VFs of one adapter begin together now, to be written down at once, and still take turns: a VF may need what another one gives up.
    #[test]
    fn changes_of_one_adapter_begin_together_and_take_turns() {
        let a = pf("0000:01:00.0");
        let bind = |index| Step::BindDriver { vf: vf(a, index), to: Some("vfio-pci".to_owned()) };
        let steps = [configure(vf(a, 0), None), configure(vf(a, 1), None), bind(1), bind(2), count(a)];
        let mut order = Order::of(&steps, Policy::AllOrNothing);
        let begun: Vec<_> = std::iter::from_fn(|| order.begin()).collect();
        assert_eq!(begun, [0, 1], "one of a kind begins when the one before it has");
        assert!(order.may_be_carried_out(0) && !order.may_be_carried_out(1));
        order.carried_out(0);
        assert!(order.may_be_carried_out(1) && !order.has_ready(), "what is not noted is not built upon");
        order.done(0);
        order.done(1);
        let begun: Vec<_> = std::iter::from_fn(|| order.begin()).collect();
        assert_eq!(begun, [2, 3]);
        assert!(order.may_be_carried_out(2) && !order.may_be_carried_out(3));
    }

    /// The ports of an adapter share MSI-X vectors: the VFs that one port lets go of may be what the other one needs.
    #[test]
    fn ports_of_one_adapter_wait_for_each_other() {
        assert_eq!(rounds(&[count(pf("0000:01:00.0")), count(pf("0000:01:00.1"))]), [[0], [1]]);
    }

    /// Two VFs with one MAC are on the wire at once, if only for a moment, when it is given to the next before it is taken
    /// from the one that had it.
    #[test]
    fn a_mac_is_taken_from_one_before_another_gets_it() {
        let (a, b, mac) = (vf(pf("0000:01:00.0"), 0), vf(pf("0000:02:00.0"), 0), "52:54:00:00:00:01");
        let settings = VfSettings { mac: mac.parse().ok(), ..VfSettings::default() };
        let from = Assignment { settings, ..Assignment::new(a) };
        let unassign = Step::Unassign { owner: owner("web/net0"), from };
        assert_eq!(rounds(&[configure(a, None), unassign, configure(b, Some(mac))]), [[0], [1], [2]]);
        assert_eq!(rounds(&[configure(a, Some(mac)), configure(b, None)]), [vec![0, 1]]);
    }

    #[test]
    fn nobody_starts_before_everything_is_done() {
        let (a, b) = (pf("0000:01:00.0"), pf("0000:02:00.0"));
        let spec = PartitionSpec::new("web".parse().unwrap(), Boot::default());
        let original = AdapterOriginal { num_vfs: 0, autoprobe: true };
        let to = AdapterState { original, wanted: None, identity: None };
        let steps = [
            Step::DefinePartition { to: spec, from: None },
            Step::HoldAdapter { pf: a, to, from: None },
            count(a),
            count(b),
            start("web"),
        ];
        assert_eq!(rounds(&steps), [vec![0, 1, 3], vec![2], vec![4]]);
    }
}
