//! One partition, and its serial console.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{
        DefaultBodyLimit, Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use futures_util::stream;
use ioward_api::{ApiError, ErrorKind, PartitionView};
use ioward_model::Name;

use super::{json::Json, problem::Failure};
use crate::imp::Imp;

/// As much as can be typed at once, in bytes.
const MAX_TYPED: usize = 64 << 10;

type PartitionPath = Result<Path<String>, PathRejection>;

pub(super) async fn partition(
    State(imp): State<Arc<Imp>>,
    path: PartitionPath,
) -> Result<Json<PartitionView>, Failure> {
    let name = name_of(path)?;
    let mut all = imp.partitions().await?.into_iter();
    let found = all.find(|partition| partition.name == name).ok_or_else(|| {
        let message = format!("there is no partition {name}; GET /v1/partitions lists those there are");
        Failure(ApiError::new(ErrorKind::NotFound, message))
    });
    Ok(Json(found?))
}

/// Typing on a console, which is less at once than other routes take.
pub(super) fn typing() -> MethodRouter<Arc<Imp>> {
    post(type_in).layer(DefaultBodyLimit::max(MAX_TYPED))
}

pub(super) async fn watch(State(imp): State<Arc<Imp>>, path: PartitionPath) -> Result<Response, Failure> {
    let watcher = imp.consoles.watch(&name_of(path)?).await?;
    let pieces = stream::unfold(watcher, |mut watcher| async {
        let piece = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), watcher))
    });
    // A guest prints what it likes: nobody is to take it for a page.
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

async fn type_in(
    State(imp): State<Arc<Imp>>,
    path: PartitionPath,
    typed: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Failure> {
    imp.consoles.type_in(&name_of(path)?, &typed?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn name_of(path: PartitionPath) -> Result<Name, Failure> {
    let Path(name) = path?;
    let is_no_name = |error: ioward_model::NameError| Failure::invalid(format!("{name}: {error}"));
    name.parse().map_err(is_no_name)
}
