//! The screen by its keys, and as it looks on a terminal of 80 columns and 24 lines.

mod applying;
mod choosing;

use std::{fs, path::Path};

use ioward_model::{Plan, Spec};
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

use super::{
    key::Key,
    screen::{Answer, Effect, Known, Screen},
    view::{self, Theme},
};
use crate::error::CliError;

/// The Spec behind partitions.json.
const HELD: &str = r#"version = 1

[[partition]]
name = "db"
memory = "2GiB"
boot = { disk = "/srv/db.qcow2" }
vf = [{ name = "disk0", class = "nvme" }]

[[partition]]
name = "web"
cpus = 2
boot = { kernel = "/boot/vmlinuz" }
vf = [{ name = "net0", class = "network", min_link_speed = "1Gbit", guest_may = { mac = true, vlan = "100-110" } }]
"#;

const COLOURS: (Option<&str>, Option<&str>) = (None, Some("xterm-256color"));
const NO_COLOURS: (Option<&str>, Option<&str>) = (Some("1"), Some("xterm-256color"));

fn data<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

fn known(held: &str) -> Known {
    Known {
        inventory: data(include_str!("../../../tests/data/inventory.json")),
        partitions: data(include_str!("../../../tests/data/partitions.json")),
        held: Spec::parse(held.as_bytes()).unwrap(),
    }
}

/// A screen of a host with two partitions, which begins with what is held.
fn screen() -> Screen {
    Screen::new(known(HELD), None, None, "/home/me".into(), (80, 24))
}

/// A screen of a host on which nothing is held.
fn empty_screen() -> Screen {
    let known = Known { partitions: Vec::new(), ..known("version = 1") };
    Screen::new(known, None, None, "/home/me".into(), (80, 24))
}

/// Presses keys: characters as they are, others by their names, as `<Tab>`. The effects that there were.
fn press(screen: &mut Screen, keys: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut rest = keys;
    while let Some(c) = rest.chars().next() {
        let (key, after) = match rest.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
            Some((name, after)) => (named(name), after),
            None => (Key::Char(c), &rest[c.len_utf8()..]),
        };
        effects.extend(screen.key(key));
        rest = after;
    }
    effects
}

fn named(name: &str) -> Key {
    match name {
        "Enter" => Key::Enter,
        "Esc" => Key::Esc,
        "Tab" => Key::Tab,
        "Up" => Key::Up,
        "Down" => Key::Down,
        "Left" => Key::Left,
        "Right" => Key::Right,
        "Back" => Key::Backspace,
        "PgDn" => Key::PageDown,
        "End" => Key::End,
        "Ctrl-C" => Key::Interrupt,
        other => panic!("{other}"),
    }
}

/// Presses keys of which the last has one thing done.
fn press_for(screen: &mut Screen, keys: &str) -> Effect {
    let mut effects = press(screen, keys);
    assert_eq!(effects.len(), 1, "{effects:?}");
    effects.remove(0)
}

fn buffer(screen: &Screen, (no_color, term): (Option<&str>, Option<&str>)) -> Buffer {
    let (columns, lines) = screen.size;
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal.draw(|frame| view::draw(frame, screen, Theme::of(no_color, term))).unwrap();
    terminal.backend().buffer().clone()
}

/// The text on the screen, without colours and trailing spaces.
fn seen(screen: &Screen) -> String {
    let buffer = buffer(screen, NO_COLOURS);
    let mut out = String::new();
    for line in 0..buffer.area.height {
        let cells = (0..buffer.area.width).map(|column| buffer[(column, line)].symbol());
        out += cells.collect::<String>().trim_end();
        out.push('\n');
    }
    out
}

/// Compares what is to be seen with a file; with IOWARD_BLESS=1 in the environment the file is written instead.
fn looks_like(screen: &Screen, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/select/{name}.txt"));
    let seen = seen(screen);
    if std::env::var_os("IOWARD_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &seen).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        seen, expected,
        "\n{seen}\nif this is as it should be: IOWARD_BLESS=1 cargo test -p ioward select"
    );
}

fn plan() -> Plan {
    data(include_str!("../../../tests/data/plan.json"))
}

/// The screen once the plan is there.
fn with_plan(answer: Result<Plan, CliError>) -> Screen {
    let mut screen = screen();
    let Effect::Plan(number, ..) = press_for(&mut screen, "p") else { panic!() };
    screen.answer(Answer::Plan(number, answer.map(Box::new)));
    screen
}

/// The screen once what suits web/net0 is there.
fn with_functions() -> Screen {
    let mut screen = screen();
    let Effect::Compatible(_, owner) = press_for(&mut screen, "<Tab><End><Enter>") else { panic!() };
    let mut all: Vec<ioward_api::Compatible> = data(include_str!("../../../tests/data/compatible.json"));
    screen.answer(Answer::Compatible(owner, Ok(all.remove(0))));
    screen
}
