//! `ioward events`: what happened, and with `--follow` what happens. Whoever follows has a cursor, and goes on from it when the
//! connection is lost: no event is shown twice, and none is left out unless the daemon says so.

use std::{io, io::Write, time::Duration};

use ioward_model::{Event, EventKind};

use crate::{
    client::{Client, ClientError, Lines},
    error::CliError,
    events_filter::{EventsFilter, Since},
    present, terminal,
};

/// Between two tries to reach a daemon that has gone.
const AGAIN: Duration = Duration::from_secs(1);

/// How far somebody has followed.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// The run of the daemon in which the number counts; `None`: the daemon did not say.
    epoch: Option<u64>,
    /// The number of the last event that was seen.
    number: u64,
}

impl Cursor {
    /// Moves on to an event. Whether that was not seen before.
    fn moves_to(&mut self, event: &Event) -> bool {
        if let EventKind::Restarted { epoch } = event.kind {
            *self = Self { epoch: Some(epoch), number: 0 };
            return true;
        }
        let is_new = event.number > self.number;
        self.number = self.number.max(event.number);
        is_new
    }

    fn route(self) -> String {
        let epoch = self.epoch.map(|epoch| format!("&epoch={epoch}")).unwrap_or_default();
        format!("/v1/events?follow=true&since={}{epoch}", self.number)
    }
}

/// Shows events; with `follow`, until it is ended from outside.
///
/// # Errors
/// When the daemon does not answer at the beginning, or says no; when nothing can be written.
pub async fn events(
    client: &Client,
    follow: bool,
    mut filter: EventsFilter,
    json: bool,
) -> Result<(), CliError> {
    let since = match filter.since() {
        // What comes of a step names no partition: its beginning has to be seen.
        _ if filter.needs_all() => String::new(),
        Some(Since::Number(number)) => format!("&since={number}"),
        None if follow => "&since=now".to_owned(),
        _ => String::new(),
    };
    let mut lines = client.get_lines(&format!("/v1/events?follow={follow}{since}")).await?;
    let mut cursor = Cursor { epoch: lines.number("ioward-epoch"), number: 0 };
    if follow && filter.since().is_none() {
        let latest = lines.number("ioward-last-event").unwrap_or(0);
        filter.begin_after(latest);
        cursor.number = if filter.needs_all() { 0 } else { latest };
    }
    loop {
        let lost = show(&mut lines, &mut cursor, &mut filter, json).await?;
        match lost {
            Some(error) if !follow => return Err(error.into()),
            None if !follow => return Ok(()),
            _ => {}
        }
        // Whoever reads stdout reads events.
        let _ =
            io::stderr().write_all(b"the connection to the daemon is lost; going on as soon as it is back\n");
        lines = again(client, cursor).await?;
    }
}

/// Shows what comes, until the connection ends; why it broke off, if it did.
async fn show(
    lines: &mut Lines,
    cursor: &mut Cursor,
    filter: &mut EventsFilter,
    json: bool,
) -> Result<Option<ClientError>, CliError> {
    loop {
        let (text, event) = match lines.next::<Event>().await {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(None),
            Err(error @ ClientError::BrokenOff { .. }) => return Ok(Some(error)),
            Err(error) => return Err(error.into()),
        };
        if !cursor.moves_to(&event) || !filter.passes(&event) {
            continue;
        }
        if json {
            terminal::print_raw(&(text + "\n"))?;
        } else {
            terminal::print(&present::events::event(&event))?;
        }
    }
}

/// The events after the cursor, from a daemon that is back.
async fn again(client: &Client, cursor: Cursor) -> Result<Lines, CliError> {
    loop {
        tokio::time::sleep(AGAIN).await;
        match client.get_lines(&cursor.route()).await {
            Err(CliError::Client(error)) if error.may_pass() => {}
            answered => return answered,
        }
    }
}
