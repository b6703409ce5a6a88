//! `ioward ui`: serves the page on loopback, and passes what the page asks for on to the daemon's socket, with the rights of
//! whoever runs it.
//!
//! ```text
//! a connection ──> peer: whose? ──> origin: the page's own? ──┬─> files: the page
//!                                                             ├─> session: the link that was printed, for a cookie
//!                                                             └─> pass: /v1 and /metrics, with the cookie
//! ```

mod answer;
mod files;
mod origin;
mod pass;
mod peer;
mod session;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use answer::{Body, guarded, problem};
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use session::{Secret, Session};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::{error::CliError, signals::Signals, terminal};

/// The most connections at once. A browser makes six; each has one more to the daemon.
const MAX_CONNECTIONS: usize = 200;
/// How long the head of a request may take, from the end of the one before.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// The largest request for a session, in bytes.
const MAX_TOKEN: usize = 1 << 10;
/// Before another connection is taken where the kernel had nothing left for one.
const AGAIN: Duration = Duration::from_millis(100);

/// Serves the page until Ctrl-C, or another signal.
///
/// # Errors
/// When it can't listen.
pub async fn ui(socket: &Path, port: Option<u16>) -> Result<(), CliError> {
    let mut signals = Signals::new().map_err(CliError::Start)?;
    let server = Server::new(port).await?;
    terminal::print(&server.told())?;
    tokio::select! {
        () = server.serve(socket) => {}
        _ = signals.next() => {}
    }
    Ok(())
}

/// The page's server, which listens.
pub struct Server {
    listener: TcpListener,
    page: Arc<Page>,
}

/// What all connections share.
struct Page {
    address: SocketAddrV4,
    users: Vec<u32>,
    session: Mutex<Session>,
}

impl Server {
    /// Listens on loopback, at this port or one that is free.
    ///
    /// # Errors
    /// When it can't.
    pub async fn new(port: Option<u16>) -> Result<Self, CliError> {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.unwrap_or(0));
        let failed = |source| CliError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let SocketAddr::V4(address) = listener.local_addr().map_err(failed)? else {
            return Err(failed(io::ErrorKind::AddrNotAvailable.into()));
        };
        let session = Session::new(address.port(), Instant::now()).map_err(CliError::Start)?;
        let page = Page { address, users: users(), session: Mutex::new(session) };
        Ok(Self { listener, page: Arc::new(page) })
    }

    /// The link, on a line of its own, and how to use it.
    #[must_use]
    pub fn told(&self) -> String {
        let Page { address, session, .. } = &*self.page;
        let session = session.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "http://{address}/#token={}\nOpen it in a browser within an hour: it is good once, for one browser. Ctrl-C ends this.\n",
            session.token()
        )
    }

    /// Serves without end what the daemon behind a socket has to say. Dropping it closes all connections.
    pub async fn serve(&self, socket: &Path) {
        let socket: Arc<Path> = socket.into();
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok((stream, SocketAddr::V4(peer))) = self.listener.accept().await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                refuse(&stream);
                continue;
            };
            let (page, socket) = (Arc::clone(&self.page), Arc::clone(&socket));
            connections.spawn(async move {
                if !page.is_users(peer).await {
                    return;
                }
                let service = service_fn(|request| async {
                    Ok::<_, Infallible>(guarded(page.answer(request, &socket).await))
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_WITHIN)
                    .max_buf_size(MAX_HEAD)
                    .serve_connection(TokioIo::new(stream), service);
                // Whoever broke off is not there to be told.
                let _ = served.await;
                drop(place);
            });
        }
    }
}

impl Page {
    /// Whether a connection is made by a program of whoever runs this, or of root.
    async fn is_users(&self, peer: SocketAddrV4) -> bool {
        let here = self.address;
        // The kernel goes through all its connections for that: nobody else waits meanwhile.
        let user = tokio::task::spawn_blocking(move || peer::user(here, peer)).await;
        matches!(user, Ok(Ok(Some(user))) if self.users.contains(&user))
    }

    async fn answer(&self, request: Request<Incoming>, socket: &Path) -> Response<Body> {
        if let Err(foreign) = origin::check(request.method(), request.headers(), self.address.port()) {
            return problem(StatusCode::FORBIDDEN, &foreign.to_string());
        }
        let path = request.uri().path();
        if path == "/session" {
            return self.begin(request).await;
        }
        if path == "/metrics" || path == "/v1" || path.starts_with("/v1/") {
            if !self.session().is_of(request.headers()) {
                let detail = "there is no session; open the link that ioward has printed";
                return problem(StatusCode::UNAUTHORIZED, detail);
            }
            return pass::pass(socket, request).await;
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return not_allowed("GET, HEAD");
        }
        files::answer(path, request.headers())
    }

    /// Gives a cookie for the token of the link.
    async fn begin(&self, request: Request<Incoming>) -> Response<Body> {
        #[derive(serde::Deserialize)]
        struct Asked {
            token: String,
        }

        if request.method() != Method::POST {
            return not_allowed("POST");
        }
        let Ok(body) = Limited::new(request.into_body(), MAX_TOKEN).collect().await else {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "a token is not so long");
        };
        let token = serde_json::from_slice(&body.to_bytes()).map_or(String::new(), |Asked { token }| token);
        let begun = Secret::new().map(|secret| self.session().begin(&token, secret, Instant::now()));
        let cookie = match begun {
            Ok(Ok(cookie)) => cookie.parse().ok(),
            Ok(Err(no)) => return problem(no.status(), &no.to_string()),
            Err(_) => None,
        };
        let Some(cookie) = cookie else {
            return problem(StatusCode::INTERNAL_SERVER_ERROR, "the kernel gives no random bytes");
        };
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
        answer
    }

    fn session(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose programs are answered: those of whoever runs this, also by sudo, and root's, who could be anybody.
fn users() -> Vec<u32> {
    let own = rustix::process::getuid();
    let by_sudo = std::env::var("SUDO_UID").ok().filter(|_| own.is_root()).and_then(|user| user.parse().ok());
    [Some(own.as_raw()), Some(0), by_sudo].into_iter().flatten().collect()
}

fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("this takes {allowed}"));
    answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    answer
}

/// Says that there are too many, as far as that fits: nobody is waited for.
fn refuse(stream: &TcpStream) {
    // Not by tokio, which does not know yet that it can be written to.
    let _ = rustix::io::write(
        stream,
        b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
    );
}
