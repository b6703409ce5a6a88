//! One adapter, one VF, its counters, and operations on it.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    http::HeaderMap,
};
use ioward_api::{ApiError, ErrorKind, VfDetail};
use ioward_model::{
    Assignment, Inventory, OpError, OpErrorKind, OpOutcome, PhysicalFunction, VfId, VfOp, VfStatistics,
};
use ioward_pci::{Bdf, BdfError};

use super::{json::Json, machine::look, problem::Failure};
use crate::{access::Caller, imp::Imp};

impl From<OpError> for Failure {
    fn from(error: OpError) -> Self {
        let kind = match error.kind {
            OpErrorKind::Denied => ErrorKind::Refused,
            OpErrorKind::NoSuchVf => ErrorKind::NotFound,
            // What the adapter lacks is refused by a rule, as a plan for it would be.
            OpErrorKind::Invalid if !error.reasons.is_empty() => ErrorKind::Refused,
            OpErrorKind::Invalid => ErrorKind::Invalid,
            OpErrorKind::Failed => ErrorKind::Failed,
            OpErrorKind::Busy => ErrorKind::Busy,
        };
        Self(ApiError { reasons: error.reasons, ..ApiError::new(kind, error.message) })
    }
}

/// The segments of a path that name a VF.
type VfPath = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn adapter(
    State(imp): State<Arc<Imp>>,
    path: Result<Path<String>, PathRejection>,
    asked: HeaderMap,
) -> Result<Json<PhysicalFunction>, Failure> {
    let Path(pf) = path?;
    let (inventory, _) = look(&imp, &asked).await?;
    Ok(Json(found(&inventory, pf_of(&pf)?)?.clone()))
}

pub(super) async fn vf(
    State(imp): State<Arc<Imp>>,
    path: VfPath,
    asked: HeaderMap,
) -> Result<Json<VfDetail>, Failure> {
    let id = vf_of(path)?;
    let (inventory, _) = look(&imp, &asked).await?;
    let pf = found(&inventory, id.pf)?;
    let vf = pf.virtual_function(id.index).cloned().ok_or_else(|| {
        let message = format!("{id} does not exist; {} has {} VFs now", id.pf, pf.num_vfs());
        Failure(ApiError::new(ErrorKind::NotFound, message))
    })?;
    let state = imp.state();
    let assignment = state.assignment(id);
    Ok(Json(VfDetail { pf: id.pf, vf, made: assignment.map(Assignment::effective_settings) }))
}

pub(super) async fn statistics(
    State(imp): State<Arc<Imp>>,
    path: VfPath,
) -> Result<Json<VfStatistics>, Failure> {
    Ok(Json(imp.statistics(vf_of(path)?).await?))
}

pub(super) async fn operate(
    State(imp): State<Arc<Imp>>,
    Extension(caller): Extension<Caller>,
    path: VfPath,
    Json(op): Json<VfOp>,
) -> Result<Json<OpOutcome>, Failure> {
    Ok(Json(imp.operate_for_user(caller.uid, vf_of(path)?, op).await?))
}

fn found(inventory: &Inventory, pf: Bdf) -> Result<&PhysicalFunction, Failure> {
    inventory.physical_function(pf).ok_or_else(|| {
        let message =
            format!("{pf} is no physical function of this host; GET /v1/host lists those there are");
        Failure(ApiError::new(ErrorKind::NotFound, message))
    })
}

fn pf_of(text: &str) -> Result<Bdf, Failure> {
    text.parse().map_err(|error: BdfError| Failure::invalid(error.to_string()))
}

fn vf_of(path: VfPath) -> Result<VfId, Failure> {
    let Path((pf, index)) = path?;
    let not_an_index = |_| Failure::invalid(format!("{index}: no index of a VF (0, 1, …)"));
    Ok(VfId { pf: pf_of(&pf)?, index: index.parse().map_err(not_an_index)? })
}
