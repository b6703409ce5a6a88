//! A plan while it is carried out: one line that is written over on a terminal, one line a step elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::EventKind;

use super::text;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// On a terminal of so many columns: what went well is written over.
    InPlace(usize),
    /// Where nothing can be written over.
    Lines,
}

/// Back to the first column, and the line cleared (ECMA-48 EL 2).
const CLEAR: &str = "\r\x1b[2K";

/// The state of a plan, from the events seen so far.
#[derive(Debug)]
pub struct Progress {
    style: Style,
    steps: usize,
    whats: BTreeMap<usize, String>,
    /// Steps that have begun and not ended: those that have nothing in common are carried out side by side.
    under_way: BTreeSet<usize>,
    /// The step that the line is about behind which the cursor stands.
    mid_line: Option<usize>,
}

impl Progress {
    /// The progress of a plan of so many steps.
    #[must_use]
    pub fn new(style: Style, steps: usize) -> Self {
        Self { style, steps, whats: BTreeMap::new(), under_way: BTreeSet::new(), mid_line: None }
    }

    /// The text to write for this event.
    pub fn event(&mut self, event: &EventKind) -> String {
        match event {
            EventKind::StepStarted { number, what, .. } => {
                let what = text::printable(&what.to_string());
                self.whats.insert(*number, what);
                self.under_way.insert(*number);
                match self.style {
                    Style::InPlace(width) => self.in_place(*number, width),
                    // One line at a time; the others have theirs when they end.
                    Style::Lines if self.mid_line.is_some() => String::new(),
                    Style::Lines => {
                        self.mid_line = Some(*number);
                        format!("{} … ", self.step(*number))
                    }
                }
            }
            EventKind::StepDone { number, note: Some(note), .. } => {
                self.ended(*number, &format!("done; {note}"))
            }
            EventKind::StepDone { number, note: None, .. } => match self.style {
                Style::InPlace(width) => {
                    self.under_way.remove(number);
                    // The line shows a step that is still running.
                    self.under_way.last().copied().map_or_else(String::new, |last| self.in_place(last, width))
                }
                Style::Lines => self.ended(*number, "done"),
            },
            EventKind::StepFailed { number, error, .. } => {
                self.ended(*number, &format!("failed: {error}; undoing"))
            }
            EventKind::StepUndone { number, error, .. } => {
                let step = self.step(*number);
                match (error, self.style) {
                    (Some(error), _) => self.line(&format!("{step} … could not be undone: {error}")),
                    (None, Style::InPlace(width)) => {
                        self.written_over(*number, &format!("{step} … undone"), width)
                    }
                    (None, Style::Lines) => self.line(&format!("{step} … undone")),
                }
            }
            EventKind::PlanDone { .. } => self.line(&format!("done: {}", text::counted(self.steps, "step"))),
            EventKind::PlanFailed { .. } => self.broken_off(),
            EventKind::PlanStarted { .. }
            | EventKind::PlanInterrupted { .. }
            | EventKind::InventoryChanged { .. }
            | EventKind::AdapterStuck { .. }
            | EventKind::AdapterAnswers { .. }
            | EventKind::AdapterService { .. }
            | EventKind::AdapterAttempted { .. }
            | EventKind::VfLockedOut { .. }
            | EventKind::AdapterMoved { .. }
            | EventKind::AdapterSetAside { .. }
            | EventKind::HostBooted
            | EventKind::HostRestored { .. }
            | EventKind::PartitionStarted { .. }
            | EventKind::DriftFound { .. }
            | EventKind::DriftRepaired { .. }
            | EventKind::DriftGone { .. }
            | EventKind::RepairFailed { .. }
            | EventKind::OrphanReaped { .. }
            | EventKind::PartitionEnded { .. }
            | EventKind::PartitionHalted { .. }
            | EventKind::PartitionReset { .. }
            | EventKind::PartitionLeftHalted { .. }
            | EventKind::PartitionGoesOn { .. }
            | EventKind::PartitionStartedElsewhere { .. }
            | EventKind::PartitionGone { .. }
            | EventKind::PartitionLeaves { .. }
            | EventKind::PartitionLeft { .. }
            | EventKind::PartitionStays { .. }
            | EventKind::PartitionCame { .. }
            | EventKind::FailedOver { .. }
            | EventKind::FailedBack { .. }
            | EventKind::VfTakenOut { .. }
            | EventKind::ChannelOpened { .. }
            | EventKind::ChannelMisused { .. }
            | EventKind::ChannelEventsLeftOut { .. }
            | EventKind::Missed { .. }
            | EventKind::Restarted { .. } => String::new(),
        }
    }

    /// The text that ends a line which is still open.
    pub fn broken_off(&mut self) -> String {
        let was_mid_line = self.mid_line.take().is_some();
        match self.style {
            Style::InPlace(_) if was_mid_line => CLEAR.to_owned(),
            Style::Lines if was_mid_line => "\n".to_owned(),
            _ => String::new(),
        }
    }

