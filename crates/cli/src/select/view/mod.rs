//! The screen, drawn: from the model to a frame, and nothing else.

mod forms;
mod functions;
mod lists;
mod theme;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Position, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

pub use theme::Theme;

use super::{
    input::Input,
    screen::{Focus, Mode, SMALLEST, Screen},
    work::{Preview, Work},
};
use crate::present::text;

/// The most lines that a word on what was done, or why not, takes from what it is about.
const MOST_NOTE_LINES: usize = 6;

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, screen: &Screen, theme: Theme) {
    if !screen.fits() {
        return too_small(frame, screen);
    }
    let note_lines = text::wrap(&note_text(screen), screen.columns(), "", "");
    let height = note_lines.lines().count().clamp(1, MOST_NOTE_LINES);
    let height = Constraint::Length(u16::try_from(height).unwrap_or(1));
    let rows = [Constraint::Length(1), Constraint::Fill(1), height, Constraint::Length(1)];
    let [title, body, note, help] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(title_line(screen, theme), title);
    match &screen.mode {
        Mode::Lists | Mode::Count(_) | Mode::Save(..) | Mode::Leave | Mode::Asking => {
            lists::draw(frame, body, screen, theme);
        }
        Mode::Partition(form) | Mode::Vf(form, _) => forms::draw(frame, body, form, theme),
        Mode::Functions(list) => functions::draw(frame, body, screen, list, theme),
        Mode::WhyNot(page, _) | Mode::Page(page) => {
            page_of(frame, body, page.lines(usize::from(body.width)), page.scroll);
        }
        Mode::Plan(preview) => plan(frame, body, preview, theme),
        Mode::Work(work) => progress(frame, body, work),
    }
    frame.render_widget(Paragraph::new(note_lines).style(theme.note()), note);
    match prompt(screen) {
        Some((words, input)) => typed(frame, help, &words, input),
        None => frame.render_widget(Paragraph::new(help_text(screen)).style(theme.help()), help),
    }
}

fn too_small(frame: &mut Frame<'_>, screen: &Screen) {
    let ((columns, lines), (width, height)) = (SMALLEST, screen.size);
    let said = format!(
        "This needs a terminal of {columns} columns and {lines} lines; this one has {width} and {height}. \
         Make it larger, or leave with Ctrl-C and use: ioward assign"
    );
    let lines = text::wrap(&said, usize::from(width), "", "");
    frame.render_widget(Paragraph::new(lines), frame.area());
}

fn title_line(screen: &Screen, theme: Theme) -> Line<'static> {
    let what = match &screen.mode {
        Mode::Plan(_) => "the plan".to_owned(),
        Mode::Work(work) => work.name(),
        Mode::Partition(form) | Mode::Vf(form, _) => form.title.clone(),
        Mode::Functions(list) => format!("a function for {}", list.owner),
        Mode::WhyNot(page, _) | Mode::Page(page) => page.title.clone(),
        _ => screen.file.as_ref().map_or("what is held".to_owned(), |file| file.display().to_string()),
    };
    let state = if screen.choice.is_unsettled() { "neither applied nor saved" } else { "" };
    let columns = usize::from(screen.size.0);
    let left = text::elide(&format!("ioward select: {what}"), columns.saturating_sub(state.len() + 2));
    let gap = columns.saturating_sub(text::columns(&left) + state.len());
    Line::from(format!("{left}{}{state}", " ".repeat(gap))).style(theme.title())
}

/// Where the cursor of a list of `length` rows is, the rows from there on fit in `height`.
fn first_shown(at: usize, length: usize, height: usize) -> usize {
    at.saturating_sub(height / 2).min(length.saturating_sub(height))
}

fn page_of(frame: &mut Frame<'_>, area: Rect, lines: Vec<String>, scroll: usize) {
    let lines: Vec<Line<'_>> = lines.into_iter().skip(scroll).map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn plan(frame: &mut Frame<'_>, area: Rect, preview: &Preview, theme: Theme) {
    let lines = preview.lines(usize::from(area.width));
    let shown = lines.into_iter().skip(preview.scroll).map(|line| {
        let style = theme.of_sign(line.trim_start().chars().next());
        Line::from(Span::styled(line, style))
    });
    frame.render_widget(Paragraph::new(shown.collect::<Vec<_>>()), area);
}

