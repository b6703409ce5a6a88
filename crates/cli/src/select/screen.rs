//! The model of the screen: what is shown, and what a key does to it. Pure: what has to be done is an [`Effect`], what
//! became of it an [`Answer`].

use std::path::PathBuf;

use ioward_api::{Compatible, CompatibleRequest, PartitionView};
use ioward_model::{EventKind, Inventory, Options, Owner, PhysicalFunction, Plan, Spec, VfCount};

use super::{
    choice::Choice,
    form::Form,
    input::Input,
    key::Key,
    page::Page,
    rows::{Functions, Row},
    work::{Preview, Work},
};
use crate::error::CliError;

/// The smallest terminal that everything fits.
pub const SMALLEST: (u16, u16) = (80, 24);

/// The daemon's latest answers.
#[derive(Clone, Debug)]
pub struct Known {
    /// The host.
    pub inventory: Inventory,
    /// The partitions there are.
    pub partitions: Vec<PartitionView>,
    /// The Spec of what is held.
    pub held: Spec,
}

/// Work to be done outside the screen.
#[derive(Debug)]
pub enum Effect {
    /// Ask what there is.
    Load,
    /// Ask what suits a request.
    Compatible(Box<CompatibleRequest>, Owner),
    /// Ask for a plan; the answer comes with the same number.
    Plan(u64, Box<Spec>, Options),
    /// Carry a plan out.
    Apply(Box<Plan>),
    /// Have the plan that is carried out undone.
    Undo,
    /// Write a Spec to a file.
    Save {
        /// Where.
        file: PathBuf,
        /// The Spec.
        spec: Box<Spec>,
        /// Whether to write over what is there.
        over: bool,
    },
    /// Leave.
    Leave(Leaving),
}

/// How the screen is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// As the person wanted.
    Done,
    /// By Ctrl-C.
    Interrupted,
    /// By Ctrl-C while the daemon undoes a plan.
    Undoing,
}

/// The outcome of an [`Effect`].
#[derive(Debug)]
pub enum Answer {
    /// The daemon's latest answers.
    Loaded(Result<Box<Known>, CliError>),
    /// The functions that suit a request.
    Compatible(Owner, Result<Compatible, CliError>),
    /// A plan, or why there is none.
    Plan(u64, Result<Box<Plan>, CliError>),
    /// Something that happened while a plan was carried out.
    Event(EventKind),
    /// A plan has ended.
    Ended(Result<(), CliError>),
    /// A Spec is written; `false`: there is a file already.
    Saved(PathBuf, Result<bool, CliError>),
}

/// Which list the cursor is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// Adapters.
    Adapters,
    /// Partitions.
    Partitions,
}

/// The mode of the screen.
#[derive(Debug)]
pub enum Mode {
    /// Adapters and partitions.
    Lists,
    /// The number of VFs of the adapter under the cursor is typed.
    Count(Input),
    /// A partition is filled in.
    Partition(Form),
    /// A VF is filled in: a new one with the name that was proposed for it.
    Vf(Form, Option<String>),
    /// The functions for a VF are asked for.
    Asking,
    /// A function is chosen for a VF.
    Functions(Functions),
    /// Why a function can't be chosen, all of it.
    WhyNot(Page, Functions),
    /// A plan is looked at.
    Plan(Preview),
    /// A plan is carried out.
    Work(Work),
    /// A file is named, to save the Spec in; the one that is there already and would be written over.
    Save(Input, Option<PathBuf>),
    /// A text is read: keys, or an error.
    Page(Page),
    /// Whether to leave what is not saved is asked.
    Leave,
}

/// The screen.
#[derive(Debug)]
pub struct Screen {
    /// The daemon's latest answers.
    pub known: Known,
    /// The choice so far.
    pub choice: Choice,
    /// Which list the cursor is in.
    pub focus: Focus,
    /// The adapter under the cursor.
    pub adapter: usize,
    /// The row of partitions under the cursor.
    pub row: usize,
    /// The mode of the screen.
    pub mode: Mode,
    /// A word on what was done last, or why not.
    pub note: String,
    /// Results to print once the screen is gone.
    pub done: Vec<String>,
    /// Columns and lines.
    pub size: (u16, u16),
    /// The file that the Spec came from, or was last saved in.
    pub file: Option<PathBuf>,
    /// The base of relative paths.
    pub(super) folder: PathBuf,
    /// How many plans were asked for.
    pub(super) asked: u64,
}

