//! Where a daemon is: behind a Unix socket of this host, or behind `ioward ui --listen` of another one, by mutual TLS.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::{header, http::request};
use ioward_tls::{Client as Tls, Files};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{
    TlsConnector,
    rustls::pki_types::{ServerName, UnixTime},
};

use crate::error::CliError;

/// The port of a daemon's URL that names none: that of docs/ui.md.
const PORT: u16 = 4443;

/// What a connection to a daemon is.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where a daemon is.
#[derive(Clone)]
pub enum Daemon {
    /// Behind this socket.
    Socket(PathBuf),
    /// At another host.
    Remote(Arc<Remote>),
}

/// A daemon of another host.
pub struct Remote {
    name: String,
    port: u16,
    server: ServerName<'static>,
    tls: TlsConnector,
}

impl Daemon {
    /// Behind this socket.
    #[must_use]
    pub fn behind(socket: &Path) -> Self {
        Self::Socket(socket.to_owned())
    }

    /// At an `https://HOST[:PORT]`, to which the certificate of these files is shown.
    ///
    /// # Errors
    /// When it is none, or the files can't be used.
    pub fn at(url: &str, files: &Files) -> Result<Self, CliError> {
        let wrong = || CliError::Usage(format!("{url}: another host's daemon is named as https://HOST:PORT"));
        let authority = url.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let authority: hyper::http::uri::Authority =
            authority.and_then(|it| it.parse().ok()).ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        let server = ServerName::try_from(bare.to_owned()).map_err(|_| wrong())?;
        let port = authority.port_u16().unwrap_or(PORT);
        let tls = TlsConnector::from(Tls::read(files, UnixTime::now())?.config());
        Ok(Self::Remote(Arc::new(Remote { name: host.to_owned(), port, server, tls })))
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there, or either side does not take the other's certificate.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Remote(remote) => {
                let bare = remote.name.trim_matches(['[', ']']);
                let stream = TcpStream::connect((bare, remote.port)).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(remote.tls.connect(remote.server.clone(), stream).await?))
            }
        }
    }

    /// Adds what says whom a request is for, and that it comes from no page of somebody else's.
    #[must_use]
    pub fn named_in(&self, request: request::Builder) -> request::Builder {
        match self {
            Self::Socket(_) => request.header(header::HOST, "ioward"),
            Self::Remote(remote) => {
                let host = format!("{}:{}", remote.name, remote.port);
                request.header(header::ORIGIN, format!("https://{host}")).header(header::HOST, host)
            }
        }
    }

    /// What whoever can't reach it may do about it.
    #[must_use]
    pub fn remedy(&self, error: &io::Error) -> &'static str {
        match (self, error.kind()) {
            (Self::Socket(_), io::ErrorKind::PermissionDenied) => {
                "the socket, or a folder above it, is closed to this user: use sudo"
            }
            (Self::Socket(_), _) => "start it with: ioward serve",
            (Self::Remote(_), io::ErrorKind::InvalidData) => {
                "each side has to have the CA of the other one's certificate"
            }
            (Self::Remote(_), _) => "have it listen there with: ioward ui --listen",
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Remote(remote) => write!(f, "https://{}:{}", remote.name, remote.port),
        }
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Daemon({self})")
    }
}
