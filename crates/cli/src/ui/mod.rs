//! `ioward ui`: serves the page, and passes what the page asks for on to the daemon's socket, with the rights of whoever runs it.
//!
//! ```text
//! on loopback:      peer: whose? ────────────────┐                             ┌─> files: the page
//!                                                ├─> origin: the page's own? ──┼─> session: the link that was printed, for a cookie
//! elsewhere: crowd ──> remote: a certificate? ───┘                             └─> pass: /v1 and /metrics, with cookie or certificate
//! ```

mod answer;
mod crowd;
mod files;
mod lines;
mod origin;
mod pass;
mod peer;
mod remote;
mod session;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use answer::{Body, guarded, problem};
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use ioward_tls::Files;
use origin::Named;
use remote::{Remote, Visitor};
use session::{Secret, Session};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{error::CliError, signals::Signals, terminal, tls_args::UiArgs};

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
/// The answer to a connection beyond the bound.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// Serves the page until Ctrl-C, or another signal.
///
/// # Errors
/// When it can't listen, or the certificates can't be used.
pub async fn ui(socket: &Path, args: UiArgs) -> Result<(), CliError> {
    let mut signals = Signals::new().map_err(CliError::Start)?;
    let server = match (args.listen, args.tls) {
        (None, _) => Server::local(loopback(args.port)).await?,
        (Some(address), Some(tls)) => {
            let files = Files { certificate: tls.tls_cert, key: tls.tls_key, ca: tls.client_ca };
            Server::remote(address, files, tls.client_name).await?
        }
        (Some(SocketAddr::V4(address)), None) if *address.ip() == Ipv4Addr::LOCALHOST => {
            Server::local(address).await?
        }
        (Some(address), None) => return Err(CliError::Usage(unsafe_at(address))),
    };
    terminal::print(&server.told())?;
    tokio::select! {
        () = server.serve(socket) => {}
        _ = signals.next() => {}
    }
    Ok(())
}

/// Where the page of one's own is: this port, or one that is free.
#[must_use]
pub fn loopback(port: Option<u16>) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.unwrap_or(0))
}

fn unsafe_at(address: SocketAddr) -> String {
    format!(
        "others could get to {address} and read what goes there: without TLS, the page is at 127.0.0.1 alone. For users of other \
         machines, add --tls-cert FILE --tls-key FILE --client-ca FILE; for yourself, leave --listen out and go through \
         ssh -L (docs/ui.md says how to do either)"
    )
}

/// The page's server, which listens.
pub struct Server {
    listener: TcpListener,
    page: Arc<Page>,
}

/// What all connections share.
struct Page {
    address: SocketAddr,
    guard: Guard,
}

/// Who is answered.
enum Guard {
    /// On loopback: programs of these users, with the cookie for the link.
    Local { address: SocketAddrV4, users: Vec<u32>, session: Mutex<Session> },
    /// Elsewhere: whoever shows a certificate.
    Remote(Arc<Remote>),
}

