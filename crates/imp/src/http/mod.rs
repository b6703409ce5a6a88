//! The API: HTTP and JSON under /v1, over a Unix socket. docs/api.md describes it.

mod changes;
mod events;
mod lines;
mod machine;
mod planning;
mod problem;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};

use crate::imp::Imp;

/// The largest request that is read: a plan for a host of 1,000 partitions, with room.
const MAX_BODY: usize = 16 << 20;

pub(crate) fn router(imp: Arc<Imp>) -> Router {
    Router::new()
        .route("/v1/host", get(machine::host))
        .route("/v1/partitions", get(machine::partitions))
        .route("/v1/drift", get(machine::drift))
        .route("/v1/orphans", get(machine::orphans))
        .route("/v1/orphans/reap", post(machine::reap))
        .route("/v1/spec", get(machine::spec))
        .route("/v1/compatible", post(planning::compatible))
        .route("/v1/plan", post(planning::plan))
        .route("/v1/apply", post(changes::apply))
        .route("/v1/changes", get(changes::changes).post(changes::begin_change))
        .route("/v1/changes/{id}", get(changes::change).delete(changes::cancel_change))
        .route("/v1/changes/{id}/events", get(changes::change_events))
        .route("/v1/events", get(events::events))
        .route("/v1/audit", get(machine::audit))
        .route("/v1/state", get(machine::state))
        .route("/v1/domains/{uuid}/prepare", post(planning::prepare))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_route)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(imp)
}
