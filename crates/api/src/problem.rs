//! Errors as data: problem details (RFC 9457), and one table of the kinds of errors.

use ioward_model::{Reason, Way};
use serde::{Deserialize, Serialize};

/// The media type of [`Problem`] (RFC 9457 §6.1).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The body of every answer that is not a success: problem details (RFC 9457 §3), with the error itself as a member of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:ioward:problem:KIND`.
    #[serde(rename = "type")]
    pub about: String,
    /// The kind in words, the same for each error of it.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The error's message.
    pub detail: String,
    /// The error.
    pub error: ApiError,
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self {
            about: format!("urn:ioward:problem:{}", error.kind.word()),
            title: error.kind.title().to_owned(),
            status: error.kind.status(),
            detail: error.message.clone(),
            error,
        }
    }
}

/// As much of a [`Problem`] as a client needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// An error, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct ApiError {
    /// The kind of error.
    pub kind: ErrorKind,
    /// The failure, its place, its cause, and what to do; without the reasons.
    pub message: String,
    /// The rules that are violated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// The relaxations that would make it possible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<Way>,
}

impl ApiError {
    /// An error without reasons.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), reasons: Vec::new(), ways: Vec::new() }
    }

    /// A refusal, with the relaxations that would lift it.
    #[must_use]
    pub fn refused(reasons: Vec<Reason>, ways: Vec<Way>) -> Self {
        let rules = if reasons.len() == 1 { "a rule is" } else { "rules are" };
        Self { kind: ErrorKind::Refused, message: format!("refused: {rules} not met"), reasons, ways }
    }
}

/// The kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request is invalid.
    Invalid,
    /// Policy, compatibility or disruption forbids it.
    Refused,
    /// Another change is being carried out.
    Busy,
    /// Not found.
    NotFound,
    /// It was tried and failed.
    Failed,
    /// The role of whoever asks does not suffice.
    Forbidden,
    /// What `If-Match` names has changed since.
    Precondition,
    /// The body is too long.
    TooLarge,
    /// The body's type is not one that is read.
    Unsupported,
    /// The route has no such method.
    Method,
    /// The body did not come in time.
    Timeout,
    /// `ioward ui`: the request has no session.
    Unauthorized,
    /// `ioward ui`: what is there is not in a form that the client takes.
    NotAcceptable,
    /// `ioward ui`: the daemon cannot be reached.
    Unreachable,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 14] = [
        Self::Invalid,
        Self::Refused,
        Self::Busy,
        Self::NotFound,
        Self::Failed,
        Self::Forbidden,
        Self::Precondition,
        Self::TooLarge,
        Self::Unsupported,
        Self::Method,
        Self::Timeout,
        Self::Unauthorized,
        Self::NotAcceptable,
        Self::Unreachable,
    ];

    /// The table: name in JSON, HTTP status, title, exit status of the command.
    const fn row(self) -> (&'static str, u16, &'static str, u8) {
        match self {
            Self::Invalid => ("invalid", 400, "Invalid request", 2),
            Self::Refused => ("refused", 409, "Refused", 3),
            Self::Busy => ("busy", 423, "Busy", 1),
            Self::NotFound => ("not-found", 404, "Not found", 1),
            Self::Failed => ("failed", 500, "Failed", 1),
            Self::Forbidden => ("forbidden", 403, "Forbidden", 1),
            Self::Precondition => ("precondition", 412, "Changed since", 1),
            Self::TooLarge => ("too-large", 413, "Too large", 2),
            Self::Unsupported => ("unsupported", 415, "Unsupported media type", 2),
            Self::Method => ("method", 405, "No such method", 2),
            Self::Timeout => ("timeout", 408, "Too slow", 1),
            Self::Unauthorized => ("unauthorized", 401, "No session", 1),
            Self::NotAcceptable => ("not-acceptable", 406, "Not acceptable", 2),
            Self::Unreachable => ("unreachable", 502, "The daemon cannot be reached", 1),
        }
    }

    /// Whether it is `ioward ui` that answers with it, and never the daemon.
    #[must_use]
    pub const fn is_of_the_page(self) -> bool {
        matches!(self, Self::Unauthorized | Self::NotAcceptable | Self::Unreachable)
    }

    /// The kind that is answered with an HTTP status; [`ErrorKind::Failed`] where there is none.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        Self::ALL.into_iter().find(|kind| kind.status() == status).unwrap_or(Self::Failed)
    }

    /// Its name in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that it is answered with.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// Its title.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    /// The exit status of the command.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        self.row().3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_status_of_its_own() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::of_status(kind.status()), kind);
        }
        assert_eq!(ErrorKind::of_status(418), ErrorKind::Failed);
    }
}
