//! The API: HTTP and JSON under /v1, over a Unix socket. docs/api.md describes it.
//!
//! ```text
//!   connections ── who is it ──> roles ── may they ──> a route of ioward_api::ROUTES ──> machine, planning, changes, events
//!                                  └── no ──> problem <──────────────── what went wrong ───┘
//! ```

mod adapters;
mod body;
mod changes;
mod connections;
mod etag;
mod events;
mod health;
mod json;
mod lines;
mod machine;
mod moves;
mod openapi;
mod partition;
mod planning;
mod problem;
mod roles;
mod sse;

use std::sync::Arc;

use axum::{
    Router,
    middleware::from_fn,
    routing::{MethodRouter, delete, get, post},
};
use ioward_api::{ROUTES, Route};

pub(crate) use connections::serve;

use crate::imp::Imp;

/// The routes of the table, and no others. Nobody gets past [`roles::admit`] who is not told apart by the listener.
pub(crate) fn router(imp: Arc<Imp>) -> Router {
    let rows = ROUTES.iter().filter_map(|row| Some((row.path, handler(row)?)));
    rows.fold(Router::new(), |router, (path, handler)| router.route(path, handler))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(from_fn(roles::admit))
        .with_state(imp)
}

/// What answers a row of the table.
fn handler(route: &Route) -> Option<MethodRouter<Arc<Imp>>> {
    Some(match (route.method, route.path) {
        ("GET", "/v1/whoami") => get(roles::whoami),
        ("GET", "/v1/host") => get(machine::host),
        ("GET", "/v1/partitions") => get(machine::partitions),
        ("GET", "/v1/partitions/{name}") => get(partition::partition),
        ("GET", "/v1/partitions/{name}/console") => get(partition::watch),
        ("POST", "/v1/partitions/{name}/console") => partition::typing(),
        ("GET", "/v1/adapters/{pf}") => get(adapters::adapter),
        ("GET", "/v1/adapters/{pf}/vfs/{index}") => get(adapters::vf),
        ("GET", "/v1/adapters/{pf}/vfs/{index}/statistics") => get(adapters::statistics),
        ("POST", "/v1/adapters/{pf}/vfs/{index}/operations") => post(adapters::operate),
        ("GET", "/v1/openapi.json") => get(openapi::document),
        ("GET", "/v1/doctor") => get(health::doctor),
        ("GET", "/metrics") => get(health::metrics),
        ("GET", "/v1/drift") => get(machine::drift),
        ("GET", "/v1/orphans") => get(machine::orphans),
        ("POST", "/v1/orphans/reap") => post(machine::reap),
        ("GET", "/v1/spec") => get(machine::spec),
        ("POST", "/v1/compatible") => post(planning::compatible),
        ("POST", "/v1/plan") => post(planning::plan),
        ("POST", "/v1/changes") => post(changes::begin_change),
        ("GET", "/v1/changes") => get(changes::changes),
        ("GET", "/v1/changes/{id}") => get(changes::change),
        ("GET", "/v1/changes/{id}/events") => get(changes::change_events),
        ("DELETE", "/v1/changes/{id}") => delete(changes::cancel_change),
        ("POST", "/v1/apply") => post(changes::apply),
        ("GET", "/v1/events") => get(events::events),
        ("GET", "/v1/audit") => get(machine::audit),
        ("POST", "/v1/domains/{uuid}/prepare") => post(planning::prepare),
        ("GET", "/v1/moves") => get(moves::moves),
        ("POST", "/v1/moves") => post(moves::begin),
        ("DELETE", "/v1/moves/{id}") => delete(moves::cancel),
        ("POST", "/v1/moves/{id}/source") => post(moves::at_source),
        ("POST", "/v1/moves/{id}/target") => post(moves::at_target),
        ("GET", "/v1/moves/{id}/state") => get(moves::out),
        ("POST", "/v1/moves/{id}/state") => post(moves::into),
        ("POST", "/v1/partitions/{name}/accept") => post(moves::accept),
        ("GET", "/v1/state") => get(machine::state),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
