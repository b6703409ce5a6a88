//! A plan that is looked at, and one that is carried out.

use ioward_model::{EventKind, Options, Plan};

use super::{
    key::Key,
    page::{self, Page},
};
use crate::{
    error::CliError,
    present::{
        self,
        plan::Detail,
        progress::{Progress, Style},
        text,
    },
};

/// A plan that is looked at before it is carried out.
#[derive(Debug, Default)]
pub struct Preview {
    /// Options beyond the safe.
    pub options: Options,
    /// How much of it is shown.
    pub detail: Detail,
    /// Which of the plans that were asked for it is.
    pub number: u64,
    /// The plan, or why there is none; `None`: it is not there yet.
    pub answer: Option<Result<Box<Plan>, CliError>>,
    /// The line that stands first.
    pub scroll: usize,
}

impl Preview {
    /// Its text, in so many columns.
    #[must_use]
    pub fn lines(&self, columns: usize) -> Vec<String> {
        let text = match &self.answer {
            None => "the plan is being made …\n".to_owned(),
            Some(Ok(plan)) => present::plan::plan(plan, self.detail, columns),
            Some(Err(error)) => refusal(error, columns),
        };
        text::printable(&text).lines().map(str::to_owned).collect()
    }

    /// Scrolls. Whether the key is one for that.
    pub fn scroll(&mut self, key: Key, page: usize, columns: usize) -> bool {
        let to = page::scrolled(key, self.scroll, self.lines(columns).len(), page);
        self.scroll = to.unwrap_or(self.scroll);
        to.is_some()
    }
}

/// The error's text for stderr, without the program's name.
#[must_use]
pub fn refusal(error: &CliError, columns: usize) -> String {
    let text = error.text(Some(columns));
    text.strip_prefix("ioward: ").map_or(text.clone(), str::to_owned)
}

/// A refusal as a page.
#[must_use]
pub fn refusal_page(title: &str, error: &CliError) -> Page {
    let text = error.text(None);
    Page::new(title, text.strip_prefix("ioward: ").unwrap_or(&text))
}

/// A plan that is carried out.
#[derive(Debug)]
pub struct Work {
    /// The number of the change that it is, once it has begun.
    number: Option<u64>,
    progress: Progress,
    /// The events so far.
    shown: String,
    /// How it ended.
    pub ended: Option<Result<(), CliError>>,
    /// Whether the person has it undone.
    pub interrupted: bool,
}

impl Work {
    /// The beginning of it.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let progress = Progress::new(Style::Lines, plan.steps.len());
        Self { number: None, progress, shown: String::new(), ended: None, interrupted: false }
    }

    /// How it is called: `plan 7` once it has begun.
    #[must_use]
    pub fn name(&self) -> String {
        self.number.map_or_else(|| "the plan".to_owned(), |number| format!("plan {number}"))
    }

    /// Whether it still goes on.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.ended.is_none()
    }

    /// Has it undone. Whether that is new: it may go on already.
    pub fn interrupt(&mut self) -> bool {
        if std::mem::replace(&mut self.interrupted, true) {
            return false;
        }
        self.shown += &self.progress.broken_off();
        self.shown += "undoing\n";
        true
    }

    /// Something has happened.
    pub fn event(&mut self, event: &EventKind) {
        if let EventKind::PlanStarted { plan, .. } = event {
            self.number = Some(*plan);
        }
        self.shown += &self.progress.event(event);
    }

    /// It has ended.
    pub fn end(&mut self, ended: Result<(), CliError>) {
        self.shown += &self.progress.broken_off();
        self.ended = Some(ended);
    }

    /// The events so far in lines of so many columns; the outcome comes last.
    #[must_use]
    pub fn lines(&self, columns: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for line in self.shown.lines() {
            lines.extend(text::wrap(line, columns, "", "    ").lines().map(str::to_owned));
        }
        if let Some(Err(error)) = &self.ended {
            lines.extend(refusal(error, columns).lines().map(str::to_owned));
        }
        lines
    }
}
