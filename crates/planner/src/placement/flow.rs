//! Requests that are alike, placed together as a flow of least cost. Exact.
//!
//! ```text
//! source ──> group of like requests ──┬────────────────────> port ──> sink
//!            (as many as it has)      └─> (group, domain) ──>      (first the VFs that are there, then those to be made)
//!                                         (no more than there are sets: each set's requests are in different domains)
//! ```
//! A set is one request, or some that are all to be apart from each other; a group has sets that are alike. Any flow can
//! be dealt out to the sets, so that nothing is lost by looking at groups: see [`Group::deal`].

use ac_library::MinCostFlowGraph;
use ioward_model::FailureDomain;

use super::problem::{Cost, LEVELS, Problem, REDUNDANCY, Weights};

/// Sets of requests that are alike.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The list of choices that all its requests have.
    pub choices: usize,
    /// The sets, each with as many requests.
    pub sets: Vec<Vec<usize>>,
    /// The failure domain that the requests of one set must not share, and whether that is a wish.
    pub apart: Option<(FailureDomain, bool)>,
}

/// The node that all requests come from.
const SOURCE: usize = 0;
/// The node that all of them go to.
const SINK: usize = 1;

/// What flows cost at least that find other rooms than one that was solved, without solving them.
///
/// By linear programming duality: numbers for the nodes, whichever they are, give each edge a price, and a flow costs no less than
/// what they come to, in which rooms are but coefficients. The distances from the sink in the residual graph of a flow of least cost
/// come to just its cost.
pub(super) struct Floor {
    /// Of the rooms that it was made for.
    cost: i128,
    rooms: Vec<Room>,
    /// By port: the price of a VF that is there, and of one to be made.
    prices: Vec<(i128, i128)>,
}

/// An edge of a graph with a flow.
struct Edge {
    from: usize,
    to: usize,
    cap: i128,
    flow: i128,
    cost: i128,
}

impl Floor {
    /// Of a flow of least cost with all its edges, the first two of each port first, those from the port to the sink. `None` where the
    /// numbers get too large.
    fn of(edges: &[Edge], rooms: &[Room], wanted: usize) -> Option<Self> {
        let nodes = edges.iter().map(|edge| edge.from.max(edge.to) + 1).max()?;
        let mut distances: Vec<Option<i128>> = vec![None; nodes];
        *distances.get_mut(SINK)? = Some(0);
        // Bellman-Ford, against the edges. There is no cycle that lowers the cost; bounded all the same.
        for _ in 0..nodes {
            let mut is_shorter = false;
            let mut go = |from: usize, to: usize, cost: i128| {
                let Some(distance) = distances[to].and_then(|distance| distance.checked_add(cost)) else {
                    return;
                };
                if distances[from].is_none_or(|known| distance < known) {
                    distances[from] = Some(distance);
                    is_shorter = true;
                }
            };
            for edge in edges {
                if edge.flow < edge.cap {
                    go(edge.from, edge.to, edge.cost);
                }
                if edge.flow > 0 {
                    go(edge.to, edge.from, -edge.cost);
                }
            }
            if !is_shorter {
                break;
            }
        }
        // From where no way leads to the sink, it is taken to be as far as from the farthest of the others.
        let farthest = distances.iter().flatten().copied().max()?;
        let distance = |node: usize| distances[node].unwrap_or(farthest);
        let price = |edge: &Edge| {
            Some(distance(edge.from).checked_sub(distance(edge.to))?.checked_sub(edge.cost)?.max(0))
        };
        let mut cost = distance(SOURCE).checked_mul(wanted.try_into().ok()?)?;
        for edge in edges {
            cost = cost.checked_sub(price(edge)?.checked_mul(edge.cap)?)?;
        }
        let of_port = |pair: &[Edge]| Some((price(&pair[0])?, price(&pair[1])?));
        let prices = edges.chunks_exact(2).take(rooms.len()).map(of_port).collect::<Option<_>>()?;
        Some(Self { cost, rooms: rooms.to_vec(), prices })
    }

    /// The least that a flow costs which finds these rooms.
    pub(super) fn with(&self, rooms: &[Room]) -> i128 {
        let less = |before: u32, now: u32| i128::from(before) - i128::from(now);
        let all = self.rooms.iter().zip(rooms).zip(&self.prices);
        let changes = all.map(|((before, now), (free, more))| {
            let free = free.saturating_mul(less(before.free, now.free));
            free.saturating_add(more.saturating_mul(less(before.more, now.more)))
        });
        changes.fold(self.cost, i128::saturating_add)
    }
}

/// How much of a port there is for groups.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// VFs that are there.
    pub free: u32,
    /// VFs that could be made.
    pub more: u32,
}

/// The result of a flow.
pub(super) struct Flow {
    /// By group: how many of its requests go to which port.
    pub shares: Vec<Vec<(usize, usize)>>,
    /// Their cost, weighed.
    pub cost: i128,
    /// Whether all requests have a port.
    pub complete: bool,
}

impl Group {
    fn set_size(&self) -> usize {
        self.sets.first().map_or(0, Vec::len)
    }

    /// How many requests it has.
    pub(super) fn len(&self) -> usize {
        self.sets.len() * self.set_size()
    }

