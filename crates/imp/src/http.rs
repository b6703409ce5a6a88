//! The API: HTTP and JSON under /v1, over a Unix socket. docs/api.md describes it.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{Stream, StreamExt, stream};
use ioward_api::{
    ApiError, ApplyRequest, AuditLine, ChangeId, ChangeIdError, ChangeRequest, ChangeView, Compatible,
    CompatibleRequest, ErrorBody, ErrorKind, PartitionView, PlanRequest, PrepareRequest, Prepared, Reaped,
};
use ioward_hypervisor::libvirt::UuidError;
use ioward_model::{Drift, Event, EventKind, Inventory, Orphan, Plan, Spec};
use ioward_store::Export;
use serde::{Deserialize, Serialize};

use crate::{changes::Change, error::ImpError, events::now_ms, imp::Imp};

/// The largest request that is read: a plan for a host of 1,000 partitions, with room.
const MAX_BODY: usize = 16 << 20;

/// How many audit entries one answer holds.
const AUDIT_LIMIT: usize = 10_000;

/// The longest that a client may wait for changes before its own, in seconds.
const MAX_WAIT: u64 = 24 * 60 * 60;

pub(crate) fn router(imp: Arc<Imp>) -> Router {
    Router::new()
        .route("/v1/host", get(host))
        .route("/v1/partitions", get(partitions))
        .route("/v1/drift", get(drift))
        .route("/v1/orphans", get(orphans))
        .route("/v1/orphans/reap", post(reap))
        .route("/v1/spec", get(spec))
        .route("/v1/compatible", post(compatible))
        .route("/v1/plan", post(plan))
        .route("/v1/apply", post(apply))
        .route("/v1/changes", get(changes).post(begin_change))
        .route("/v1/changes/{id}", get(change).delete(cancel_change))
        .route("/v1/changes/{id}/events", get(change_events))
        .route("/v1/events", get(events))
        .route("/v1/audit", get(audit))
        .route("/v1/state", get(state))
        .route("/v1/domains/{uuid}/prepare", post(prepare))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_route)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(imp)
}

/// An error on its way out.
struct Failure(ApiError);

impl From<ImpError> for Failure {
    fn from(error: ImpError) -> Self {
        Self(error.into())
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl Failure {
    fn invalid(message: String) -> Self {
        Self(ApiError::new(ErrorKind::Invalid, message))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Refused => StatusCode::CONFLICT,
            ErrorKind::Busy => StatusCode::LOCKED,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorBody { error: self.0 })).into_response()
    }
}

async fn host(State(imp): State<Arc<Imp>>) -> Result<Json<Inventory>, Failure> {
    Ok(Json(imp.look().await?))
}

