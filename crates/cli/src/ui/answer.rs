//! Answers: their bodies, problems in words, and the headers that all of them have.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{
    Response, StatusCode,
    body::{Bytes, Frame, Incoming, SizeHint},
    header::{self, HeaderName, HeaderValue},
};
use ioward_api::{ApiError, ErrorKind, PROBLEM_JSON, Problem};

use super::pass::Upstream;

/// The body of an answer.
pub enum Body {
    /// All of it, until it is sent.
    Whole(Option<Bytes>),
    /// What the daemon sends, as it comes.
    Passed {
        /// The daemon's.
        body: Incoming,
        /// The connection that it comes through, which ends with it.
        _upstream: Upstream,
    },
}

impl Body {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::Whole(None)
    }

    /// All of it at once.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passed { body, .. } => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Passed { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passed { body, .. } => body.size_hint(),
        }
    }
}

/// A "no" of this process's own, as the API says one (RFC 9457). The status is one of [`ErrorKind`]'s.
#[must_use]
pub fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let kind = ErrorKind::of_status(status.as_u16());
    let body = serde_json::to_vec(&Problem::from(ApiError::new(kind, detail))).unwrap_or_default();
    let mut answer = Response::new(Body::whole(body.into()));
    *answer.status_mut() = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if kind == ErrorKind::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Cookie realm=\"ioward\""));
    }
    answer
}

/// What a browser may do with whatever comes from here: nothing but show it, as this page.
const GUARDS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// With the headers that all answers have. What the API says of the same is replaced.
#[must_use]
pub fn guarded(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers_mut();
    for (name, value) in GUARDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What has a tag may be kept, and is asked about each time.
    let kept = if headers.contains_key(header::ETAG) { "no-cache" } else { "no-store" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_no_of_the_page_s_server_is_of_a_kind_of_the_table() {
        for status in [400, 401, 403, 404, 405, 406, 413, 500, 502] {
            let answer = problem(StatusCode::from_u16(status).unwrap(), "why");
            assert_eq!(answer.status().as_u16(), status);
            let Body::Whole(Some(body)) = answer.into_body() else { panic!("{status}: no body") };
            let problem: Problem = serde_json::from_slice(&body).unwrap();
            assert_eq!((problem.status, &*problem.detail), (status, "why"));
        }
    }
}
