//! Errors on their way out: what an error of the IMP, or of a request that can't be read, is answered with.

use axum::{
    extract::rejection::{BytesRejection, PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ioward_api::{ApiError, ErrorKind, PROBLEM_JSON, Problem};

use super::{body, json::Json};
use crate::error::ImpError;

/// An error on its way out.
#[derive(Debug)]
pub(super) struct Failure(pub(super) ApiError);

impl From<ImpError> for Failure {
    fn from(error: ImpError) -> Self {
        Self(error.into())
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Self {
        if body::is_too_slow(&rejection) {
            return Self::new(ErrorKind::Timeout, body::TooSlow.to_string());
        }
        let is_too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(if is_too_large { ErrorKind::TooLarge } else { ErrorKind::Invalid }, rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(ApiError::new(kind, message))
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let is_half_read = self.0.kind == ErrorKind::Timeout;
        let mut response = (status, Json(Problem::from(self.0))).into_response();
        if is_half_read {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

pub(super) async fn no_such_route() -> Failure {
    Failure::new(ErrorKind::NotFound, "there is no such route; docs/api.md lists those there are")
}

/// The methods that there are go with it, in `Allow`.
pub(super) async fn no_such_method() -> Failure {
    let message = "this route has no such method; Allow says which it has, and docs/api.md what they do";
    Failure::new(ErrorKind::Method, message)
}
