//! The examples of the documents that use curl: each is run as it is printed, in turn, on the embedded machine, and has the answer that
//! is printed below it.
//!
//! An example is a block of lines that begins with `$ `. `…` in an answer stands for anything; at the end of an answer, for more that
//! may still come.

use std::{
    fs,
    io::{ErrorKind, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::served::Served;

/// The socket of the examples.
const SOCKET: &str = "/run/ioward/api.sock";

/// A failure must not become a hang.
const GIVES_UP_AFTER: Duration = Duration::from_secs(120);

#[test]
fn every_example_with_curl_does_what_the_documents_say() {
    if let Err(error) = Command::new("curl").arg("--version").output() {
        assert_ne!(error.kind(), ErrorKind::NotFound, "this test needs curl: apt install curl");
        panic!("curl: {error}");
    }
    let served = Served::as_shown();
    let mut running = Vec::new();
    for document in ["api.md", "metrics.md"] {
        for example in examples(document) {
            let one = Running::start(example, &served.socket());
            // One that goes on is waited for until it has begun to answer: the next may be about what it shows.
            one.wait_for(&one.example.begins());
            running.push(one);
        }
    }
    assert!(running.len() > 10, "{}", running.len());
    for one in &running {
        one.wait_for(&one.example.answer);
    }
}

#[test]
fn an_answer_is_told_from_another() {
    for (printed, came, is_it) in [
        ("", "", true),
        ("", "x", false),
        (r#"{"a": 1, "b": 2}"#, "{\"a\":1,\n\"b\":2}\n", true),
        (r#"{"a": 1, …}"#, r#"{"a":1,"b":2}"#, true),
        (r#"{"a": 1, …}"#, r#"{"a":1,"b":2"#, false),
        (r#"{"a": 1, …}"#, r#"{"a":2,"b":1}"#, false),
        (r#"{…, "b": 2}"#, r#"{"a":1,"b":2,"c":3}"#, false),
        ("id: 1\n…", "id: 1\n\nid: 2\n", true),
        ("id: 1\n…", "id: 2\n\nid: 1\n", false),
    ] {
        assert_eq!(is(printed, came), is_it, "{printed:?}, {came:?}");
    }
}

/// A command and what is printed below it.
struct Example {
    /// Where it stands.
    place: String,
    command: String,
    answer: String,
}

impl Example {
    /// What has come of its answer before the next example is run: all, or the first line of one that goes on.
    fn begins(&self) -> String {
        match self.answer.trim_end().strip_suffix('…').and_then(|answer| answer.lines().next()) {
            Some(first) => format!("{first}…"),
            None => self.answer.clone(),
        }
    }
}

/// The examples of a document, as they stand in it.
fn examples(document: &str) -> Vec<Example> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(document);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found: Vec<Example> = Vec::new();
    let (mut in_block, mut in_command) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("docs/{document}: line {number}");
        let code = line.strip_prefix("    ");
        if let Some(command) = code.and_then(|code| code.strip_prefix("$ ")) {
            found.push(Example { place, command: format!("{command}\n"), answer: String::new() });
            (in_block, in_command) = (true, command.ends_with('\\'));
        } else if let Some((code, example)) = code.filter(|_| in_block).zip(found.last_mut()) {
            let part = if in_command { &mut example.command } else { &mut example.answer };
            *part += &format!("{code}\n");
            in_command &= code.ends_with('\\');
        } else {
            assert!(
                !line.contains("curl -"),
                "{place}: an example begins with '$ ', and is a block of its own"
            );
            // An answer may have an empty line, before the next of its own.
            in_block &= line.is_empty();
        }
    }
    found
}

/// Whether this is the answer that is printed, white space aside: the documents break lines where they like.
fn is(printed: &str, came: &str) -> bool {
    let [printed, came] = [printed, came].map(|text| text.split_whitespace().collect::<String>());
    let mut parts = printed.split('…');
    let Some(mut left) = came.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return left.is_empty() };
    for part in between {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

/// An example that was started. What still runs of it is ended when dropped.
struct Running {
    example: Example,
    shell: Child,
    came: Arc<(Mutex<Came>, Condvar)>,
}

#[derive(Default)]
struct Came {
    text: String,
    is_all: bool,
}

impl Running {
    fn start(example: Example, socket: &Path) -> Self {
        assert!(example.command.contains(SOCKET), "{}: {}", example.place, example.command);
        let command = example.command.replace(SOCKET, socket.to_str().unwrap());
        // curl would keep the head of an answer back until the body begins.
        let mut shell = Command::new("stdbuf");
        // A group of its own, to be ended with all that it has started.
        shell
            .args(["-o0", "sh", "-c", &command])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut output = shell.stdout.take().unwrap();
        let came = Arc::<(Mutex<Came>, Condvar)>::default();
        let shared = Arc::clone(&came);
        thread::spawn(move || {
            let (came, changed) = &*shared;
            let mut piece = [0; 4096];
            loop {
                let length = output.read(&mut piece).unwrap_or(0);
                let mut came = came.lock().unwrap();
                came.text += &String::from_utf8_lossy(&piece[..length]);
                came.is_all = length == 0;
                changed.notify_all();
                if came.is_all {
                    return;
                }
            }
        });
        Self { example, shell, came }
    }

    /// Waits for an answer. One that does not go on has come to its end by then.
    fn wait_for(&self, printed: &str) {
        let (came, changed) = &*self.came;
        let goes_on = printed.trim_end().ends_with('…');
        let not_yet = |came: &mut Came| !(came.is_all || goes_on && is(printed, &came.text));
        let (came, _) = changed.wait_timeout_while(came.lock().unwrap(), GIVES_UP_AFTER, not_yet).unwrap();
        let Example { place, command, .. } = &self.example;
        assert!(
            is(printed, &came.text) && (goes_on || came.is_all),
            "{place}: {command}printed:\n{printed}came:\n{}",
            came.text
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
        let _ = self.shell.wait();
    }
}
