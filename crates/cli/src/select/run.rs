//! The edge of the screen: the terminal, the keys, the daemon, the files.

use std::{
    env,
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process,
    sync::Arc,
    thread,
};

use ioward_api::{ApplyRequest, Compatible, PlanRequest};
use ioward_model::{Event, EventKind, Intent, Owner, Plan, Spec};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event as TerminalEvent},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    key::Key,
    screen::{Answer, Effect, Known, Leaving, Screen},
    view::{self, Theme},
};
use crate::{
    client::{Client, ClientError, Lines},
    error::{CliError, Unsettled},
    signals::{INTERRUPT, Signals},
    spec_file, terminal,
};

/// Shows the screen until the person leaves it.
///
/// # Errors
/// When there is no terminal, the daemon does not answer, or a signal ends it.
pub async fn select(client: Client, file: Option<PathBuf>) -> Result<(), CliError> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "select needs a terminal; without one, options say it all: ioward assign NAME --class CLASS; \
             see: ioward assign --help"
                .to_owned(),
        ));
    }
    if file.as_deref() == Some(Path::new("-")) {
        return Err(CliError::Usage(
            "a Spec on stdin leaves no keyboard to choose by; name a file".to_owned(),
        ));
    }
    let spec = file.as_deref().map(spec_file::read).transpose()?.map(|file| file.spec);
    let folder = env::current_dir().map_err(CliError::Start)?;
    let client = Arc::new(client);
    let known = load(&client).await?;
    let mut signals = Signals::new().map_err(CliError::Start)?;

    let mut own = OwnTerminal::enter().map_err(CliError::Terminal)?;
    let size = own.terminal.size().map_err(CliError::Terminal)?;
    let mut screen = Screen::new(known, spec, file, folder, (size.width, size.height));
    let ended = run(&mut own.terminal, &mut signals, &client, &mut screen).await;
    drop(own);
    if matches!(ended, Err(CliError::Terminal(_))) {
        // It may be gone for good, as after a hang-up.
        screen.done.push(keep(&screen).to_string());
    }
    // The screen is gone, and what was done on it with it. After a hang-up there may be nobody to tell.
    let told = screen.done.iter().try_for_each(|done| terminal::print(&format!("{done}\n")));
    ended.and(told)
}

/// What a signal ends is kept in a file of its own beside the others: after a hang-up there is nobody to ask for a name.
fn keep(screen: &Screen) -> Unsettled {
    if !screen.choice.is_unsettled() {
        return Unsettled::Nothing;
    }
    let file = format!("ioward-select-{}.toml", process::id());
    match save(Path::new(&file), screen.choice.spec(), false) {
        Ok(true) => Unsettled::Kept(file),
        Ok(false) => Unsettled::Lost(format!("there is a file {file} already")),
        Err(error) => Unsettled::Lost(error.to_string()),
    }
}

async fn run(
    terminal: &mut DefaultTerminal,
    signals: &mut Signals,
    client: &Arc<Client>,
    screen: &mut Screen,
) -> Result<(), CliError> {
    let theme = Theme::of(env::var("NO_COLOR").ok().as_deref(), env::var("TERM").ok().as_deref());
    let mut events = terminal_events();
    let (sender, mut answers) = mpsc::unbounded_channel();
    let mut tasks = Tasks { client: Arc::clone(client), sender, applying: None };
    loop {
        terminal.draw(|frame| view::draw(frame, screen, theme)).map_err(CliError::Terminal)?;
        let effect = tokio::select! {
            event = events.recv() => match event {
                Some(Ok(TerminalEvent::Key(key))) => Key::of(key).and_then(|key| screen.key(key)),
                Some(Ok(TerminalEvent::Resize(columns, lines))) => {
                    screen.resize((columns, lines));
                    None
                }
                Some(Ok(_)) => None,
                Some(Err(error)) => return Err(CliError::Terminal(error)),
                None => return Err(CliError::Terminal(io::ErrorKind::UnexpectedEof.into())),
            },
            Some(answer) = answers.recv() => screen.answer(answer),
            signal = signals.next() => {
                return Err(CliError::SelectEnded { signal, undoing: screen.is_working(), choice: keep(screen) });
            }
        };
        match effect {
            Some(Effect::Leave(Leaving::Done)) => return Ok(()),
            Some(Effect::Leave(Leaving::Interrupted)) => {
                let choice =
                    if screen.choice.is_unsettled() { Unsettled::Dropped } else { Unsettled::Nothing };
                return Err(CliError::SelectEnded { signal: INTERRUPT, undoing: false, choice });
            }
            Some(Effect::Leave(Leaving::Undoing)) => return Err(CliError::LeftRollback),
            Some(effect) => tasks.begin(effect),
            None => {}
        }
    }
}

/// The terminal in raw mode and on its other screen, until dropped or until something panics.
struct OwnTerminal {
    terminal: DefaultTerminal,
}

impl OwnTerminal {
    fn enter() -> io::Result<Self> {
        // A failure restores the terminal.
        ratatui::try_init().map(|terminal| Self { terminal }).inspect_err(|_| _ = ratatui::try_restore())
    }
}

impl Drop for OwnTerminal {
    fn drop(&mut self) {
        // `ratatui::restore` would tell of a failure on stderr, and panic where that has hung up too.
        let _ = ratatui::try_restore();
    }
}

/// Events of the terminal. They are read on a thread of its own, which ends with the process: a read from a terminal
/// can't be taken back.
fn terminal_events() -> mpsc::UnboundedReceiver<io::Result<TerminalEvent>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        loop {
            let event = event::read();
            let is_last = event.is_err();
            if sender.send(event).is_err() || is_last {
                break;
            }
        }
    });
    receiver
}

