//! The messages of the channel, in values of `ioward-model`, and their frames.

use ioward_model::{Name, OpError, OpErrorKind, OpOutcome, VfOp, VfView};
use minicbor::{Decode, Encode};

use crate::{
    Frame, MAX_PAYLOAD_BYTES,
    text::clean,
    wire::{self, List, free_text, name},
};

/// The newest protocol version that this side supports. Version 2 adds a VLAN's protocol and priority,
/// version 3 operations on a failover pair.
pub const VERSION: u16 = 3;
/// The oldest protocol version that this side supports.
pub const OLDEST_VERSION: u16 = 1;
/// Maximum number of VFs in an answer.
pub const MAX_VFS: usize = 1024;

/// Maximum length of an error's text, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1024;
/// Maximum length of an agent's name and version, in bytes.
const MAX_AGENT_BYTES: usize = 80;
/// Bytes of a payload available for VFs, beside the few around them.
const VFS_BYTES_IN_A_FRAME: usize = MAX_PAYLOAD_BYTES - 64;

/// In a response: another frame continues the same list.
const FLAG_MORE: u16 = 1;

/// Kinds of frames. The management partition's have the high bit set.
mod kind {
    pub const HELLO: u8 = 0x01;
    pub const REQUEST: u8 = 0x02;
    pub const SUBSCRIBE: u8 = 0x03;
    pub const WELCOME: u8 = 0x81;
    pub const RESPONSE: u8 = 0x82;
    pub const NOTICE: u8 = 0x83;
    pub const ERROR: u8 = 0x84;
    pub const RESET: u8 = 0x85;
}

/// Why a frame is not a valid message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// An unknown kind. An agent ignores it: it comes from a newer management partition.
    #[error("there is no message of kind {0:#04x}")]
    Kind(u8),
    /// The payload does not fit its kind.
    #[error("{message}: {problem}")]
    Payload {
        /// The kind of message expected.
        message: &'static str,
        /// The field, the mistake, and the correct form. Safe to print.
        problem: String,
    },
}

/// An agent's first message, sent again after each [`ImpMessage::Reset`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest protocol version that it supports.
    pub min_version: u16,
    /// The newest protocol version that it supports.
    pub max_version: u16,
    /// Its name and version, for people: `ioward-agent 0.1.0`. At most 80 bytes; the sender cuts the rest.
    pub agent: String,
    /// A number unique among the hellos on this channel. The welcome repeats it.
    pub nonce: u64,
}

impl Hello {
    /// The newest protocol version that both sides support, if any.
    #[must_use]
    pub fn version(&self) -> Option<u16> {
        let newest = self.max_version.min(VERSION);
        (newest >= self.min_version.max(OLDEST_VERSION)).then_some(newest)
    }
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version of this session.
    pub version: u16,
    /// Identifies the run of the management partition: it changes with each restart.
    pub epoch: u64,
    /// The nonce of the hello.
    pub nonce: u64,
    /// The agent's partition.
    pub partition: Name,
}

/// A message from an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentMessage {
    /// Begins a session; ends any earlier one on the channel.
    Hello(Hello),
    /// Requests an operation.
    Request {
        /// Chosen by the agent; the answer repeats it.
        id: u32,
        /// The operation.
        op: VfOp,
    },
    /// Requests notices until the session ends. The answer is [`OpOutcome::Done`].
    Subscribe {
        /// Chosen by the agent; the answer repeats it.
        id: u32,
    },
}

/// A VF of the partition came, went or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The partition has been given a VF.
    Added(VfView),
    /// A VF has been taken from the partition.
    Removed(Name),
    /// A VF's settings, or the partition's permissions on it, have changed.
    Changed(VfView),
}

/// A fault of the channel, rather than of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The two sides have no protocol version in common.
    UnsupportedVersion,
    /// A request came before a hello. It was not carried out.
    HelloNeeded,
    /// The bytes received are not a frame.
    BadFrame,
    /// The frame received is not a message.
    BadMessage,
    /// A code that this version does not know.
    Other(u16),
}

/// A fault that the management partition reports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ChannelError {
    /// The request concerned; 0 for none.
    pub id: u32,
    /// The kind of fault.
    pub code: ErrorCode,
    /// The fault in words; at most 1024 bytes, the sender cuts the rest.
    pub message: String,
    /// The oldest protocol version that the management partition supports.
    pub min_version: u16,
    /// The newest protocol version that the management partition supports.
    pub max_version: u16,
    /// The nonce of the hello, in answer to a hello.
    pub nonce: Option<u64>,
}