async fn partitions(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<PartitionView>>, Failure> {
    Ok(Json(imp.partitions().await?))
}

async fn drift(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<Drift>>, Failure> {
    Ok(Json(imp.drift().await?))
}

async fn orphans(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<Orphan>>, Failure> {
    Ok(Json(imp.orphans().await?))
}

async fn reap(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<Reaped>>, Failure> {
    Ok(Json(imp.reap_orphans().await?))
}

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    wanted: bool,
}

async fn spec(
    State(imp): State<Arc<Imp>>,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Spec>, Failure> {
    let Query(Which { wanted }) = query?;
    let state = imp.state();
    if !wanted {
        return Ok(Json(state.to_spec()));
    }
    let none = || ApiError::new(ErrorKind::NotFound, "no Spec has been applied yet: 'ioward apply -f SPEC'");
    state.wanted.map(|spec| Json(*spec)).ok_or_else(|| Failure(none()))
}

async fn compatible(
    State(imp): State<Arc<Imp>>,
    request: Result<Json<CompatibleRequest>, JsonRejection>,
) -> Result<Json<Vec<Compatible>>, Failure> {
    let Json(CompatibleRequest { spec, partition }) = request?;
    Ok(Json(imp.compatible(&spec, &partition).await?))
}

async fn plan(
    State(imp): State<Arc<Imp>>,
    request: Result<Json<PlanRequest>, JsonRejection>,
) -> Result<Json<Plan>, Failure> {
    let Json(request) = request?;
    Ok(Json(imp.plan(&request.intent, &request.options).await?))
}

async fn apply(
    State(imp): State<Arc<Imp>>,
    request: Result<Json<ApplyRequest>, JsonRejection>,
) -> Result<Response, Failure> {
    let Json(ApplyRequest { plan, wait_seconds }) = request?;
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

async fn changes(State(imp): State<Arc<Imp>>) -> Json<Vec<ChangeView>> {
    Json(imp.changes())
}

async fn begin_change(
    State(imp): State<Arc<Imp>>,
    request: Result<Json<ChangeRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<ChangeView>), Failure> {
    let Json(ChangeRequest { plan, wait_seconds }) = request?;
    let change = imp.begin_within(plan, wait(wait_seconds), None).await?;
    Ok((StatusCode::CREATED, Json(change.view())))
}

async fn change(State(imp): State<Arc<Imp>>, Path(id): Path<String>) -> Result<Json<ChangeView>, Failure> {
    Ok(Json(imp.changes.get(change_id(&id)?)?.view()))
}

async fn cancel_change(
    State(imp): State<Arc<Imp>>,
    Path(id): Path<String>,
) -> Result<Json<ChangeView>, Failure> {
    Ok(Json(imp.cancel(change_id(&id)?)?))
}

async fn change_events(State(imp): State<Arc<Imp>>, Path(id): Path<String>) -> Result<Response, Failure> {
    Ok(lines(events_of(imp.changes.get(change_id(&id)?)?)))
}

/// The events of a change from its beginning, up to its end.
fn events_of(change: Arc<Change>) -> impl Stream<Item = Vec<Event>> + Send {
    stream::unfold((change, 0), |(change, n)| async move {
        let event = change.event(n).await?;
        Some((vec![event], (change, n + 1)))
    })
}

fn change_id(text: &str) -> Result<ChangeId, Failure> {
    text.parse().map_err(|error: ChangeIdError| Failure::invalid(error.to_string()))
}

async fn prepare(
    State(imp): State<Arc<Imp>>,
    Path(uuid): Path<String>,
    request: Result<Json<PrepareRequest>, JsonRejection>,
) -> Result<Json<Prepared>, Failure> {
    let Json(request) = request?;
    let uuid = uuid.parse().map_err(|error: UuidError| Failure::invalid(error.to_string()))?;
    Ok(Json(imp.prepare(uuid, &request).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Follow {
    #[serde(default)]
    follow: bool,
    /// The number of the event that the client has seen last, or `now`.
    since: Option<String>,
    /// The run of the daemon that it saw it in.
    epoch: Option<u64>,
}

async fn events(
    State(imp): State<Arc<Imp>>,
    query: Result<Query<Follow>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Follow { follow, since, epoch }) = query?;
    let (latest, this_epoch) = (imp.events.latest(), imp.run.epoch);
    let since = match since.as_deref() {
        None => None,
        Some("now") => Some(latest),
        Some(number) => {
            let invalid = || Failure::invalid(format!("since={number}: neither a number nor 'now'"));
            Some(number.parse().map_err(|_| invalid())?)
        }
    };
    // Numbers of another run mean nothing here; those to come may be smaller.
    let is_other_run = epoch.is_some_and(|epoch| epoch != this_epoch);
    let is_ahead = since.is_some_and(|since: u64| since > latest);
    let restarted = (is_other_run || is_ahead).then(|| Event {
        number: 0,
        time_ms: now_ms(),
        kind: EventKind::Restarted { epoch: this_epoch },
    });
    // Without a number, nobody has missed what is not kept any more.
    let oldest = imp.events.kept().first().map_or(0, |event| event.number - 1);
    let from = since.filter(|_| restarted.is_none()).unwrap_or(oldest);
    let upto = if follow { u64::MAX } else { latest };
    let first = stream::iter(restarted.map(|event| vec![event]));
    let mut answer = lines(first.chain(followed(imp, from, upto)));
    for (name, value) in [("ioward-epoch", this_epoch), ("ioward-last-event", latest)] {
        answer.headers_mut().insert(name, HeaderValue::from(value));
    }
    Ok(answer)
}

/// The events after `from`, up to `upto`, as they come. Nothing is kept for whoever reads them but the number of the last one.
fn followed(imp: Arc<Imp>, from: u64, upto: u64) -> impl Stream<Item = Vec<Event>> + Send {
    let news = imp.events.news();
    stream::unfold((imp, news, from), move |(imp, mut news, last)| async move {
        loop {
            if last >= upto {
                return None;
            }
            news.borrow_and_update();
            let mut events = imp.events.after(last);
            events.retain(|event| event.number <= upto);
            if let Some(event) = events.last() {
                let last = event.number;
                return Some((events, (imp, news, last)));
            }
            if upto != u64::MAX {
                return None;
            }
            news.changed().await.ok()?;
        }
    })
}

async fn audit(State(imp): State<Arc<Imp>>) -> Result<Response, Failure> {
    let (entries, dropped) = imp.read_audit(AUDIT_LIMIT).await?;
    let dropped = dropped.into_iter().filter(|(_, dropped)| !dropped.is_empty());
    let dropped = dropped.map(|(partition, dropped)| AuditLine::Dropped { partition, dropped });
    let lines_of_it = entries.into_iter().map(AuditLine::Entry).chain(dropped);
    Ok(lines(stream::iter(lines_of_it).map(|line| vec![line])))
}

async fn state(State(imp): State<Arc<Imp>>) -> Result<Json<Export>, Failure> {
    Ok(Json(imp.read_export().await?))
}

async fn no_such_route() -> Failure {
    let message = "there is no such route; docs/api.md lists those there are".to_owned();
    Failure(ApiError::new(ErrorKind::NotFound, message))
}

/// An answer of one JSON object a line. The next ones are made when the client has taken those before.
fn lines<T: Serialize>(values: impl Stream<Item = Vec<T>> + Send + 'static) -> Response {
    let frames = values.map(|values| {
        let mut lines = Vec::new();
        for value in values {
            serde_json::to_writer(&mut lines, &value)?;
            lines.push(b'\n');
        }
        Ok::<_, serde_json::Error>(lines)
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(frames)).into_response()
}