/// The end of what has happened: that is where it goes on.
fn progress(frame: &mut Frame<'_>, area: Rect, work: &Work) {
    let lines = work.lines(usize::from(area.width));
    let first = lines.len().saturating_sub(usize::from(area.height));
    page_of(frame, area, lines, first);
}

/// The line above the last: what was done, what is wrong, or what goes in.
fn note_text(screen: &Screen) -> String {
    let note = match &screen.mode {
        Mode::Partition(form) | Mode::Vf(form, _) => &form.problem,
        _ => &screen.note,
    };
    if !note.is_empty() {
        return text::printable(note);
    }
    match &screen.mode {
        Mode::Count(_) => {
            "a number, max, +2 for so many to spare, or nothing: as many as are assigned".to_owned()
        }
        Mode::Asking => "asking what suits …".to_owned(),
        Mode::Leave => "What you chose is neither applied nor saved.".to_owned(),
        Mode::Plan(preview) if matches!(preview.answer, Some(Err(_))) => {
            "o allows what is refused for disruption, m what is for management-nic".to_owned()
        }
        Mode::Work(Work { ended: Some(Ok(())), .. }) => "all of it is done".to_owned(),
        Mode::Plan(preview) => {
            whole(preview.lines(screen.columns()).len(), preview.scroll, screen.page_lines())
        }
        Mode::Page(page) | Mode::WhyNot(page, _) => {
            whole(page.lines(screen.columns()).len(), page.scroll, screen.page_lines())
        }
        _ => String::new(),
    }
}

/// Which lines of a text are seen, where not all of them are.
fn whole(lines: usize, scroll: usize, page: usize) -> String {
    if lines <= page {
        return String::new();
    }
    let last = (scroll + page).min(lines);
    let more = if last < lines { ": space or PgDn goes on" } else { "" };
    format!("lines {} to {last} of {lines}{more}", scroll + 1)
}

/// The prompt on the last line.
fn prompt(screen: &Screen) -> Option<(String, &Input)> {
    match &screen.mode {
        Mode::Count(input) => {
            let pf = screen.current_adapter().map(|pf| pf.address.to_string()).unwrap_or_default();
            Some((format!("VFs of {pf}: "), input))
        }
        Mode::Save(input, _) => Some(("Save as: ".to_owned(), input)),
        _ => None,
    }
}

fn typed(frame: &mut Frame<'_>, area: Rect, words: &str, input: &Input) {
    let before = text::columns(words);
    let (shown, cursor) = input.visible(usize::from(area.width).saturating_sub(before + 1));
    frame.render_widget(Paragraph::new(format!("{words}{shown}")), area);
    let column = u16::try_from(before + cursor).unwrap_or(u16::MAX);
    frame.set_cursor_position(Position::new(area.x.saturating_add(column), area.y));
}

fn help_text(screen: &Screen) -> String {
    let yes = |on: bool| if on { "yes" } else { "no" };
    match (&screen.mode, screen.focus) {
        (Mode::Lists | Mode::Asking, Focus::Adapters) => {
            "Tab partitions  Enter how many VFs  n partition  p plan  s save  q quit  ? keys".into()
        }
        (Mode::Lists | Mode::Asking, Focus::Partitions) => {
            "Tab adapters  Enter choose  n partition  v VF  e edit  d drop  p plan  ? keys".into()
        }
        (Mode::Partition(_) | Mode::Vf(..), _) => "Tab next field  Enter take it  Esc back".into(),
        (Mode::Functions(_), _) => "Enter take it  right, left: its VFs one by one, or not  Esc back".into(),
        (Mode::Plan(preview), _) => format!(
            "a apply  s save  x why  t steps  o disruption: {}  m host's NICs: {}  Esc back",
            yes(preview.options.allow_disruption),
            yes(preview.options.allow_management_nic)
        ),
        (Mode::Work(work), _) if work.is_going() && work.interrupted => {
            "Ctrl-C leaves; the daemon goes on undoing".into()
        }
        (Mode::Work(work), _) if work.is_going() => "Ctrl-C has it undone".into(),
        (Mode::Work(_), _) => "Enter back".into(),
        (Mode::WhyNot(..) | Mode::Page(_), _) => "up, down, PgUp, PgDn  Esc back".into(),
        (Mode::Leave, _) => "s save  y or Ctrl-C leave all the same  any other key: back".into(),
        (Mode::Count(_) | Mode::Save(..), _) => String::new(),
    }
}