/// A message from the management partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImpMessage {
    /// The answer to a hello.
    Welcome(Welcome),
    /// The answer to a request.
    Response {
        /// The number of the request.
        id: u32,
        /// The same list continues in another response with this number. Senders leave it false:
        /// [`ImpMessage::to_frames`] splits a long list by itself.
        more: bool,
        /// The outcome. The `reasons` of an error are not sent.
        result: Result<OpOutcome, OpError>,
    },
    /// A notice for a subscriber.
    Notice(Notice),
    /// A fault of the channel.
    Error(ChannelError),
    /// Sent first on each connection: the agent must say hello (again).
    Reset {
        /// Identifies the run of the management partition.
        epoch: u64,
    },
}

impl AgentMessage {
    /// The protocol version that this needs: an older peer would skip part of it and report success.
    #[must_use]
    pub fn needs_version(&self) -> u16 {
        match self {
            Self::Request { op: VfOp::Set { change, .. }, .. }
                if change.vlan.is_some_and(|vlan| !vlan.is_plain()) =>
            {
                2
            }
            Self::Request { op: VfOp::Failover { .. }, .. } => 3,
            _ => OLDEST_VERSION,
        }
    }

    /// Encodes the message.
    #[must_use]
    pub fn to_frame(&self) -> Frame {
        match self {
            Self::Hello(hello) => {
                let agent = clean(&hello.agent, MAX_AGENT_BYTES);
                let Hello { min_version, max_version, nonce, .. } = *hello;
                frame(kind::HELLO, 0, &wire::Hello { min_version, max_version, agent: &agent, nonce })
            }
            Self::Request { id, op } => frame(kind::REQUEST, *id, &wire::Request::from(op)),
            Self::Subscribe { id } => frame(kind::SUBSCRIBE, *id, &wire::Empty {}),
        }
    }

    /// Decodes a frame.
    ///
    /// # Errors
    /// When the frame is not a valid message of an agent. [`Frame::request`] is the request to refuse.
    pub fn from_frame(frame: &Frame) -> Result<Self, MessageError> {
        match frame.kind() {
            kind::HELLO => read(frame, "hello", |wire: wire::Hello| {
                let wire::Hello { min_version, max_version, nonce, .. } = wire;
                let agent = free_text("agent", wire.agent, MAX_AGENT_BYTES)?;
                Ok(Self::Hello(Hello { min_version, max_version, agent, nonce }))
            }),
            kind::REQUEST => read(frame, "request", |wire: wire::Request| {
                Ok(Self::Request { id: frame.request(), op: wire.try_into()? })
            }),
            kind::SUBSCRIBE => {
                read(frame, "subscribe", |_: wire::Empty| Ok(Self::Subscribe { id: frame.request() }))
            }
            other => Err(MessageError::Kind(other)),
        }
    }
}

impl ImpMessage {
    /// Encodes the message: in one frame, or several for a long list of VFs. A list of more than [`MAX_VFS`]
    /// becomes an error.
    #[must_use]
    pub fn to_frames(&self) -> Vec<Frame> {
        match self {
            Self::Response { id, result: Ok(OpOutcome::Vfs(views)), .. } if views.len() > MAX_VFS => {
                let message = format!("the partition holds more than {MAX_VFS} VFs; ask for them one by one");
                vec![response(*id, &Err(OpError::new(OpErrorKind::Failed, message)))]
            }
            Self::Response { id, more, result: Ok(OpOutcome::Vfs(views)) } => list(*id, views, *more),
            Self::Response { id, result, .. } => vec![response(*id, result)],
            Self::Welcome(welcome) => {
                let Welcome { version, epoch, nonce, partition } = welcome;
                let partition = partition.as_str();
                let welcome = wire::Welcome { version: *version, epoch: *epoch, nonce: *nonce, partition };
                vec![frame(kind::WELCOME, 0, &welcome)]
            }
            Self::Notice(notice) => {
                let notice = match notice {
                    Notice::Added(view) => wire::Notice { change: 1, vf: Some(view.into()), name: None },
                    Notice::Removed(name) => wire::Notice { change: 2, vf: None, name: Some(name.as_str()) },
                    Notice::Changed(view) => wire::Notice { change: 3, vf: Some(view.into()), name: None },
                };
                vec![frame(kind::NOTICE, 0, &notice)]
            }
            Self::Error(error) => {
                let ChannelError { min_version, max_version, nonce, .. } = *error;
                let message = &clean(&error.message, MAX_MESSAGE_BYTES);
                let code = error.code.number();
                let wire = wire::ChannelError { code, message, min_version, max_version, nonce };
                vec![frame(kind::ERROR, error.id, &wire)]
            }
            Self::Reset { epoch } => vec![frame(kind::RESET, 0, &wire::Reset { epoch: *epoch })],
        }
    }

