//! A guest's end of a channel in the hands of a test: it says what an agent says, and what none should.

use std::{io, os::unix::net::UnixStream as StdUnixStream};

use ioward_channel::{AgentMessage, Hello, ImpMessage, VERSION, stream};
use ioward_model::VfOp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// One connection.
#[derive(Debug)]
pub struct GuestEnd {
    socket: UnixStream,
    /// The number of the last request or hello.
    last: u32,
    decoder: stream::Decoder,
    /// Bytes that were read and have not been through the decoder.
    unread: Vec<u8>,
}

impl GuestEnd {
    /// Takes a socket into use, inside a runtime.
    ///
    /// # Errors
    /// When the runtime can't wait for it.
    pub fn new(socket: StdUnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = UnixStream::from_std(socket)?;
        Ok(Self { socket, last: 0, decoder: stream::Decoder::new(), unread: Vec::new() })
    }

    /// Writes bytes as they are. One that is cut off notices when it listens.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// Says something.
    pub async fn send(&mut self, message: &AgentMessage) {
        self.write(&encoded(message)).await;
    }

    /// Says hello, with a nonce that it returns.
    pub async fn hello(&mut self) -> u64 {
        self.last += 1;
        let nonce = self.last.into();
        let agent = "test".to_owned();
        let hello = Hello { min_version: VERSION, max_version: VERSION, agent, nonce };
        self.send(&AgentMessage::Hello(hello)).await;
        nonce
    }

    /// Requests an operation; returns the number of the request.
    pub async fn ask(&mut self, op: VfOp) -> u32 {
        self.last += 1;
        self.send(&AgentMessage::Request { id: self.last, op }).await;
        self.last
    }

    /// Asks for notices, and waits until they are granted.
    ///
    /// # Panics
    /// When the channel ends before.
    pub async fn subscribe(&mut self) {
        self.last += 1;
        self.send(&AgentMessage::Subscribe { id: self.last }).await;
        loop {
            let answer = self.hear().await.expect("the channel is served");
            if matches!(answer, ImpMessage::Response { id, .. } if id == self.last) {
                return;
            }
        }
    }

    /// Sends a frame that is none.
    pub async fn garbage(&mut self) {
        self.write(b"\0what is no frame\0").await;
    }

    /// The next message; `None` once it is cut off.
    ///
    /// # Panics
    /// When the management partition says what nobody can understand.
    pub async fn hear(&mut self) -> Option<ImpMessage> {
        loop {
            let mut input = &*self.unread;
            let frame = self.decoder.next(&mut input);
            let left = input.len();
            self.unread.drain(..self.unread.len() - left);
            if let Some(frame) = frame {
                let frame = frame.expect("the management partition sends frames");
                return Some(ImpMessage::from_frame(&frame).expect("and says what there is a message for"));
            }
            match self.socket.read_buf(&mut self.unread).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

impl Drop for GuestEnd {
    /// Hangs up, even if whoever plays the machine has the socket as well.
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

/// A message as it goes over a stream.
#[must_use]
pub fn encoded(message: &AgentMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream::encode(&message.to_frame(), &mut bytes);
    bytes
}
