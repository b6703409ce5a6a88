//! Keys for partitions, their VFs, and the functions for those.

use ioward_api::CompatibleRequest;
use ioward_model::{Class, Owner, SpecError};

use super::{
    form::{Filled, Form},
    key::Key,
    page::Page,
    rows::{Functions, Row},
    screen::{Effect, Focus, Mode, Screen},
};

const GIVEN_BACK: &str = "it is to be given back: d keeps it after all";

impl Screen {
    pub(super) fn begin_vf(&mut self) {
        let Some(row) = self.current_row() else {
            self.note = "there is no partition yet: n makes one".to_owned();
            return;
        };
        let name = self.choice.free_name(row.partition(), Class::Network);
        self.mode = Mode::Vf(Form::vf(row.partition(), Err(name.clone())), Some(name));
    }

    /// Changes what is under the cursor.
    pub(super) fn edit(&mut self) {
        match self.current_row() {
            Some(Row::Partition(name)) => {
                self.mode = Mode::Partition(Form::partition(self.choice.partition(&name)));
            }
            Some(Row::Vf(owner)) => match self.choice.vf(&owner).filter(|_| !self.is_dropped(&owner)) {
                Some(vf) => self.mode = Mode::Vf(Form::vf(&owner.partition, Ok(vf)), None),
                None => self.note = GIVEN_BACK.to_owned(),
            },
            None => {}
        }
    }

    /// Whether a VF that is held is to be given back.
    #[must_use]
    pub fn is_dropped(&self, owner: &Owner) -> bool {
        self.choice.partition(&owner.partition).is_none_or(|partition| partition.vf(&owner.vf).is_none())
    }

    pub(super) fn drop_row(&mut self) {
        match self.current_row() {
            Some(Row::Vf(owner)) => self.choice.drop_vf(&owner),
            Some(Row::Partition(name)) if self.choice.is_held(&name) => {
                self.note = format!("a Spec leaves alone what it does not name: use 'ioward remove {name}'");
            }
            Some(Row::Partition(name)) => self.choice.drop_partition(&name),
            None => {}
        }
        self.row = self.row.min(self.choice.rows().len().saturating_sub(1));
    }

    pub(super) fn partition(&mut self, mut form: Form, key: Key) {
        form.problem.clear();
        let filled = form.key(key);
        if filled == Filled::Given || filled == Filled::Done && self.take_partition(&mut form) {
            return;
        }
        self.mode = Mode::Partition(form);
    }

    /// Takes the partition of a form into the Spec. Whether that went well.
    fn take_partition(&mut self, form: &mut Form) -> bool {
        let row = self.current_row().filter(|_| !form.is_new());
        let present = row.and_then(|row| self.choice.partition(row.partition())).cloned();
        let Some(partition) = form.take_partition(present.as_ref(), &self.folder) else { return false };
        let name = partition.name.clone();
        if form.is_new() && (self.choice.partition(&name).is_some() || self.choice.is_held(&name)) {
            form.problem = format!("there is a partition {name} already");
            return false;
        }
        if let Err(error) = self.choice.put_partition(partition) {
            form.problem = first_problem(&error);
            return false;
        }
        self.go_to(&Row::Partition(name));
        true
    }

    fn go_to(&mut self, row: &Row) {
        self.focus = Focus::Partitions;
        self.row = self.choice.rows().iter().position(|found| found == row).unwrap_or(self.row);
    }

    pub(super) fn vf(&mut self, mut form: Form, mut proposed: Option<String>, key: Key) {
        form.problem.clear();
        let filled = form.key(key);
        if filled == Filled::Given || filled == Filled::Done && self.take_vf(&mut form) {
            return;
        }
        // A name that nobody has changed follows the class.
        if let (Some(before), Some(class), Some(row)) = (&proposed, form.class(), self.current_row())
            && form.text(Form::NAME) == *before
        {
            let name = self.choice.free_name(row.partition(), class);
            form.set(Form::NAME, &name);
            proposed = Some(name);
        }
        self.mode = Mode::Vf(form, proposed);
    }

    /// Takes the VF of a form into the Spec. Whether that went well.
    fn take_vf(&mut self, form: &mut Form) -> bool {
        let Some(row) = self.current_row() else { return true };
        let partition = row.partition().clone();
        let present = match &row {
            Row::Vf(owner) if !form.is_new() => self.choice.vf(owner).cloned(),
            _ => None,
        };
        let Some(vf) = form.take_vf(present.as_ref()) else { return false };
        let owner = Owner { partition: partition.clone(), vf: vf.name.clone() };
        if form.is_new() && self.choice.vf(&owner).is_some() {
            form.problem = format!("there is a VF {owner} already");
            return false;
        }
        if let Err(error) = self.choice.put_vf(&partition, vf) {
            form.problem = first_problem(&error);
            return false;
        }
        self.go_to(&Row::Vf(owner));
        true
    }

    /// Opens the row under the cursor: a partition, or the functions for a VF.
    pub(super) fn open_row(&mut self) -> Option<Effect> {
        let Some(Row::Vf(owner)) = self.current_row() else {
            self.edit();
            return None;
        };
        if self.is_dropped(&owner) {
            self.note = GIVEN_BACK.to_owned();
            return None;
        }
        self.mode = Mode::Asking;
        let request =
            CompatibleRequest { spec: self.choice.unpinned(&owner), partition: owner.partition.clone() };
        Some(Effect::Compatible(Box::new(request), owner))
    }

    pub(super) fn functions(&mut self, mut functions: Functions, key: Key) {
        if let Some(to) = key.moves(functions.at, functions.rows().len(), self.page_lines() / 2) {
            functions.at = to;
            self.mode = Mode::Functions(functions);
            return;
        }
        match key {
            Key::Esc | Key::Char('q') => return,
            Key::Right | Key::Char('l') => functions.open(true),
            Key::Left | Key::Char('h') => functions.open(false),
            Key::Enter => {
                let (pf, index) = functions.current().pins();
                let reasons = functions.current().reasons();
                if reasons.is_empty() {
                    self.choice.pin(&functions.owner, pf, index);
                    return;
                }
                let lines: Vec<_> =
                    reasons.iter().map(|reason| format!("{}: {reason}", reason.rule)).collect();
                let why = Page::new(format!("Why it does not suit {}", functions.owner), lines.join("\n"));
                self.mode = Mode::WhyNot(why, functions);
                return;
            }
            _ => {}
        }
        self.mode = Mode::Functions(functions);
    }
}

fn first_problem(error: &SpecError) -> String {
    error.problems.first().map(ToString::to_string).unwrap_or_default()
}
