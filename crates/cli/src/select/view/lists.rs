//! Adapters and partitions, one list above the other, and what is to be said of the row under the cursor.

use ioward_model::{Apart, Machine, Name, Owner, PartitionSpec, PhysicalFunction, VfRequest};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::Line,
    widgets::{Paragraph, Row as TableRow, Table},
};

use super::{Theme, first_shown};
use crate::{
    present::{diff::Sign, text},
    select::{
        rows::Row,
        screen::{Focus, Screen, count_words},
    },
};

/// Lines for what is to be said of the row under the cursor.
const DETAILS: u16 = 3;
/// From so many columns on, adapters have their names in the list.
const WIDE: u16 = 104;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, screen: &Screen, theme: Theme) {
    let half = area.height.saturating_sub(DETAILS + 2) / 2;
    let count = u16::try_from(screen.known.inventory.physical_functions.len()).unwrap_or(u16::MAX);
    let adapters_height = count.max(1).saturating_add(1).min(half);
    let rows = [
        Constraint::Length(adapters_height),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Length(DETAILS),
    ];
    let [above, _, below, rule, details] = Layout::vertical(rows).areas(area);
    adapters(frame, above, screen, theme);
    partitions(frame, below, screen, theme);
    frame.render_widget(Paragraph::new("─".repeat(usize::from(area.width))), rule);
    let said = match screen.focus {
        Focus::Adapters => screen.current_adapter().map(about_adapter),
        Focus::Partitions => screen.current_row().map(|row| about_row(screen, &row)),
    };
    let said = text::printable(&said.unwrap_or_default());
    frame.render_widget(Paragraph::new(fitting(&said, details)), details);
}

/// Running text in an area; what does not fit shows.
pub(super) fn fitting(said: &str, area: Rect) -> Vec<Line<'static>> {
    let width = usize::from(area.width);
    let wrapped = said.lines().map(|line| text::wrap(line, width, "", "  ")).collect::<String>();
    let height = usize::from(area.height);
    let mut lines: Vec<String> = wrapped.lines().map(str::to_owned).collect();
    if lines.len() > height {
        lines.truncate(height);
        if let Some(last) = lines.last_mut() {
            *last =
                text::elide(&format!("{last} …"), width.saturating_sub(1)).trim_end_matches('…').to_owned()
                    + "…";
        }
    }
    lines.into_iter().map(Line::from).collect()
}

fn adapters(frame: &mut Frame<'_>, area: Rect, screen: &Screen, theme: Theme) {
    let pfs = &screen.known.inventory.physical_functions;
    let is_focus = screen.focus == Focus::Adapters;
    let height = usize::from(area.height.saturating_sub(1));
    let first = first_shown(screen.adapter, pfs.len(), height);
    let shown = || pfs.iter().enumerate().skip(first).take(height);
    let digits = |of: fn(&PhysicalFunction) -> u16, least: usize| {
        let longest = shown().map(|(_, pf)| of(pf).to_string().len()).max().unwrap_or(0);
        Constraint::Length(u16::try_from(longest.max(least)).unwrap_or(5))
    };
    let is_wide = area.width >= WIDE;
    let mut widths = vec![
        Constraint::Length(1),
        Constraint::Length(12),
        Constraint::Length(7),
        if is_wide { Constraint::Length(12) } else { Constraint::Fill(1) },
        Constraint::Length(5),
        Constraint::Length(4),
        digits(PhysicalFunction::total_vfs, 3),
        digits(PhysicalFunction::num_vfs, 3),
        digits(|pf| pf.vfs_assigned, 5),
        digits(|pf| pf.vfs_available, 4),
        Constraint::Length(9),
        Constraint::Length(6),
    ];
    let mut titles =
        vec!["", "ADDRESS", "CLASS", "PORT", "SPEED", "NUMA", "VFS", " ON", "GIVEN", "FREE", "TO BE", "HOST"];
    if is_wide {
        widths.push(Constraint::Fill(1));
        titles.push("NAME");
    }
    let rows = shown().map(|(n, pf)| {
        let is_current = n == screen.adapter;
        let mut cells = adapter_cells(pf, screen, is_current && is_focus, &widths);
        if is_wide {
            cells.push(text::printable(&pf.name));
        }
        TableRow::new(cells).style(cursor(theme, is_current && is_focus))
    });
    if pfs.is_empty() {
        let said = "no SR-IOV adapters: no PCI function of this host has the SR-IOV capability";
        return frame.render_widget(Paragraph::new(said), area);
    }
    let table = Table::new(rows.collect::<Vec<_>>(), &widths)
        .header(TableRow::new(titles).style(theme.heading(is_focus)))
        .column_spacing(1);
    frame.render_widget(table, area);
}

