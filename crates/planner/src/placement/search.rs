//! Placement of all requests: what is alike by [`flow`], the rest (budgets of different sizes, requests that are apart
//! and not alike) by a depth-first search around it, with a bound on its length and on how far from the best it may be.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::FailureDomain;

use super::{
    flow::{self, Floor, Flow, Group, Room},
    problem::{Amounts, Choice, Cost, Pair, Port, Problem, REDUNDANCY, Solution, Unplaced, Weights, add},
};

/// After how many steps the search is given up. On two cores of today about a second.
const MAX_STEPS: u64 = 200_000;
/// After how many steps more than there are requests to place, without a placement, it is looked whether there can be one.
const LOOK_AFTER: u64 = 1_000;
/// After how many edges of all flows together it is given up.
const MAX_EDGES: u64 = 20_000_000;

/// The best placement, or the best that a bounded search finds. The same problem gives the same placement.
///
/// # Errors
/// When there is none for some requests, or none was found.
pub fn solve(problem: &Problem) -> Result<Solution, Unplaced> {
    let split = Split::of(problem);
    let weights = Weights::of(problem);
    let mut search = Search::new(problem, &weights, &split);
    search.run();
    search.result()
}

/// The failure domain that requests of a set must not share, and whether that is a wish; `None` for a set of one.
type Apart = Option<(FailureDomain, bool)>;

/// Which requests are placed by flow, and which by search.
struct Split {
    groups: Vec<Group>,
    /// By port: what each request that is placed by flow takes of its budget.
    unit: Vec<Amounts>,
    /// In the order in which they are placed.
    searched: Vec<usize>,
}

impl Split {
    fn of(problem: &Problem) -> Self {
        let unit = common_demands(problem);
        let fits = |request: usize| {
            let mut choices = problem.choices[problem.requests[request]].iter();
            choices.all(|choice| choice.demand == unit[choice.port])
        };
        let mut groups: BTreeMap<(usize, usize, Apart), Vec<Vec<usize>>> = BTreeMap::new();
        let mut searched = Vec::new();
        for component in components(problem) {
            match set_of(problem, &component).filter(|_| component.iter().all(|request| fits(*request))) {
                Some(apart) => {
                    let key = (problem.requests[component[0]], component.len(), apart);
                    groups.entry(key).or_default().push(component);
                }
                None => searched.extend(component),
            }
        }
        // Who has the least to choose from chooses first.
        searched.sort_by_key(|request| (problem.choices[problem.requests[*request]].len(), *request));
        let groups = groups.into_iter().map(|((choices, _, apart), sets)| Group { choices, sets, apart });
        Self { groups: groups.collect(), unit, searched }
    }
}

/// By port: the demand that most requests have that it suits. What has the same everywhere needs no budget of its own.
fn common_demands(problem: &Problem) -> Vec<Amounts> {
    let mut users = vec![0_usize; problem.choices.len()];
    problem.requests.iter().for_each(|choices| users[*choices] += 1);
    let mut votes: Vec<BTreeMap<Amounts, usize>> = vec![BTreeMap::new(); problem.ports.len()];
    for (choices, users) in problem.choices.iter().zip(users) {
        for choice in choices {
            *votes[choice.port].entry(choice.demand).or_default() += users;
        }
    }
    let most = |votes: BTreeMap<Amounts, usize>| {
        votes
            .into_iter()
            .max_by_key(|(demand, users)| (*users, std::cmp::Reverse(*demand)))
            .map(|(demand, _)| demand)
    };
    votes.into_iter().map(|votes| most(votes).unwrap_or_default()).collect()
}

/// Requests that are connected by pairs, each in ascending order, in the order of their first.
fn components(problem: &Problem) -> Vec<Vec<usize>> {
    let mut root: Vec<usize> = (0..problem.requests.len()).collect();
    fn find(root: &mut [usize], mut request: usize) -> usize {
        while root[request] != request {
            root[request] = root[root[request]];
            request = root[request];
        }
        request
    }
    for pair in &problem.pairs {
        let (a, b) = (find(&mut root, pair.a), find(&mut root, pair.b));
        root[a.max(b)] = a.min(b);
    }
    let mut components: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for request in 0..problem.requests.len() {
        components.entry(find(&mut root, request)).or_default().push(request);
    }
    components.into_values().collect()
}

