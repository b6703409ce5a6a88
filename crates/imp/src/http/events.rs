//! The events of the machine, as a stream of lines or of server-sent events.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue},
    response::Response,
};
use futures_util::{Stream, StreamExt, stream};
use ioward_api::{ChangeId, Topics, TopicsError};
use ioward_model::{Event, EventKind};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{lines::lines, problem::Failure, sse};
use crate::{events::now_ms, imp::Imp};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Follow {
    #[serde(default)]
    follow: bool,
    /// The number of the event that the client has seen last, or `now`.
    since: Option<String>,
    /// The run of the daemon that it saw it in.
    epoch: Option<u64>,
    /// Both in one, for those who can't send `Last-Event-ID`.
    last_event_id: Option<String>,
    /// Which events it wants; all of them if it does not say.
    topics: Option<String>,
}

/// How often whoever follows server-sent events hears something at least.
const ALIVE_EACH: Duration = Duration::from_secs(15);

pub(super) async fn events(
    State(imp): State<Arc<Imp>>,
    asked: HeaderMap,
    query: Result<Query<Follow>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Follow { follow, since, mut epoch, last_event_id, topics }) = query?;
    let is_sse = sse::is_asked_for(&asked);
    let (latest, this_epoch) = (imp.events.latest(), imp.run.epoch);
    let invalid = |error: TopicsError| Failure::invalid(error.to_string());
    let topics = topics.map_or(Ok(Topics::ALL), |topics| topics.parse()).map_err(invalid)?;
    let mut since = match since.as_deref() {
        None => None,
        Some("now") => Some(latest),
        Some(number) => {
            let invalid = || Failure::invalid(format!("since={number}: neither a number nor 'now'"));
            Some(number.parse().map_err(|_| invalid())?)
        }
    };
    // A browser that comes back says where it was, and repeats the rest of its first request.
    if let Some(id) = last_id(&asked, last_event_id)? {
        (since, epoch) = (Some(id.number), Some(id.epoch));
    }
    // Numbers of another run mean nothing here; those to come may be smaller.
    let is_other_run = epoch.is_some_and(|epoch| epoch != this_epoch);
    let is_ahead = since.is_some_and(|since: u64| since > latest);
    let restarted = (is_other_run || is_ahead).then(|| Event {
        number: 0,
        time_ms: now_ms(),
        kind: EventKind::Restarted { epoch: this_epoch },
    });
    // Without a number, nobody has missed what is not kept any more.
    let oldest = imp.events.kept().first().map_or(0, |event| event.number - 1);
    let from = since.filter(|_| restarted.is_none()).unwrap_or(oldest);
    let upto = if follow || is_sse { u64::MAX } else { latest };
    let first = stream::iter(restarted.map(|event| (0, vec![event])));
    let all = first.chain(followed(imp, Following { topics, upto, is_sse }, from));
    let mut answer = if is_sse { sse::stream(this_epoch, all) } else { lines(all.map(|(_, events)| events)) };
    for (name, value) in [("ioward-epoch", this_epoch), ("ioward-last-event", latest)] {
        answer.headers_mut().insert(name, HeaderValue::from(value));
    }
    Ok(answer)
}

/// The ID of the event that a client has seen last, as `EPOCH-NUMBER`.
fn last_id(asked: &HeaderMap, in_query: Option<String>) -> Result<Option<ChangeId>, Failure> {
    let header = asked.get("last-event-id").map(|id| id.to_str().unwrap_or("no text").to_owned());
    let Some(id) = header.or(in_query).filter(|id| !id.is_empty()) else { return Ok(None) };
    let shown: String = id.chars().take(64).collect();
    let invalid = |_| Failure::invalid(format!("'{shown}' is no ID of an event, which is EPOCH-NUMBER"));
    id.parse().map_err(invalid).map(Some)
}

#[derive(Clone, Copy)]
struct Following {
    topics: Topics,
    /// Where it ends.
    upto: u64,
    /// Whether there are signs of life: parts without events.
    is_sse: bool,
}

/// The events after `from` as they come. Nothing is kept for whoever reads them but the number of the last one.
fn followed(imp: Arc<Imp>, what: Following, from: u64) -> impl Stream<Item = sse::Part> + Send {
    let news = imp.events.news();
    let Following { topics, upto, is_sse } = what;
    stream::unfold((imp, news, from), move |(imp, mut news, mut last)| async move {
        let alive_at = Instant::now() + ALIVE_EACH;
        loop {
            if last >= upto {
                return None;
            }
            news.borrow_and_update();
            let mut events = imp.events.after(last);
            events.retain(|event| event.number <= upto);
            if let Some(event) = events.last() {
                last = event.number;
                events.retain(|event| topics.have(&event.kind));
                if events.is_empty() {
                    continue;
                }
                return Some(((last, events), (imp, news, last)));
            }
            if upto != u64::MAX {
                return None;
            }
            if !is_sse {
                news.changed().await.ok()?;
            } else if let Ok(changed) = timeout_at(alive_at, news.changed()).await {
                changed.ok()?;
            } else {
                return Some(((last, Vec::new()), (imp, news, last)));
            }
        }
    })
}