fn adapter_cells(
    pf: &PhysicalFunction,
    screen: &Screen,
    is_current: bool,
    widths: &[Constraint],
) -> Vec<String> {
    let number = |value: u16, column: usize| match widths.get(column) {
        Some(Constraint::Length(width)) => format!("{value:>width$}", width = usize::from(*width)),
        _ => value.to_string(),
    };
    let count = screen.choice.count(pf.address).map_or("assigned".to_owned(), count_words);
    let changes = if screen.choice.count_changes(pf.address) { "~" } else { "" };
    vec![
        if is_current { ">" } else { " " }.to_owned(),
        pf.address.to_string(),
        pf.class.to_string(),
        port(pf),
        speed(pf),
        format!("{:>4}", pf.numa_node.map_or("-".to_owned(), |node| node.to_string())),
        number(pf.total_vfs(), 6),
        number(pf.num_vfs(), 7),
        number(pf.vfs_assigned, 8),
        number(pf.vfs_available, 9),
        format!("{changes}{count}"),
        if pf.in_use_by_host.is_empty() { "" } else { "in use" }.to_owned(),
    ]
}

/// The kernel's name for it.
pub(super) fn port(pf: &PhysicalFunction) -> String {
    let names = pf.netdevs.iter().map(|netdev| &netdev.name).chain(pf.nvme.as_ref().map(|nvme| &nvme.name));
    let names: Vec<_> = names.map(String::as_str).collect();
    if names.is_empty() { "-".to_owned() } else { text::printable(&names.join(",")) }
}

pub(super) fn speed(pf: &PhysicalFunction) -> String {
    match pf.speed_mbps() {
        Some(mbps) if mbps >= 1000 => format!("{}G", f64::from(mbps) / 1000.0),
        Some(mbps) => format!("{mbps}M"),
        None if pf.netdevs.is_empty() => "-".to_owned(),
        None => "down".to_owned(),
    }
}

fn about_adapter(pf: &PhysicalFunction) -> String {
    let driver = pf.driver.as_ref().map_or("no driver".to_owned(), |driver| format!("driver {driver}"));
    let mut said = format!("{} [{}:{}], {driver}\n", pf.name, pf.vendor_id, pf.device_id);
    let uses: Vec<_> = pf.in_use_by_host.iter().map(ToString::to_string).collect();
    if !uses.is_empty() {
        said += &format!("in use by the host: {}\n", uses.join("; "));
    }
    for reason in &pf.reasons {
        said += &format!("note: {reason}\n");
    }
    said
}

fn partitions(frame: &mut Frame<'_>, area: Rect, screen: &Screen, theme: Theme) {
    let rows = screen.choice.rows();
    let is_focus = screen.focus == Focus::Partitions;
    let height = usize::from(area.height.saturating_sub(1));
    let first = first_shown(screen.row, rows.len(), height);
    // The other columns, and a space between two.
    let room = usize::from(area.width).saturating_sub(2 + 18 + 23 + 3);
    let shown = rows.iter().enumerate().skip(first).take(height).map(|(n, row)| {
        let is_current = n == screen.row && is_focus;
        let sign = screen.choice.sign(row).map_or(' ', Sign::as_char);
        let pointer = if is_current { '>' } else { ' ' };
        let [name, what, place] = partition_cells(screen, row);
        let what = text::elide(&what, room);
        let style = if is_current { theme.cursor() } else { theme.of_sign(Some(sign)) };
        TableRow::new([format!("{pointer}{sign}"), name, what, place]).style(style)
    });
    let widths = [Constraint::Length(2), Constraint::Length(18), Constraint::Fill(1), Constraint::Length(23)];
    let others = screen.known.held.partitions.iter();
    let others = others.filter(|held| screen.choice.partition(&held.name).is_none()).count();
    let left_alone = match others {
        0 => String::new(),
        others => format!("{} left alone", text::counted(others, "other")),
    };
    let titles = ["".to_owned(), "PARTITION".to_owned(), "WHAT IT IS TO BE".to_owned(), left_alone];
    let header = TableRow::new(titles).style(theme.heading(is_focus));
    let table = Table::new(shown.collect::<Vec<_>>(), widths).header(header).column_spacing(1);
    frame.render_widget(table, area);
    if rows.is_empty() {
        let below = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
        frame.render_widget(Paragraph::new("  none yet: n makes one"), below);
    }
}

/// Name, what it is to be, and where: of a VF the function it has or is to have.
fn partition_cells(screen: &Screen, row: &Row) -> [String; 3] {
    match row {
        Row::Partition(name) => {
            let what = screen.choice.partition(name).map(partition_words).unwrap_or_default();
            [name.to_string(), what, phase(screen, name)]
        }
        Row::Vf(owner) => {
            let what = screen.choice.vf(owner).map(|vf| request_words(vf).join(", ")).unwrap_or_default();
            [format!("  {}", owner.vf), what, function(screen, owner)]
        }
    }
}

