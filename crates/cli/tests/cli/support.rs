//! Helpers of the tests: running the binary, a scripted daemon, a folder that goes away.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

/// A folder of a test's own.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ioward-cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The outcome of a run of the binary.
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The command, with a socket and nothing on stdin.
pub fn ioward(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ioward"));
    command.env("IOWARD_SOCKET", socket).args(arguments).stdin(Stdio::null());
    command
}

/// Lets this process have as many connections as the system lets any: a test with a thousand is not alone.
pub fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        status: output.status.code().expect("ended by itself"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A request as the daemon saw it: `POST /v1/plan` and its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub route: String,
    pub body: Value,
    /// The body as it came, where it is no JSON.
    pub bytes: Vec<u8>,
}

/// A daemon that answers as it is told, and remembers what it was asked.
pub struct Daemon {
    folder: Folder,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Daemon {
    /// Answers each request, on a thread of its own, by what `answer` writes.
    pub fn new(answer: impl Fn(&Request, &mut UnixStream) + Send + Sync + 'static) -> Self {
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.path().join("api.sock")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, seen, answer) = (stream.unwrap(), Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || {
                    let request = read_request(&stream);
                    seen.lock().unwrap().push(request.clone());
                    answer(&request, &mut stream);
                });
            }
        });
        Self { folder, requests }
    }

    /// Answers everything with one value.
    pub fn with(status: &'static str, body: Value) -> Self {
        Self::new(move |_, stream| send(stream, status, &body.to_string()))
    }

    /// Plans with `plan`, applies with these events.
    pub fn planning(plan: Value, events: &'static str) -> Self {
        Self::new(move |request, stream| match request.route.as_str() {
            "POST /v1/plan" => send(stream, "200 OK", &plan.to_string()),
            _ => carry_out(request, stream, events),
        })
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        run(&mut ioward(&self.socket(), arguments))
    }
}

fn read_request(stream: &UnixStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let route = line().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        let header = line().to_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let (body, bytes) =
        serde_json::from_slice(&body).map_or((Value::Null, body), |value| (value, Vec::new()));
    Request { route, body, bytes }
}

/// The head of an answer that lasts until the connection closes.
pub fn send_head(stream: &mut UnixStream, status: &str) {
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\n\r\n").unwrap();
}

/// A whole answer.
pub fn send(stream: &mut UnixStream, status: &str, body: &str) {
    send_head(stream, status);
    // The other side may have had enough.
    let _ = stream.write_all(body.as_bytes());
}

/// The request by which a change begins.
pub const BEGIN: &str = "POST /v1/changes";
/// The request for the events of the change that [`carry_out`] begins.
pub const WATCH: &str = "GET /v1/changes/7-3/events";
/// The request that cancels it.
pub const CANCEL: &str = "DELETE /v1/changes/7-3";
/// The change.
pub const CHANGE: &str =
    r#"{"id":"7-3","revision":3,"intent":"start","status":"running","steps":2,"steps_done":0,"begun_ms":0}"#;

/// Answers the requests of a client that has a plan carried out: the change that has begun, and its events.
pub fn carry_out(request: &Request, stream: &mut UnixStream, events: &str) {
    match request.route.as_str() {
        BEGIN => send(stream, "201 Created", CHANGE),
        WATCH => send(stream, "200 OK", events),
        other => panic!("{other}"),
    }
}

/// An error as the API gives it.
pub fn error(kind: &str, message: &str, reasons: Value) -> Value {
    json!({"error": {"kind": kind, "message": message, "reasons": reasons}})
}

/// A recorded value of the API.
pub fn data(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A Spec with nothing wrong.
pub const GOOD_SPEC: &str = r#"version = 1

[[partition]]
name   = "web"
cpus   = 2
memory = "512MiB"
boot   = { kernel = "vmlinuz", initrd = "/boot/initrd.img" }

[[partition.vf]]
name  = "net0"
class = "network"
mac   = "52:54:00:aa:00:01"
vlan  = 100
"#;
