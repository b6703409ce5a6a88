//! Server-sent events (HTML, "Server-sent events"): the format in which a browser follows a stream and resumes it.

use axum::{
    body::Body,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt};
use ioward_api::ChangeId;
use ioward_model::Event;

/// The media type.
const EVENT_STREAM: &str = "text/event-stream";

/// Events up to this number, some at once; none: a sign of life.
pub(super) type Part = (u64, Vec<Event>);

pub(super) fn is_asked_for(asked: &HeaderMap) -> bool {
    let accepts = asked.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepts.flat_map(|value| value.split(','));
    types.any(|it| it.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(EVENT_STREAM))
}

/// An event's ID: which run of the daemon it is of, and its number there. It has the form of a change's.
pub(super) fn id(epoch: u64, number: u64) -> ChangeId {
    ChangeId { epoch, number }
}

pub(super) fn stream(epoch: u64, parts: impl Stream<Item = Part> + Send + 'static) -> Response {
    let frames = parts.map(move |(upto, events)| frame(epoch, upto, &events));
    let headers = [(header::CONTENT_TYPE, EVENT_STREAM), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(frames)).into_response()
}

/// A sign of life says how far the stream is as well: whoever follows a few topics does not come back to where they were long ago.
fn frame(epoch: u64, upto: u64, events: &[Event]) -> serde_json::Result<String> {
    let mut text = String::new();
    for event in events {
        let value = serde_json::to_value(event)?;
        let kind = value["event"].as_str().unwrap_or_default();
        let (id, data) = (id(epoch, event.number), serde_json::to_string(event)?);
        // JSON has no line breaks but escaped ones.
        text += &format!("id: {id}\nevent: {kind}\ndata: {data}\n\n");
    }
    if events.is_empty() {
        text = format!(": alive\nid: {}\n\n", id(epoch, upto));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use ioward_model::EventKind;

    use super::*;

    #[test]
    fn an_event_is_a_block_with_its_id_and_kind() {
        let event = Event {
            number: 812,
            time_ms: 5,
            kind: EventKind::ChannelMisused {
                partition: "web".parse().unwrap(),
                what: "a\nb: \u{1b}".into(),
            },
        };
        let text = frame(7, 812, std::slice::from_ref(&event)).unwrap();
        let lines: Vec<_> = text.split('\n').collect();
        let [id, kind, data, "", ""] = lines[..] else { panic!("{lines:?}") };
        assert_eq!((id, kind), ("id: 7-812", "event: channel-misused"));
        assert_eq!(serde_json::from_str::<Event>(data.strip_prefix("data: ").unwrap()).unwrap(), event);
        assert_eq!(frame(7, 900, &[]).unwrap(), ": alive\nid: 7-900\n\n");
    }

    #[test]
    fn a_browser_is_told_from_others_by_what_it_accepts() {
        let asked =
            |value| is_asked_for(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]));
        assert!(asked("text/event-stream") && asked("text/html, Text/Event-Stream;q=0.9"));
        assert!(!asked("*/*") && !asked("text/event") && !is_asked_for(&HeaderMap::new()));
    }
}
