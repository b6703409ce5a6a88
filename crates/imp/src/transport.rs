//! The management partition's end of a channel: frames in, frames out, the same for a stream and for shared memory.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    time::Duration,
};

use ioward_channel::{
    Frame, FrameError,
    shared::{Endpoint, SharedError, Side},
    stream::{self, Decoder},
};
use ioward_hypervisor::ChannelEnd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, unix::AsyncFd},
    net::UnixStream,
    time::{sleep, timeout},
};

/// Bytes that cost as much as a frame, so that what is no frame at all is held back too.
const BYTES_PER_TOKEN: f64 = 4096.0;
/// How much is read from a stream at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// How long a doorbell that rang for nothing is not heard: who rings without end gets no more attention than that.
const FALSE_ALARM: Duration = Duration::from_millis(5);
/// How often to look whether the other side has left: its last ring of the doorbell goes with the doorbell.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A connected channel.
pub(crate) enum Transport {
    Stream(Stream),
    Shared(Shared),
}

/// Something that came.
pub(crate) struct Arrival {
    /// Its price for the sender, in tokens.
    pub cost: f64,
    /// A frame, or why it is none; `None` when more has to come first.
    pub frame: Option<Result<Frame, FrameError>>,
}

impl Transport {
    /// Takes a channel's end into use.
    pub(crate) async fn open(end: ChannelEnd) -> io::Result<Self> {
        match end {
            ChannelEnd::Stream(socket) => {
                let socket = StdUnixStream::from(socket);
                socket.set_nonblocking(true)?;
                let mut socket = UnixStream::from_std(socket)?;
                socket.write_all(&stream::START).await?;
                Ok(Self::Stream(Stream { socket, decoder: Decoder::new(), chunk: Vec::new(), used: 0 }))
            }
            ChannelEnd::Shared(fds) => {
                let endpoint = Endpoint::from_fds(Side::Imp, fds).map_err(io_error)?;
                let doorbell = listen(endpoint.as_fd().try_clone_to_owned()?)?;
                Ok(Self::Shared(Shared { endpoint, doorbell, has_rung: false }))
            }
        }
    }

    /// The next arrival; `None` once the other end has closed. Loses nothing when it is dropped before it is done.
    pub(crate) async fn receive(&mut self) -> io::Result<Option<Arrival>> {
        match self {
            Self::Stream(stream) => stream.receive().await,
            Self::Shared(shared) => shared.receive().await,
        }
    }

    /// Sends frames; waits for as long as the other end does not take them.
    pub(crate) async fn send(&mut self, frames: &[Frame]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => {
                let mut bytes = Vec::new();
                frames.iter().for_each(|frame| stream::encode(frame, &mut bytes));
                stream.socket.write_all(&bytes).await
            }
            Self::Shared(shared) => {
                for frame in frames {
                    shared.send(frame).await?;
                }
                Ok(())
            }
        }
    }
}

/// A stream socket.
pub(crate) struct Stream {
    socket: UnixStream,
    decoder: Decoder,
    /// The bytes that were read last; `used` of them have been through the decoder.
    chunk: Vec<u8>,
    used: usize,
}

impl Stream {
    async fn receive(&mut self) -> io::Result<Option<Arrival>> {
        let mut input = self.chunk.get(self.used..).unwrap_or_default();
        let frame = self.decoder.next(&mut input);
        self.used = self.chunk.len() - input.len();
        if frame.is_some() {
            return Ok(Some(Arrival { cost: 1.0, frame }));
        }
        self.chunk.clear();
        self.used = 0;
        self.chunk.reserve(CHUNK_BYTES);
        let length = (&mut self.socket).take(CHUNK_BYTES as u64).read_buf(&mut self.chunk).await?;
        Ok((length > 0).then_some(Arrival { cost: tokens(length), frame: None }))
    }
}

/// Shared memory.
pub(crate) struct Shared {
    endpoint: Endpoint,
    doorbell: AsyncFd<OwnedFd>,
    /// The doorbell has rung, and nothing has been found yet.
    has_rung: bool,
}

impl Shared {
    async fn receive(&mut self) -> io::Result<Option<Arrival>> {
        loop {
            match self.endpoint.try_receive() {
                Ok(Some(frame)) => {
                    self.has_rung = false;
                    let length = frame.as_ref().map_or(0, |frame| frame.payload().len());
                    return Ok(Some(Arrival { cost: 1.0 + tokens(length), frame: Some(frame) }));
                }
                Ok(None) => self.wait().await?,
                Err(SharedError::Closed) => return Ok(None),
                Err(error) => return Err(io_error(error)),
            }
        }
    }

