//! The wire protocol between a client partition and the management partition, and its transports. Nothing here
//! waits.
//!
//! ```text
//! AgentMessage, ImpMessage   message.rs   what is said, in values of ioward-model
//!        ⇅ CBOR              wire.rs      numbered fields, every bound and value checked
//!      Frame                 frame.rs     a fixed header and a payload, at most 64 KiB
//!        ⇅ COBS              stream.rs    frames in a byte stream that is never reset
//!     or ⇅ rings             shared/      frames in memory that both ends can write
//! ```
//!
//! [`control`] carries the messages between a simulated hypervisor and its partition's process, beside the channel.
//!
//! docs/channel.md specifies it by byte. Each end treats the other as hostile: no input makes this code panic or
//! use more memory than a frame may have.

mod cobs;
pub mod control;
mod frame;
mod message;
pub mod shared;
pub mod stream;
mod text;
mod wire;

pub use frame::{Frame, FrameError, HEADER_BYTES, MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES};
pub use message::{
    AgentMessage, ChannelError, ErrorCode, Hello, ImpMessage, MAX_VFS, MessageError, Notice, OLDEST_VERSION,
    VERSION, Welcome,
};
