//! Chooses a VF for every request of the goal, for all at once.
//!
//! ```text
//! requests of the goal ─┬─ what a partition has and still fits stays with it
//!                       ├─ pinned to one VF: that one
//!                       └─ the rest ─> Problem ─ search ─┬─ flow ─> Solution ─> which VF of the PF
//!                                      (preference)      └─ …  or why not
//! ```
//! Hard rules hold always (compat). Of the placements that keep them it is the best by the criteria of
//! [`preference::CRITERIA`], the first of them counting most: disturb least what runs, leave what the host uses alone,
//! honour wishes for redundancy, stay near the NUMA node, take VFs that are there already, leave the faster ports free,
//! and then the lowest addresses. Requests that are alike are placed as a flow of least cost, which is exact; what a
//! flow can't say is searched for around it, with a bound, and a plan says how far from the best it may be.

mod flow;
pub(crate) mod preference;
pub mod problem;
pub mod search;
mod settings;
mod why;

pub(crate) use why::no_such_pf;

use std::{collections::BTreeMap, ops::Range};

use ioward_model::{
    Assignment, Criterion, Gap, GuestMay, Intent, IntoMap, Inventory, LinkState, Name, Options, Owner,
    PartitionState, PhysicalFunction, Placement, Reason, Rule, Spec, State, VfId, VfRequest, VfSettings,
    Vlan,
};

use self::{
    preference::{CRITERIA, Preferences},
    problem::{Choice, Cost, Pair, Port, Problem, Solution, add},
};
use crate::{
    MAX_REASONS,
    compat::{self, Need},
    goal::Goal,
    ledger::{Ledger, Tie},
};

/// A VF that a partition holds once the plan is carried out.
pub(crate) struct Holding<'a> {
    /// Whose it is.
    pub owner: Owner,
    /// Which it is.
    pub vf: VfId,
    /// Its assignment now; `None`: it is new to its owner.
    pub before: Option<&'a Assignment>,
    /// All settings it is to have.
    pub settings: VfSettings,
}

/// A VF for every request.
#[derive(Default)]
pub(crate) struct Placed<'a> {
    /// In no particular order.
    pub holdings: Vec<Holding<'a>>,
    /// In the order of the goal.
    pub placements: Vec<Placement>,
    /// How far from the best it may be.
    pub gap: Option<Gap>,
}

/// A VF for every request.
///
/// # Errors
/// Why some get none.
pub(crate) fn place<'a>(ledger: &mut Ledger<'a>, goal: &Goal) -> Result<Placed<'a>, Vec<Reason>> {
    let partitions = goal.partitions.iter().map(|partition| &partition.spec);
    let mut reasons: Vec<Reason> =
        partitions.filter_map(|partition| compat::numa_node_exists(ledger, partition)).collect();
    let needs: Vec<Need<'_>> = goal.needs().collect();
    for need in &needs {
        let owner = need.owner();
        reasons.extend(ledger.mac_conflict(&owner, need.request).map(|reason| reason.for_request(&owner)));
    }
    for need in &needs {
        let owner = need.owner();
        let moving = ledger.moving(&owner);
        if let Some(mac) = moving.and_then(|held| settings::chosen_before(ledger, &owner, held).mac) {
            ledger.take_mac(mac, &owner);
        }
    }
    let (stay, open) = divide(ledger, needs);
    let mut placed = Placed::default();
    keep(ledger, stay, &mut placed, &mut reasons);
    let (pinned, open): (Vec<_>, Vec<_>) = open.into_iter().partition(|need| need.request.index.is_some());
    for need in pinned {
        match take_pinned(ledger, &need) {
            Ok(vf) => give(ledger, &need, vf, 0, (Criterion::Pinned, None, 1), &mut placed),
            Err(why) => {
                let owner = need.owner();
                reasons.extend(why.into_iter().map(|reason| reason.for_request(&owner)));
            }
        }
    }
    if let Err(why) = place_open(ledger, &open, &mut placed) {
        reasons.extend(why);
    }
    if reasons.is_empty() { Ok(placed) } else { Err(reasons) }
}

