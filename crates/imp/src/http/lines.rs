//! An answer as a stream of lines, one JSON object a line.

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt};
use serde::Serialize;

/// An answer of one JSON object a line. The next ones are made when the client has taken those before.
pub(super) fn lines<T: Serialize>(values: impl Stream<Item = Vec<T>> + Send + 'static) -> Response {
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
