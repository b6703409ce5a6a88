//! The embedded machine, kept up by `ioward demo --serve`: a daemon that is none of a test's making.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, ChildStdout, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    demo::Place,
    support::{Folder, Run, ioward, run},
};

/// The embedded machine and its daemon, until dropped.
pub struct Served {
    place: Place,
    child: Child,
    /// Kept open: what is still printed has somewhere to go.
    _stdout: Lines<BufReader<ChildStdout>>,
    socket: PathBuf,
    link: String,
}

impl Served {
    /// With this Spec applied. There is a file `kernel` beside it to boot from.
    pub fn start(spec: &str) -> Self {
        Self::start_with(spec, &[])
    }

    /// The same, with more arguments to the demonstration.
    pub fn start_with(spec: &str, more: &[&str]) -> Self {
        let place = Place::new();
        place.folder.file("kernel", "simulated\n");
        let file = place.folder.file("served.toml", spec);
        let arguments = ["--spec", file.to_str().unwrap()];
        Self::start_in(place, &[&arguments[..], more].concat())
    }

    /// With the Spec that the demonstration has of its own.
    pub fn as_shown() -> Self {
        Self::start_in(Place::new(), &[])
    }

    fn start_in(place: Place, arguments: &[&str]) -> Self {
        let arguments = [&["--yes", "--serve"][..], arguments].concat();
        let mut child = place.demo(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(stdout.any(|line| line.unwrap().contains("It stays up")), "the demonstration has ended");
        // As it says: ioward --socket PATH host
        let told = stdout.next().unwrap().unwrap();
        let socket = told.split_whitespace().skip_while(|word| *word != "--socket").nth(1).unwrap().into();
        let link = stdout.by_ref().map_while(Result::ok).find(|line| line.starts_with("http://")).unwrap();
        Self { place, child, _stdout: stdout, socket, link }
    }

    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// The link to its page.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// A folder for files of the test, with a file `kernel` in it.
    pub fn folder(&self) -> &Folder {
        &self.place.folder
    }

    /// The API's own answer.
    pub fn ask(&self, route: &str, body: &Value) -> Value {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = "HTTP/1.1\r\nhost: ioward\r\nconnection: close\r\ncontent-type: application/json";
        let request = format!("{route} {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        // All of it at once: who wants no body may close before the rest has come.
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, answer) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(answer).unwrap()
    }

    /// Carries the state of a machine that is moved from `source` to here. Whether there was one.
    pub fn carry_state(&self, source: &Self, id: &str) -> bool {
        let mut out = UnixStream::connect(source.socket()).unwrap();
        let asked = format!("GET /v1/moves/{id}/state HTTP/1.0\r\nhost: ioward\r\n\r\n");
        out.write_all(asked.as_bytes()).unwrap();
        let mut answer = Vec::new();
        out.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        if !answer.starts_with(b"HTTP/1.0 200") {
            return false;
        }
        let body = &answer[end..];
        let mut into = UnixStream::connect(self.socket()).unwrap();
        let head = "HTTP/1.1\r\nhost: ioward\r\nconnection: close\r\ncontent-type: application/octet-stream";
        let request = format!("POST /v1/moves/{id}/state {head}\r\ncontent-length: {}\r\n\r\n", body.len());
        into.write_all(&[request.as_bytes(), body].concat()).unwrap();
        into.read_to_end(&mut answer).unwrap();
        true
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        run(&mut ioward(&self.socket(), arguments))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let _ = self.child.wait();
    }
}

#[test]
fn the_spec_of_what_is_held_asks_for_nothing_new() {
    let empty = Served::start("version = 1\n");
    assert_eq!(empty.ask("GET /v1/spec", &Value::Null), json!({"version": 1}));
    drop(empty);

    let served = Served::start(
        r#"version = 1
adapter = [{ pf = "0000:01:00.0", spare = 2 }]

[[partition]]
name = "web"
boot = { kernel = "kernel" }
vf = [{ name = "net0", class = "network", pf = "0000:01:00.0", guest_may = ["mac"] }]
"#,
    );
    let assigned = served.run(&["assign", "web", "--class", "nvme", "--count", "2"]);
    assert_eq!(assigned.status, 0, "{}", assigned.stderr);
    let spec = served.ask("GET /v1/spec", &Value::Null);
    let names = spec["partition"][0]["vf"].as_array().unwrap().iter().map(|vf| &vf["name"]);
    assert_eq!(names.collect::<Vec<_>>(), ["net0", "disk0", "disk1"]);
    assert_eq!(spec["adapter"], json!([{"pf": "0000:01:00.0", "spare": 2}]));
    let plan = served.ask("POST /v1/plan", &json!({"intent": "apply", "spec": spec}));
    assert_eq!(plan["steps"], json!([]), "{plan}");
}

/// A VF that a libvirt domain has is named everywhere, and never offered.
#[test]
fn a_vf_of_a_libvirt_domain_is_named_and_left_alone() {
    let served = Served::start_with("version = 1\n", &["--foreign"]);
    let vfs: Value = serde_json::from_str(&served.run(&["vfs", "--json"]).stdout).unwrap();
    let [held, free] = &vfs.as_array().unwrap()[..] else { panic!("{vfs:#}") };
    let domain = "libvirt domain theirs (qemu pid 812)";
    assert_eq!((&held["whose"], &held["holder"]["kind"]), (&json!(domain), &json!("process")));
    assert!(free["whose"].as_str().unwrap().starts_with("the host ("), "{free}");
    let shown = served.run(&["vfs"]).stdout;
    assert!(shown.contains(&format!("\n  held by {domain}\n")), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    let pf = held["pf"].as_str().unwrap();
    assert!(served.run(&["host"]).stdout.contains(&format!("is held by {domain}")));

    let spec = format!(
        "version = 1\n[[partition]]\nname = \"web\"\nboot = {{ kernel = \"kernel\" }}\n\
         [[partition.vf]]\nname = \"net0\"\nclass = \"network\"\npf = \"{pf}\"\nindex = 0\n"
    );
    let file = served.folder().file("web.toml", &spec);
    let file = file.to_str().unwrap();
    for command in [&["compatible", "web", "-f", file][..], &["plan", "-f", file]] {
        let told = served.run(command);
        let told =
            format!("{} {}", told.stdout, told.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(&format!("held by {domain}")), "{told}");
    }
    let grow =
        served.folder().file("grow.toml", format!("version = 1\n[[adapter]]\npf = \"{pf}\"\nvfs = 4\n"));
    let told = served.run(&["plan", "-f", grow.to_str().unwrap()]);
    assert_eq!(told.status, 3, "{}", told.stderr);
    let told = told.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(&format!("{domain} loses VF 0 of {pf}")), "{told}");
}
