//! A form, one field below the other.

use ratatui::{
    Frame,
    layout::{Position, Rect},
    style::Style,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::Theme;
use crate::{present::text, select::form::Form};

/// Columns for the names of fields.
const LABELS: usize = 13;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, form: &Form, theme: Theme) {
    let columns = usize::from(area.width).saturating_sub(LABELS + 1);
    let mut lines = Vec::new();
    for (n, field) in form.fields.iter().enumerate() {
        let is_current = n == form.at;
        let style = match (is_current, field.locked) {
            (true, _) => theme.cursor(),
            (_, true) => theme.grey(),
            _ => Style::new(),
        };
        let pointer = if is_current { '>' } else { ' ' };
        let label = format!("{pointer} {:<width$}", field.label, width = LABELS - 2);
        let (shown, cursor) = field.input.visible(columns);
        if is_current {
            let column = u16::try_from(LABELS + cursor).unwrap_or(u16::MAX);
            let line = u16::try_from(lines.len() + 1).unwrap_or(u16::MAX);
            frame.set_cursor_position(Position::new(
                area.x.saturating_add(column),
                area.y.saturating_add(line),
            ));
        }
        lines.push(Line::default());
        lines.push(Line::from(vec![Span::styled(label, style), Span::raw(text::printable(&shown))]));
        if is_current {
            lines.push(Line::from(Span::styled(format!("{:LABELS$}{}", "", field.hint), theme.help())));
        }
    }
    frame.render_widget(Paragraph::new(lines), area);
}
