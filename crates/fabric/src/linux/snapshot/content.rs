//! The content of a file: in JSON a string if it is text, and otherwise rows of 16 bytes in hexadecimal as lspci
//! -xxxx prints them. Rows of zeros, most of the 4096 bytes of configuration space, are left out. Memory holds the
//! same form, so a few bytes of JSON that stand for many cost no more than themselves.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use ioward_model::IntoMap;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// Maximum size of a file in a snapshot, in bytes: more than an attribute has, and enough for a reduced table.
pub(super) const MAX_CONTENT: usize = 128 << 10;
const ROW: usize = 16;

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Content {
    Text(String),
    Bytes(Rows),
}

/// Bytes that are not text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rows {
    length: usize,
    /// By offset, as `0a0`; each offset and its bytes are valid.
    rows: BTreeMap<String, String>,
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let is_text = |text: &&str| text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t');
        match std::str::from_utf8(bytes).ok().filter(is_text) {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(Rows::of(bytes)),
        }
    }

    /// Number of bytes.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(rows) => rows.length,
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.as_bytes().to_vec(),
            Self::Bytes(rows) => rows.bytes(),
        }
    }

    /// The text, with a placeholder for invalid parts.
    pub(super) fn lossy(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes(rows) => String::from_utf8_lossy(&rows.bytes()).into_owned().into(),
        }
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::of(text.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what a file holds: a text, or a length and rows of bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Content, A::Error> {
        let rows = Rows::deserialize(MapAccessDeserializer::new(map))?;
        rows.check().map_err(A::Error::custom)?;
        Ok(Content::Bytes(rows))
    }
}

impl Rows {
    fn of(bytes: &[u8]) -> Self {
        let rows = bytes.chunks(ROW).enumerate().filter(|(_, row)| row.iter().any(|byte| *byte != 0));
        let hex = |row: &[u8]| row.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let rows = rows.map(|(number, row)| (format!("{:03x}", number * ROW), hex(row))).into_map();
        Self { length: bytes.len(), rows }
    }

    fn check(&self) -> Result<(), String> {
        if self.length > MAX_CONTENT {
            return Err(format!("a file of {} bytes; it has at most {MAX_CONTENT}", self.length));
        }
        let fits = |(offset, row): &(usize, Vec<u8>)| {
            row.len() <= ROW && offset.checked_add(row.len()).is_some_and(|end| end <= self.length)
        };
        let strange = self.rows.iter().find(|(offset, row)| !parse(offset, row).as_ref().is_some_and(fits));
        strange.map_or(Ok(()), |(offset, _)| {
            Err(format!("the row '{}' is none of a file of {} bytes", short(offset), self.length))
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        for (offset, row) in self.rows.iter().filter_map(|(offset, row)| parse(offset, row)) {
            if let Some(place) = bytes.get_mut(offset..).and_then(|rest| rest.get_mut(..row.len())) {
                place.copy_from_slice(&row);
            }
        }
        bytes
    }
}

/// Offset and bytes of a row.
fn parse(offset: &str, row: &str) -> Option<(usize, Vec<u8>)> {
    Some((usize::from_str_radix(offset, 16).ok()?, row.split(' ').map(byte).collect::<Option<_>>()?))
}

fn byte(digits: &str) -> Option<u8> {
    let are_two = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    are_two.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// The beginning of a text, enough to find it again.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(bytes: &[u8]) -> String {
        let json = serde_json::to_string(&Content::of(bytes)).unwrap();
        assert_eq!(serde_json::from_str::<Content>(&json).unwrap().bytes(), bytes);
        json
    }

    #[test]
    fn text_stays_text_and_bytes_become_rows() {
        assert_eq!(there_and_back(b"0x8086\n"), r#""0x8086\n""#);
        assert_eq!(there_and_back(b""), r#""""#);
        let mut config = vec![0; 40];
        (config[0], config[39]) = (0x86, 0xff);
        assert_eq!(
            there_and_back(&config),
            r#"{"length":40,"rows":{"000":"86 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00","020":"00 00 00 00 00 00 00 ff"}}"#
        );
        there_and_back(&[0; 4096]);
        there_and_back(&[0xff; 4096]);
    }

    #[test]
    fn invalid_rows_are_refused() {
        for wrong in [
            r#"{"length":16,"rows":{"010":"00"}}"#,
            r#"{"length":16,"rows":{"00f":"00 00"}}"#,
            r#"{"length":16,"rows":{"ffffffffffffffff":"00"}}"#,
            r#"{"length":16,"rows":{"000":"0"}}"#,
            r#"{"length":16,"rows":{"000":"+1"}}"#,
            r#"{"length":16,"rows":{"000":""}}"#,
            r#"{"length":99999999999,"rows":{}}"#,
            r#"{"length":-1,"rows":{}}"#,
            r#"{"rows":{}}"#,
            "[1]",
            "7",
        ] {
            assert!(serde_json::from_str::<Content>(wrong).is_err(), "{wrong}");
        }
    }
}