/// Tasks that run beside the screen.
struct Tasks {
    client: Arc<Client>,
    sender: mpsc::UnboundedSender<Answer>,
    /// Carries a plan out, and the number of the latest event that was seen of it. Ending it closes the connection, which
    /// has the daemon undo the plan.
    applying: Option<(JoinHandle<()>, watch::Receiver<Option<u64>>)>,
}

impl Tasks {
    fn begin(&mut self, effect: Effect) {
        let (client, sender) = (Arc::clone(&self.client), self.sender.clone());
        let answer = move |answer| {
            // Nobody listens once the screen is left.
            let _ = sender.send(answer);
        };
        match effect {
            Effect::Load => {
                tokio::spawn(async move { answer(Answer::Loaded(load(&client).await.map(Box::new))) });
            }
            Effect::Compatible(request, owner) => {
                tokio::spawn(async move {
                    let found = client.post("/v1/compatible", &*request).await;
                    let found = found.and_then(|all| of_request(all, &owner));
                    answer(Answer::Compatible(owner, found));
                });
            }
            Effect::Plan(number, spec, options) => {
                let request = PlanRequest { intent: Intent::Apply { spec: *spec }, options };
                tokio::spawn(async move {
                    answer(Answer::Plan(number, client.post("/v1/plan", &request).await.map(Box::new)));
                });
            }
            Effect::Apply(plan) => {
                let (seen, sees) = watch::channel(None);
                let task = tokio::spawn(async move {
                    let ended = apply(&client, *plan, &seen, |event| answer(Answer::Event(event))).await;
                    answer(Answer::Ended(ended));
                });
                self.applying = Some((task, sees));
            }
            Effect::Undo => {
                let Some((task, seen)) = self.applying.take() else { return };
                task.abort();
                let seen = *seen.borrow();
                tokio::spawn(async move {
                    let ended = match seen {
                        Some(seen) => undoing(&client, seen, |event| answer(Answer::Event(event))).await,
                        None => Err(CliError::Declined),
                    };
                    answer(Answer::Ended(ended));
                });
            }
            Effect::Save { file, spec, over } => {
                let saved = save(&file, &spec, over);
                answer(Answer::Saved(file, saved));
            }
            // It ends the loop instead.
            Effect::Leave(_) => {}
        }
    }
}

async fn load(client: &Client) -> Result<Known, CliError> {
    Ok(Known {
        inventory: client.get("/v1/host").await?,
        partitions: client.get("/v1/partitions").await?,
        held: client.get("/v1/spec").await?,
    })
}

fn of_request(all: Vec<Compatible>, owner: &Owner) -> Result<Compatible, CliError> {
    let found = all.into_iter().find(|found| found.request == *owner);
    found.ok_or_else(|| CliError::NotFound(format!("the daemon says nothing of {owner}")))
}

/// Has a plan carried out. `seen` is told the number of the latest event: that of the last one before the plan first.
async fn apply(
    client: &Client,
    plan: Plan,
    seen: &watch::Sender<Option<u64>>,
    show: impl Fn(EventKind),
) -> Result<(), CliError> {
    let none = client.get_lines("/v1/events?since=now").await?;
    seen.send_replace(Some(none.number("ioward-last-event").unwrap_or(0)));
    let lines = client.post_lines("/v1/apply", &ApplyRequest { plan, wait_seconds: 0 }).await?;
    follow(lines, |event| {
        seen.send_replace(Some(event.number));
        show(event.kind);
    })
    .await
}

/// Sees to the end of a plan whose connection was closed: what comes after the event of this number.
async fn undoing(client: &Client, seen: u64, show: impl Fn(EventKind)) -> Result<(), CliError> {
    let lines = client.get_lines(&format!("/v1/events?follow=true&since={seen}")).await?;
    follow_after(lines, seen, |event| show(event.kind)).await
}

async fn follow(lines: Lines, show: impl FnMut(Event)) -> Result<(), CliError> {
    follow_after(lines, 0, show).await
}

/// Reads events until a plan has ended, those up to a number left out. One plan is carried out at a time.
async fn follow_after(mut lines: Lines, seen: u64, mut show: impl FnMut(Event)) -> Result<(), CliError> {
    loop {
        let event = match lines.next::<Event>().await {
            Ok(Some((_, event))) => event,
            Ok(None) | Err(ClientError::BrokenOff { .. }) => return Err(ClientError::Unfinished.into()),
            Err(error) => return Err(error.into()),
        };
        if event.number <= seen {
            continue;
        }
        let ended = match &event.kind {
            EventKind::PlanDone { .. } => Some(Ok(())),
            EventKind::PlanFailed { plan, error, undone } => {
                Some(Err(CliError::PlanFailed { plan: *plan, error: error.clone(), undone: *undone }))
            }
            _ => None,
        };
        show(event);
        if let Some(ended) = ended {
            return ended;
        }
    }
}

/// Writes a Spec to a file; `false`: there is one already.
fn save(file: &Path, spec: &Spec, over: bool) -> Result<bool, CliError> {
    let unwritten = |source| CliError::SpecUnwritten { file: file.display().to_string(), source };
    let text = spec.to_toml().map_err(|error| unwritten(io::Error::other(error)))?;
    let mut options = OpenOptions::new();
    options.write(true);
    let options = if over { options.create(true).truncate(true) } else { options.create_new(true) };
    let written = options.open(file).and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !over => Ok(false),
        Err(error) => Err(unwritten(error)),
    }
}
