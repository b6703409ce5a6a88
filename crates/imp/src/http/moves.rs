//! Partitions that are moved to another host: what the two sides say, and the state of a machine on its way.

use std::{collections::BTreeMap, io, os::unix::net::UnixStream as StdUnixStream, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use ioward_api::{BeginMove, ErrorKind, FromSource, FromTarget, Leaving, Settled};
use ioward_model::{
    Name,
    handover::{Move, MoveId, MoveIdError, MovedPartition},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{json::Json, partition::name_of, problem::Failure};
use crate::imp::Imp;

/// How much of a state is passed on at once, in bytes.
const PIECE: usize = 128 << 10;

type MovePath = Result<Path<String>, PathRejection>;

pub(super) async fn moves(State(imp): State<Arc<Imp>>) -> Json<BTreeMap<Name, Move>> {
    Json(imp.state().moves)
}

pub(super) async fn begin(
    State(imp): State<Arc<Imp>>,
    Json(BeginMove { id, partition, to, vfs }): Json<BeginMove>,
) -> Result<Json<MovedPartition>, Failure> {
    Ok(Json(imp.begin_move(id, &partition, &to, vfs).await?))
}

pub(super) async fn at_source(
    State(imp): State<Arc<Imp>>,
    path: MovePath,
    Json(FromTarget { messages }): Json<FromTarget>,
) -> Result<Json<Leaving>, Failure> {
    Ok(Json(imp.move_source_hears(id_of(path)?, &messages).await))
}

pub(super) async fn at_target(
    State(imp): State<Arc<Imp>>,
    path: MovePath,
    Json(FromSource { messages, offer }): Json<FromSource>,
) -> Result<Json<FromTarget>, Failure> {
    let offer = offer.as_ref().map(|offer| (&offer.partition, offer.source.as_str()));
    Ok(Json(FromTarget { messages: imp.move_target_hears(id_of(path)?, &messages, offer).await? }))
}

pub(super) async fn cancel(State(imp): State<Arc<Imp>>, path: MovePath) -> Result<Json<Settled>, Failure> {
    Ok(Json(Settled { settled: imp.cancel_move(id_of(path)?).await }))
}

pub(super) async fn accept(State(imp): State<Arc<Imp>>, path: MovePath) -> Result<Json<Settled>, Failure> {
    Ok(Json(Settled { settled: imp.accept_move(&name_of(path)?).await }))
}

/// The state of a machine as it comes out of it.
pub(super) async fn out(State(imp): State<Arc<Imp>>, path: MovePath) -> Result<Response, Failure> {
    let way = way(&imp, path).await?;
    let pieces = stream::unfold(Some(way), |way| async {
        let mut way = way?;
        let mut piece = vec![0; PIECE];
        match way.read(&mut piece).await {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                Some((Ok(Bytes::from(piece)), Some(way)))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// The state of a machine as it goes into the one that waits for it.
pub(super) async fn into(
    State(imp): State<Arc<Imp>>,
    path: MovePath,
    state: Body,
) -> Result<StatusCode, Failure> {
    let mut way = way(&imp, path).await?;
    let mut pieces = state.into_data_stream();
    let broken_off =
        |what: String| Failure::new(ErrorKind::Failed, format!("the state did not come wholly: {what}"));
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| broken_off(error.to_string()))?;
        way.write_all(&piece).await.map_err(|error| broken_off(error.to_string()))?;
    }
    way.shutdown().await.map_err(|error| broken_off(error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The end of the way that the state takes: once.
async fn way(imp: &Imp, path: MovePath) -> Result<UnixStream, Failure> {
    let id = id_of(path)?;
    let none = || {
        Failure::new(ErrorKind::NotFound, format!("no machine's state is to be carried for the move {id}"))
    };
    let way = imp.move_way(id).await.ok_or_else(none)?;
    let opened = || -> io::Result<UnixStream> {
        let way = StdUnixStream::from(way);
        way.set_nonblocking(true)?;
        UnixStream::from_std(way)
    };
    opened()
        .map_err(|error| Failure::new(ErrorKind::Failed, format!("the way of the state is broken: {error}")))
}

fn id_of(path: MovePath) -> Result<MoveId, Failure> {
    let Path(id) = path?;
    id.parse().map_err(|error: MoveIdError| Failure::invalid(format!("{id}: {error}")))
}
