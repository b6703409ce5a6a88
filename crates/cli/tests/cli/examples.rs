//! Examples of the documents that are run: what they print is held against what the document prints below them.
//!
//! `…` in an answer stands for anything; at the end of an answer, for more that may still come.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::documents::Example;

/// A failure must not become a hang.
const GIVES_UP_AFTER: Duration = Duration::from_secs(120);

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

/// What has come of an answer before the next example is run: all, or the first line of one that goes on.
pub fn beginning(answer: &str) -> String {
    match answer.trim_end().strip_suffix('…').and_then(|answer| answer.lines().next()) {
        Some(first) => format!("{first}…"),
        None => answer.to_owned(),
    }
}

/// Whether this is the answer that is printed, white space aside: the documents break lines where they like.
pub fn is(printed: &str, came: &str) -> bool {
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
pub struct Running {
    pub example: Example,
    shell: Child,
    came: Arc<(Mutex<Came>, Condvar)>,
}

#[derive(Default)]
struct Came {
    text: String,
    is_all: bool,
}

impl Running {
    /// Runs this command line in place of the example's own, of which it differs by what stands for something else here.
    pub fn start(example: Example, command: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        // curl would keep the head of an answer back until the body begins.
        let mut shell = Command::new("stdbuf");
        // A group of its own, to be ended with all that it has started.
        shell
            .args(["-o0", "bash", "-c", command])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        prepare(&mut shell);
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
    pub fn wait_for(&self, printed: &str) {
        let goes_on = printed.trim_end().ends_with('…');
        let came = self.wait_until(|came| goes_on && is(printed, came));
        let Example { place, command, .. } = &self.example;
        assert!(is(printed, &came), "{place}: {command}printed:\n{printed}came:\n{came}");
    }

    /// Waits until enough has come, or all; gives what has.
    pub fn wait_until(&self, is_enough: impl Fn(&str) -> bool) -> String {
        let (came, changed) = &*self.came;
        let not_yet = |came: &mut Came| !(came.is_all || is_enough(&came.text));
        let (came, waited) =
            changed.wait_timeout_while(came.lock().unwrap(), GIVES_UP_AFTER, not_yet).unwrap();
        let Example { place, command, .. } = &self.example;
        assert!(!waited.timed_out(), "{place}: {command}goes on, and has printed:\n{}", came.text);
        came.text.clone()
    }

    /// Waits for its end: all that it has printed, and its exit status.
    pub fn end(mut self) -> (String, Option<i32>) {
        let came = self.wait_until(|_| false);
        (came, self.shell.wait().unwrap().code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
        let _ = self.shell.wait();
    }
}