    /// Deals ports out to requests. With all of a domain in one row, and no domain with more than there are sets, the
    /// requests of one set get places that are as many apart as there are sets: never two of one domain.
    pub(super) fn deal(&self, problem: &Problem, shares: &[(usize, usize)], into: &mut [Option<usize>]) {
        let mut shares = shares.to_vec();
        if let Some((by, _)) = self.apart {
            // By the first port of each domain, so that what came first stays first.
            let first = |port: usize| shares.iter().position(|(other, _)| problem.share(by, port, *other));
            let keys: Vec<_> = shares.iter().map(|(port, _)| first(*port)).collect();
            let mut order: Vec<usize> = (0..shares.len()).collect();
            order.sort_by_key(|n| (keys[*n], *n));
            shares = order.into_iter().map(|n| shares[n]).collect();
        }
        let places = shares.iter().flat_map(|(port, count)| std::iter::repeat_n(*port, *count));
        for (n, port) in places.enumerate() {
            let (request, set) = (n / self.sets.len(), n % self.sets.len());
            into[self.sets[set][request]] = Some(port);
        }
    }
}

/// Places as many requests of all groups as can be, at the least cost.
pub(super) fn solve(problem: &Problem, weights: &Weights, groups: &[Group], rooms: &[Room]) -> Flow {
    solved(problem, weights, groups, rooms).0
}

/// The same, with its [`Floor`].
pub(super) fn solve_with_floor(
    problem: &Problem,
    weights: &Weights,
    groups: &[Group],
    rooms: &[Room],
) -> (Flow, Option<Floor>) {
    let (flow, graph) = solved(problem, weights, groups, rooms);
    let edges = graph.edges().into_iter();
    let edge = edges.map(|edge| {
        let (from, to, cost) = (edge.from, edge.to, edge.cost);
        Edge { from, to, cap: edge.cap, flow: edge.flow, cost }
    });
    let floor = Floor::of(&edge.collect::<Vec<_>>(), rooms, groups.iter().map(Group::len).sum());
    (flow, floor)
}

fn solved(
    problem: &Problem,
    weights: &Weights,
    groups: &[Group],
    rooms: &[Room],
) -> (Flow, MinCostFlowGraph<i128>) {
    let (source, sink) = (SOURCE, SINK);
    let port_node = |port: usize| 2 + port;
    let group_node = |group: usize| 2 + rooms.len() + group;
    let domains: Vec<Vec<Vec<usize>>> = groups.iter().map(|group| domains(problem, group)).collect();
    let between: usize = domains.iter().map(Vec::len).sum();
    let mut graph = MinCostFlowGraph::<i128>::new(2 + rooms.len() + groups.len() + between);
    let count = |n: usize| i128::try_from(n).unwrap_or(i128::MAX);
    for (port, room) in rooms.iter().enumerate() {
        graph.add_edge(port_node(port), sink, room.free.into(), 0);
        graph.add_edge(
            port_node(port),
            sink,
            room.more.into(),
            weights.weigh(&problem.ports[port].more_cost),
        );
    }
    let mut next = 2 + rooms.len() + groups.len();
    let mut edges: Vec<Vec<(usize, usize)>> = Vec::with_capacity(groups.len());
    for (n, group) in groups.iter().enumerate() {
        graph.add_edge(source, group_node(n), count(group.len()), 0);
        let mut of_group = Vec::new();
        let choices = &problem.choices[group.choices];
        for domain in &domains[n] {
            let from = match group.apart {
                None => group_node(n),
                Some((_, soft)) => {
                    let sets = group.sets.len();
                    graph.add_edge(group_node(n), next, count(sets), 0);
                    if soft {
                        let mut penalty = Cost::default();
                        penalty[REDUNDANCY] = 1;
                        graph.add_edge(
                            group_node(n),
                            next,
                            count(group.len() - sets),
                            weights.weigh(&penalty),
                        );
                    }
                    next
                }
            };
            next += usize::from(group.apart.is_some());
            for choice in domain.iter().map(|choice| &choices[*choice]) {
                let edge = graph.add_edge(
                    from,
                    port_node(choice.port),
                    count(group.len()),
                    weights.weigh(&choice.cost),
                );
                of_group.push((edge, choice.port));
            }
        }
        edges.push(of_group);
    }
    let wanted: usize = groups.iter().map(Group::len).sum();
    let (flow, cost) = graph.flow(source, sink, count(wanted));
    let share = |(edge, port): &(usize, usize)| {
        let flow = usize::try_from(graph.get_edge(*edge).flow).unwrap_or(0);
        (flow > 0).then_some((*port, flow))
    };
    let shares = edges.iter().zip(groups).map(|(edges, group)| {
        let mut shares: Vec<_> = edges.iter().filter_map(share).collect();
        // The requests that come first get what is best for them.
        let cost = |port| {
            let mut choices = problem.choices[group.choices].iter();
            choices.find(|choice| choice.port == port).map_or([u64::MAX; LEVELS], |choice| choice.cost)
        };
        shares.sort_by_key(|(port, _)| (cost(*port), *port));
        shares
    });
    let flow = Flow { shares: shares.collect(), cost, complete: flow == count(wanted) };
    (flow, graph)
}

/// The choices of a group, by number, in the failure domains that its sets must not share; all in one where they may.
fn domains(problem: &Problem, group: &Group) -> Vec<Vec<usize>> {
    let choices = &problem.choices[group.choices];
    let Some((by, _)) = group.apart else { return vec![(0..choices.len()).collect()] };
    let mut domains: Vec<Vec<usize>> = Vec::new();
    for (n, choice) in choices.iter().enumerate() {
        let same = |domain: &&mut Vec<usize>| problem.share(by, choices[domain[0]].port, choice.port);
        match domains.iter_mut().find(same) {
            Some(domain) => domain.push(n),
            None => domains.push(vec![n]),
        }
    }
    domains
}