    async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        while !self.endpoint.try_send(frame).map_err(io_error)? {
            self.wait().await?;
        }
        self.has_rung = false;
        Ok(())
    }

    /// Waits until the doorbell has rung, or for a while.
    async fn wait(&mut self) -> io::Result<()> {
        if self.has_rung {
            sleep(FALSE_ALARM).await;
            self.has_rung = false;
        }
        if let Ok(rung) = timeout(LOOK_AGAIN, self.doorbell.readable()).await {
            rung?.clear_ready();
            self.has_rung = true;
        }
        self.endpoint.clear().map_err(io_error)
    }
}

#[expect(clippy::cast_precision_loss, reason = "frames and chunks have 64 KiB at most")]
fn tokens(bytes: usize) -> f64 {
    bytes as f64 / BYTES_PER_TOKEN
}

fn io_error(error: SharedError) -> io::Error {
    let kind = match error {
        SharedError::Corrupt => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn listen(doorbell: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        unsafe_code,
        reason = "tokio has no safe way to wait for a file descriptor that it does not know"
    )]
    // SAFETY: an `OwnedFd` holds a valid, open descriptor, always the same, and closes it when it is dropped, which the
    // `AsyncFd` that owns it does with its own registration gone.
    let doorbell = unsafe { AsyncFd::register_with_interest(doorbell, Interest::READABLE) }?;
    Ok(doorbell)
}

#[cfg(test)]
mod tests {
    use ioward_channel::shared::{self, EndFds};
    use rustix::io::write;

    use super::*;

    fn frame(number: u32, length: usize) -> Frame {
        Frame::new(1, 0, number, vec![7; length]).unwrap()
    }

    async fn shared_with_guest() -> (Transport, EndFds) {
        let (imp, guest) = shared::create().unwrap();
        (Transport::open(ChannelEnd::Shared(imp)).await.unwrap(), guest)
    }

    async fn receive(transport: &mut Transport) -> Frame {
        loop {
            if let Some(frame) = transport.receive().await.unwrap().unwrap().frame {
                return frame.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn frames_go_over_both_kinds() {
        let (imp, guest) = StdUnixStream::pair().unwrap();
        let stream = Transport::open(ChannelEnd::Stream(imp.into())).await.unwrap();
        let streams = (stream, Transport::open(ChannelEnd::Stream(guest.into())).await.unwrap());
        let (imp, guest) = shared_with_guest().await;
        let endpoint = Endpoint::from_fds(Side::Guest, guest).unwrap();
        let doorbell = listen(endpoint.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let regions = (imp, Transport::Shared(Shared { endpoint, doorbell, has_rung: false }));
        for (mut imp, mut guest) in [streams, regions] {
            let frames: Vec<_> = (1..50).map(|number| frame(number, 20_000)).collect();
            let echo = tokio::spawn(async move {
                for _ in 1..50 {
                    let frame = receive(&mut imp).await;
                    imp.send(&[frame]).await.unwrap();
                }
                imp
            });
            for chunk in frames.chunks(4) {
                guest.send(chunk).await.unwrap();
                for frame in chunk {
                    assert_eq!(receive(&mut guest).await, *frame);
                }
            }
            drop(guest);
            let mut imp = echo.await.unwrap();
            assert!(imp.receive().await.unwrap().is_none(), "the other end has closed");
        }
    }

    /// It costs a guest less to ring than this side to look. Time stands still here but for who sleeps.
    #[tokio::test(start_paused = true)]
    async fn who_rings_for_nothing_is_not_heard_for_a_while() {
        let (mut imp, guest) = shared_with_guest().await;
        let Transport::Shared(shared) = &mut imp else { unreachable!() };
        let start = tokio::time::Instant::now();
        for false_alarms in 0..10 {
            write(&guest.doorbell_out, &1_u64.to_ne_bytes()).unwrap();
            shared.wait().await.unwrap();
            assert!(shared.has_rung);
            assert!(start.elapsed() >= false_alarms * FALSE_ALARM);
            assert!(start.elapsed() < LOOK_AGAIN, "it was heard, and not only looked for");
        }
        let mut endpoint = Endpoint::from_fds(Side::Guest, guest).unwrap();
        assert!(endpoint.try_send(&frame(1, 0)).unwrap());
        assert_eq!(receive(&mut imp).await, frame(1, 0), "and what does come is found");
    }

    #[tokio::test]
    async fn a_corrupt_region_is_an_error_of_its_own_kind() {
        let (mut imp, guest) = shared_with_guest().await;
        rustix::io::pwrite(&guest.memory, &u32::MAX.to_ne_bytes(), 1024).unwrap();
        assert_eq!(imp.receive().await.err().unwrap().kind(), io::ErrorKind::InvalidData);
    }
}
