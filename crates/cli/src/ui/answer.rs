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
use serde_json::json;

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

/// A "no" of this process's own, as the API says one (RFC 9457).
#[must_use]
pub fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let (kind, title) = match status {
        StatusCode::BAD_REQUEST => ("invalid", "Invalid"),
        StatusCode::UNAUTHORIZED => ("unauthorized", "No session"),
        StatusCode::FORBIDDEN => ("forbidden", "Forbidden"),
        StatusCode::NOT_FOUND => ("not-found", "Not found"),
        StatusCode::METHOD_NOT_ALLOWED => ("method", "Method not allowed"),
        StatusCode::NOT_ACCEPTABLE => ("unsupported", "Not acceptable"),
        StatusCode::PAYLOAD_TOO_LARGE => ("too-large", "Too large"),
        StatusCode::BAD_GATEWAY => ("unreachable", "The daemon cannot be reached"),
        StatusCode::SERVICE_UNAVAILABLE => ("busy", "Too many connections"),
        _ => ("failed", "Failed"),
    };
    let body = json!({
        "type": format!("urn:ioward:problem:{kind}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "error": {"kind": kind, "message": detail},
    });
    let mut answer = Response::new(Body::whole(body.to_string().into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::UNAUTHORIZED {
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
