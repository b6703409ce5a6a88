//! Keys for a plan and a file, and the effect of answers on the screen.

use std::path::PathBuf;

use ioward_model::Options;

use super::{
    input::Input,
    key::Key,
    rows::Functions,
    screen::{Answer, Effect, Known, Mode, Screen},
    work::{self, Preview, Work},
};

/// The file name proposed for a new Spec.
const NEW_FILE: &str = "ioward.toml";

impl Screen {
    /// Asks for the plan of the Spec as it is now.
    pub(super) fn ask_plan(&mut self, preview: Preview) -> Option<Effect> {
        self.asked += 1;
        let options = preview.options;
        self.mode = Mode::Plan(Preview { number: self.asked, answer: None, scroll: 0, ..preview });
        Some(Effect::Plan(self.asked, Box::new(self.choice.spec().clone()), options))
    }

    pub(super) fn plan(&mut self, mut preview: Preview, key: Key) -> Option<Effect> {
        self.note.clear();
        let Options { allow_management_nic, allow_disruption, .. } = preview.options;
        match key {
            Key::Esc | Key::Char('q') => return None,
            Key::Char('x') => preview.detail.explain = !preview.detail.explain,
            Key::Char('t') => preview.detail.steps = !preview.detail.steps,
            Key::Char('o') => {
                preview.options.allow_disruption = !allow_disruption;
                return self.ask_plan(preview);
            }
            Key::Char('m') => {
                preview.options.allow_management_nic = !allow_management_nic;
                return self.ask_plan(preview);
            }
            Key::Char('s') => {
                self.begin_save();
                return None;
            }
            Key::Char('a') => match &preview.answer {
                Some(Ok(plan)) if !plan.steps.is_empty() => {
                    self.mode = Mode::Work(Work::new(plan));
                    return Some(Effect::Apply(plan.clone()));
                }
                Some(Ok(_)) => self.note = "there is nothing to do".to_owned(),
                Some(Err(_)) => self.note = "there is no plan to apply".to_owned(),
                None => {}
            },
            key => {
                preview.scroll(key, self.page_lines(), self.columns());
            }
        }
        self.mode = Mode::Plan(preview);
        None
    }

    pub(super) fn work(&mut self, work: Work, key: Key) {
        let is_read = matches!(key, Key::Enter | Key::Esc | Key::Char('q' | ' '));
        if work.is_going() || !is_read {
            self.mode = Mode::Work(work);
        }
    }

    pub(super) fn begin_save(&mut self) {
        let file = self.file.as_ref().map_or(NEW_FILE.to_owned(), |file| file.display().to_string());
        self.mode = Mode::Save(Input::new(&file), None);
    }

    pub(super) fn save(&mut self, mut input: Input, over: Option<PathBuf>, key: Key) -> Option<Effect> {
        self.note.clear();
        match key {
            Key::Esc => None,
            Key::Enter if input.text().is_empty() => {
                self.mode = Mode::Save(input, None);
                None
            }
            Key::Enter => {
                let file = PathBuf::from(input.text());
                let over = over.as_ref() == Some(&file);
                self.mode = Mode::Save(input, None);
                Some(Effect::Save { file, spec: Box::new(self.choice.spec().clone()), over })
            }
            key => {
                input.key(key);
                self.mode = Mode::Save(input, over);
                None
            }
        }
    }

    /// Something that was to be done has an answer. One that nobody waits for any more changes nothing.
    pub fn answer(&mut self, answer: Answer) -> Option<Effect> {
        match answer {
            Answer::Loaded(Ok(known)) => self.loaded(*known),
            Answer::Loaded(Err(error)) => self.note = first_line(&work::refusal(&error, usize::MAX)),
            Answer::Compatible(owner, found) if matches!(self.mode, Mode::Asking) => {
                let pinned = self.choice.vf(&owner).map_or((None, None), |vf| (vf.pf, vf.index));
                self.mode = match found {
                    Ok(found) => Mode::Functions(Functions::new(found, pinned)),
                    Err(error) => Mode::Page(work::refusal_page("What suits can't be told", &error)),
                };
            }
            Answer::Compatible(..) => {}
            Answer::Plan(number, answer) => {
                if let Mode::Plan(preview) = &mut self.mode
                    && preview.number == number
                {
                    preview.answer = Some(answer);
                }
            }
            Answer::Event(event) => {
                if let Mode::Work(work) = &mut self.mode {
                    work.event(&event);
                }
            }
            Answer::Ended(ended) => {
                if let Mode::Work(work) = &mut self.mode {
                    if ended.is_ok() {
                        self.choice.settle();
                        self.done.push(format!("{} is applied", work.name()));
                    }
                    work.end(ended);
                }
                return Some(Effect::Load);
            }
            Answer::Saved(file, saved) => self.saved(file, saved),
        }
        None
    }

    fn loaded(&mut self, known: Known) {
        self.choice.held_is(known.held.clone());
        self.known = known;
        self.adapter = self.adapter.min(self.known.inventory.physical_functions.len().saturating_sub(1));
        self.row = self.row.min(self.choice.rows().len().saturating_sub(1));
    }

    fn saved(&mut self, file: PathBuf, saved: Result<bool, crate::error::CliError>) {
        let name = file.display().to_string();
        match saved {
            Ok(true) => {
                self.choice.settle();
                self.note = format!("saved in {name}");
                self.done.push(format!("the choice is saved in {name}"));
                self.file = Some(file);
                self.mode = Mode::Lists;
            }
            Ok(false) => {
                self.note = format!("{name} is there already: Enter again writes over it");
                self.mode = Mode::Save(Input::new(&name), Some(file));
            }
            Err(error) => {
                self.note = first_line(&work::refusal(&error, usize::MAX));
                self.mode = Mode::Save(Input::new(&name), None);
            }
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