/// Requests that keep their VF, and requests that need one.
type Divided<'n, 'a> = (Vec<(Need<'n>, &'a PhysicalFunction, &'a Assignment)>, Vec<Need<'n>>);

fn divide<'n, 'a>(ledger: &Ledger<'a>, needs: Vec<Need<'n>>) -> Divided<'n, 'a> {
    let (mut stay, mut open) = (Vec::new(), Vec::new());
    for need in needs {
        match kept(ledger, &need) {
            Some((pf, before)) => stay.push((need, pf, before)),
            None => open.push(need),
        }
    }
    // Of two that have come to be where they must not be together, the one that asks for it now goes.
    let held: BTreeMap<Owner, VfId> =
        stay.iter().map(|(need, _, before)| (need.owner(), before.vf)).into_map();
    let (stay, moves): (Vec<_>, Vec<_>) = stay.into_iter().partition(|(need, pf, _)| {
        let owner = need.owner();
        let asks =
            asked_before(ledger, &owner).is_none_or(|before| !before.aparts().eq(need.request.aparts()));
        let mut ties = ledger.ties(&owner).iter().filter(|tie| asks && !tie.prefer);
        ties.all(|tie| {
            let other = held.get(&tie.other).copied().or_else(|| ledger.held_by(&tie.other));
            other.is_none_or(|other| !ledger.share(tie.by, pf.address, other.pf))
        })
    });
    open.extend(moves.into_iter().map(|(need, _, _)| need));
    (stay, open)
}

fn asked_before<'a>(ledger: &Ledger<'a>, owner: &Owner) -> Option<&'a VfRequest> {
    ledger.state.partitions.get(&owner.partition)?.spec.vf(&owner.vf)
}

/// The VF that the partition has for this request, when it still fits. Whatever the host does by itself (a link that goes down)
/// takes no VF away from a partition: only a changed request does, or an adapter that is gone.
fn kept<'a>(ledger: &Ledger<'a>, need: &Need<'_>) -> Option<(&'a PhysicalFunction, &'a Assignment)> {
    let request = need.request;
    let present = ledger.state.partitions.get(&need.partition.name)?;
    let assignment = present.vfs.get(&request.name)?;
    if ledger.moving(&need.owner()).is_some() {
        return None;
    }
    let pf = ledger.pf(assignment.vf.pf)?;
    let (now, before) = (need.partition, &present.spec);
    let as_before = before.vf(&request.name) == Some(request)
        && (now.numa_node, &now.guest) == (before.numa_node, &before.guest);
    let fits = request.pf.is_none_or(|pf| pf == assignment.vf.pf)
        && request.index.is_none_or(|index| index == assignment.vf.index)
        && request.class.takes(pf)
        && pf.sriov.as_ref().is_none_or(|sriov| assignment.vf.index < sriov.total_vfs)
        && (as_before || still_able(ledger, pf, need));
    fits.then_some((pf, assignment))
}

/// Whether a PF is still what a changed request needs: only what the change itself asks for counts.
fn still_able(ledger: &Ledger<'_>, pf: &PhysicalFunction, need: &Need<'_>) -> bool {
    let now = compat::abilities(ledger, pf, need);
    if now.is_empty() {
        return true;
    }
    let present = ledger.state.partitions.get(&need.partition.name);
    let before = present.and_then(|present| Some((&present.spec, present.spec.vf(&need.request.name)?)));
    let before =
        before.map(|(partition, request)| compat::abilities(ledger, pf, &Need { partition, request }));
    now.iter().all(|reason| before.as_ref().is_some_and(|before| before.contains(reason)))
}

/// All that stays is noted before anything is decided that depends on what is left.
fn keep<'a>(
    ledger: &mut Ledger<'a>,
    stay: Vec<(Need<'_>, &'a PhysicalFunction, &'a Assignment)>,
    placed: &mut Placed<'a>,
    reasons: &mut Vec<Reason>,
) {
    for (need, _, before) in &stay {
        let owner = need.owner();
        ledger.hold(&owner, before.vf, &before.effective_settings(), Some(need.request));
        if let Some(mac) = settings::chosen_before(ledger, &owner, before).mac {
            ledger.take_mac(mac, &owner);
        }
    }
    for (need, pf, before) in stay {
        let owner = need.owner();
        let settings = settings::kept(ledger, &owner, need.request, before);
        let change = settings.missing_from(&before.settings);
        let why = compat::of_kept(ledger, pf, before.vf, &need, &change);
        reasons.extend(why.into_iter().map(|reason| reason.for_request(&owner)));
        ledger.hold(&owner, before.vf, &settings, Some(need.request));
        let vf = before.vf;
        placed.placements.push(Placement {
            owner: owner.clone(),
            vf,
            decided_by: Criterion::Kept,
            over: None,
            suited: 1,
        });
        placed.holdings.push(Holding { owner, vf, before: Some(before), settings });
    }
}

