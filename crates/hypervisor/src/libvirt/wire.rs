//! libvirt's remote protocol as bytes: cutting a stream into messages, and what a message says. Pure.
//!
//! The numbers and layouts are those of libvirt 11.3.0: `src/rpc/virnetprotocol.x` (messages, errors),
//! `src/rpc/virkeepaliveprotocol.x`, `src/remote/remote_protocol.x` (procedures), `include/libvirt/libvirt-domain.h` (states,
//! events). None of them has ever changed its meaning, since clients of all versions talk to daemons of all versions. The newest
//! that is used here came with libvirt 4.1 (`DOMAIN_DETACH_DEVICE_ALIAS`).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::xdr::{Reader, Writer, XdrError};
use crate::text::printable;

/// The longest message taken, its length included. libvirt's own bound is 32 MiB (`VIR_NET_MESSAGE_MAX`). Half of that holds the most
/// that can come here: a definition has 4 MiB at most, and a list has 16384 domains with names that are names of files.
pub(super) const MAX_MESSAGE: usize = 16 << 20;
/// Length and header.
const HEADER: usize = 28;
/// `REMOTE_DOMAIN_LIST_MAX`.
const MAX_DOMAINS: u32 = 16_384;
/// `REMOTE_AUTH_TYPE_LIST_MAX`.
const MAX_AUTH_TYPES: u32 = 20;

const REMOTE_PROGRAM: u32 = 0x2000_8086;
const KEEPALIVE_PROGRAM: u32 = 0x6b65_6570;
/// `REMOTE_PROTOCOL_VERSION` and `KEEPALIVE_PROTOCOL_VERSION`.
const VERSION: u32 = 1;

/// `virNetMessageType`.
const CALL: u32 = 0;
const REPLY: u32 = 1;
const MESSAGE: u32 = 2;
/// `virNetMessageStatus`.
const OK: u32 = 0;
const ERROR: u32 = 1;

const PING: u32 = 1;
const PONG: u32 = 2;

/// A call to libvirt: `enum remote_procedure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Procedure {
    ConnectOpen = 1,
    ConnectClose = 2,
    DomainGetXmlDesc = 14,
    DomainLookupByName = 23,
    DomainLookupByUuid = 24,
    AuthList = 66,
    DomainIsPersistent = 151,
    ConnectGetLibVersion = 157,
    DomainAttachDeviceFlags = 160,
    DomainDetachDeviceFlags = 161,
    DomainCreateWithFlags = 196,
    DomainGetState = 212,
    DomainDestroyFlags = 234,
    DomainShutdownFlags = 258,
    ConnectListAllDomains = 273,
    ConnectDomainEventCallbackRegisterAny = 316,
    DomainDefineXmlFlags = 350,
    DomainDetachDeviceAlias = 392,
}

/// The events that are asked for: `VIR_DOMAIN_EVENT_ID_…` LIFECYCLE, REBOOT, DEVICE_REMOVED, DEVICE_ADDED, DEVICE_REMOVAL_FAILED.
pub(super) const EVENT_IDS: [i32; 5] = [0, 1, 15, 19, 22];
/// The procedures by which they come: `REMOTE_PROC_DOMAIN_EVENT_CALLBACK_…`.
const LIFECYCLE: u32 = 318;
const REBOOT: u32 = 319;
const DEVICE_REMOVED: u32 = 333;
const DEVICE_ADDED: u32 = 354;
const DEVICE_REMOVAL_FAILED: u32 = 367;

/// Why what came is not libvirt's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nonsense {
    #[error("a message of {0} bytes, and 28 to 16777216 are allowed")]
    Length(u32),
    #[error("a message of program {program:#x} version {version}, which was not asked for")]
    Program { program: u32, version: u32 },
    #[error("a message of type {kind} with status {status}, which was not asked for")]
    Type { kind: u32, status: u32 },
    #[error("an error without a sense: {0}")]
    Error(XdrError),
    #[error("an event without a sense: {0}")]
    Event(XdrError),
}

/// One message from libvirt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// The answer to the call with this serial number: what the procedure returns, or libvirt's "no".
    Answer { serial: u32, procedure: u32, result: Result<Vec<u8>, Refusal> },
    /// An event that was asked for.
    Event(Event),
    /// An event that is not known here.
    OtherEvent(u32),
    /// It asks whether this end lives.
    Ping,
    /// It lives.
    Pong,
}

