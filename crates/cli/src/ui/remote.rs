//! Users of other machines: whoever connects shows a certificate first, within a time, or is let go of.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper::{Method, Request};
use ioward_tls::{Files, Server as Tls, Stamp, TlsError, dns_names};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::pki_types::UnixTime, server::TlsStream};

use super::{crowd::Crowd, lines::Lines};
use crate::error::with_causes;

/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long somebody who is refused may take to read why.
const LINGER: Duration = Duration::from_secs(1);
/// At least between two lines about somebody who was not let in.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// The first byte of a connection over TLS: a record of the handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// How long nothing may come before the other end is asked whether it is there, and how often after that, how many times.
const IDLE: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
/// The most of a path that is told.
const MAX_TOLD: usize = 200;

/// Who is let in, and how.
pub struct Remote {
    files: Files,
    /// Those that a certificate has to have one of; none: each that a CA signed is let in.
    names: Vec<String>,
    read: Mutex<Read>,
    /// Who has shown no certificate yet.
    pub crowd: Arc<Crowd>,
    lines: Lines,
    told: Mutex<Option<Instant>>,
}

/// What was read of the files, and how they looked then, even if that could not be used.
struct Read {
    tls: Tls,
    seen: Stamp,
}

/// Somebody who has shown a certificate that one of the CAs signed.
pub struct Visitor {
    /// What this process has shown.
    pub tls: Tls,
    /// A name of the certificate, where it has any.
    pub name: Option<String>,
    /// Whether the certificate has one of the names that are let in.
    pub is_let_in: bool,
    address: IpAddr,
}

/// Why somebody was not let in.
#[derive(Debug, thiserror::Error)]
pub enum NotLetIn {
    /// Too slow.
    #[error("no certificate within {} seconds", HANDSHAKE_WITHIN.as_secs())]
    Slow,
    /// Not TLS.
    #[error("it does not speak TLS")]
    Plain,
    /// No certificate, or another's.
    #[error(transparent)]
    Handshake(#[from] io::Error),
}

impl Remote {
    /// Reads the files.
    ///
    /// # Errors
    /// When they can't be used.
    pub fn new(files: Files, names: Vec<String>) -> Result<Self, TlsError> {
        let seen = files.stamp();
        let read = Mutex::new(Read { tls: Tls::read(&files, UnixTime::now())?, seen });
        Ok(Self { files, names, read, crowd: Arc::default(), lines: Lines::new(), told: Mutex::new(None) })
    }

    /// What was read last.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).tls.clone()
    }

    /// Whose certificates are taken, for people.
    #[must_use]
    pub fn whose(&self) -> String {
        let ca = self.files.ca.display();
        match self.names.as_slice() {
            [] => format!("Everyone with a certificate that is signed by a CA of {ca}"),
            names => format!("{}, by certificates that are signed by a CA of {ca},", names.join(", ")),
        }
    }

    /// What the files have now. Where they can't be used, what they had stays in use.
    fn current(&self) -> Tls {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.files.stamp();
        if seen != read.seen {
            match Tls::read(&self.files, UnixTime::now()) {
                Ok(tls) => {
                    read.tls = tls;
                    self.lines.tell("the certificates have changed, and were read anew".to_owned());
                }
                Err(error) => self.lines.tell(format!(
                    "the certificates have changed and can't be used: {}; those that were read before stay in use",
                    with_causes(&error)
                )),
            }
            read.seen = seen;
        }
        read.tls.clone()
    }

    /// Takes a connection, when it shows a certificate.
    ///
    /// # Errors
    /// When it does not. It was told why, as far as it listens.
    pub async fn accept(
        self: &Arc<Self>,
        stream: TcpStream,
        address: IpAddr,
    ) -> Result<(TlsStream<TcpStream>, Visitor), NotLetIn> {
        let shaken = timeout(HANDSHAKE_WITHIN, self.shake(stream, address)).await;
        shaken.unwrap_or(Err(NotLetIn::Slow))
    }

    async fn shake(
        self: &Arc<Self>,
        stream: TcpStream,
        address: IpAddr,
    ) -> Result<(TlsStream<TcpStream>, Visitor), NotLetIn> {
        keep_alive(&stream)?;
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
            refuse_plain(stream).await;
            return Err(NotLetIn::Plain);
        }
        // It looks at files.
        let remote = Arc::clone(self);
        let tls = tokio::task::spawn_blocking(move || remote.current()).await.map_err(io::Error::other)?;
        let stream = match TlsAcceptor::from(tls.config()).accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                linger(stream).await;
                return Err(error.into());
            }
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let mut names = certificate.map(dns_names).unwrap_or_default();
        let is_one = |name: &String| self.names.iter().any(|one| one.eq_ignore_ascii_case(name));
        let is_let_in = self.names.is_empty() || names.iter().any(is_one);
        let name = if names.is_empty() { None } else { Some(names.swap_remove(0)) };
        Ok((stream, Visitor { tls, name, is_let_in, address }))
    }

    /// Tells whoever runs this that somebody was not let in; not each, when there are many.
    pub fn tell(&self, address: IpAddr, why: &NotLetIn) {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY) {
            *told = Some(now);
            self.lines.tell(format!("{address} was not let in: {why}"));
        }
    }

    /// Tells what somebody asks for that may change something: to the daemon it is all one user.
    pub fn tell_change<B>(&self, visitor: &Visitor, request: &Request<B>) {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return;
        }
        let path = request.uri().path();
        let end = path.char_indices().nth(MAX_TOLD).map_or(path.len(), |(end, _)| end);
        let name = visitor.name.as_deref().unwrap_or("somebody without a name");
        self.lines.tell(format!("{name} ({}): {} {}", visitor.address, request.method(), &path[..end]));
    }
}

/// A machine that has vanished is found out about.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

/// Tells a browser that was given http:// where https:// is meant.
async fn refuse_plain(mut stream: TcpStream) {
    let words =
        "This port speaks HTTPS only, with a certificate of yours: the address begins with https://\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{words}",
        words.len()
    );
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        linger(stream).await;
    }
}

/// Reads on for a while before the connection goes: where something was not read, the kernel resets the connection, and what was said
/// last may be lost.
async fn linger(mut stream: TcpStream) {
    let mut part = [0; 1024];
    let _ = stream.shutdown().await;
    let rest = async { while let Ok(1..) = stream.read(&mut part).await {} };
    let _ = timeout(LINGER, rest).await;
}
