//! Frames over a Unix stream socket: a length of four bytes, little-endian, then so many bytes: a message as JSON, and behind the
//! answer to a call the operation's result, as JSON too. A descriptor goes with the first byte of its frame (unix(7), SCM_RIGHTS).
//!
//! The reader of the hypervisor side takes what a hostile peer sends: lengths are bounded before anything is kept, descriptors
//! that nobody asked for are closed.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    sync::Arc,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixStream};

use crate::protocol::{Hello, ToImp};

/// The longest frame that the hypervisor side takes. A partition's definition is a few KiB.
pub const MAX_FROM_IMP: usize = 1 << 20;
/// The longest frame that the management partition takes: the inventory of a host with tens of thousands of VFs.
pub const MAX_FROM_HOST: usize = 256 << 20;
/// Bytes of a frame's length.
const HEAD: usize = 4;
/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// Descriptors that are taken with one read.
const FDS: usize = 4;
/// Descriptors that may wait for their frame.
const MAX_WAITING: usize = 16;

/// Why nothing more can go through a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket said no.
    #[error("the socket between the two sides of ioward failed")]
    Io(#[from] io::Error),
    /// The other side sends more than it may.
    #[error("a frame of {0} bytes, which is too long")]
    TooLong(usize),
    /// The other side sends what makes no sense.
    #[error("a frame that makes no sense: {0}")]
    Nonsense(String),
}

/// A frame as it is read.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<T> {
    /// Its message.
    pub message: T,
    /// The JSON behind the message; empty where there is none.
    pub value: Vec<u8>,
}

/// Takes frames out of a stream of bytes.
#[derive(Debug)]
pub struct Decoder {
    bytes: Vec<u8>,
    max: usize,
    takes_values: bool,
}

impl Decoder {
    /// Of the management partition: takes long frames, with a value behind the message.
    #[must_use]
    pub fn of_imp() -> Self {
        Self { bytes: Vec::new(), max: MAX_FROM_HOST, takes_values: true }
    }

    /// Of the hypervisor side: takes short frames, with a message and nothing else.
    #[must_use]
    pub fn of_host() -> Self {
        Self { bytes: Vec::new(), max: MAX_FROM_IMP, takes_values: false }
    }

    /// More of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, once all of it is there.
    ///
    /// # Errors
    /// When what is there is no frame; nothing more can be read then.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<Received<T>>, LinkError> {
        let Some(length) = announced(&self.bytes) else { return Ok(None) };
        if length > self.max {
            return Err(LinkError::TooLong(length));
        }
        let Some(frame) = self.bytes.get(HEAD..HEAD + length) else { return Ok(None) };
        let mut messages = serde_json::Deserializer::from_slice(frame).into_iter();
        let nonsense = |error: serde_json::Error| LinkError::Nonsense(error.to_string());
        let message =
            messages.next().ok_or_else(|| LinkError::Nonsense("nothing".into()))?.map_err(nonsense)?;
        let value = frame.get(messages.byte_offset()..).unwrap_or_default().to_vec();
        if !self.takes_values && !value.is_empty() {
            return Err(LinkError::Nonsense("more than a message".into()));
        }
        self.bytes.drain(..HEAD + length);
        Ok(Some(Received { message, value }))
    }
}

/// Reads frames from a socket.
pub(crate) struct Reader {
    stream: Arc<UnixStream>,
    frames: Decoder,
    fds: VecDeque<OwnedFd>,
    takes_fds: bool,
}

impl Reader {
    /// Of the management partition: takes descriptors.
    pub(crate) fn of_imp(stream: Arc<UnixStream>) -> Self {
        Self { stream, frames: Decoder::of_imp(), fds: VecDeque::new(), takes_fds: true }
    }

    /// Of the hypervisor side: takes no descriptors.
    pub(crate) fn of_host(stream: Arc<UnixStream>) -> Self {
        Self { stream, frames: Decoder::of_host(), fds: VecDeque::new(), takes_fds: false }
    }