/// libvirt's "no": `virNetMessageError`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `virErrorNumber`.
    pub code: i32,
    /// `virErrorDomain`: which part of libvirt says it.
    pub domain: i32,
    /// For a person, in the language of the daemon.
    pub message: String,
}

/// A domain's UUID, written with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid([u8; 16]);

/// A text that is not a [`Uuid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no UUID; write it as 4dea22b3-1d52-d8f3-2516-782e98ab3fa0")]
pub struct UuidError;

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let hyphen = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = UuidError;

    /// As libvirt writes it; it also takes others, which it never writes.
    fn from_str(text: &str) -> Result<Self, UuidError> {
        let digits: String = text.split('-').collect();
        let number = u128::from_str_radix(&digits, 16).map_err(|_| UuidError)?;
        let uuid = Self(number.to_be_bytes());
        if uuid.to_string().eq_ignore_ascii_case(text) { Ok(uuid) } else { Err(UuidError) }
    }
}

impl TryFrom<String> for Uuid {
    type Error = UuidError;

    fn try_from(text: String) -> Result<Self, UuidError> {
        text.parse()
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> Self {
        uuid.to_string()
    }
}

/// A domain, as libvirt names it: `remote_nonnull_domain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID, which it keeps.
    pub uuid: Uuid,
    /// The number of its run; it has another one at its next start. `None` while it does not run.
    pub id: Option<u32>,
}

/// The state of a domain: `virDomainState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    NoState,
    Running,
    Blocked,
    Paused,
    ShuttingDown,
    ShutOff,
    Crashed,
    Suspended,
    /// One that libvirt 11.3 does not have.
    Other(i32),
}

impl From<i32> for State {
    fn from(number: i32) -> Self {
        match number {
            0 => Self::NoState,
            1 => Self::Running,
            2 => Self::Blocked,
            3 => Self::Paused,
            4 => Self::ShuttingDown,
            5 => Self::ShutOff,
            6 => Self::Crashed,
            7 => Self::Suspended,
            other => Self::Other(other),
        }
    }
}

/// Something that befell a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its state or its definition is another one.
    Lifecycle {
        /// The domain.
        domain: Domain,
        /// The change.
        change: Lifecycle,
        /// The cause: a number of `virDomainEvent…DetailType` for this change.
        detail: i32,
    },
    /// Its guest has reset it.
    Rebooted(Domain),
    /// A device has been plugged in.
    DeviceAdded {
        /// The domain.
        domain: Domain,
        /// The device.
        alias: String,
    },
    /// A device is out: its guest has let go of it. Only this says so, and no answer to a call.
    DeviceRemoved {
        /// The domain.
        domain: Domain,
        /// The device.
        alias: String,
    },
    /// A guest does not let go of a device.
    DeviceRemovalFailed {
        /// The domain.
        domain: Domain,
        /// The device.
        alias: String,
    },
    /// So many events were not fetched in time, and are lost: look at everything anew.
    Missed(u64),
}

/// A change of a domain's state or definition: `virDomainEventType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Lifecycle {
    Defined,
    Undefined,
    Started,
    Suspended,
    Resumed,
    Stopped,
    ShuttingDown,
    PmSuspended,
    Crashed,
    /// One that libvirt 11.3 does not have.
    Other(i32),
}

impl From<i32> for Lifecycle {
    fn from(number: i32) -> Self {
        match number {
            0 => Self::Defined,
            1 => Self::Undefined,
            2 => Self::Started,
            3 => Self::Suspended,
            4 => Self::Resumed,
            5 => Self::Stopped,
            6 => Self::ShuttingDown,
            7 => Self::PmSuspended,
            8 => Self::Crashed,
            other => Self::Other(other),
        }
    }
}

/// Bytes that have come and are not a whole message yet.
#[derive(Debug, Default)]
pub(super) struct Messages {
    buffer: Vec<u8>,
    /// The messages before this have been taken.
    start: usize,
}

impl Messages {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; `None` when more bytes are needed. Its length is seen to before the rest of it is waited for.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Nonsense> {
        let come = self.buffer.get(self.start..).unwrap_or_default();
        let Some(prefix) = come.first_chunk() else { return Ok(None) };
        let claimed = u32::from_be_bytes(*prefix);
        let length = usize::try_from(claimed).ok().filter(|length| (HEADER..=MAX_MESSAGE).contains(length));
        let length = length.ok_or(Nonsense::Length(claimed))?;
        let Some(message) = come.get(..length) else { return Ok(None) };
        self.start += length;
        parse(message).map(Some)
    }
}

