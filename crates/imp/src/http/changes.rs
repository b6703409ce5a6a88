//! Changes: begun, followed, cancelled.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{
        Path, State,
        rejection::{JsonRejection, PathRejection},
    },
    http::StatusCode,
    response::Response,
};
use futures_util::{Stream, StreamExt, stream};
use ioward_api::{ApplyRequest, ChangeId, ChangeIdError, ChangeRequest, ChangeView};
use ioward_model::Event;

use super::{lines::lines, problem::Failure, roles::may_use};
use crate::{access::Caller, changes::Change, imp::Imp};

/// The longest that a client may wait for changes before its own, in seconds.
const MAX_WAIT: u64 = 24 * 60 * 60;

pub(super) async fn apply(
    State(imp): State<Arc<Imp>>,
    Extension(caller): Extension<Caller>,
    request: Result<Json<ApplyRequest>, JsonRejection>,
) -> Result<Response, Failure> {
    let Json(ApplyRequest { plan, wait_seconds }) = request?;
    may_use(caller, &plan.options)?;
    let change = imp.begin_within(plan, wait(wait_seconds), None).await?;
    // Its events are read from the change as the client takes them: one that does not read them costs nothing.
    let attached = Attached(Arc::clone(&change));
    Ok(lines(events_of(change).map(move |events| {
        let _ = &attached;
        events
    })))
}

/// Cancels a change when the client that it belongs to goes away. A change that has ended stays as it is.
struct Attached(Arc<Change>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn wait(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(MAX_WAIT))
}

pub(super) async fn changes(State(imp): State<Arc<Imp>>) -> Json<Vec<ChangeView>> {
    Json(imp.changes())
}

pub(super) async fn begin_change(
    State(imp): State<Arc<Imp>>,
    Extension(caller): Extension<Caller>,
    request: Result<Json<ChangeRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<ChangeView>), Failure> {
    let Json(ChangeRequest { plan, wait_seconds }) = request?;
    may_use(caller, &plan.options)?;
    let change = imp.begin_within(plan, wait(wait_seconds), None).await?;
    Ok((StatusCode::CREATED, Json(change.view())))
}

pub(super) async fn change(
    State(imp): State<Arc<Imp>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ChangeView>, Failure> {
    Ok(Json(imp.changes.get(change_id(id)?)?.view()))
}

pub(super) async fn cancel_change(
    State(imp): State<Arc<Imp>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ChangeView>, Failure> {
    Ok(Json(imp.cancel(change_id(id)?)?))
}

pub(super) async fn change_events(
    State(imp): State<Arc<Imp>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    Ok(lines(events_of(imp.changes.get(change_id(id)?)?)))
}

/// The events of a change from its beginning, up to its end.
fn events_of(change: Arc<Change>) -> impl Stream<Item = Vec<Event>> + Send {
    stream::unfold((change, 0), |(change, n)| async move {
        let event = change.event(n).await?;
        Some((vec![event], (change, n + 1)))
    })
}

fn change_id(text: Result<Path<String>, PathRejection>) -> Result<ChangeId, Failure> {
    let Path(text) = text?;
    text.parse().map_err(|error: ChangeIdError| Failure::invalid(error.to_string()))
}