    /// The next frame; `None` once the other side has closed.
    ///
    /// # Errors
    /// When what comes is no frame; nothing more can be read then.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<Received<T>>, LinkError> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(Some(frame));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The descriptor that came with the frame that was read last and says that there is one.
    pub(crate) fn fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    async fn fill(&mut self) -> Result<usize, LinkError> {
        let Self { stream, frames, fds, takes_fds } = self;
        let read = stream.async_io(Interest::READABLE, || receive(stream.as_fd(), frames, fds)).await?;
        if !*takes_fds {
            fds.clear();
        }
        if fds.len() > MAX_WAITING {
            return Err(LinkError::Nonsense("descriptors without frames".into()));
        }
        Ok(read)
    }
}

/// How long the frame is that begins here, once that can be told.
fn announced(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEAD>()?;
    usize::try_from(u32::from_le_bytes(*head)).ok()
}

fn receive(stream: BorrowedFd<'_>, frames: &mut Decoder, fds: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut chunk = [0; CHUNK];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut chunk)];
    let received = recvmsg(stream, &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    frames.push(chunk.get(..received.bytes).unwrap_or_default());
    Ok(received.bytes)
}

/// A frame to be sent.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    fd: Option<OwnedFd>,
}

impl Frame {
    /// With a message alone.
    ///
    /// # Errors
    /// When it is longer than `max`.
    pub fn new(message: &impl Serialize, max: usize) -> Result<Self, LinkError> {
        Self::write(max, |bytes| serde_json::to_writer(bytes, message))
    }

    /// With a value behind the message.
    ///
    /// # Errors
    /// When both together are longer than `max`.
    pub fn with_value(
        message: &impl Serialize,
        value: &impl Serialize,
        max: usize,
    ) -> Result<Self, LinkError> {
        Self::write(max, |bytes| {
            serde_json::to_writer(&mut *bytes, message)?;
            serde_json::to_writer(bytes, value)
        })
    }

    /// With a descriptor beside it.
    #[must_use]
    pub fn with_fd(self, fd: OwnedFd) -> Self {
        Self { fd: Some(fd), ..self }
    }

    /// The frame, byte by byte.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn write(
        max: usize,
        write: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
    ) -> Result<Self, LinkError> {
        let mut bytes = vec![0; HEAD];
        write(&mut bytes).map_err(|error| LinkError::Nonsense(error.to_string()))?;
        let length = bytes.len() - HEAD;
        match u32::try_from(length) {
            Ok(head) if length <= max => bytes[..HEAD].copy_from_slice(&head.to_le_bytes()),
            _ => return Err(LinkError::TooLong(length)),
        }
        Ok(Self { bytes, fd: None })
    }
}

/// Sends what there is room for, with a descriptor beside it if there is one.
fn send(stream: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let fds = fd.as_slice();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(fds));
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)?)
}

