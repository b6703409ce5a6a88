//! Placement as plain data: ports with room, requests with the ports that suit them, and what must be kept apart.
//!
//! Nothing in here knows of Specs or hosts, so that a solver can be held against another one on the same [`Problem`].

use std::collections::BTreeMap;

use ioward_model::FailureDomain;

/// How many criteria there are; the first counts most.
pub const LEVELS: usize = 7;
/// How many kinds of things ports have a budget of: bandwidth, NVMe queues, NVMe interrupts, MSI-X vectors.
pub const BUDGETS: usize = 4;

/// The cost of a placement, by criterion: less is better, and nothing of a later one makes up for anything of an earlier.
pub type Cost = [u64; LEVELS];
/// An amount of each thing that ports have a budget of.
pub type Amounts = [u64; BUDGETS];

/// The level of [`Cost`] that counts VFs in a failure domain with one that they would rather be apart from.
pub const REDUNDANCY: usize = 2;

/// Requests, ports, and the rules between them.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// PFs.
    pub ports: Vec<Port>,
    /// Lists of choices; many requests share one.
    pub choices: Vec<Vec<Choice>>,
    /// Requests, each with the number of its list of choices. The order decides between requests that are alike.
    pub requests: Vec<usize>,
    /// Pairs of requests that are to be apart; a pair may be in it twice, by different domains.
    pub pairs: Vec<Pair>,
}

/// A PF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// VFs that are there and free.
    pub free: u32,
    /// VFs that could be made.
    pub more: u32,
    /// The cost of each of those.
    pub more_cost: Cost,
    /// Which adapter it is a port of: ports of one have the same number.
    pub adapter: u32,
    /// Its NUMA node; one without shares it with nobody.
    pub numa: Option<u32>,
    /// Budgets that are left.
    pub budget: Amounts,
}

/// A port that suits a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Choice {
    /// The port.
    pub port: usize,
    /// Its cost there, the VF itself aside.
    pub cost: Cost,
    /// Its share of the port's budgets.
    pub demand: Amounts,
}

/// Two requests that are to be apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// One of them, by number; the lower.
    pub a: usize,
    /// The other.
    pub b: usize,
    /// The failure domain that they must not share.
    pub by: FailureDomain,
    /// A wish that costs 1 of [`REDUNDANCY`] when it is not met; a rule otherwise.
    pub soft: bool,
}

/// A port for every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// The port of each request.
    pub ports: Vec<usize>,
    /// Its total cost.
    pub cost: Cost,
    /// No placement costs less than this; the same as `cost` where the best was found.
    pub bound: Cost,
}

/// Requests that no port could be found for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// Where those that could be placed went.
    pub ports: Vec<Option<usize>>,
    /// Whether the search was given up: there may be a placement for all of them all the same.
    pub given_up: bool,
}

impl Problem {
    /// Whether two ports have a failure domain in common.
    #[must_use]
    pub fn share(&self, by: FailureDomain, a: usize, b: usize) -> bool {
        match by {
            FailureDomain::Port => a == b,
            FailureDomain::Adapter => self.ports[a].adapter == self.ports[b].adapter,
            FailureDomain::NumaNode => {
                a == b || self.ports[a].numa.is_some() && self.ports[a].numa == self.ports[b].numa
            }
        }
    }

    /// The cost of a placement, if it keeps the rules: counted from the definition, for those who do not trust a
    /// solver.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn assess(&self, ports: &[usize]) -> Result<Cost, String> {
        if ports.len() != self.requests.len() {
            return Err(format!("{} ports for {} requests", ports.len(), self.requests.len()));
        }
        let mut cost = Cost::default();
        let mut used: BTreeMap<usize, (u32, Amounts)> = BTreeMap::new();
        for (request, port) in ports.iter().enumerate() {
            let choices = &self.choices[self.requests[request]];
            let choice = choices.iter().find(|choice| choice.port == *port);
            let choice = choice.ok_or_else(|| format!("port {port} does not suit request {request}"))?;
            add(&mut cost, &choice.cost);
            let (count, amounts) = used.entry(*port).or_default();
            *count += 1;
            amounts.iter_mut().zip(choice.demand).for_each(|(sum, demand)| *sum += demand);
        }
        for (port, (count, amounts)) in used {
            let Port { free, more, more_cost, budget, .. } = &self.ports[port];
            if count > free + more || amounts.iter().zip(budget).any(|(used, budget)| used > budget) {
                return Err(format!("port {port} has not enough for {count} requests"));
            }
            for _ in *free..count {
                add(&mut cost, more_cost);
            }
        }
        for pair in self.pairs.iter().filter(|pair| self.share(pair.by, ports[pair.a], ports[pair.b])) {
            if !pair.soft {
                return Err(format!("requests {} and {} are not apart", pair.a, pair.b));
            }
            cost[REDUNDANCY] += 1;
        }
        Ok(cost)
    }
}

/// Adds up two costs.
pub(super) fn add(sum: &mut Cost, cost: &Cost) {
    sum.iter_mut().zip(cost).for_each(|(sum, cost)| *sum += cost);
}

/// Costs as one number, in which the levels do not run into each other: a number in a mixed radix, whose digits are the levels.
#[derive(Clone, Debug)]
pub(super) struct Weights([i128; LEVELS]);

impl Weights {
    /// For this problem: no level can come to more than all requests at their dearest.
    pub(super) fn of(problem: &Problem) -> Self {
        let mut most = Cost::default();
        let choices = problem.choices.iter().flatten().map(|choice| &choice.cost);
        for cost in choices.chain(problem.ports.iter().map(|port| &port.more_cost)) {
            most.iter_mut().zip(cost).for_each(|(most, cost)| *most = (*most).max(*cost));
        }
        // Each request pays its choice and, at most, a VF that has to be made.
        let requests = 2 * problem.requests.len() as u128 + 1;
        let mut weights = [1_i128; LEVELS];
        for level in (0..LEVELS - 1).rev() {
            let pairs = if level + 1 == REDUNDANCY { problem.pairs.len() as u128 } else { 0 };
            let radix = (requests * u128::from(most[level + 1]) + pairs).saturating_add(1);
            // Far from saturation: 65,535 requests on 65,535 ports need 120 bits.
            weights[level] = weights[level + 1].saturating_mul(i128::try_from(radix).unwrap_or(i128::MAX));
        }
        Self(weights)
    }

    pub(super) fn weigh(&self, cost: &Cost) -> i128 {
        let weighed = self.0.iter().zip(cost).map(|(weight, cost)| weight.saturating_mul(i128::from(*cost)));
        weighed.fold(0, i128::saturating_add)
    }

    /// The cost that weighs so much.
    pub(super) fn read(&self, mut weight: i128) -> Cost {
        self.0.map(|radix| {
            let digit = weight / radix;
            weight %= radix;
            u64::try_from(digit).unwrap_or(u64::MAX)
        })
    }
}
