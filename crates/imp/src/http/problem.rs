//! Errors on their way out: what an error of the IMP, or of a request that can't be read, is answered with.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ioward_api::{ApiError, ErrorBody, ErrorKind};

use crate::error::ImpError;

/// An error on its way out.
pub(super) struct Failure(pub(super) ApiError);

impl From<ImpError> for Failure {
    fn from(error: ImpError) -> Self {
        Self(error.into())
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl Failure {
    pub(super) fn invalid(message: String) -> Self {
        Self(ApiError::new(ErrorKind::Invalid, message))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Refused => StatusCode::CONFLICT,
            ErrorKind::Busy => StatusCode::LOCKED,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorBody { error: self.0 })).into_response()
    }
}

pub(super) async fn no_such_route() -> Failure {
    let message = "there is no such route; docs/api.md lists those there are".to_owned();
    Failure(ApiError::new(ErrorKind::NotFound, message))
}