/// Reads one message, its length included.
fn parse(message: &[u8]) -> Result<Message, Nonsense> {
    let mut reader = Reader::new(message);
    let mut next = || reader.u32().unwrap_or_default();
    let [_length, program, version, procedure, kind, serial, status] = std::array::from_fn(|_| next());
    let body = message.get(HEADER..).unwrap_or_default();
    let (not_asked_for, unknown) = (Nonsense::Type { kind, status }, Nonsense::Program { program, version });
    match (program, version) {
        (REMOTE_PROGRAM, VERSION) => {}
        (KEEPALIVE_PROGRAM, VERSION) => {
            return match (kind, procedure) {
                (MESSAGE, PING) => Ok(Message::Ping),
                (MESSAGE, PONG) => Ok(Message::Pong),
                _ => Err(not_asked_for),
            };
        }
        _ => return Err(unknown),
    }
    match (kind, status) {
        (REPLY, OK) => Ok(Message::Answer { serial, procedure, result: Ok(body.to_vec()) }),
        (REPLY, ERROR) => {
            let refusal = refusal(body).map_err(Nonsense::Error)?;
            Ok(Message::Answer { serial, procedure, result: Err(refusal) })
        }
        (MESSAGE, OK) => match event(procedure, body).map_err(Nonsense::Event)? {
            Some(event) => Ok(Message::Event(event)),
            None => Ok(Message::OtherEvent(procedure)),
        },
        _ => Err(not_asked_for),
    }
}

/// `virNetMessageError`. The text may quote anything, so that it is made fit to be shown.
fn refusal(body: &[u8]) -> Result<Refusal, XdrError> {
    let text = |reader: &mut Reader<'_>| reader.bytes().map(<[u8]>::to_vec);
    let mut reader = Reader::new(body);
    let (code, domain, message) = (reader.i32()?, reader.i32()?, reader.optional(text)?);
    let _level = reader.i32()?;
    reader.optional(read_domain)?;
    for _ in ["str1", "str2", "str3"] {
        reader.optional(text)?;
    }
    let _ = (reader.i32()?, reader.i32()?);
    let network =
        |reader: &mut Reader<'_>| -> Result<_, XdrError> { Ok((text(reader)?, reader.fixed::<16>()?)) };
    reader.optional(network)?;
    reader.end()?;
    let message = String::from_utf8_lossy(&message.unwrap_or_default()).into_owned();
    let message = if message.trim().is_empty() { "no reason given".into() } else { printable(&message, 500) };
    Ok(Refusal { code, domain, message })
}

fn event(procedure: u32, body: &[u8]) -> Result<Option<Event>, XdrError> {
    let mut reader = Reader::new(body);
    if ![LIFECYCLE, REBOOT, DEVICE_REMOVED, DEVICE_ADDED, DEVICE_REMOVAL_FAILED].contains(&procedure) {
        return Ok(None);
    }
    let _callback = reader.i32()?;
    let domain = read_domain(&mut reader)?;
    let event = match procedure {
        LIFECYCLE => Event::Lifecycle { domain, change: reader.i32()?.into(), detail: reader.i32()? },
        REBOOT => Event::Rebooted(domain),
        DEVICE_REMOVED => Event::DeviceRemoved { domain, alias: reader.string()? },
        DEVICE_ADDED => Event::DeviceAdded { domain, alias: reader.string()? },
        _ => Event::DeviceRemovalFailed { domain, alias: reader.string()? },
    };
    reader.end()?;
    Ok(Some(event))
}

/// `remote_nonnull_domain`. One that does not run has the ID -1.
fn read_domain(reader: &mut Reader<'_>) -> Result<Domain, XdrError> {
    let (name, uuid) = (reader.string()?, Uuid(reader.fixed()?));
    Ok(Domain { name, uuid, id: u32::try_from(reader.i32()?).ok() })
}

/// Adds `remote_nonnull_domain`.
pub(super) fn write_domain(writer: Writer, domain: &Domain) -> Writer {
    let id = domain.id.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1);
    writer.string(&domain.name).fixed(&domain.uuid.0).i32(id)
}

