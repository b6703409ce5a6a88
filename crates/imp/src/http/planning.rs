//! What is asked before a change: what suits a partition, what a plan would do, what a domain of libvirt needs.

use std::sync::Arc;

use axum::extract::{Path, State, rejection::PathRejection};
use ioward_api::{Compatible, CompatibleRequest, PlanRequest, PrepareRequest, Prepared};
use ioward_hypervisor::libvirt::UuidError;
use ioward_model::Plan;

use super::{json::Json, problem::Failure};
use crate::imp::Imp;

pub(super) async fn compatible(
    State(imp): State<Arc<Imp>>,
    Json(CompatibleRequest { spec, partition }): Json<CompatibleRequest>,
) -> Result<Json<Vec<Compatible>>, Failure> {
    Ok(Json(imp.compatible(&spec, &partition).await?))
}

pub(super) async fn plan(
    State(imp): State<Arc<Imp>>,
    Json(request): Json<PlanRequest>,
) -> Result<Json<Plan>, Failure> {
    Ok(Json(imp.plan(&request.intent, &request.options).await?))
}

pub(super) async fn prepare(
    State(imp): State<Arc<Imp>>,
    uuid: Result<Path<String>, PathRejection>,
    Json(request): Json<PrepareRequest>,
) -> Result<Json<Prepared>, Failure> {
    let Path(uuid) = uuid?;
    let uuid = uuid.parse().map_err(|error: UuidError| Failure::invalid(error.to_string()))?;
    Ok(Json(imp.prepare(uuid, &request).await?))
}