/// The VFs of a partition about which nothing is decided.
pub(crate) fn kept_by(name: &Name, partition: &PartitionState) -> impl Iterator<Item = Placement> {
    partition.vfs.iter().map(|(vf, held)| Placement {
        owner: Owner { partition: name.clone(), vf: vf.clone() },
        vf: held.vf,
        decided_by: Criterion::Kept,
        over: None,
        suited: 1,
    })
}

fn take_pinned(ledger: &Ledger<'_>, need: &Need<'_>) -> Result<VfId, Vec<Reason>> {
    let reasons = match need.request.pf.and_then(|pf| ledger.pf(pf)) {
        Some(pf) => {
            let mut reasons = compat::of_adapter(ledger, pf, need);
            reasons.extend(why::of_vf(ledger, pf, need.request.index.unwrap_or(0), need));
            reasons
        }
        None => why::not(ledger, need),
    };
    match (need.request.pf, need.request.index) {
        (Some(pf), Some(index)) if reasons.is_empty() => Ok(VfId { pf, index }),
        _ => Err(reasons),
    }
}

/// Gives a VF to a request. `waiting` are requests that need a share of the same controller and come after it.
fn give(
    ledger: &mut Ledger<'_>,
    need: &Need<'_>,
    vf: VfId,
    waiting: u16,
    (decided_by, over, suited): (Criterion, Option<ioward_pci::Bdf>, u32),
    placed: &mut Placed<'_>,
) {
    let owner = need.owner();
    let settings = match ledger.moving(&owner) {
        Some(held) => settings::moved(ledger, &owner, need.request, held, vf, waiting),
        None => settings::new(ledger, &owner, need.request, vf, waiting),
    };
    ledger.hold(&owner, vf, &settings, Some(need.request));
    placed.placements.push(Placement { owner: owner.clone(), vf, decided_by, over, suited });
    placed.holdings.push(Holding { owner, vf, before: None, settings });
}