/// Who has connected, and may be answered.
enum Caller {
    Local,
    Remote(Visitor),
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Server {
    /// Listens on loopback, for whoever runs this.
    ///
    /// # Errors
    /// When it can't.
    pub async fn local(address: SocketAddrV4) -> Result<Self, CliError> {
        let (listener, bound) = listen(address.into()).await?;
        let address = SocketAddrV4::new(*address.ip(), bound.port());
        let session = Session::new(address.port(), Instant::now()).map_err(CliError::Start)?;
        let guard = Guard::Local { address, users: users(), session: Mutex::new(session) };
        Ok(Self { listener, page: Arc::new(Page { address: bound, guard }) })
    }

    /// Listens anywhere, for whoever shows a certificate with one of these names, or with any where there are none.
    ///
    /// # Errors
    /// When it can't, or the files can't be used.
    async fn remote(address: SocketAddr, files: Files, names: Vec<String>) -> Result<Self, CliError> {
        let certificate = files.certificate.clone();
        let remote = Remote::new(files, names)?;
        let tls = remote.tls();
        // Which addresses lead to one that is not specified is not known here.
        let ip = address.ip();
        if tls.names().is_empty() && !ip.is_unspecified() && !tls.is_for(&ip.to_string()) {
            return Err(CliError::Nameless { certificate, ip });
        }
        let (listener, address) = listen(address).await?;
        Ok(Self { listener, page: Arc::new(Page { address, guard: Guard::Remote(Arc::new(remote)) }) })
    }

    /// The link, on a line of its own, and how to use it.
    #[must_use]
    pub fn told(&self) -> String {
        let address = self.page.address;
        match &self.page.guard {
            Guard::Local { session, .. } => format!(
                "http://{address}/#token={}\nOpen it in a browser within an hour: it is good once, for one browser. Ctrl-C ends this.\n",
                locked(session).token()
            ),
            Guard::Remote(remote) => {
                let user = rustix::process::getuid();
                let user = if user.is_root() { "root".to_owned() } else { format!("user {}", user.as_raw()) };
                let names = remote.tls().names();
                let link = match names.iter().find(|name| !name.starts_with('*')) {
                    Some(name) => format!("https://{name}:{}/", address.port()),
                    None => format!("https://{address}/"),
                };
                format!("{link}\n{} may do here what {user} may do. Ctrl-C ends this.\n", remote.whose())
            }
        }
    }

    /// Serves without end what the daemon behind a socket has to say. Dropping it closes all connections.
    pub async fn serve(&self, socket: &Path) {
        let socket: Arc<Path> = socket.into();
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok((stream, peer)) = self.listener.accept().await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            let (page, socket, room) = (Arc::clone(&self.page), Arc::clone(&socket), Arc::clone(&room));
            match &self.page.guard {
                Guard::Local { .. } => {
                    let Ok(place) = room.try_acquire_owned() else {
                        refuse(&stream);
                        continue;
                    };
                    connections.spawn(async move {
                        if page.is_users(peer).await {
                            page.talk(Box::new(stream), &Caller::Local, &socket).await;
                        }
                        drop(place);
                    });
                }
                Guard::Remote(remote) => {
                    let address = peer.ip().to_canonical();
                    let Some(place) = remote.crowd.enter(address) else { continue };
                    let remote = Arc::clone(remote);
                    connections.spawn(async move {
                        let accepted = remote.accept(stream, address).await;
                        drop(place);
                        match accepted {
                            Ok((stream, visitor)) => {
                                page.receive(Box::new(stream), visitor, room, &socket).await;
                            }
                            Err(why) => remote.tell(address, &why),
                        }
                    });
                }
            }
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), CliError> {
    let failed = |source: io::Error| CliError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

impl Page {
    /// Whether a connection is made by a program of whoever runs this, or of root.
    async fn is_users(&self, peer: SocketAddr) -> bool {
        let (Guard::Local { address, users, .. }, SocketAddr::V4(peer)) = (&self.guard, peer) else {
            return false;
        };
        let here = *address;
        // The kernel goes through all its connections for that: nobody else waits meanwhile.
        let user = tokio::task::spawn_blocking(move || peer::user(here, peer)).await;
        matches!(user, Ok(Ok(Some(user))) if users.contains(&user))
    }

    /// Answers somebody who has shown a certificate, as far as there is room.
    async fn receive(
        &self,
        mut stream: Box<dyn Stream>,
        visitor: Visitor,
        room: Arc<Semaphore>,
        socket: &Path,
    ) {
        if let Ok(_place) = room.try_acquire_owned() {
            return self.talk(stream, &Caller::Remote(visitor), socket).await;
        }
        let told = async {
            let _ = stream.write_all(BUSY).await;
            let _ = stream.shutdown().await;
        };
        let _ = timeout(HEAD_WITHIN, told).await;
    }

    /// Answers the requests of a connection.
    async fn talk(&self, stream: Box<dyn Stream>, caller: &Caller, socket: &Path) {
        let service = service_fn(|request| async {
            Ok::<_, Infallible>(guarded(self.answer(request, caller, socket).await))
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        // Whoever broke off is not there to be told.
        let _ = served.await;
    }

    async fn answer(&self, request: Request<Incoming>, caller: &Caller, socket: &Path) -> Response<Body> {
        let named = match caller {
            Caller::Local => Named::Loopback(self.address.port()),
            Caller::Remote(visitor) => Named::Certificate(&visitor.tls),
        };
        if let Err(foreign) = origin::check(request.method(), request.headers(), named) {
            return problem(StatusCode::FORBIDDEN, &foreign.to_string());
        }
        if let (Guard::Remote(remote), Caller::Remote(visitor)) = (&self.guard, caller) {
            if !visitor.is_let_in {
                let detail =
                    "this certificate has no name that is let in here (subjectAltName, DNS; --client-name)";
                return problem(StatusCode::FORBIDDEN, detail);
            }
            remote.tell_change(visitor, &request);
        }
        let path = request.uri().path();
        if path == "/session" {
            return self.begin(request).await;
        }
        if path == "/metrics" || path == "/v1" || path.starts_with("/v1/") {
            if let Guard::Local { session, .. } = &self.guard
                && !locked(session).is_of(request.headers())
            {
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

        let Guard::Local { session, .. } = &self.guard else {
            return problem(
                StatusCode::NOT_FOUND,
                "there are no sessions here: your certificate is what counts",
            );
        };
        if request.method() != Method::POST {
            return not_allowed("POST");
        }
        let Ok(body) = Limited::new(request.into_body(), MAX_TOKEN).collect().await else {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "a token is not so long");
        };
        let token = serde_json::from_slice(&body.to_bytes()).map_or(String::new(), |Asked { token }| token);
        let begun = Secret::new().map(|secret| locked(session).begin(&token, secret, Instant::now()));
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
}

fn locked(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
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
    let _ = rustix::io::write(stream, BUSY);
}
