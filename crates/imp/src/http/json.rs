//! JSON in and out.
//!
//! axum has this too, with a record of where in a value an error was; that is compiled once more for each type, 0.3 MB in all.
//! serde_json says line and column.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use ioward_api::ErrorKind;
use serde::{Serialize, de::DeserializeOwned};

use super::problem::Failure;

/// A body of JSON, in either direction.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        if !is_json(request.headers()) {
            let message = "the request needs the header 'Content-Type: application/json'";
            return Err(Failure::new(ErrorKind::Unsupported, message));
        }
        let body = Bytes::from_request(request, state).await?;
        let value = serde_json::from_slice(&body)
            .map_err(|error| Failure::invalid(format!("cannot read the body: {error}")))?;
        Ok(Self(value))
    }
}

/// Also with parameters (`; charset=utf-8`).
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
            }
            Err(error) => {
                Failure::new(ErrorKind::Failed, format!("cannot write the answer: {error}")).into_response()
            }
        }
    }
}