/// Adds `remote_uuid`.
pub(super) fn write_uuid(writer: Writer, uuid: Uuid) -> Writer {
    writer.fixed(&uuid.0)
}

/// A call of a procedure. Its arguments are bounded by whoever made them: two strings at most.
pub(super) fn call(procedure: Procedure, serial: u32, arguments: &[u8]) -> Vec<u8> {
    message(REMOTE_PROGRAM, procedure as u32, CALL, serial, arguments)
}

/// Asks whether the daemon lives.
pub(super) fn ping() -> Vec<u8> {
    message(KEEPALIVE_PROGRAM, PING, MESSAGE, 0, &[])
}

/// Says that this end lives.
pub(super) fn pong() -> Vec<u8> {
    message(KEEPALIVE_PROGRAM, PONG, MESSAGE, 0, &[])
}

/// A message of any kind that says it went well.
pub(super) fn message(program: u32, procedure: u32, kind: u32, serial: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let header =
        Writer::default().u32(length).u32(program).u32(VERSION).u32(procedure).u32(kind).u32(serial).u32(OK);
    let mut bytes = header.done();
    bytes.extend_from_slice(body);
    bytes
}

/// Reads all of what a procedure returns.
pub(super) fn returned<T>(
    body: &[u8],
    read: fn(&mut Reader<'_>) -> Result<T, XdrError>,
) -> Result<T, XdrError> {
    let mut reader = Reader::new(body);
    let value = read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// `remote_domain_get_xml_desc_ret`.
pub(super) fn text(reader: &mut Reader<'_>) -> Result<String, XdrError> {
    reader.string()
}

/// `remote_connect_get_lib_version_ret`.
pub(super) fn lib_version(reader: &mut Reader<'_>) -> Result<u64, XdrError> {
    reader.u64()
}

/// `remote_connect_domain_event_callback_register_any_ret`.
pub(super) fn callback(reader: &mut Reader<'_>) -> Result<i32, XdrError> {
    reader.i32()
}

/// `remote_domain_lookup_by_name_ret` and others that are one domain.
pub(super) fn one_domain(reader: &mut Reader<'_>) -> Result<Domain, XdrError> {
    read_domain(reader)
}

/// `remote_connect_list_all_domains_ret`.
pub(super) fn all_domains(reader: &mut Reader<'_>) -> Result<Vec<Domain>, XdrError> {
    let count = reader.count(MAX_DOMAINS)?;
    let domains = (0..count).map(|_| read_domain(reader)).collect::<Result<_, _>>()?;
    let _how_many = reader.u32()?;
    Ok(domains)
}

/// `remote_domain_get_state_ret`: the state, and a reason for it that depends on the state.
pub(super) fn state(reader: &mut Reader<'_>) -> Result<(State, i32), XdrError> {
    Ok((reader.i32()?.into(), reader.i32()?))
}

/// `remote_domain_is_persistent_ret`.
pub(super) fn yes_or_no(reader: &mut Reader<'_>) -> Result<bool, XdrError> {
    Ok(reader.i32()? != 0)
}

/// `remote_auth_list_ret`: numbers of `remote_auth_type`.
pub(super) fn auth_types(reader: &mut Reader<'_>) -> Result<Vec<u32>, XdrError> {
    let count = reader.count(MAX_AUTH_TYPES)?;
    (0..count).map(|_| reader.u32()).collect()
}

/// For fuzzing: the messages in a stream that comes in pieces, each as text, and each answer read as all that a call can return.
#[doc(hidden)]
#[must_use]
pub fn read_stream(pieces: &[&[u8]]) -> Vec<String> {
    let (mut messages, mut said) = (Messages::default(), Vec::new());
    for piece in pieces {
        messages.push(piece);
        loop {
            let message = messages.next();
            if message == Ok(None) {
                break;
            }
            said.push(format!("{message:?}"));
            match message {
                Ok(Some(Message::Answer { result: Ok(body), .. })) => {
                    let domains = (returned(&body, one_domain), returned(&body, all_domains));
                    let others = (returned(&body, text), returned(&body, state), returned(&body, auth_types));
                    let numbers =
                        (returned(&body, lib_version), returned(&body, callback), returned(&body, yes_or_no));
                    said.push(format!("{domains:?} {others:?} {numbers:?}"));
                }
                Err(_) => return said,
                Ok(_) => {}
            }
        }
    }
    said
}