impl Screen {
    /// A screen that begins with this Spec, or with what is held.
    #[must_use]
    pub fn new(
        known: Known,
        spec: Option<Spec>,
        file: Option<PathBuf>,
        folder: PathBuf,
        size: (u16, u16),
    ) -> Self {
        Self {
            choice: Choice::new(spec, known.held.clone()),
            known,
            focus: Focus::Adapters,
            adapter: 0,
            row: 0,
            mode: Mode::Lists,
            note: String::new(),
            done: Vec::new(),
            size,
            file,
            folder,
            asked: 0,
        }
    }

    /// Whether everything fits.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.size.0 >= SMALLEST.0 && self.size.1 >= SMALLEST.1
    }

    /// The lines of a text that are seen at a time: all but the title and the last two.
    #[must_use]
    pub fn page_lines(&self) -> usize {
        usize::from(self.size.1).saturating_sub(3)
    }

    /// The columns of a line.
    #[must_use]
    pub fn columns(&self) -> usize {
        usize::from(self.size.0)
    }

    /// The adapter under the cursor.
    #[must_use]
    pub fn current_adapter(&self) -> Option<&PhysicalFunction> {
        self.known.inventory.physical_functions.get(self.adapter)
    }

    /// The row of partitions under the cursor.
    #[must_use]
    pub fn current_row(&self) -> Option<Row> {
        self.choice.rows().into_iter().nth(self.row)
    }

    /// The terminal has another size.
    pub fn resize(&mut self, size: (u16, u16)) {
        self.size = size;
    }

    /// A key was pressed.
    pub fn key(&mut self, key: Key) -> Option<Effect> {
        if key == Key::Interrupt {
            return self.interrupt();
        }
        // A screen that is too small takes no keys.
        if !self.fits() {
            return None;
        }
        let (page, columns) = (self.page_lines(), self.columns());
        match std::mem::replace(&mut self.mode, Mode::Lists) {
            Mode::Lists => self.lists(key),
            Mode::Count(input) => self.count(input, key),
            Mode::Partition(form) => {
                self.partition(form, key);
                None
            }
            Mode::Vf(form, proposed) => {
                self.vf(form, proposed, key);
                None
            }
            Mode::Functions(functions) => {
                self.functions(functions, key);
                None
            }
            Mode::WhyNot(mut why, functions) => {
                let stays = why.key(key, page, columns);
                self.mode = if stays { Mode::WhyNot(why, functions) } else { Mode::Functions(functions) };
                None
            }
            Mode::Plan(preview) => self.plan(preview, key),
            Mode::Work(work) => {
                self.work(work, key);
                None
            }
            Mode::Save(input, over) => self.save(input, over, key),
            Mode::Page(mut text) => {
                if text.key(key, page, columns) {
                    self.mode = Mode::Page(text);
                }
                None
            }
            Mode::Leave => match key {
                Key::Char('y') => Some(Effect::Leave(Leaving::Done)),
                Key::Char('s') => {
                    self.begin_save();
                    None
                }
                _ => None,
            },
            Mode::Asking => {
                if key != Key::Esc {
                    self.mode = Mode::Asking;
                }
                None
            }
        }
    }

    /// Whether a plan is carried out now.
    #[must_use]
    pub fn is_working(&self) -> bool {
        matches!(&self.mode, Mode::Work(work) if work.is_going())
    }

    /// Ctrl-C: has what is being carried out undone; asks before what was chosen is lost; leaves otherwise.
    fn interrupt(&mut self) -> Option<Effect> {
        let would_lose = self.choice.is_unsettled() && self.fits();
        match &mut self.mode {
            Mode::Work(work) if work.is_going() => {
                Some(if work.interrupt() { Effect::Undo } else { Effect::Leave(Leaving::Undoing) })
            }
            Mode::Leave => Some(Effect::Leave(Leaving::Interrupted)),
            _ if would_lose => {
                self.mode = Mode::Leave;
                None
            }
            _ => Some(Effect::Leave(Leaving::Interrupted)),
        }
    }

    fn lists(&mut self, key: Key) -> Option<Effect> {
        self.note.clear();
        let third = self.page_lines() / 3;
        let (at, length) = match self.focus {
            Focus::Adapters => (&mut self.adapter, self.known.inventory.physical_functions.len()),
            Focus::Partitions => (&mut self.row, self.choice.rows().len()),
        };
        if let Some(to) = key.moves(*at, length, third) {
            *at = to;
            return None;
        }
        match (key, self.focus) {
            (Key::Tab | Key::BackTab | Key::Left | Key::Right, Focus::Adapters) => {
                self.focus = Focus::Partitions;
            }
            (Key::Tab | Key::BackTab | Key::Left | Key::Right, Focus::Partitions) => {
                self.focus = Focus::Adapters;
            }
            (Key::Enter, Focus::Adapters) => self.begin_count(),
            (Key::Enter, Focus::Partitions) => return self.open_row(),
            (Key::Char('n'), _) => self.mode = Mode::Partition(Form::partition(None)),
            (Key::Char('v'), Focus::Partitions) => self.begin_vf(),
            (Key::Char('e'), Focus::Partitions) => self.edit(),
            (Key::Char('d'), Focus::Partitions) => self.drop_row(),
            (Key::Char('p'), _) => return self.ask_plan(Preview::default()),
            (Key::Char('s'), _) => self.begin_save(),
            (Key::Char('r'), _) => return Some(Effect::Load),
            (Key::Char('?'), _) => self.mode = Mode::Page(Page::keys()),
            (Key::Char('q'), _) if self.choice.is_unsettled() => self.mode = Mode::Leave,
            (Key::Char('q'), _) => return Some(Effect::Leave(Leaving::Done)),
            (Key::Char('v' | 'e' | 'd'), Focus::Adapters) => {
                self.note = "that is for partitions: Tab goes there".to_owned();
            }
            _ => {}
        }
        None
    }

    fn begin_count(&mut self) {
        let Some(pf) = self.current_adapter().map(|pf| pf.address) else { return };
        let now = self.choice.count(pf).map(count_words);
        self.mode = Mode::Count(Input::new(&now.unwrap_or_default()));
    }

    fn count(&mut self, mut input: Input, key: Key) -> Option<Effect> {
        let pf = self.current_adapter()?;
        match key {
            Key::Esc => {}
            Key::Enter => {
                let (address, total) = (pf.address, pf.total_vfs());
                match count_of(&input.text()) {
                    Some(Some(VfCount::Exactly(count))) if count > total => {
                        self.note = format!("{address} can give {total} VFs at most");
                        self.mode = Mode::Count(input);
                    }
                    Some(count) => self.choice.set_count(address, count),
                    None => {
                        self.note =
                            format!("use 0 to {total}, max, or +2 for as many more than are assigned");
                        self.mode = Mode::Count(input);
                    }
                }
            }
            key => {
                self.note.clear();
                input.key(key);
                self.mode = Mode::Count(input);
            }
        }
        None
    }
}

/// A number of VFs as it is typed.
#[must_use]
pub fn count_words(count: VfCount) -> String {
    match count {
        VfCount::Exactly(count) => count.to_string(),
        VfCount::Max => "max".to_owned(),
        VfCount::Spare(spare) => format!("+{spare}"),
    }
}

/// A number of VFs that was typed, `None` in it for as many as are assigned; `None` for what is no number of VFs.
fn count_of(text: &str) -> Option<Option<VfCount>> {
    match (text, text.strip_prefix('+')) {
        ("", _) => Some(None),
        ("max", _) => Some(Some(VfCount::Max)),
        (_, Some(spare)) => spare.parse().ok().map(|spare| Some(VfCount::Spare(spare))),
        (count, None) => count.parse().ok().map(|count| Some(VfCount::Exactly(count))),
    }
}
