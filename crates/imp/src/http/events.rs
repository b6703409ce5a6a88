//! The events of the machine, as a stream.

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderValue,
    response::Response,
};
use futures_util::{Stream, StreamExt, stream};
use ioward_model::{Event, EventKind};
use serde::Deserialize;

use super::{lines::lines, problem::Failure};
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
}

pub(super) async fn events(
    State(imp): State<Arc<Imp>>,
    query: Result<Query<Follow>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Follow { follow, since, epoch }) = query?;
    let (latest, this_epoch) = (imp.events.latest(), imp.run.epoch);
    let since = match since.as_deref() {
        None => None,
        Some("now") => Some(latest),
        Some(number) => {
            let invalid = || Failure::invalid(format!("since={number}: neither a number nor 'now'"));
            Some(number.parse().map_err(|_| invalid())?)
        }
    };
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
    let upto = if follow { u64::MAX } else { latest };
    let first = stream::iter(restarted.map(|event| vec![event]));
    let mut answer = lines(first.chain(followed(imp, from, upto)));
    for (name, value) in [("ioward-epoch", this_epoch), ("ioward-last-event", latest)] {
        answer.headers_mut().insert(name, HeaderValue::from(value));
    }
    Ok(answer)
}

/// The events after `from`, up to `upto`, as they come. Nothing is kept for whoever reads them but the number of the last one.
fn followed(imp: Arc<Imp>, from: u64, upto: u64) -> impl Stream<Item = Vec<Event>> + Send {
    let news = imp.events.news();
    stream::unfold((imp, news, from), move |(imp, mut news, last)| async move {
        loop {
            if last >= upto {
                return None;
            }
            news.borrow_and_update();
            let mut events = imp.events.after(last);
            events.retain(|event| event.number <= upto);
            if let Some(event) = events.last() {
                let last = event.number;
                return Some((events, (imp, news, last)));
            }
            if upto != u64::MAX {
                return None;
            }
            news.changed().await.ok()?;
        }
    })
}
