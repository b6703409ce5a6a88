//! What there is: the host, its partitions, what is held and wanted, what was asked by whom.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use futures_util::{StreamExt, stream};
use ioward_api::{AuditLine, ErrorKind, PartitionView, Reaped};
use ioward_model::{Drift, Orphan};
use ioward_store::Export;
use serde::Deserialize;

use super::{etag, lines::lines, problem::Failure};
use crate::imp::Imp;

/// How many audit entries one answer holds.
const AUDIT_LIMIT: usize = 10_000;

pub(super) async fn host(State(imp): State<Arc<Imp>>, asked: HeaderMap) -> Result<Response, Failure> {
    let inventory = imp.look().await?;
    let body = etag::to_json(&inventory)?;
    Ok(etag::tagged(&asked, &etag::of_host(inventory.generation, &body), body))
}

pub(super) async fn partitions(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<PartitionView>>, Failure> {
    Ok(Json(imp.partitions().await?))
}

pub(super) async fn drift(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<Drift>>, Failure> {
    Ok(Json(imp.drift().await?))
}

pub(super) async fn orphans(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<Orphan>>, Failure> {
    Ok(Json(imp.orphans().await?))
}

pub(super) async fn reap(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<Reaped>>, Failure> {
    Ok(Json(imp.reap_orphans().await?))
}

#[derive(Deserialize)]
pub(super) struct Which {
    #[serde(default)]
    wanted: bool,
}

pub(super) async fn spec(
    State(imp): State<Arc<Imp>>,
    asked: HeaderMap,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Which { wanted }) = query?;
    let generation = match imp.looks.generation() {
        Some(generation) => generation,
        None => imp.look().await?.generation,
    };
    let state = imp.state();
    let tag = etag::version(state.revision, generation);
    let none = || Failure::new(ErrorKind::NotFound, "no Spec has been applied yet: 'ioward apply -f SPEC'");
    let spec = if wanted { *state.wanted.ok_or_else(none)? } else { state.to_spec() };
    Ok(etag::tagged(&asked, &tag, etag::to_json(&spec)?))
}

pub(super) async fn audit(State(imp): State<Arc<Imp>>) -> Result<Response, Failure> {
    let (entries, dropped) = imp.read_audit(AUDIT_LIMIT).await?;
    let dropped = dropped.into_iter().filter(|(_, dropped)| !dropped.is_empty());
    let dropped = dropped.map(|(partition, dropped)| AuditLine::Dropped { partition, dropped });
    let lines_of_it = entries.into_iter().map(AuditLine::Entry).chain(dropped);
    Ok(lines(stream::iter(lines_of_it).map(|line| vec![line])))
}

pub(super) async fn state(State(imp): State<Arc<Imp>>) -> Result<Json<Export>, Failure> {
    Ok(Json(imp.read_export().await?))
}
