//! Bodies that do not come, in the time that tokio makes up.

use std::{convert::Infallible, time::Duration};

use axum::body::{Body, Bytes, to_bytes};
use futures_util::{StreamExt, stream};
use ioward_api::{ErrorKind, Problem};
use tokio::time::{Instant, sleep};

use super::{Api, Caller, Request, Role};
use crate::http::body::EACH_WITHIN;

/// A body that comes in pieces, each so long after the one before.
fn pieces(pieces: &'static [&'static str], each_after: Duration) -> Body {
    let pieces = stream::iter(pieces).then(move |piece| async move {
        sleep(each_after).await;
        Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes()))
    });
    Body::from_stream(pieces)
}

impl Api {
    async fn planned(&self, body: Body) -> Problem {
        use hyper::service::Service as _;

        let caller = Caller { uid: 1000, role: Some(Role::Viewer) };
        let request = Request::builder().method("POST").uri("/v1/plan").extension(caller);
        let request = request.header("content-type", "application/json").body(body).unwrap();
        let answer = self.service.call(request).await.unwrap();
        let is_closed = answer.headers().get("connection").is_some_and(|it| it == "close");
        let problem: Problem =
            serde_json::from_slice(&to_bytes(answer.into_body(), 1 << 20).await.unwrap()).unwrap();
        assert_eq!(is_closed, problem.error.kind == ErrorKind::Timeout, "{problem:?}");
        problem
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_which_nothing_comes_is_waited_for_so_long_and_no_longer() {
    let api = Api::new();
    let begun = Instant::now();
    let never = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]).chain(stream::pending());
    let problem = api.planned(Body::from_stream(never)).await;
    assert_eq!((problem.error.kind, problem.status), (ErrorKind::Timeout, 408), "{problem:?}");
    assert_eq!(begun.elapsed(), EACH_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_goes_on_coming_is_read_to_its_end() {
    let api = Api::new();
    let begun = Instant::now();
    let body = pieces(&["{\"intent\":", " \"burn\"", "}"], EACH_WITHIN - Duration::from_secs(1));
    let problem = api.planned(body).await;
    assert!(problem.detail.contains("burn"), "{problem:?}");
    assert!(begun.elapsed() > 2 * EACH_WITHIN);
}
