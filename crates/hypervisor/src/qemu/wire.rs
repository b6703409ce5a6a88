//! QMP as bytes: cutting a stream into lines and reading what a line says (QEMU, `docs/interop/qmp-spec.rst`). Pure.
//!
//! The other side is a machine emulator that a guest may have taken over: a line is bounded before it is kept, and what
//! is not exactly a greeting, an event or an answer is [`Nonsense`].

use serde_json::{Map, Value};

/// The longest line taken. QEMU's own answers to what is asked here stay below 100 KiB.
const MAX_LINE: usize = 1 << 20;

/// Why what came is not QMP.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nonsense {
    #[error("a line of more than 1 MiB")]
    Endless,
    #[error("a line that is no JSON object")]
    NoObject,
    #[error("an object that is neither greeting, event nor answer")]
    NoMessage,
}

/// One line from QEMU.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// QEMU's greeting.
    Greeting,
    /// An event.
    Event { name: String, data: Value },
    /// The answer to the command with this ID.
    Answer { id: u64, result: Result<Value, Refusal> },
}

/// QEMU's "no".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `GenericError`, `DeviceNotFound` and a few more.
    pub class: String,
    /// For a person.
    pub description: String,
}

/// Bytes that have come and are not a whole line yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
}

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, without its end; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Nonsense> {
        let end =
            self.buffer[self.searched..].iter().position(|&byte| byte == b'\n').map(|at| self.searched + at);
        if end.unwrap_or(self.buffer.len()) > MAX_LINE {
            return Err(Nonsense::Endless);
        }
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return Ok(None);
        };
        let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
        line.pop();
        self.searched = 0;
        Ok(Some(line))
    }
}

/// Reads one line.
pub(super) fn parse(line: &[u8]) -> Result<Message, Nonsense> {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(line) else { return Err(Nonsense::NoObject) };
    if object.contains_key("QMP") {
        return Ok(Message::Greeting);
    }
    if let Some(Value::String(name)) = object.remove("event") {
        return Ok(Message::Event { name, data: object.remove("data").unwrap_or_default() });
    }
    let id = object.get("id").and_then(Value::as_u64).ok_or(Nonsense::NoMessage)?;
    let result = match (object.remove("return"), object.remove("error")) {
        (Some(value), None) => Ok(value),
        (None, Some(Value::Object(error))) => Err(refusal(&error)),
        _ => return Err(Nonsense::NoMessage),
    };
    Ok(Message::Answer { id, result })
}

fn refusal(error: &Map<String, Value>) -> Refusal {
    let text = |key, max| {
        crate::text::printable(error.get(key).and_then(Value::as_str).unwrap_or("no reason given"), max)
    };
    Refusal { class: text("class", 60), description: text("desc", 500) }
}

/// One command, as a line.
pub(super) fn command(id: u64, name: &str, arguments: &Value) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("execute".into(), name.into());
    if !arguments.is_null() {
        object.insert("arguments".into(), arguments.clone());
    }
    object.insert("id".into(), id.into());
    let mut line = Value::Object(object).to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_may_come_in_pieces_and_several_may_come_at_once() {
        let mut lines = Lines::default();
        lines.push(b"{\"a\"");
        assert_eq!(lines.next(), Ok(None));
        lines.push(b":1}\r\nsecond\n\nrest");
        assert_eq!(lines.next(), Ok(Some(b"{\"a\":1}\r".to_vec())));
        assert_eq!(lines.next(), Ok(Some(b"second".to_vec())));
        assert_eq!(lines.next(), Ok(Some(Vec::new())));
        assert_eq!(lines.next(), Ok(None));
        lines.push(b"\n");
        assert_eq!(lines.next(), Ok(Some(b"rest".to_vec())));
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE]);
        assert_eq!(lines.next(), Ok(None));
        lines.push(b"x");
        assert_eq!(lines.next(), Err(Nonsense::Endless));

        let mut lines = Lines::default();
        lines.push(&vec![b'x'; MAX_LINE + 1]);
        lines.push(b"\n");
        assert_eq!(lines.next(), Err(Nonsense::Endless), "nor one whose end came after all");
    }

    #[test]
    fn greeting_event_answer_and_refusal_are_told_apart() {
        assert_eq!(parse(br#"{"QMP":{"version":{}}}"#), Ok(Message::Greeting));
        assert_eq!(
            parse(br#"{"timestamp":{},"event":"SHUTDOWN","data":{"guest":true}}"#),
            Ok(Message::Event { name: "SHUTDOWN".into(), data: json!({"guest": true}) })
        );
        assert_eq!(
            parse(b"{\"return\":{},\"id\":7}\r"),
            Ok(Message::Answer { id: 7, result: Ok(json!({})) })
        );
        let refused = parse(br#"{"id":8,"error":{"class":"DeviceNotFound","desc":"no \u001bnet0"}}"#);
        let refusal = Refusal { class: "DeviceNotFound".into(), description: "no  net0".into() };
        assert_eq!(refused, Ok(Message::Answer { id: 8, result: Err(refusal) }));
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_panic() {
        let deep = "[".repeat(100_000);
        for line in ["", "null", "7", "[]", "{", "\u{0}", deep.as_str()] {
            assert_eq!(parse(line.as_bytes()), Err(Nonsense::NoObject));
        }
        for line in [
            "{}",
            r#"{"return":{}}"#,
            r#"{"return":{},"id":-1}"#,
            r#"{"return":{},"id":"1"}"#,
            r#"{"id":1}"#,
            r#"{"id":1,"error":"x"}"#,
            r#"{"id":1,"return":{},"error":{}}"#,
            r#"{"event":7}"#,
        ] {
            assert_eq!(parse(line.as_bytes()), Err(Nonsense::NoMessage), "{line}");
        }
    }

    #[test]
    fn a_command_is_one_line() {
        let line = command(3, "qom-list", &json!({"path": "/a\nb"}));
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let back: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(back, json!({"execute": "qom-list", "arguments": {"path": "/a\nb"}, "id": 3}));
        assert_eq!(command(1, "quit", &Value::Null), b"{\"execute\":\"quit\",\"id\":1}\n");
    }
}
