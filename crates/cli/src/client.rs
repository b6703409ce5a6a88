//! The API of a daemon: HTTP/1.1 that carries JSON, or one JSON object a line.
//!
//! Whoever listens may be anybody: every answer is bounded before it is read, and checked before it is used.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, body::Bytes, body::Incoming, client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use ioward_api::ErrorBody;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    daemon::Daemon,
    error::{CliError, plain},
};

/// The largest answer that is one document, in bytes: some 400 for each of 64,000 VFs, twice over.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The largest line of an answer that is a stream, in bytes.
const MAX_LINE_BYTES: usize = 1 << 20;
/// How long a daemon may take to begin its answer. A stuck sysfs write is reported by the daemon itself long before.
const PATIENCE: Duration = Duration::from_secs(120);

/// The media type of what most requests send.
const JSON: &str = "application/json";

/// Why the API could not be used. What the API itself refuses is an [`ioward_api::ApiError`].
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("cannot reach the daemon at {daemon}: {}; {}", plain(.source), .daemon.remedy(.source))]
    Unreachable {
        /// Where it is.
        daemon: Daemon,
        /// Why.
        source: io::Error,
    },
    /// The connection ended, or what came through it is no HTTP.
    #[error("the daemon at {daemon} broke off: {source}; is it ioward that listens there? See its log")]
    BrokenOff {
        /// Where it is.
        daemon: Daemon,
        /// Why.
        source: hyper::Error,
    },
    /// No answer in time.
    #[error("the daemon at {daemon} has not answered {route} within {} s; see its log", PATIENCE.as_secs())]
    Silent {
        /// Where it is.
        daemon: Daemon,
        /// The request.
        route: String,
    },
    /// An answer beyond all bounds.
    #[error(
        "the answer to {route} has {what} of more than {limit} bytes; is it ioward that listens at {daemon}?"
    )]
    TooLarge {
        /// Where it is.
        daemon: Daemon,
        /// The request.
        route: String,
        /// "a body", "a line".
        what: &'static str,
        /// Bytes.
        limit: usize,
    },
    /// An answer of the wrong form.
    #[error(
        "the answer to {route} makes no sense: {why}; are this command and the daemon of the same version?"
    )]
    Nonsense {
        /// The request.
        route: String,
        /// The problem.
        why: String,
    },
    /// An error that says nothing.
    #[error(
        "the daemon answered {status} to {route} without saying why; are this command and the daemon of the same version?"
    )]
    Unexplained {
        /// The request.
        route: String,
        /// HTTP status.
        status: StatusCode,
    },
    /// A stream of events that ends too early.
    #[error(
        "the daemon broke off before the plan was done; 'ioward events' and its log say what became of it"
    )]
    Unfinished,
}

impl ClientError {
    /// Whether a daemon that starts anew would put it right.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
            }
            Self::BrokenOff { .. } | Self::Silent { .. } => true,
            _ => false,
        }
    }
}

/// A daemon that is asked.
#[derive(Debug)]
pub struct Client {
    daemon: Daemon,
}

impl Client {
    /// The daemon behind this socket. Nothing is opened before something is asked for.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self::of(Daemon::behind(socket))
    }

    /// The daemon that is there.
    #[must_use]
    pub fn of(daemon: Daemon) -> Self {
        Self { daemon }
    }

    /// Where it is.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// `GET`s one value.
    ///
    /// # Errors
    /// When the daemon can't be reached, says no, or answers nonsense.
    pub async fn get<T: DeserializeOwned>(&self, route: &str) -> Result<T, CliError> {
        self.answer(Method::GET, route, JSON, Vec::new()).await?.document().await
    }

    /// `POST`s one value for another.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post<T: DeserializeOwned>(&self, route: &str, body: &impl Serialize) -> Result<T, CliError> {
        self.answer(Method::POST, route, JSON, json(body)?).await?.document().await
    }

    /// `DELETE`s something, for what is left of it.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete<T: DeserializeOwned>(&self, route: &str) -> Result<T, CliError> {
        self.answer(Method::DELETE, route, JSON, Vec::new()).await?.document().await
    }

    /// `POST`s bytes that are not JSON, where the answer has nothing to say.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post_bytes(&self, route: &str, bytes: &[u8]) -> Result<(), CliError> {
        self.answer(Method::POST, route, "application/octet-stream", bytes.to_vec()).await.map(drop)
    }

    /// `GET`s a stream of lines, or of bytes.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_lines(&self, route: &str) -> Result<Lines, CliError> {
        Ok(self.answer(Method::GET, route, JSON, Vec::new()).await?.lines())
    }

    /// `POST`s one value for a stream of lines.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post_lines(&self, route: &str, body: &impl Serialize) -> Result<Lines, CliError> {
        Ok(self.answer(Method::POST, route, JSON, json(body)?).await?.lines())
    }

    /// `POST`s what comes as a stream of bytes, as it comes. Whoever asks has the future, and may have it carried out beside other things.
    pub fn post_stream(
        &self,
        route: &str,
        bytes: Lines,
    ) -> impl Future<Output = Result<(), ClientError>> + Send + use<> {
        let (daemon, route) = (self.daemon.clone(), route.to_owned());
        async move {
            let broken_off = |source| ClientError::BrokenOff { daemon: daemon.clone(), source };
            let stream = daemon
                .connect()
                .await
                .map_err(|source| ClientError::Unreachable { daemon: daemon.clone(), source })?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(broken_off)?;
            tokio::spawn(connection);
            let request = daemon
                .named_in(Request::builder().method(Method::POST).uri(&route))
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .body(bytes.body)
                .map_err(|e| ClientError::Nonsense { route: route.clone(), why: e.to_string() })?;
            let status = sender.send_request(request).await.map_err(broken_off)?.status();
            if status.is_success() { Ok(()) } else { Err(ClientError::Unexplained { route, status }) }
        }
    }

    /// The beginning of a successful answer.
    async fn answer(
        &self,
        method: Method,
        route: &str,
        media_type: &str,
        body: Vec<u8>,
    ) -> Result<Answer, CliError> {
        let name = format!("{method} {route}");
        let broken_off = |source| ClientError::BrokenOff { daemon: self.daemon.clone(), source };
        let exchange = async {
            let stream = self
                .daemon
                .connect()
                .await
                .map_err(|source| ClientError::Unreachable { daemon: self.daemon.clone(), source })?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(broken_off)?;
            // It ends with the exchange; what goes wrong with it shows on this side of it too.
            tokio::spawn(connection);
            let request = self
                .daemon
                .named_in(Request::builder().method(method).uri(route))
                .header(header::CONTENT_TYPE, media_type)
                // Whoever types a command wants to see what they did a moment ago, by whatever means (docs/api.md).
                .header(header::CACHE_CONTROL, "no-cache")
                .body(Full::new(Bytes::from(body)))
                .map_err(|e| ClientError::Nonsense { route: name.clone(), why: e.to_string() })?;
            sender.send_request(request).await.map_err(broken_off)
        };
        let silent = || ClientError::Silent { daemon: self.daemon.clone(), route: name.clone() };
        let response = tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| silent())??;
        let status = response.status();
        let answer = Answer { daemon: self.daemon.clone(), route: name, response };
        if status.is_success() { Ok(answer) } else { Err(answer.refusal().await) }
    }
}