/// Places requests that may have more than one VF.
fn place_open(
    ledger: &mut Ledger<'_>,
    needs: &[Need<'_>],
    placed: &mut Placed<'_>,
) -> Result<(), Vec<Reason>> {
    if needs.is_empty() {
        return Ok(());
    }
    let market = Market::of(ledger, needs);
    let solution = search::solve(&market.problem).map_err(|unplaced| {
        if !ledger.tells_why {
            return vec![Reason::new(Rule::Placement, "a placement for all requests together", "none")];
        }
        market.deal(&unplaced.ports, |n, vf, _| {
            let (owner, request) = (needs[n].owner(), needs[n].request);
            let settings = settings::new(ledger, &owner, request, vf, 0);
            ledger.hold(&owner, vf, &settings, Some(request));
        });
        let left = || (0..needs.len()).filter(|n| unplaced.ports[*n].is_none());
        ledger.unplaced = u16::try_from(left().count()).unwrap_or(u16::MAX);
        let mut reasons = market.why_not(ledger, needs, left());
        if unplaced.given_up {
            let found = "none; the search for one was given up, so there may be one all the same";
            let reason = Reason::new(Rule::Placement, "a placement for all requests together", found);
            reasons.push(reason.remedy("pin some of the requests with pf"));
        }
        reasons
    })?;
    placed.gap = gap(&solution);
    let mut given = Vec::new();
    let ports: Vec<_> = solution.ports.iter().copied().map(Some).collect();
    market.deal(&ports, |n, vf, made| given.push((n, vf, made)));
    // Who asks for resources by number gets them before the rest is shared out.
    given.sort_by_key(|(n, _, _)| (!asks_for_resources(needs[*n].request), *n));
    let mut waiting: BTreeMap<usize, u16> = BTreeMap::new();
    for (n, _, _) in &given {
        *waiting.entry(solution.ports[*n]).or_default() += 1;
    }
    for (n, vf, made) in given {
        let port = solution.ports[n];
        let left = waiting.entry(port).or_default();
        *left = left.saturating_sub(1);
        let left = *left;
        let decided = if needs[n].request.pf.is_some() {
            (Criterion::Pinned, None, 1)
        } else {
            market.decided(n, port, made)
        };
        give(ledger, &needs[n], vf, left, decided, placed);
    }
    Ok(())
}

fn asks_for_resources(request: &VfRequest) -> bool {
    request.queues.is_some() && request.interrupts.is_some()
}

fn gap(solution: &Solution) -> Option<Gap> {
    let level = (0..CRITERIA.len()).find(|level| solution.cost[*level] != solution.bound[*level])?;
    let at_most = solution.cost[level].saturating_sub(solution.bound[level]);
    Some(Gap { criterion: CRITERIA[level], at_most })
}

/// The placement problem of a Spec on a host where nobody holds anything: for holding solvers against each other.
///
/// # Errors
/// When the Spec makes no sense, or pins a request to one VF, which leaves nothing to solve.
pub fn problem_of(inventory: &Inventory, spec: &Spec) -> Result<Problem, Vec<Reason>> {
    let state = State::default();
    let goal = Goal::of(inventory, &state, &Intent::Apply { spec: spec.clone() })?;
    let ledger = Ledger::new(inventory, &state, Options::default(), &goal);
    let needs: Vec<_> = goal.needs().collect();
    match needs.iter().find(|need| need.request.index.is_some()) {
        Some(need) => {
            let reason =
                Reason::new(Rule::VfIndex, "requests that are not pinned", "one that is").key("index");
            Err(vec![reason.for_request(need.owner())])
        }
        None => Ok(Market::of(&ledger, &needs).problem),
    }
}

/// The free VFs of a host and who wants them, as a [`Problem`].
#[derive(Default)]
struct Market {
    problem: Problem,
    /// By port: its PF, and which of its VFs are free, those that are there first.
    slots: Vec<(ioward_pci::Bdf, Vec<u16>)>,
    /// By list of choices: ports with what they cost, the VF itself included, best first.
    ranked: Vec<Vec<(Cost, usize)>>,
    /// By request: which kind it is of. All of one kind have the same choices as long as nobody else wants anything.
    kinds: Vec<usize>,
}

impl Market {
    fn of(ledger: &Ledger<'_>, needs: &[Need<'_>]) -> Self {
        let preferences = Preferences::new(ledger);
        let pfs: Vec<_> = ledger.inventory.physical_functions.iter().collect();
        let mut market = Self::default();
        let mut adapters: Vec<&PhysicalFunction> = Vec::new();
        // Where one has to be in a group of its own, all take only such: a group is shared by VFs seldom, and by one kind only.
        let strictest = needs.iter().find(|need| need.partition.kind.name().uses_vfio()).or(needs.first());
        let Some(someone) = strictest.map(Need::owner) else { return market };
        for pf in &pfs {
            let adapter = adapters.iter().position(|other| other.is_same_adapter(pf)).unwrap_or_else(|| {
                adapters.push(pf);
                adapters.len() - 1
            });
            market.add_port(ledger, pf, u32::try_from(adapter).unwrap_or(u32::MAX), &someone);
        }
        let mut templates: Vec<(Need<'_>, VfRequest, usize)> = Vec::new();
        for need in needs {
            let stripped = selection(need.request, &someone.vf);
            let alike = templates.iter().find(|(like, request, _)| {
                *request == stripped
                    && (like.partition.numa_node, &like.partition.guest, like.partition.kind.name())
                        == (need.partition.numa_node, &need.partition.guest, need.partition.kind.name())
            });
            let list = match alike {
                Some((_, _, list)) => *list,
                None => {
                    market.problem.choices.push(market.choices(ledger, &preferences, &pfs, need));
                    let list = market.problem.choices.len() - 1;
                    templates.push((*need, stripped, list));
                    list
                }
            };
            market.kinds.push(list);
            let list = market.beside_those_that_stay(ledger, &pfs, need, list);
            market.problem.requests.push(list);
        }
        market.add_pairs(ledger, needs);
        market.rank();
        market
    }

    /// `someone` who has no VF yet, as all who come here.
    fn add_port(&mut self, ledger: &Ledger<'_>, pf: &PhysicalFunction, adapter: u32, someone: &Owner) {
        let (mut there, mut to_make) = (Vec::new(), Vec::new());
        let free = |index: &u16| !ledger.is_held(VfId { pf: pf.address, index: *index });
        for index in (0..ledger.limit(pf)).filter(free) {
            let grows = ledger.would_grow(pf, index);
            if compat::of_function(ledger, pf, index, someone).is_empty() {
                if grows { to_make.push(index) } else { there.push(index) }
            } else if grows {
                // A rule against one forbids more, too.
                break;
            }
        }
        let first = there.first().or(to_make.first()).copied();
        let count = |slots: &Vec<u16>| u32::try_from(slots.len()).unwrap_or(u32::MAX);
        self.problem.ports.push(Port {
            free: count(&there),
            more: count(&to_make),
            more_cost: if to_make.is_empty() { Cost::default() } else { Preferences::of_growth(ledger, pf) },
            adapter,
            numa: pf.numa_node,
            budget: compat::left_of(ledger, pf, first),
        });
        there.append(&mut to_make);
        self.slots.push((pf.address, there));
    }

    /// The ports that suit a request, as if nobody else wanted anything.
    fn choices(
        &self,
        ledger: &Ledger<'_>,
        preferences: &Preferences,
        pfs: &[&PhysicalFunction],
        need: &Need<'_>,
    ) -> Vec<Choice> {
        let suits = |(port, pf): (usize, &&PhysicalFunction)| {
            let (_, slots) = &self.slots[port];
            let first = *slots.first()?;
            let wanted = need.request.pf.is_none_or(|pinned| pinned == pf.address);
            let suits = wanted
                && compat::of_adapter(ledger, pf, need).is_empty()
                && compat::fits_budgets(ledger, pf, first, need);
            suits.then(|| Choice {
                port,
                cost: preferences.of_adapter(ledger, pf, need),
                demand: compat::demand(pf, need.request),
            })
        };
        pfs.iter().enumerate().filter_map(suits).collect()
    }

    /// The same list of choices, or one of its own for a request that is to be apart from a VF that is placed already.
    fn beside_those_that_stay(
        &mut self,
        ledger: &Ledger<'_>,
        pfs: &[&PhysicalFunction],
        need: &Need<'_>,
        list: usize,
    ) -> usize {
        let owner = need.owner();
        if !ledger.ties(&owner).iter().any(|tie| ledger.held_by(&tie.other).is_some()) {
            return list;
        }
        let apart = |choice: &Choice| {
            let pf = pfs[choice.port];
            let mut choice = *choice;
            choice.cost[problem::REDUNDANCY] += preference::wishes_broken(ledger, pf, need);
            compat::apart(ledger, pf, &owner).is_none().then_some(choice)
        };
        let own: Vec<Choice> = self.problem.choices[list].iter().filter_map(apart).collect();
        if own == self.problem.choices[list] {
            return list;
        }
        self.problem.choices.push(own);
        self.problem.choices.len() - 1
    }

    fn add_pairs(&mut self, ledger: &Ledger<'_>, needs: &[Need<'_>]) {
        if needs.iter().all(|need| ledger.ties(&need.owner()).is_empty()) {
            return;
        }
        let numbers: BTreeMap<Owner, usize> =
            needs.iter().enumerate().map(|(n, need)| (need.owner(), n)).into_map();
        for (owner, a) in &numbers {
            for tie in ledger.ties(owner) {
                let Some(b) = numbers.get(&tie.other).filter(|b| *b > a) else { continue };
                self.problem.pairs.push(Pair { a: *a, b: *b, by: tie.by, soft: tie.prefer });
            }
        }
        self.problem.pairs.sort_unstable();
        self.problem.pairs.dedup();
    }

    fn rank(&mut self) {
        let ports = &self.problem.ports;
        let rank = |choices: &Vec<Choice>| {
            let with_vf = |choice: &Choice| {
                let mut cost = choice.cost;
                if ports[choice.port].free == 0 {
                    add(&mut cost, &ports[choice.port].more_cost);
                }
                (cost, choice.port)
            };
            let mut ranked: Vec<_> = choices.iter().map(with_vf).collect();
            ranked.sort_unstable();
            ranked
        };
        self.ranked = self.problem.choices.iter().map(rank).collect();
    }

    /// Hands VFs of the ports out: the lower index to who comes first. Tells the number of the request, its VF, and whether
    /// that has to be made.
    fn deal(&self, ports: &[Option<usize>], mut give: impl FnMut(usize, VfId, bool)) {
        let mut next = vec![0; self.slots.len()];
        for (n, port) in ports.iter().enumerate() {
            let Some(port) = *port else { continue };
            let (pf, slots) = &self.slots[port];
            let Some(index) = slots.get(next[port]).copied() else { continue };
            let made = next[port] >= self.problem.ports[port].free as usize;
            next[port] += 1;
            give(n, VfId { pf: *pf, index }, made);
        }
    }

    /// Why requests are left without a VF. What holds for one holds for all of its kind that have nobody to be apart from: it is found
    /// out once. Beyond the first [`MAX_REASONS`] such a reason is only counted.
    fn why_not(
        &self,
        ledger: &Ledger<'_>,
        needs: &[Need<'_>],
        left: impl Iterator<Item = usize>,
    ) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = Vec::new();
        let mut of_kind: BTreeMap<usize, Range<usize>> = BTreeMap::new();
        for n in left {
            let owner = needs[n].owner();
            let is_apart = |tie: &Tie| tie.prefer || ledger.held_by(&tie.other).is_none();
            let kind = Some(self.kinds[n]).filter(|_| ledger.ties(&owner).iter().all(is_apart));
            let known = kind.and_then(|kind| of_kind.get(&kind).cloned());
            match known {
                // Who is taken off an adapter is told one by one.
                Some(known) if reasons.len() >= MAX_REASONS && !ledger.is_evacuated() => {
                    for reason in &mut reasons[known] {
                        reason.and_more = reason.and_more.saturating_add(1);
                    }
                }
                Some(known) => {
                    let again: Vec<_> =
                        reasons[known].iter().map(|of| of.clone().for_request(&owner)).collect();
                    reasons.extend(again);
                }
                None => {
                    let begin = reasons.len();
                    let found = why::not(ledger, &needs[n]).into_iter();
                    reasons.extend(found.map(|reason| reason.for_request(&owner)));
                    if let Some(kind) = kind {
                        of_kind.insert(kind, begin..reasons.len());
                    }
                }
            }
        }
        reasons
    }

    /// The criterion that decided between the port of a request and the others that suit it.
    fn decided(&self, request: usize, port: usize, made: bool) -> (Criterion, Option<ioward_pci::Bdf>, u32) {
        let list = self.problem.requests[request];
        let suited = u32::try_from(self.ranked[list].len()).unwrap_or(u32::MAX);
        let Some((other_cost, other)) = self.ranked[list].iter().find(|(_, other)| *other != port) else {
            return (Criterion::OnlyOne, None, suited);
        };
        let own = self.problem.choices[list].iter().find(|choice| choice.port == port);
        let mut cost = own.map(|own| own.cost).unwrap_or_default();
        if made {
            add(&mut cost, &self.problem.ports[port].more_cost);
        }
        let level = (0..CRITERIA.len()).find(|level| cost[*level] != other_cost[*level]);
        let decided_by = match level {
            Some(level) if cost[level] < other_cost[level] => CRITERIA[level],
            Some(_) => Criterion::Together,
            None => Criterion::Address,
        };
        (decided_by, Some(self.slots[*other].0), suited)
    }
}

/// A request as far as it decides which PFs suit, under any one name: requests with the same have the same choices.
fn selection(request: &VfRequest, name: &Name) -> VfRequest {
    VfRequest {
        name: name.clone(),
        mac: None,
        vlan: request.vlan.and_then(|vlan| Vlan::NONE.tagged(vlan.protocol(), 0)),
        trust: request.trust.map(|_| true),
        spoofchk: request.spoofchk.map(|_| true),
        link_state: request.link_state.map(|_| LinkState::Auto),
        guest_may: GuestMay::default(),
        apart_from: Vec::new(),
        failover: None,
        ..request.clone()
    }
}
