//! Messages over a port, or over shared memory.

use std::path::Path;

use ioward_channel::{
    AgentMessage, Frame, ImpMessage, MessageError,
    shared::EndFds,
    stream::{self, Decoder},
};

use crate::{AgentError, deadline::Deadline, port::Port, region::Region};

/// Bytes per read.
const CHUNK_BYTES: usize = 4096;

/// Input from the management partition.
pub(crate) enum Incoming {
    /// A message.
    Message(ImpMessage),
    /// A message that this side can't decode, and its request.
    Unreadable { id: u32, problem: MessageError },
}

/// The transport of frames.
pub(crate) enum Link {
    /// A byte stream.
    Port {
        port: Port,
        decoder: Decoder,
        /// The bytes read last; the decoder has taken `used` of them.
        chunk: Vec<u8>,
        used: usize,
    },
    /// Shared memory.
    Region(Region),
}

impl Link {
    pub(crate) fn open(path: &Path, deadline: Deadline) -> Result<Self, AgentError> {
        let port = Port::open(path, deadline)?;
        Ok(Self::Port { port, decoder: Decoder::new(), chunk: Vec::new(), used: 0 })
    }

    pub(crate) fn from_shared(fds: EndFds) -> Result<Self, AgentError> {
        Ok(Self::Region(Region::open(fds)?))
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, message: &AgentMessage, deadline: Deadline) -> Result<(), AgentError> {
        match self {
            Self::Port { port, .. } => {
                // Each message first ends the one before, which a deadline may have cut in half.
                let mut bytes = stream::START.to_vec();
                stream::encode(&message.to_frame(), &mut bytes);
                port.write(&bytes, deadline)
            }
            Self::Region(region) => region.send(&message.to_frame(), deadline),
        }
    }

    /// The next message. Skips bytes that are not a frame, left by an earlier process, and messages of an unknown
    /// kind, from a newer version.
    pub(crate) fn receive(&mut self, deadline: Option<Deadline>) -> Result<Incoming, AgentError> {
        loop {
            let frame = self.receive_frame(deadline)?;
            match ImpMessage::from_frame(&frame) {
                Ok(message) => return Ok(Incoming::Message(message)),
                Err(MessageError::Kind(_)) => {}
                Err(problem) => return Ok(Incoming::Unreadable { id: frame.request(), problem }),
            }
        }
    }

    fn receive_frame(&mut self, deadline: Option<Deadline>) -> Result<Frame, AgentError> {
        let (port, decoder, chunk, used) = match self {
            Self::Port { port, decoder, chunk, used } => (port, decoder, chunk, used),
            Self::Region(region) => return region.receive(deadline),
        };
        loop {
            let mut input = chunk.get(*used..).unwrap_or_default();
            let item = decoder.next(&mut input);
            *used = chunk.len() - input.len();
            match item {
                Some(Ok(frame)) => return Ok(frame),
                Some(Err(_)) => {}
                None => {
                    chunk.resize(CHUNK_BYTES, 0);
                    let read = port.read(chunk, deadline);
                    chunk.truncate(*read.as_ref().unwrap_or(&0));
                    *used = 0;
                    read?;
                }
            }
        }
    }
}
