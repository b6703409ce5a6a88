//! Changes: begun, followed, cancelled.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use ioward_api::{
    ApplyRequest, ChangeId, ChangeIdError, ChangeRequest, ChangeView, ErrorKind, IntentRequest,
};
use ioward_model::Event;
use serde_json::Value;

use super::{etag, json::Json, lines::lines, problem::Failure, roles::may_use};
use crate::{access::Caller, changes::Change, imp::Imp};

/// The longest that a client may wait for changes before its own, in seconds.
const MAX_WAIT: u64 = 24 * 60 * 60;

/// The header that makes a request one, however often it is sent.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest key, in characters.
const MAX_KEY: usize = 128;

pub(super) async fn apply(
    State(imp): State<Arc<Imp>>,
    Extension(caller): Extension<Caller>,
    Json(ApplyRequest { plan, wait_seconds }): Json<ApplyRequest>,
) -> Result<Response, Failure> {
    may_use(caller, &plan.options)?;
    let change = imp.begin_within(plan, wait(wait_seconds), None).await?;
    change.asked_by(caller.uid);
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

/// Begins a change: 201 with it, or 200 with the one that the same request has begun before.
pub(super) async fn begin_change(
    State(imp): State<Arc<Imp>>,
    Extension(caller): Extension<Caller>,
    asked: HeaderMap,
    Json(body): Json<Value>,
) -> Result<Response, Failure> {
    let Some(key) = idempotency_key(&asked)? else {
        return Ok(begun(StatusCode::CREATED, &*begin(&imp, caller, &asked, body).await?));
    };
    let Some(slot) = imp.changes.keyed(caller.uid, key, etag::hash_of(&body)) else {
        let message = "this Idempotency-Key was given to another request; take another key for this one";
        return Err(Failure::new(ErrorKind::Refused, message));
    };
    let mut number = slot.lock().await;
    if let Some(change) = number.and_then(|number| imp.changes.by_number(number)) {
        return Ok(begun(StatusCode::OK, &change));
    }
    let change = begin(&imp, caller, &asked, body).await?;
    *number = Some(change.view().id.number);
    Ok(begun(StatusCode::CREATED, &change))
}

fn begun(status: StatusCode, change: &Change) -> Response {
    let view = change.view();
    (status, [(header::LOCATION, format!("/v1/changes/{}", view.id))], Json(view)).into_response()
}

async fn begin(
    imp: &Arc<Imp>,
    caller: Caller,
    asked: &HeaderMap,
    body: Value,
) -> Result<Arc<Change>, Failure> {
    if asked.contains_key(header::IF_MATCH) {
        let generation = imp.look().await?.generation;
        is_as_it_was(asked, imp.state().revision, generation)?;
    }
    let invalid = |error: serde_json::Error| Failure::invalid(error.to_string());
    let (plan, wait_seconds) = if body.get("plan").is_some() {
        let ChangeRequest { plan, wait_seconds } = serde_json::from_value(body).map_err(invalid)?;
        may_use(caller, &plan.options)?;
        (plan, wait_seconds)
    } else {
        let IntentRequest { intent, options, wait_seconds } =
            serde_json::from_value(body).map_err(invalid)?;
        may_use(caller, &options)?;
        (imp.plan(&intent, &options).await?, wait_seconds)
    };
    // A plan is carried out only while it is current, so that this holds until the change has begun. While others are waited for it
    // would not.
    let wait = match is_as_it_was(asked, plan.parent, plan.generation)? {
        true => Duration::ZERO,
        false => wait(wait_seconds),
    };
    let change = imp.begin_within(plan, wait, None).await?;
    change.asked_by(caller.uid);
    Ok(change)
}

/// Whether `If-Match` was given and names this version.
fn is_as_it_was(asked: &HeaderMap, revision: u64, generation: u64) -> Result<bool, Failure> {
    let version = etag::version(revision, generation);
    match etag::matches(asked, &version) {
        Some(false) => {
            let message =
                format!("the state or the host has changed: it is {version} now; look at what is new");
            Err(Failure::new(ErrorKind::Precondition, message))
        }
        matches => Ok(matches.is_some()),
    }
}

fn idempotency_key(asked: &HeaderMap) -> Result<Option<&str>, Failure> {
    let Some(key) = asked.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let is_key =
        |key: &&str| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    let key = key.to_str().ok().filter(is_key);
    let none = || Failure::invalid(format!("Idempotency-Key takes 1 to {MAX_KEY} visible ASCII characters"));
    key.ok_or_else(none).map(Some)
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
