//! `cargo xtask docs`: makes docs/terminal.svg from what the program prints on the simulated machine, so that the picture
//! shows no machine but that one.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    error::{Error, Result},
    process::{self, run_aside},
    workspace::Workspace,
};

/// Columns of the terminal in the picture.
const COLUMNS: usize = 80;
/// Lines of `ioward host` that are shown: two adapters.
const HOST_LINES: usize = 8;

/// Writes the picture.
pub fn make() -> Result<()> {
    let workspace = Workspace::find()?;
    run_aside(workspace.cargo().args(["build", "--package", "ioward"]))?;
    let program = workspace.binaries.join("ioward");
    let socket = workspace.binaries.join("docs.sock");
    let mut demo = Demo::start(&program, &socket)?;
    let drawn = draw(&program, &socket);
    demo.end();
    let path = workspace.root.join("docs/terminal.svg");
    fs::write(&path, drawn?).map_err(Error::file("write", &path))
}

/// The simulated machine, kept up.
struct Demo {
    child: Child,
    /// Held so that later output does not end it (SIGPIPE).
    _stdout: Option<BufReader<ChildStdout>>,
}

impl Demo {
    fn start(program: &Path, socket: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["demo", "--yes", "--serve", "--socket"]).arg(socket);
        let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let mut stdout = child.stdout.take().map(BufReader::new);
        let is_up = stdout.as_mut().is_some_and(|stdout| {
            stdout.by_ref().lines().map_while(std::io::Result::ok).any(|line| line.contains("It stays up"))
        });
        let demo = Self { child, _stdout: stdout };
        if is_up {
            Ok(demo)
        } else {
            Err(Error::Other("the demonstration has ended before it was up".into()))
        }
    }

    fn end(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.end();
    }
}

fn draw(program: &Path, socket: &Path) -> Result<String> {
    let ioward = |arguments: &str| {
        let mut command = Command::new(program);
        command.arg("--socket").arg(socket).args(arguments.split(' ')).stdin(Stdio::null());
        command
    };
    let mut picture = Picture::default();
    let host = process::output(&mut ioward("host"))?;
    picture.command(&format!("$ ioward host | head -n {HOST_LINES}"));
    picture.says(host.lines().take(HOST_LINES));
    let attach = "attach web net1 --class network --pf 0000:01:00.0";
    picture.says([""]);
    picture.command(&format!("$ ioward {attach}"));
    picture.says(process::output(&mut ioward(attach))?.lines());
    picture.says([""]);
    let typed = "vf set net0 vlan=100";
    let answer = on_console(ioward("console web"), typed)?;
    picture.command(&format!("web# {typed}"));
    picture.refuses(answer.lines());
    Ok(picture.svg())
}

/// Types a command on a partition's console, and gives what it prints before the next prompt.
fn on_console(mut console: Command, typed: &str) -> Result<String> {
    let mut child = spawn(console.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let mut seen = String::new();
    let talked = (|| {
        let mut stdin = child.stdin.take()?;
        let mut stdout = child.stdout.take()?;
        stdin.write_all(format!("{typed}\n").as_bytes()).ok()?;
        // A prompt follows what comes of the command; its echo stands before that.
        while !seen.split_once(typed).is_some_and(|(_, after)| after.ends_with("web# ")) {
            let mut byte = [0];
            stdout.read_exact(&mut byte).ok()?;
            seen.push(char::from(byte[0]));
        }
        Some(())
    })();
    let _ = child.kill();
    let _ = child.wait();
    talked.ok_or_else(|| Error::Other(format!("the console of web gave no answer to '{typed}'")))?;
    let after = seen.split_once(typed).map_or("", |(_, after)| after).replace('\r', "");
    // The last line is the prompt.
    let end = after.rfind('\n').unwrap_or(0);
    Ok(after[..end].trim_start_matches('\n').to_owned())
}

fn spawn(command: &mut Command) -> Result<Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|source| Error::Start { program, source })
}

/// Lines of a terminal, each with its colour.
#[derive(Default)]
struct Picture(Vec<(&'static str, String)>);

impl Picture {
    fn command(&mut self, line: &str) {
        self.add("#89b4fa", line);
    }

    fn says<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) {
        lines.into_iter().for_each(|line| self.add("#cdd6f4", line));
    }

    fn refuses<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) {
        lines.into_iter().for_each(|line| self.add("#f38ba8", line));
    }

    /// A line that is too long goes on in the next, as on a terminal.
    fn add(&mut self, colour: &'static str, line: &str) {
        let characters: Vec<char> = line.chars().collect();
        if characters.is_empty() {
            self.0.push((colour, String::new()));
        }
        self.0.extend(characters.chunks(COLUMNS).map(|part| (colour, part.iter().collect())));
    }

    fn svg(&self) -> String {
        let height = 18 * self.0.len() + 30;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" viewBox=\"0 0 720 {height}\">\n\
             <rect width=\"720\" height=\"100%\" rx=\"8\" fill=\"#1e1e2e\"/>\n\
             <g font-family=\"ui-monospace, Menlo, Consolas, monospace\" font-size=\"13\" xml:space=\"preserve\">\n"
        );
        for (n, (colour, line)) in self.0.iter().enumerate() {
            let line = line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            svg += &format!("<text x=\"20\" y=\"{}\" fill=\"{colour}\">{line}</text>\n", 18 * n + 32);
        }
        svg + "</g>\n</svg>\n"
    }
}
