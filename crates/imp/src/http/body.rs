//! The time that a body may take on its way in.

use std::{error::Error, io, time::Duration};

use axum::body::Body;
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

/// How long nothing of a body may come.
pub(super) const EACH_WITHIN: Duration = Duration::from_secs(30);

/// Nothing of a body has come for [`EACH_WITHIN`].
#[derive(Debug, thiserror::Error)]
#[error("nothing of the body has come for {} s; send the request again", EACH_WITHIN.as_secs())]
pub(super) struct TooSlow;

/// The same body, which ends with [`TooSlow`] when the client stops sending it.
pub(super) fn in_time(body: Body) -> Body {
    let pieces = stream::unfold(Some(body.into_data_stream()), |pieces| async {
        let mut pieces = pieces?;
        match timeout(EACH_WITHIN, pieces.next()).await {
            Ok(piece) => Some((piece?.map_err(io::Error::other), Some(pieces))),
            Err(_) => Some((Err(io::Error::new(io::ErrorKind::TimedOut, TooSlow)), None)),
        }
    });
    Body::from_stream(pieces)
}

/// Whether a body has ended with [`TooSlow`].
pub(super) fn is_too_slow(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<TooSlow>) {
            return true;
        }
        next = error.source();
    }
    false
}
