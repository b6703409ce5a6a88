//! What is said over a channel, in values of `ioward-model`, and which frames say it.

use ioward_model::{Name, OpError, OpErrorKind, OpOutcome, VfOp, VfView};
use minicbor::{Decode, Encode};

use crate::{
    Frame, MAX_PAYLOAD_BYTES,
    text::clean,
    wire::{self, List, free_text, name},
};

/// The newest protocol version that this side speaks. Version 2 has protocol and priority of a VLAN.
pub const VERSION: u16 = 2;
/// The oldest protocol version that this side speaks.
pub const OLDEST_VERSION: u16 = 1;
/// The greatest number of VFs in an answer.
pub const MAX_VFS: usize = 1024;

/// The greatest length of an error's text, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1024;
/// The greatest length of an agent's name and version, in bytes.
const MAX_AGENT_BYTES: usize = 80;
/// What of a payload is left for VFs, beside the few bytes around them.
const VFS_BYTES_IN_A_FRAME: usize = MAX_PAYLOAD_BYTES - 64;

/// In a response: another frame with more of the same list follows.
const FLAG_MORE: u16 = 1;

/// Kinds of frames. Those of the management partition have the high bit.
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

/// Why a frame is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// This side has no such message. An agent ignores it: a newer management partition may say more.
    #[error("there is no message of kind {0:#04x}")]
    Kind(u8),
    /// The payload is not what its kind says.
    #[error("{message}: {problem}")]
    Payload {
        /// What kind of message it was to be.
        message: &'static str,
        /// The field, what is wrong with it, and what is right. Safe to print.
        problem: String,
    },
}

/// What an agent says first, and again after each [`ImpMessage::Reset`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest protocol version that it speaks.
    pub min_version: u16,
    /// The newest protocol version that it speaks.
    pub max_version: u16,
    /// Its name and version, for people: `ioward-agent 0.1.0`. At most 80 bytes; longer is cut when it is sent.
    pub agent: String,
    /// A number that no other hello on this channel had. The welcome that answers it carries it back.
    pub nonce: u64,
}

impl Hello {
    /// The newest protocol version that both sides speak, if there is one.
    #[must_use]
    pub fn version(&self) -> Option<u16> {
        let newest = self.max_version.min(VERSION);
        (newest >= self.min_version.max(OLDEST_VERSION)).then_some(newest)
    }
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version that is spoken from here on.
    pub version: u16,
    /// Which run of the management partition this is: another one after a restart.
    pub epoch: u64,
    /// The nonce of the hello that it answers.
    pub nonce: u64,
    /// The partition that the agent is in.
    pub partition: Name,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentMessage {
    /// Begins a session; what was before it on the channel is over.
    Hello(Hello),
    /// Asks for an operation.
    Request {
        /// Chosen by the agent; comes back with the answer.
        id: u32,
        /// The operation.
        op: VfOp,
    },
    /// Asks for notices until the session ends. Answered as an operation is, with [`OpOutcome::Done`].
    Subscribe {
        /// Chosen by the agent; comes back with the answer.
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
    /// Settings of a VF, or what the partition may do to it, are different now.
    Changed(VfView),
}

/// What is wrong with the channel itself, rather than with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// No protocol version that both sides speak.
    UnsupportedVersion,
    /// A request came before a hello. It was not done.
    HelloNeeded,
    /// Bytes came that are no frame.
    BadFrame,
    /// A frame came that is no message.
    BadMessage,
    /// One that this version has no word for.
    Other(u16),
}

/// The management partition can't go on as the agent would like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ChannelError {
    /// The request that it is about; 0 for none.
    pub id: u32,
    /// What is wrong.
    pub code: ErrorCode,
    /// The same for people; at most 1024 bytes, longer is cut when it is sent.
    pub message: String,
    /// The oldest protocol version that the management partition speaks.
    pub min_version: u16,
    /// The newest protocol version that the management partition speaks.
    pub max_version: u16,
    /// The nonce of the hello that it answers, if it answers one.
    pub nonce: Option<u64>,
}

/// What the management partition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImpMessage {
    /// The answer to a hello.
    Welcome(Welcome),
    /// The answer to a request.
    Response {
        /// The request's.
        id: u32,
        /// More of the same list follows under the same number. False when sent: [`ImpMessage::to_frames`] splits
        /// a long list by itself.
        more: bool,
        /// What became of it. `reasons` of an error stay behind.
        result: Result<OpOutcome, OpError>,
    },
    /// What a subscriber is told.
    Notice(Notice),
    /// Something is wrong with the channel.
    Error(ChannelError),
    /// Said first on each connection: whoever is there must say hello (again).
    Reset {
        /// Which run of the management partition this is.
        epoch: u64,
    },
}

impl AgentMessage {
    /// The protocol version that this needs: an older peer would skip a part of it, and say that all was done.
    #[must_use]
    pub fn needs_version(&self) -> u16 {
        match self {
            Self::Request { op: VfOp::Set { change, .. }, .. }
                if change.vlan.is_some_and(|vlan| !vlan.is_plain()) =>
            {
                2
            }
            _ => OLDEST_VERSION,
        }
    }

    /// The frame that says it.
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

    /// What a frame says.
    ///
    /// # Errors
    /// When it says nothing that an agent can say. [`Frame::request`] tells which request to refuse.
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
    /// The frames that say it: one, but for a list of VFs that does not fit in one. A list of more than [`MAX_VFS`]
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

    /// What a frame says.
    ///
    /// # Errors
    /// When it says nothing that the management partition can say.
    pub fn from_frame(frame: &Frame) -> Result<Self, MessageError> {
        match frame.kind() {
            kind::WELCOME => read(frame, "welcome", |wire: wire::Welcome| {
                let wire::Welcome { version, epoch, nonce, .. } = wire;
                let partition = name("partition", wire.partition)?;
                Ok(Self::Welcome(Welcome { version, epoch, nonce, partition }))
            }),
            kind::RESPONSE => read(frame, "response", |wire: wire::Response| {
                let result = wire.try_into()?;
                // Of nothing else can there be more.
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

/// The frame of one response.
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

/// A list of VFs in as few frames as hold it, in order; `more` of it follows.
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

/// Decodes a payload, and makes a value of it.
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
    // What a hostile sender wrote may be part of the problem's text.
    whole
        .and_then(convert)
        .map_err(|problem| MessageError::Payload { message, problem: clean(&problem, 200) })
}