/// Writes a frame; not to be done by two tasks at once.
///
/// # Errors
/// When the other side has gone.
pub async fn write_frame(stream: &UnixStream, frame: Frame) -> io::Result<()> {
    let Frame { bytes, mut fd } = frame;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let fd = fd.take();
        let beside = fd.as_ref().map(AsFd::as_fd);
        let sent = stream.async_io(Interest::WRITABLE, || send(stream.as_fd(), rest, beside)).await?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Sends the hello, and the API's socket with it. There is room for it: nothing has been sent before.
///
/// # Errors
/// When the other side has gone.
pub fn send_hello(stream: &StdStream, hello: Hello, api: BorrowedFd<'_>) -> Result<(), LinkError> {
    let Frame { bytes, .. } = Frame::new(&ToImp::Hello(Box::new(hello)), MAX_FROM_IMP)?;
    let sent = send(stream.as_fd(), &bytes, Some(api))?;
    if sent == bytes.len() { Ok(()) } else { Err(LinkError::TooLong(bytes.len())) }
}

/// Waits for the hello, before there is a runtime.
///
/// # Errors
/// When the other side says something else, or nothing.
pub fn receive_hello(stream: &mut StdStream) -> Result<(Hello, OwnedFd), LinkError> {
    let (mut bytes, mut fds) = (Vec::new(), VecDeque::new());
    // No more than the frame's length is read with the descriptor, so that nothing of what follows is lost.
    let mut head = [0; HEAD];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(&*stream, &mut [IoSliceMut::new(&mut head)], &mut beside, RecvFlags::CMSG_CLOEXEC)
        .map_err(io::Error::from)?;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let length = announced(&head).filter(|length| received.bytes == HEAD && *length <= MAX_FROM_IMP);
    bytes.resize(length.ok_or_else(|| LinkError::Nonsense("no hello".into()))?, 0);
    stream.read_exact(&mut bytes)?;
    match (serde_json::from_slice(&bytes), fds.pop_front()) {
        (Ok(ToImp::Hello(hello)), Some(api)) => Ok((*hello, api)),
        (Ok(_), _) => Err(LinkError::Nonsense("no hello".into())),
        (Err(error), _) => Err(LinkError::Nonsense(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::{Value, json};

    use super::*;

    fn pair() -> (StdStream, Arc<UnixStream>) {
        let (theirs, ours) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, Arc::new(UnixStream::from_std(ours).unwrap()))
    }

    #[tokio::test]
    async fn a_frame_longer_than_allowed_is_refused_before_it_is_kept() {
        let (mut imp, host) = pair();
        imp.write_all(&u32::MAX.to_le_bytes()).unwrap();
        let refused = Reader::of_host(host).next::<Value>().await.unwrap_err();
        assert!(matches!(refused, LinkError::TooLong(length) if length == u32::MAX as usize), "{refused}");
    }

    #[tokio::test]
    async fn what_makes_no_sense_ends_the_link_and_half_a_frame_is_no_frame() {
        let (mut imp, host) = pair();
        imp.write_all(b"\x05\0\0\0{\"id\"").unwrap();
        assert!(matches!(Reader::of_host(host).next::<Value>().await, Err(LinkError::Nonsense(_))));
        for more_or_less in [&b"\x04\0\0\0[][]"[..], b"\0\0\0\0"] {
            let (mut imp, host) = pair();
            imp.write_all(more_or_less).unwrap();
            assert!(matches!(Reader::of_host(host).next::<Value>().await, Err(LinkError::Nonsense(_))));
        }
        let (mut imp, host) = pair();
        imp.write_all(b"\x05\0\0\0{\"i").unwrap();
        drop(imp);
        assert!(Reader::of_host(host).next::<Value>().await.unwrap().is_none());
    }

    /// A management partition could else have the hypervisor side hold files open for it, thousands of them.
    #[tokio::test]
    async fn descriptors_are_closed_where_nobody_asked_for_them_and_arrive_where_somebody_did() {
        let (one, other) = pair();
        one.set_nonblocking(true).unwrap();
        let one = Arc::new(UnixStream::from_std(one).unwrap());
        let (kept, sent) = StdStream::pair().unwrap();
        write_frame(&one, Frame::new(&json!([]), MAX_FROM_IMP).unwrap().with_fd(sent.into())).await.unwrap();
        let mut host = Reader::of_host(Arc::clone(&other));
        assert_eq!(host.next::<Value>().await.unwrap().unwrap().message, json!([]));
        assert!(host.fd().is_none());
        assert_eq!((&kept).read(&mut [0]).unwrap(), 0, "its other end is closed");

        let (mut kept, sent) = StdStream::pair().unwrap();
        let long = json!("x".repeat(3 * CHUNK));
        let mut imp = Reader::of_imp(one);
        let frame = Frame::with_value(&json!([]), &long, MAX_FROM_HOST).unwrap().with_fd(sent.into());
        let (written, read) = tokio::join!(write_frame(&other, frame), imp.next::<Value>());
        written.unwrap();
        let read = read.unwrap().unwrap();
        assert_eq!((read.message, serde_json::from_slice(&read.value).unwrap()), (json!([]), long));
        StdStream::from(imp.fd().unwrap()).write_all(b"!").unwrap();
        let mut byte = [0];
        kept.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"!");
    }
}