fn phase(screen: &Screen, name: &Name) -> String {
    let there = screen.known.partitions.iter().find(|there| there.name == *name);
    there.map_or("", |there| if there.running { "runs" } else { "stopped" }).to_owned()
}

/// The function that a VF request is to get, as far as it is said, or has.
fn function(screen: &Screen, owner: &Owner) -> String {
    if screen.is_dropped(owner) {
        return "given back".to_owned();
    }
    let there = screen.known.partitions.iter().find(|there| there.name == owner.partition);
    let has = there.and_then(|there| there.vfs.iter().find(|vf| vf.name == owner.vf)).map(|has| has.vf);
    let wants = screen.choice.vf(owner).map_or((None, None), |vf| (vf.pf, vf.index));
    match (wants, has) {
        ((Some(pf), Some(index)), _) => format!("VF {index} of {pf}"),
        ((pf, None), Some(has)) if pf.is_none_or(|pf| pf == has.pf) => has.to_string(),
        ((Some(pf), None), _) => format!("any VF of {pf}"),
        ((None, _), _) => "whichever suits".to_owned(),
    }
}

fn partition_words(partition: &PartitionSpec) -> String {
    let from =
        partition.machine().and_then(|machine| machine.boot.kernel.as_ref().or(machine.boot.disk.as_ref()));
    let from =
        from.and_then(|path| path.file_name()).map(|name| format!(", boots {}", name.to_string_lossy()));
    let node = partition.numa_node.map(|node| format!(", NUMA node {node}"));
    let words = format!("{}{}{}", partition.kind, node.unwrap_or_default(), from.unwrap_or_default());
    text::printable(&words)
}

/// The requirements and settings of a VF request, without its function and `guest_may`.
pub(super) fn request_words(vf: &VfRequest) -> Vec<String> {
    let mut words =
        vec![vf.subclass.map_or(vf.class.to_string(), |subclass| format!("{} ({subclass})", vf.class))];
    words.extend(vf.min_link_speed.map(|rate| format!("{rate} or faster")));
    words.extend(vf.carrier.then(|| "with a link".to_owned()));
    words.extend(vf.min_pcie_bandwidth.map(|rate| format!("PCIe of {rate} or more")));
    words.extend(vf.numa.map(|numa| match numa {
        ioward_model::NumaPolicy::Prefer => "rather on its NUMA node".to_owned(),
        ioward_model::NumaPolicy::Require => "on its NUMA node".to_owned(),
    }));
    words.extend(vf.needs.iter().map(|need| format!("needs {}", need.as_str())));
    words.extend(vf.min_msix_vectors.map(|count| format!("{count} MSI-X vectors or more")));
    words.extend(
        vf.min_namespaces.map(|count| format!("{} or more", text::counted(count.into(), "namespace"))),
    );
    words.extend(vf.min_tx_rate.map(|rate| format!("{rate} guaranteed")));
    let guaranteed = vf.min_tx_rate.is_some();
    let settings = vf.settings().describe().into_iter();
    let settings = settings.filter(|(name, _)| !(guaranteed && *name == "min_tx_rate"));
    words.extend(settings.map(|(name, value)| format!("{name}={value}")));
    words.extend(vf.apart_from.iter().map(apart_words));
    words
}

fn apart_words(apart: &Apart) -> String {
    let rather = if apart.prefer { "rather " } else { "" };
    format!("{rather}not the {} of {}", apart.by.as_str(), apart.vf)
}

fn about_row(screen: &Screen, row: &Row) -> String {
    match row {
        Row::Partition(name) => {
            let Some(partition) = screen.choice.partition(name) else { return String::new() };
            let words = format!("{name}: {}", partition_words(partition));
            let Some(Machine { boot, .. }) = partition.machine() else { return words };
            let files = [("kernel", &boot.kernel), ("initrd", &boot.initrd), ("disk", &boot.disk)];
            let files = files
                .iter()
                .filter_map(|(what, path)| path.as_ref().map(|path| format!("{what} {}", path.display())));
            let cmdline = boot.cmdline.as_ref().map(|cmdline| format!("command line {cmdline}"));
            let boots = files.chain(cmdline).collect::<Vec<_>>().join(", ");
            format!("{words}\n{boots}")
        }
        Row::Vf(owner) => {
            let Some(vf) = screen.choice.vf(owner) else { return String::new() };
            let may = match vf.guest_may.words() {
                words if words.is_empty() => "change nothing".to_owned(),
                words => format!("change {}", words.join(", ")),
            };
            format!("{owner}: {}; the guest may {may}", request_words(vf).join(", "))
        }
    }
}

fn cursor(theme: Theme, is_current: bool) -> Style {
    if is_current { theme.cursor() } else { Style::new() }
}