    fn step(&self, number: usize) -> String {
        let what = self.whats.get(&number).map_or("", String::as_str);
        format!("[{number}/{}] {what}", self.steps)
    }

    fn in_place(&mut self, number: usize, width: usize) -> String {
        let more = match self.under_way.len() {
            0 | 1 => String::new(),
            under_way => format!(" and {} more", under_way - 1),
        };
        let line = format!("{} …{more}", self.step(number));
        self.written_over(number, &line, width)
    }

    fn written_over(&mut self, number: usize, line: &str, width: usize) -> String {
        self.mid_line = Some(number);
        // A line that fills the last column may already have gone on to the next.
        CLEAR.to_owned() + &text::elide(line, width.saturating_sub(1))
    }

    fn ended(&mut self, number: usize, how: &str) -> String {
        self.under_way.remove(&number);
        let how = text::printable(&how.replace('\n', " "));
        if self.style == Style::Lines && self.mid_line == Some(number) {
            self.mid_line = None;
            return how + "\n";
        }
        let step = self.step(number);
        self.line(&format!("{step} … {how}"))
    }

    fn line(&mut self, line: &str) -> String {
        self.broken_off() + &text::printable(&line.replace('\n', " ")) + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(values: &str) -> Vec<EventKind> {
        values.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn show(style: Style, values: &str) -> String {
        let mut progress = Progress::new(style, 2);
        events(values).iter().map(|event| progress.event(event)).collect()
    }

    const GOOD: &str = r#"{"event":"plan-started","plan":3,"steps":2}
{"event":"step-started","plan":3,"step":1,"what":{"step":"create-channel","partition":"web"}}
{"event":"step-done","plan":3,"step":1}
{"event":"step-started","plan":3,"step":2,"what":{"step":"start-partition","partition":"web"}}
{"event":"step-done","plan":3,"step":2,"note":"no KVM: runs in software emulation"}
{"event":"plan-done","plan":3}"#;

    const BAD: &str = r#"{"event":"step-started","plan":3,"step":1,"what":{"step":"create-channel","partition":"web"}}
{"event":"step-done","plan":3,"step":1}
{"event":"step-started","plan":3,"step":2,"what":{"step":"start-partition","partition":"web"}}
{"event":"step-failed","plan":3,"step":2,"error":"QEMU said:\nno \u001b[31mmemory"}
{"event":"step-undone","plan":3,"step":1}
{"event":"plan-failed","plan":3,"error":"no memory","undone":true}"#;

    #[test]
    fn plain_lines_where_nothing_can_be_written_over() {
        let expected = "\
[1/2] create the channel of web … done
[2/2] start partition web … done; no KVM: runs in software emulation
done: 2 steps
";
        assert_eq!(show(Style::Lines, GOOD), expected);
    }

    #[test]
    fn on_a_terminal_only_what_matters_stays() {
        let expected = "\
\r\x1b[2K[1/2] create the channel of…\
\r\x1b[2K[2/2] start partition web …\
\r\x1b[2K[2/2] start partition web … done; no KVM: runs in software emulation\n\
done: 2 steps\n";
        assert_eq!(show(Style::InPlace(30), GOOD), expected);
    }

    const SIDE_BY_SIDE: &str = r#"{"event":"step-started","plan":3,"step":1,"what":{"step":"start-partition","partition":"a"}}
{"event":"step-started","plan":3,"step":2,"what":{"step":"start-partition","partition":"b"}}
{"event":"step-done","plan":3,"step":2}
{"event":"step-done","plan":3,"step":1}"#;

    #[test]
    fn steps_side_by_side_have_a_line_each() {
        let expected = "\
[1/2] start partition a … 
[2/2] start partition b … done
[1/2] start partition a … done
";
        assert_eq!(show(Style::Lines, SIDE_BY_SIDE), expected);
        let expected = "\
\r\x1b[2K[1/2] start partition a …\
\r\x1b[2K[2/2] start partition b … and 1 more\
\r\x1b[2K[1/2] start partition a …";
        assert_eq!(show(Style::InPlace(60), SIDE_BY_SIDE), expected);
    }

    #[test]
    fn a_failure_and_its_undoing_show() {
        let expected = "\
[1/2] create the channel of web … done
[2/2] start partition web … failed: QEMU said: no \u{fffd}[31mmemory; undoing
[1/2] create the channel of web … undone
";
        assert_eq!(show(Style::Lines, BAD), expected);
    }

    #[test]
    fn the_line_is_ended_when_the_daemon_breaks_off() {
        let mut progress = Progress::new(Style::Lines, 2);
        for event in &events(GOOD)[..2] {
            progress.event(event);
        }
        assert_eq!(progress.broken_off(), "\n");
        assert_eq!(progress.broken_off(), "");
    }
}
