//! Requests that are passed on to the daemon, over a connection of their own that ends with them: whoever vanishes here has
//! vanished there.

use std::{error::Error, path::Path};

use http_body_util::{LengthLimitError, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    client::conn::http1,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, task::AbortHandle};

use super::answer::{Body, problem};
use crate::{client::ClientError, daemon::Daemon, error::with_causes};

/// The largest body that is passed on, in bytes: as much as the daemon reads.
const MAX_BODY: usize = 16 << 20;

/// What a connection says of itself, and what is between the browser and this process.
const OWN: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::HOST,
    header::COOKIE,
];

/// A connection to the daemon; dropping it closes it.
pub struct Upstream(AbortHandle);

impl Drop for Upstream {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The daemon's answer, or why there is none.
pub async fn pass(socket: &Path, request: Request<Incoming>) -> Response<Body> {
    if request.body().size_hint().lower() > bound_of(&request) as u64 {
        return too_large();
    }
    match exchange(socket, request).await {
        Ok(answer) => answer,
        Err(error) => match &error {
            ClientError::BrokenOff { source, .. } if is_of_length(source) => too_large(),
            _ => problem(StatusCode::BAD_GATEWAY, &with_causes(&error)),
        },
    }
}

/// The largest body of a request. The state of a machine is as large as its memory: the daemon takes it in as it comes, and only where a
/// machine waits for it.
fn bound_of<B>(request: &Request<B>) -> usize {
    let path = request.uri().path();
    let is_state = path.strip_prefix("/v1/moves/").is_some_and(|rest| rest.ends_with("/state"));
    if is_state { usize::MAX } else { MAX_BODY }
}

async fn exchange(socket: &Path, request: Request<Incoming>) -> Result<Response<Body>, ClientError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::Unreachable { daemon: Daemon::behind(socket), source })?;
    let broken_off = |source| ClientError::BrokenOff { daemon: Daemon::behind(socket), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken_off)?;
    let upstream = Upstream(tokio::spawn(connection).abort_handle());

    let bound = bound_of(&request);
    let (mut head, body) = request.into_parts();
    without_own(&mut head.headers);
    head.headers.insert(header::HOST, HeaderValue::from_static("ioward"));
    let request = Request::from_parts(head, Limited::new(body, bound));
    let answer = sender.send_request(request).await.map_err(broken_off)?;

    let (mut head, body) = answer.into_parts();
    without_own(&mut head.headers);
    // The daemon has no session to give.
    head.headers.remove(header::SET_COOKIE);
    Ok(Response::from_parts(head, Body::Passed { body, _upstream: upstream }))
}

fn without_own(headers: &mut HeaderMap) {
    for name in OWN {
        headers.remove(name);
    }
}

fn is_of_length(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn too_large() -> Response<Body> {
    problem(StatusCode::PAYLOAD_TOO_LARGE, "a request may have a body of 16 MiB at most")
}