/// The failure domain that no two requests of a component may share, when they are alike and each is to be apart from each
/// other in one way: `Some(None)` for a single request, `None` for anything else.
fn set_of(problem: &Problem, component: &[usize]) -> Option<Apart> {
    let [first, rest @ ..] = component else { return None };
    if rest.is_empty() {
        return Some(None);
    }
    if rest.iter().any(|request| problem.requests[*request] != problem.requests[*first]) {
        return None;
    }
    // Pairs are sorted by their first.
    let begin = problem.pairs.partition_point(|pair| pair.a < *first);
    let members: BTreeSet<usize> = component.iter().copied().collect();
    let mut kinds = BTreeSet::new();
    let mut pairs = BTreeSet::new();
    for pair in problem.pairs[begin..].iter().take_while(|pair| pair.a <= component[component.len() - 1]) {
        if members.contains(&pair.a) {
            kinds.insert((pair.by, pair.soft));
            pairs.insert((pair.a, pair.b));
        }
    }
    let all = component.len() * (component.len() - 1) / 2;
    let mut kinds = kinds.into_iter();
    match (kinds.next(), kinds.next()) {
        // A soft set is counted pair by pair, which a flow does for two; more are searched.
        (Some((by, soft)), None) if pairs.len() == all && (!soft || component.len() == 2) => {
            Some(Some((by, soft)))
        }
        _ => None,
    }
}

