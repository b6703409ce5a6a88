//! The bytes of netlink's messages. What comes in may be cut off anywhere.

use std::io;

/// `struct nlmsghdr`.
const NLMSG_HEADER: usize = 16;
/// `struct ifinfomsg`, with which the body of a message about an interface begins.
pub const IFINFOMSG: usize = 16;
/// `struct genlmsghdr`, with which the body of a message of a generic netlink family begins.
pub(crate) const GENLMSG: usize = 4;
/// `struct nlattr`: its length and its type.
pub const NLA_HEADER: usize = 4;
/// The two high bits of an attribute's type are flags (nested, network byte order).
pub const NLA_TYPE_MASK: u16 = 0x3fff;

/// An error about a message that makes no sense.
#[must_use]
pub fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A message about one interface (about none: 0): `struct nlmsghdr`, its length still 0, and `struct ifinfomsg`.
#[must_use]
pub fn request(kind: u16, flags: u16, ifindex: u32) -> Vec<u8> {
    let mut message = header(kind, flags);
    message.extend([0; 4]);
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 8]);
    message
}

/// A message to a generic netlink family: `struct nlmsghdr`, its length still 0, and `struct genlmsghdr`.
pub(crate) fn generic(family: u16, flags: u16, command: u8) -> Vec<u8> {
    /// No family has ever had another; the kernel does not look at it.
    const VERSION: u8 = 1;
    let mut message = header(family, flags);
    message.extend([command, VERSION, 0, 0]);
    message
}

fn header(kind: u16, flags: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    message.extend([0; 4]);
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; NLMSG_HEADER - 8]);
    message
}

/// Appends one attribute. What is sent from here is far shorter than an attribute can be.
pub fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(NLA_HEADER + value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Writes the length and the number of a message into its header.
pub(crate) fn seal(message: &mut [u8], sequence: u32) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[8..12].copy_from_slice(&sequence.to_ne_bytes());
    Ok(())
}

/// The number at an offset, in the machine's byte order; `None` where there are too few bytes.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// As [`u16_at`].
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// As [`u16_at`].
#[must_use]
pub fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// As [`u16_at`].
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The number of the message at the start of `bytes`.
pub(crate) fn sequence_of(bytes: &[u8]) -> Option<u32> {
    u32_at(bytes, 8)
}

/// The type and the body of the message at the start of `bytes`.
///
/// # Errors
/// When it is cut off.
pub fn message_body(bytes: &[u8]) -> io::Result<(u16, &[u8])> {
    let length = u32_at(bytes, 0).and_then(|length| usize::try_from(length).ok());
    let body = length.and_then(|length| bytes.get(NLMSG_HEADER..length));
    u16_at(bytes, 4).zip(body).ok_or_else(|| invalid("the kernel's message is cut off"))
}

/// The messages in a datagram of a dump, up to the first that is malformed: sequence number, type, body.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u32, u16, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, body) = message_body(bytes).ok()?;
        let sequence = sequence_of(bytes)?;
        bytes = bytes.get((NLMSG_HEADER + body.len()).next_multiple_of(4)..).unwrap_or_default();
        Some((sequence, kind, body))
    })
}

/// One attribute at the start of `bytes`: its type, its value, and where the next one starts.
#[must_use]
pub fn first_attribute(bytes: &[u8]) -> Option<(u16, &[u8], usize)> {
    let length = usize::from(u16_at(bytes, 0)?);
    let value = bytes.get(NLA_HEADER..length)?;
    Some((u16_at(bytes, 2)? & NLA_TYPE_MASK, value, length.next_multiple_of(4)))
}

/// The attributes in `bytes`, up to the first that is malformed.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, value, next) = first_attribute(bytes)?;
        bytes = bytes.get(next..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A text that the kernel ends with a zero.
pub(crate) fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(&[0]).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_is_no_message() {
        assert!(message_body(&[1; 8]).is_err());
        assert!(message_body(&[0xff; 16]).is_err());
        assert_eq!(messages(&[0xff; 64]).count(), 0);
        assert_eq!(attributes(&[2, 0, 0, 0]).count(), 0, "shorter than its own header");
    }
}
