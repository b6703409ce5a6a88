//! How the host and the daemon are: the doctor's findings, and the metrics.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use ioward_model::doctor::Report;

use super::{json::Json, problem::Failure};
use crate::imp::Imp;

pub(super) async fn doctor(State(imp): State<Arc<Imp>>) -> Result<Json<Report>, Failure> {
    Ok(Json(imp.doctor().await?))
}

pub(super) async fn metrics(State(imp): State<Arc<Imp>>) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], imp.metrics().await).into_response()
}