struct Search<'a> {
    problem: &'a Problem,
    weights: &'a Weights,
    split: &'a Split,
    /// By request: pairs with requests that are searched.
    pairs: BTreeMap<usize, Vec<Pair>>,
    /// By request: its choices, best first.
    sorted: BTreeMap<usize, Vec<Choice>>,
    /// By place in the order: the least that it and all after it cost, weighed, and what the flow costs at least.
    rest: Vec<i128>,
    /// What the flow costs at least beside those that are placed.
    floor: Option<Floor>,
    ports: Vec<Option<usize>>,
    used: Vec<(u32, Amounts)>,
    steps: u64,
    edges: u64,
    best: Option<(i128, Vec<usize>)>,
    /// The longest way that was found when none leads to the end.
    farthest: Option<Vec<Option<usize>>>,
    farthest_depth: usize,
    /// Whether that way ended at a request that nothing was left for, with those after it not looked at.
    is_dead_end: bool,
    given_up: bool,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem, weights: &'a Weights, split: &'a Split) -> Self {
        let mut pairs: BTreeMap<usize, Vec<Pair>> = BTreeMap::new();
        let searched: BTreeSet<usize> = split.searched.iter().copied().collect();
        for pair in problem.pairs.iter().filter(|pair| searched.contains(&pair.a)) {
            pairs.entry(pair.a).or_default().push(*pair);
            pairs.entry(pair.b).or_default().push(*pair);
        }
        let mut sorted = BTreeMap::new();
        for request in &split.searched {
            let list = problem.requests[*request];
            sorted.entry(list).or_insert_with(|| {
                let mut choices = problem.choices[list].clone();
                choices.sort_by_key(|choice| (choice.cost, choice.port));
                choices
            });
        }
        let mut search = Self {
            problem,
            weights,
            split,
            pairs,
            sorted,
            rest: Vec::new(),
            floor: None,
            ports: vec![None; problem.requests.len()],
            used: vec![Default::default(); problem.ports.len()],
            steps: 0,
            edges: 0,
            best: None,
            farthest: None,
            farthest_depth: 0,
            is_dead_end: false,
            given_up: false,
        };
        let least = |request: &usize| {
            let choices = &search.sorted[&problem.requests[*request]];
            choices.first().map_or(0, |choice| weights.weigh(&choice.cost))
        };
        let mut rest: Vec<i128> = split
            .searched
            .iter()
            .rev()
            .scan(0, |sum, request| {
                *sum += least(request);
                Some(*sum)
            })
            .collect();
        rest.reverse();
        rest.push(0);
        let rooms = search.rooms();
        search.count_flow();
        let (flow, floor) = flow::solve_with_floor(problem, weights, &split.groups, &rooms);
        search.floor = floor;
        rest.iter_mut().for_each(|rest| *rest += flow.cost);
        search.rest = rest;
        if !flow.complete {
            // More on the ports makes it no better.
            search.note_farthest(0, &flow);
        }
        search
    }

    /// Whether there are as many VFs as requests, each of which may have what suits it, whatever else it takes and whoever it is to be
    /// apart from. Where there are not, the search would go on to try each way to leave somebody out.
    fn has_room(&self) -> bool {
        let mut alike: BTreeMap<usize, Vec<Vec<usize>>> = BTreeMap::new();
        for (request, choices) in self.problem.requests.iter().enumerate() {
            alike.entry(*choices).or_default().push(vec![request]);
        }
        let group = |(choices, sets)| Group { choices, sets, apart: None };
        let groups: Vec<_> = alike.into_iter().map(group).collect();
        let room = |port: &Port| Room { free: port.free, more: port.more };
        let rooms: Vec<_> = self.problem.ports.iter().map(room).collect();
        flow::solve(self.problem, self.weights, &groups, &rooms).complete
    }

    fn run(&mut self) {
        if self.farthest.is_some() {
            return;
        }
        // A stack of its own: a host can have thousands of requests. Each entry is the number of the choice to try next.
        let mut stack = vec![0_usize];
        let mut cost = vec![0_i128];
        while let Some(depth) = stack.len().checked_sub(1) {
            if self.steps >= MAX_STEPS || self.edges >= MAX_EDGES {
                self.given_up = true;
                return;
            }
            if self.steps == self.split.searched.len() as u64 + LOOK_AFTER
                && self.best.is_none()
                && !self.has_room()
            {
                return;
            }
            self.steps += 1;
            let so_far = cost[depth];
            let hopeless = self.best.as_ref().is_some_and(|(best, _)| so_far + self.rest[depth] >= *best);
            let next = if hopeless {
                None
            } else if depth == self.split.searched.len() {
                self.reach(so_far);
                None
            } else {
                self.next_choice(depth, stack[depth])
            };
            match next {
                Some((n, choice, extra)) => {
                    stack[depth] = n + 1;
                    self.take(self.split.searched[depth], &choice);
                    stack.push(self.first_choice(depth + 1, n));
                    cost.push(so_far + extra);
                }
                None => {
                    stack.pop();
                    cost.pop();
                    if let Some(depth) = stack.len().checked_sub(1) {
                        self.give_back(self.split.searched[depth]);
                    }
                }
            }
        }
    }

    /// Requests that are alike in everything are not tried in each other's places.
    fn first_choice(&self, depth: usize, chosen_before: usize) -> usize {
        let order = &self.split.searched;
        let Some(request) = order.get(depth) else { return 0 };
        let before = order[depth - 1];
        let alike = self.problem.requests[before] == self.problem.requests[*request]
            && !self.pairs.contains_key(&before)
            && !self.pairs.contains_key(request);
        if alike { chosen_before } else { 0 }
    }

    /// The next choice from the `n`th on that the request at this depth can have now, and what it costs, weighed.
    fn next_choice(&mut self, depth: usize, n: usize) -> Option<(usize, Choice, i128)> {
        let request = self.split.searched[depth];
        let choices = &self.sorted[&self.problem.requests[request]];
        for (n, choice) in choices.iter().enumerate().skip(n) {
            if let Some(cost) = self.cost_now(request, choice) {
                return Some((n, *choice, self.weights.weigh(&cost)));
            }
        }
        if self.best.is_none() && depth >= self.farthest_depth {
            self.farthest_depth = depth;
            self.farthest = Some(self.ports.clone());
            self.is_dead_end = true;
        }
        None
    }

    /// The cost of a choice as things stand; `None` when it can't be had.
    fn cost_now(&self, request: usize, choice: &Choice) -> Option<Cost> {
        let port = &self.problem.ports[choice.port];
        let (count, used) = &self.used[choice.port];
        let mut budget = port.budget.iter().zip(used).zip(choice.demand);
        if *count >= port.free + port.more || budget.any(|((budget, used), demand)| used + demand > *budget) {
            return None;
        }
        let mut cost = choice.cost;
        if *count >= port.free {
            add(&mut cost, &port.more_cost);
        }
        for pair in self.pairs.get(&request).into_iter().flatten() {
            let other = if pair.a == request { pair.b } else { pair.a };
            if self.ports[other].is_some_and(|other| self.problem.share(pair.by, other, choice.port)) {
                if !pair.soft {
                    return None;
                }
                cost[REDUNDANCY] += 1;
            }
        }
        Some(cost)
    }

    fn take(&mut self, request: usize, choice: &Choice) {
        self.ports[request] = Some(choice.port);
        let (count, used) = &mut self.used[choice.port];
        *count += 1;
        used.iter_mut().zip(choice.demand).for_each(|(used, demand)| *used += demand);
    }

    fn give_back(&mut self, request: usize) {
        let Some(port) = self.ports[request].take() else { return };
        let choices = &self.sorted[&self.problem.requests[request]];
        let demand = choices
            .iter()
            .find(|choice| choice.port == port)
            .map_or(Amounts::default(), |choice| choice.demand);
        let (count, used) = &mut self.used[port];
        *count -= 1;
        used.iter_mut().zip(demand).for_each(|(used, demand)| *used -= demand);
    }

    /// The rest of each port, for requests that are placed by flow.
    fn rooms(&self) -> Vec<Room> {
        let room = |(port, (count, used)): (usize, &(u32, Amounts))| {
            let found = &self.problem.ports[port];
            let mut most = (found.free + found.more).saturating_sub(*count);
            for ((budget, used), unit) in found.budget.iter().zip(used).zip(self.split.unit[port]) {
                if let Some(fit) = budget.saturating_sub(*used).checked_div(unit) {
                    most = most.min(u32::try_from(fit).unwrap_or(u32::MAX));
                }
            }
            let free = found.free.saturating_sub(*count).min(most);
            Room { free, more: most - free }
        };
        self.used.iter().enumerate().map(room).collect()
    }

    fn count_flow(&mut self) {
        let choices = self.split.groups.iter().map(|group| self.problem.choices[group.choices].len());
        self.edges += choices.sum::<usize>() as u64 + self.problem.ports.len() as u64;
    }

    fn flow(&mut self) -> Flow {
        self.count_flow();
        flow::solve(self.problem, self.weights, &self.split.groups, &self.rooms())
    }

    /// All that are searched have a port: now the others.
    fn reach(&mut self, so_far: i128) {
        if let Some(((best, _), floor)) = self.best.as_ref().zip(self.floor.as_ref())
            && so_far.saturating_add(floor.with(&self.rooms())) >= *best
        {
            return;
        }
        let flow = self.flow();
        if !flow.complete {
            self.note_farthest(self.split.searched.len(), &flow);
            return;
        }
        let cost = so_far + flow.cost;
        if self.best.as_ref().is_none_or(|(best, _)| cost < *best) {
            let ports = self.dealt(&flow).into_iter().map(|port| port.unwrap_or(usize::MAX)).collect();
            self.best = Some((cost, ports));
        }
    }

    fn note_farthest(&mut self, depth: usize, flow: &Flow) {
        if self.best.is_none() && (self.farthest.is_none() || depth > self.farthest_depth) {
            self.farthest_depth = depth;
            self.farthest = Some(self.dealt(flow));
            self.is_dead_end = false;
        }
    }

    fn dealt(&self, flow: &Flow) -> Vec<Option<usize>> {
        let mut ports = self.ports.clone();
        for (group, shares) in self.split.groups.iter().zip(&flow.shares) {
            group.deal(self.problem, shares, &mut ports);
        }
        ports
    }

    /// Places as many of the others as can be beside the longest way: a refusal is about those that are left, and nobody else.
    fn go_on_from_dead_end(&mut self) {
        let Some(farthest) = self.farthest.take() else { return };
        self.ports = vec![None; self.problem.requests.len()];
        self.used = vec![Default::default(); self.problem.ports.len()];
        let problem = self.problem;
        for request in &self.split.searched {
            let choices = &problem.choices[problem.requests[*request]];
            if let Some(choice) = choices.iter().find(|choice| Some(choice.port) == farthest[*request]) {
                self.take(*request, choice);
            }
        }
        for request in self.split.searched.iter().filter(|request| farthest[**request].is_none()) {
            let choices = &self.sorted[&problem.requests[*request]];
            let choice = choices.iter().find(|choice| self.cost_now(*request, choice).is_some()).copied();
            choice.iter().for_each(|choice| self.take(*request, choice));
        }
        let flow = self.flow();
        self.farthest = Some(self.dealt(&flow));
    }

    fn result(mut self) -> Result<Solution, Unplaced> {
        if self.best.is_none() && self.is_dead_end {
            self.go_on_from_dead_end();
        }
        let Some((cost, ports)) = self.best else {
            let none = vec![None; self.problem.requests.len()];
            return Err(Unplaced { ports: self.farthest.unwrap_or(none), given_up: self.given_up });
        };
        // A search that came to its end has found the best.
        let bound = if self.given_up { self.rest[0].min(cost) } else { cost };
        Ok(Solution { ports, cost: self.weights.read(cost), bound: self.weights.read(bound) })
    }
}
