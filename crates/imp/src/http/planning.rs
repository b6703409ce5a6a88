//! What is asked before a change: what suits a partition, what a plan would do, what a domain of libvirt needs.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, State,
        rejection::{JsonRejection, PathRejection},
    },
};
use ioward_api::{Compatible, CompatibleRequest, PlanRequest, PrepareRequest, Prepared};
use ioward_hypervisor::libvirt::UuidError;
use ioward_model::Plan;

use super::problem::Failure;
use crate::imp::Imp;

pub(super) async fn compatible(
    State(imp): State<Arc<Imp>>,
    request: Result<Json<CompatibleRequest>, JsonRejection>,
) -> Result<Json<Vec<Compatible>>, Failure> {
    let Json(CompatibleRequest { spec, partition }) = request?;
    Ok(Json(imp.compatible(&spec, &partition).await?))
}

pub(super) async fn plan(
    State(imp): State<Arc<Imp>>,
    request: Result<Json<PlanRequest>, JsonRejection>,
) -> Result<Json<Plan>, Failure> {
    let Json(request) = request?;
    Ok(Json(imp.plan(&request.intent, &request.options).await?))
}

pub(super) async fn prepare(
    State(imp): State<Arc<Imp>>,
    uuid: Result<Path<String>, PathRejection>,
    request: Result<Json<PrepareRequest>, JsonRejection>,
) -> Result<Json<Prepared>, Failure> {
    let Json(request) = request?;
    let Path(uuid) = uuid?;
    let uuid = uuid.parse().map_err(|error: UuidError| Failure::invalid(error.to_string()))?;
    Ok(Json(imp.prepare(uuid, &request).await?))
}