    /// Decodes a frame.
    ///
    /// # Errors
    /// When the frame is not a valid message of the management partition.
    pub fn from_frame(frame: &Frame) -> Result<Self, MessageError> {
        match frame.kind() {
            kind::WELCOME => read(frame, "welcome", |wire: wire::Welcome| {
                let wire::Welcome { version, epoch, nonce, .. } = wire;
                let partition = name("partition", wire.partition)?;
                Ok(Self::Welcome(Welcome { version, epoch, nonce, partition }))
            }),
            kind::RESPONSE => read(frame, "response", |wire: wire::Response| {
                let result = wire.try_into()?;
                // Only a list can continue.
                let is_list = matches!(result, Ok(OpOutcome::Vfs(_)));
                let more = is_list && frame.flags() & FLAG_MORE != 0;
                Ok(Self::Response { id: frame.request(), more, result })
            }),
            kind::NOTICE => read(frame, "notice", |wire: wire::Notice| {
                let view = || VfView::try_from(wire.vf.clone().ok_or("vf: missing")?);
                Ok(Self::Notice(match wire.change {
                    1 => Notice::Added(view()?),
                    2 => Notice::Removed(name("name", wire.name.ok_or("name: missing")?)?),
                    3 => Notice::Changed(view()?),
                    change => return Err(format!("change: there is no change {change}")),
                }))
            }),
            kind::ERROR => read(frame, "error", |wire: wire::ChannelError| {
                let wire::ChannelError { min_version, max_version, nonce, .. } = wire;
                let message = free_text("message", wire.message, MAX_MESSAGE_BYTES)?;
                let (id, code) = (frame.request(), ErrorCode::from_number(wire.code));
                Ok(Self::Error(ChannelError { id, code, message, min_version, max_version, nonce }))
            }),
            kind::RESET => read(frame, "reset", |wire: wire::Reset| Ok(Self::Reset { epoch: wire.epoch })),
            other => Err(MessageError::Kind(other)),
        }
    }
}

impl ErrorCode {
    fn number(self) -> u16 {
        match self {
            Self::UnsupportedVersion => 1,
            Self::HelloNeeded => 2,
            Self::BadFrame => 3,
            Self::BadMessage => 4,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u16) -> Self {
        match number {
            1 => Self::UnsupportedVersion,
            2 => Self::HelloNeeded,
            3 => Self::BadFrame,
            4 => Self::BadMessage,
            other => Self::Other(other),
        }
    }
}

/// Encodes one response.
fn response(id: u32, result: &Result<OpOutcome, OpError>) -> Frame {
    match result {
        Ok(outcome) => frame(kind::RESPONSE, id, &wire::Response::from(outcome)),
        Err(error) => {
            let message = clean(&error.message, MAX_MESSAGE_BYTES);
            let error = wire::OpError { message: &message, ..error.into() };
            frame(kind::RESPONSE, id, &wire::Response { error: Some(error), ..Default::default() })
        }
    }
}

/// Encodes a list of VFs in as few frames as possible, in order; `more` says that the list continues after it.
fn list(id: u32, views: &[VfView], more: bool) -> Vec<Frame> {
    let mut parts: Vec<Vec<wire::View>> = vec![Vec::new()];
    let mut bytes = 0;
    for view in views {
        let view = wire::View::from(view);
        let length = payload(&view).len();
        if bytes + length > VFS_BYTES_IN_A_FRAME {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        if let Some(part) = parts.last_mut() {
            part.push(view);
        }
    }
    let last = parts.len() - 1;
    let to_frame = |(number, part)| {
        let flags = if number < last || more { FLAG_MORE } else { 0 };
        let part = wire::Response { result: 3, vfs: Some(List(part)), ..Default::default() };
        frame_with(kind::RESPONSE, flags, id, &part)
    };
    parts.into_iter().enumerate().map(to_frame).collect()
}

fn frame(kind: u8, request: u32, wire: &impl Encode<()>) -> Frame {
    frame_with(kind, 0, request, wire)
}

#[expect(
    clippy::expect_used,
    reason = "every text and list in a payload is bounded, and lists of VFs are split"
)]
fn frame_with(kind: u8, flags: u16, request: u32, wire: &impl Encode<()>) -> Frame {
    Frame::new(kind, flags, request, payload(wire)).expect("a bounded payload fits in a frame")
}

#[expect(
    clippy::expect_used,
    reason = "writing to memory does not fail, and no encoder here refuses a value"
)]
fn payload(wire: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(wire).expect("a payload can be encoded to memory")
}

/// Decodes a payload and converts it.
fn read<'b, W: Decode<'b, ()>, T>(
    frame: &'b Frame,
    message: &'static str,
    convert: impl FnOnce(W) -> Result<T, String>,
) -> Result<T, MessageError> {
    let mut decoder = minicbor::Decoder::new(frame.payload());
    let decoded = decoder.decode::<W>().map_err(|error| error.to_string());
    let whole = decoded.and_then(|wire| match frame.payload().len() - decoder.position() {
        0 => Ok(wire),
        left => Err(format!("{left} bytes follow the payload")),
    });
    // The text of the problem may contain what a hostile sender wrote.
    whole
        .and_then(convert)
        .map_err(|problem| MessageError::Payload { message, problem: clean(&problem, 200) })
}
