//! The same [`Problem`] as an integer program: a variable for each request and port, 1 where the request goes there.
//!
//! ```text
//! minimize    the criteria, as one number in a mixed radix
//! such that   each request goes to one port
//!             no port gets more than it has (those to be made are counted by a variable of their own)
//!             of two that are apart, at most one is in each failure domain
//! ```

use std::{collections::BTreeMap, time::Duration};

use ioward_model::FailureDomain;
use ioward_planner::placement::problem::{Cost, LEVELS, Problem};
use microlp::{ComparisonOp, OptimizationDirection, Problem as Program, SolutionStatus, Variable};

/// The port of each request in a placement of least cost; `None` when there was none in time.
pub fn solve(problem: &Problem, patience: Duration) -> Option<Vec<usize>> {
    let weights = weights(problem);
    let weigh =
        |cost: &Cost| cost.iter().zip(weights).map(|(cost, weight)| *cost as f64 * weight).sum::<f64>();
    let mut program = Program::new(OptimizationDirection::Minimize);
    program.set_time_limit(patience);
    let mut variables: Vec<BTreeMap<usize, Variable>> = Vec::new();
    for list in &problem.requests {
        let choices = &problem.choices[*list];
        let variable = |program: &mut Program, cost| program.add_binary_var(weigh(cost));
        variables
            .push(choices.iter().map(|choice| (choice.port, variable(&mut program, &choice.cost))).collect());
    }
    for of_request in &variables {
        let terms: Vec<_> = of_request.values().map(|variable| (*variable, 1.0)).collect();
        program.add_constraint(terms, ComparisonOp::Eq, 1.0);
    }
    for (port, found) in problem.ports.iter().enumerate() {
        let made = program.add_var(weigh(&found.more_cost), (0.0, f64::from(found.more)));
        let here = variables.iter().filter_map(|of_request| of_request.get(&port));
        let terms: Vec<_> = here.map(|variable| (*variable, 1.0)).chain([(made, -1.0)]).collect();
        program.add_constraint(terms, ComparisonOp::Le, f64::from(found.free));
    }
    for pair in problem.pairs.iter().filter(|pair| !pair.soft) {
        for ports in domains(problem, pair.by) {
            let of = |request: usize| {
                let of_request = &variables[request];
                ports.iter().filter_map(|port| of_request.get(port)).map(|v| (*v, 1.0))
            };
            let terms: Vec<_> = of(pair.a).chain(of(pair.b)).collect();
            program.add_constraint(terms, ComparisonOp::Le, 1.0);
        }
    }
    let solution = program.solve().ok()?.into_solution().ok()?;
    if solution.status() != SolutionStatus::Optimal {
        return None;
    }
    let chosen = |of_request: &BTreeMap<usize, Variable>| {
        of_request.iter().find(|(_, variable)| solution.var_value(**variable) > 0.5).map(|(port, _)| *port)
    };
    variables.iter().map(chosen).collect()
}

/// Ports by failure domain.
fn domains(problem: &Problem, by: FailureDomain) -> Vec<Vec<usize>> {
    let mut domains: Vec<Vec<usize>> = Vec::new();
    for port in 0..problem.ports.len() {
        match domains.iter_mut().find(|domain| problem.share(by, domain[0], port)) {
            Some(domain) => domain.push(port),
            None => domains.push(vec![port]),
        }
    }
    domains
}

/// As small as can be, for the program counts with floating point.
fn weights(problem: &Problem) -> [f64; LEVELS] {
    let mut most = [0_u64; LEVELS];
    let costs = problem.choices.iter().flatten().map(|choice| &choice.cost);
    for cost in costs.chain(problem.ports.iter().map(|port| &port.more_cost)) {
        most.iter_mut().zip(cost).for_each(|(most, cost)| *most = (*most).max(*cost));
    }
    let mut weights = [1.0; LEVELS];
    for level in (0..LEVELS - 1).rev() {
        weights[level] = weights[level + 1] * (problem.requests.len() as f64 * most[level + 1] as f64 + 1.0);
    }
    weights
}
