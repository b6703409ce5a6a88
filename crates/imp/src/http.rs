//! The API: HTTP and JSON under /v1, over a Unix socket. docs/api.md describes it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Json, Router,
    body::{Body, Bytes, HttpBody},
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use http_body::Frame;
use ioward_api::{
    ApiError, ApplyRequest, ChangeId, ChangeIdError, ChangeRequest, ChangeView, Compatible,
    CompatibleRequest, ErrorBody, ErrorKind, PartitionView, PlanRequest, Reaped,
};
use ioward_model::{Drift, Inventory, Orphan, Plan, Spec};
use ioward_store::Export;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{error::ImpError, imp::Imp};

/// The largest request that is read: a plan for a host of 1,000 partitions, with room.
const MAX_BODY: usize = 16 << 20;

/// How many audit entries one answer holds.
const AUDIT_LIMIT: usize = 10_000;

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
    let Json(request) = request?;
    let (sender, receiver) = mpsc::unbounded_channel();
    imp.apply(request.plan, sender).await?;
    Ok(lines(receiver))
}

async fn changes(State(imp): State<Arc<Imp>>) -> Json<Vec<ChangeView>> {
    Json(imp.changes())
}

async fn begin_change(
    State(imp): State<Arc<Imp>>,
    request: Result<Json<ChangeRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<ChangeView>), Failure> {
    let Json(request) = request?;
    Ok((StatusCode::CREATED, Json(imp.begin(request.plan).await?)))
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

/// The events of a change from its beginning, up to its end.
async fn change_events(State(imp): State<Arc<Imp>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let change = imp.changes.get(change_id(&id)?)?;
    let events = stream::unfold((change, 0), |(change, n)| async move {
        let event = change.event(n).await?;
        Some((line(&event), (change, n + 1)))
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(events)).into_response())
}

fn change_id(text: &str) -> Result<ChangeId, Failure> {
    text.parse().map_err(|error: ChangeIdError| Failure::invalid(error.to_string()))
}

#[derive(Deserialize)]
struct Follow {
    #[serde(default)]
    follow: bool,
}

async fn events(
    State(imp): State<Arc<Imp>>,
    query: Result<Query<Follow>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query?;
    let (past, mut coming) = imp.events.follow();
    let (sender, receiver) = mpsc::unbounded_channel();
    for event in past {
        let _ = sender.send(event);
    }
    if query.follow {
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = coming.recv() => event,
                    () = sender.closed() => break,
                };
                // One that does not keep up is cut off: it can ask again, and will see what it missed.
                let Ok(event) = event else { break };
                let _ = sender.send(event);
            }
        });
    }
    Ok(lines(receiver))
}

async fn audit(State(imp): State<Arc<Imp>>) -> Result<Response, Failure> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for entry in imp.audit(AUDIT_LIMIT)? {
        let _ = sender.send(entry);
    }
    Ok(lines(receiver))
}

async fn state(State(imp): State<Arc<Imp>>) -> Result<Json<Export>, Failure> {
    Ok(Json(imp.export()?))
}

async fn no_such_route() -> Failure {
    let message = "there is no such route; docs/api.md lists those there are".to_owned();
    Failure(ApiError::new(ErrorKind::NotFound, message))
}

/// An answer of one JSON object a line, for as long as there is a sender.
fn lines<T: Serialize + Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> Response {
    ([(header::CONTENT_TYPE, NDJSON)], Body::new(Lines { receiver })).into_response()
}

const NDJSON: &str = "application/x-ndjson";

fn line(value: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(Bytes::from(line))
}

struct Lines<T> {
    receiver: mpsc::UnboundedReceiver<T>,
}

impl<T: Serialize> HttpBody for Lines<T> {
    type Data = Bytes;
    type Error = serde_json::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, serde_json::Error>>> {
        self.receiver.poll_recv(context).map(|value| Some(line(&value?).map(Frame::data)))
    }
}