fn json(body: &impl Serialize) -> Result<Vec<u8>, CliError> {
    serde_json::to_vec(body).map_err(|e| CliError::Usage(format!("this cannot be sent to the daemon: {e}")))
}

/// An answer of which only the head has been read.
struct Answer {
    daemon: Daemon,
    route: String,
    response: Response<Incoming>,
}

impl Answer {
    async fn document<T: DeserializeOwned>(self) -> Result<T, CliError> {
        let route = self.route.clone();
        let body = self.bytes().await?;
        serde_json::from_slice(&body).map_err(|e| ClientError::Nonsense { route, why: e.to_string() }.into())
    }

    async fn refusal(self) -> CliError {
        let (route, status) = (self.route.clone(), self.response.status());
        match self.bytes().await.map(|body| serde_json::from_slice::<ErrorBody>(&body)) {
            Ok(Ok(body)) => body.error.into(),
            Ok(Err(_)) => ClientError::Unexplained { route, status }.into(),
            Err(error) => error.into(),
        }
    }

    async fn bytes(self) -> Result<Vec<u8>, ClientError> {
        let (mut lines, mut bytes) = (self.lines(), Vec::new());
        while let Some(chunk) = lines.chunk().await? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(lines.too_large("a body", MAX_ANSWER_BYTES));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn lines(self) -> Lines {
        let (head, body) = self.response.into_parts();
        Lines { daemon: self.daemon, route: self.route, headers: head.headers, body, rest: Vec::new() }
    }
}

/// A stream of JSON objects, one a line; or of bytes. Dropping it closes the connection.
pub struct Lines {
    daemon: Daemon,
    route: String,
    headers: HeaderMap,
    body: Incoming,
    /// Bytes that have come and are not used yet.
    rest: Vec<u8>,
}

impl Lines {
    /// A number that the answer has as a header of this name.
    #[must_use]
    pub fn number(&self, header: &str) -> Option<u64> {
        self.headers.get(header)?.to_str().ok()?.parse().ok()
    }

    /// The next object: its text and its value. `None` at the end.
    ///
    /// # Errors
    /// When the daemon breaks off or sends nonsense.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(String, T)>, ClientError> {
        let mut searched = 0;
        let line = loop {
            if let Some(end) = self.rest[searched..].iter().position(|byte| *byte == b'\n') {
                let after = self.rest.split_off(searched + end + 1);
                break std::mem::replace(&mut self.rest, after);
            }
            if self.rest.len() > MAX_LINE_BYTES {
                return Err(self.too_large("a line", MAX_LINE_BYTES));
            }
            searched = self.rest.len();
            match self.chunk().await? {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None if self.rest.is_empty() => return Ok(None),
                None => break std::mem::take(&mut self.rest),
            }
        };
        let nonsense = |why: String| ClientError::Nonsense { route: self.route.clone(), why };
        let text = str::from_utf8(line.trim_ascii()).map_err(|e| nonsense(e.to_string()))?;
        let value = serde_json::from_str(text).map_err(|e| nonsense(e.to_string()))?;
        Ok(Some((text.to_owned(), value)))
    }

    /// The next bytes as they come, for what has no lines. `None` at the end.
    ///
    /// # Errors
    /// When the daemon breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame =
                frame.map_err(|source| ClientError::BrokenOff { daemon: self.daemon.clone(), source })?;
            // Trailers are of no use here.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    fn too_large(&self, what: &'static str, limit: usize) -> ClientError {
        ClientError::TooLarge { daemon: self.daemon.clone(), route: self.route.clone(), what, limit }
    }
}
