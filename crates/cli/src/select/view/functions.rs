//! The functions for a VF: which suit, and why the one under the cursor does not.

use ioward_model::Reason;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    widgets::{Paragraph, Row as TableRow, Table},
};

use super::{
    Theme, first_shown,
    lists::{fitting, port, request_words, speed},
};
use crate::{
    present::text,
    select::{
        rows::{Adapter, Function, Functions},
        screen::Screen,
    },
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, screen: &Screen, list: &Functions, theme: Theme) {
    let width = usize::from(area.width);
    let wanted = screen.choice.vf(&list.owner).map(|vf| request_words(vf).join(", ")).unwrap_or_default();
    let said = about(screen, list.current());
    let needed: usize = said.lines().map(|line| text::wrap(line, width, "", "  ").lines().count()).sum();
    // Half of the screen at most: the list is what this is about.
    let details = u16::try_from(needed).unwrap_or(u16::MAX).clamp(2, area.height / 2);
    let rows =
        [Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1), Constraint::Length(details)];
    let [request, table, rule, details] = Layout::vertical(rows).areas(area);
    let wanted = text::elide(&format!("{}: {wanted}", list.owner), width);
    frame.render_widget(Paragraph::new(text::printable(&wanted)), request);
    functions(frame, table, screen, list, theme);
    frame.render_widget(Paragraph::new("─".repeat(width)), rule);
    frame.render_widget(Paragraph::new(fitting(&said, details)), details);
}

fn functions(frame: &mut Frame<'_>, area: Rect, screen: &Screen, list: &Functions, theme: Theme) {
    let rows = list.rows();
    let height = usize::from(area.height.saturating_sub(1));
    let first = first_shown(list.at, rows.len(), height);
    let pinned = screen.choice.vf(&list.owner).map_or((None, None), |vf| (vf.pf, vf.index));
    let shown = rows.iter().enumerate().skip(first).take(height).map(|(n, row)| {
        let suits = row.reasons().is_empty();
        let style = match (n == list.at, suits) {
            (true, _) => theme.cursor(),
            (false, true) => ratatui::style::Style::new(),
            (false, false) => theme.grey(),
        };
        let pointer = if n == list.at { ">" } else { " " };
        let chosen = if row.pins() == pinned { "*" } else { " " };
        let suits = if suits { "yes" } else { "no" };
        let [what, port, speed, node, note] = cells(screen, list, *row);
        TableRow::new([format!("{pointer}{chosen}"), suits.to_owned(), what, port, speed, node, note])
            .style(style)
    });
    let widths = [
        Constraint::Length(2),
        Constraint::Length(5),
        Constraint::Length(18),
        Constraint::Length(10),
        Constraint::Length(5),
        Constraint::Length(4),
        Constraint::Fill(1),
    ];
    let titles = ["", "SUITS", "FUNCTION", "PORT", "SPEED", "NUMA", ""];
    let table = Table::new(shown.collect::<Vec<_>>(), widths)
        .header(TableRow::new(titles).style(theme.heading(true)))
        .column_spacing(1);
    frame.render_widget(table, area);
}

fn cells(screen: &Screen, list: &Functions, row: Function<'_>) -> [String; 5] {
    let nothing = String::new;
    match row {
        Function::Whichever => {
            let suiting: usize = list.adapters.iter().map(Adapter::suiting).sum();
            let note = format!("the plan says which, of {suiting}");
            ["whichever suits".to_owned(), nothing(), nothing(), nothing(), note]
        }
        Function::Any(adapter) => {
            let pf = screen.known.inventory.physical_function(adapter.pf);
            let node = pf.and_then(|pf| pf.numa_node).map_or("-".to_owned(), |node| node.to_string());
            let note = match (adapter.suiting(), adapter.vfs.len()) {
                (0, _) => "none suits".to_owned(),
                (suiting, all) if suiting == all => format!("any VF of {all}"),
                (suiting, all) => format!("any VF; {suiting} of {all} suit"),
            };
            let open = if list.is_open(adapter.pf) { "-" } else { "+" };
            let (port, speed) = pf.map_or((nothing(), nothing()), |pf| (port(pf), speed(pf)));
            [format!("{open} {}", adapter.pf), port, speed, format!("{node:>4}"), note]
        }
        Function::Vf(vf) => {
            let note = match (vf.address, vf.reasons.is_empty()) {
                (Some(address), _) => format!("there now, at {address}"),
                (None, true) => "has to be made".to_owned(),
                (None, false) => nothing(),
            };
            [format!("    VF {}", vf.vf.index), nothing(), nothing(), nothing(), note]
        }
    }
}

/// The details of the function under the cursor, with all reasons against it.
fn about(screen: &Screen, function: Function<'_>) -> String {
    let name = |pf| screen.known.inventory.physical_function(pf).map_or("", |pf| &pf.name);
    match (function, function.reasons()) {
        (Function::Whichever, _) => "no function is named: the plan says which it is, and why".to_owned(),
        (Function::Any(adapter), []) => {
            format!("{}\nit suits; right shows its VFs one by one", text::printable(name(adapter.pf)))
        }
        (Function::Vf(vf), []) => format!("{}\nit suits", text::printable(name(vf.vf.pf))),
        (_, reasons) => reasons.iter().map(|reason| reason_line(reason) + "\n").collect(),
    }
}

/// A reason; whose request it is about stands above.
fn reason_line(reason: &Reason) -> String {
    let said = Reason { request: None, ..reason.clone() };
    text::printable(&format!("{}: {said}", reason.rule))
}
