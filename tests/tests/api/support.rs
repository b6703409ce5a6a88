//! A real daemon over the simulated machine, and a client of it that speaks by hand, byte by byte.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ioward_fabric::sim::{MachineView, SimMachine};
use ioward_hypervisor::{
    Guard,
    sim::{Bounds, SimConfig, SimHypervisor},
};
use ioward_imp::{ApiGroups, Imp, Run, serve_on};
use ioward_model::{AuditEntry, State};
use ioward_store::{Change, Contents, Store as _};
use ioward_tests::level1::wait_until;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A NIC of the standard machine, with 7 VFs to give.
pub(crate) const NIC: &str = "0000:01:00.0";

/// How long anything is waited for that never takes a tenth of this: a failure must not become a hang.
pub(crate) const GIVES_UP_AFTER: Duration = Duration::from_secs(60);

/// A daemon, for as long as it is not dropped.
pub(crate) struct Daemon {
    machine: SimMachine,
    pub(crate) socket: PathBuf,
    /// Runs the daemon.
    _runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_with(State::default())
    }

    pub(crate) fn start_with(state: State) -> Self {
        Self::start_after(state, &[])
    }

    /// With what is in the audit log.
    pub(crate) fn start_after(state: State, audit: &[AuditEntry]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = SimMachine::standard(1);
        let config = SimConfig {
            runtime_dir: folder.path().join("run"),
            // No partition is started here.
            program: "/nonexistent".into(),
            arguments: Vec::new(),
            bounds: Bounds::default(),
        };
        let runtime = Runtime::new().unwrap();
        let socket = folder.path().join("api.sock");
        let guard = runtime.enter();
        let looked_at = machine.clone();
        let hypervisor = Arc::new(SimHypervisor::new(config).unwrap());
        let hypervisor = Arc::new(Guard::new(hypervisor, move |function| Ok(looked_at.facts(function))));
        let (store, contents) = ioward_store::open(&folder.path().join("state")).unwrap();
        let contents = Contents { state, ..contents };
        store.commit(&audit.iter().cloned().map(Change::Audit).collect::<Vec<_>>()).unwrap();
        let run = Run { epoch: 1, boot: String::new(), clock: ioward_imp::Clock::default() };
        let imp = Imp::new(Arc::new(machine.fabric()), hypervisor, Box::new(store), contents, run);
        let at = socket.clone();
        runtime.spawn(async move {
            serve_on(&at, imp, ApiGroups::of_this_host(), std::future::pending()).await.unwrap();
        });
        drop(guard);
        wait_until("the daemon listens", GIVES_UP_AFTER, || UnixStream::connect(&socket).is_ok()).unwrap();
        Self { machine, socket, _runtime: runtime, _folder: folder }
    }

    pub(crate) fn view(&self) -> MachineView {
        self.machine.snapshot()
    }

    /// Sends a request; the status and the body of the answer.
    pub(crate) fn ask(&self, route: &str, body: &str) -> (u16, String) {
        let answer = self.send(route, "", body);
        (answer.status, answer.body)
    }

    /// Sends a request with further header lines.
    pub(crate) fn send(&self, route: &str, headers: &str, body: &str) -> Answer {
        let headers = format!("content-type: application/json\r\n{headers}");
        send(&self.socket, route, &headers, body)
    }

    pub(crate) fn json(&self, route: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.ask(route, &body.to_string());
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{route}: {error}: {body}")))
    }
}

/// An answer, by its parts.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header, if it has it.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let is_it = |line: &&str| line.split_once(':').is_some_and(|(it, _)| it.eq_ignore_ascii_case(name));
        self.head.lines().find(is_it).and_then(|line| Some(line.split_once(':')?.1.trim()))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends a request with these header lines, each with its end of line.
pub(crate) fn send(socket: &Path, route: &str, headers: &str, body: &str) -> Answer {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(GIVES_UP_AFTER)).unwrap();
    let length = body.len();
    let head = format!(
        "{route} HTTP/1.1\r\nhost: ioward\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A body that is too long is not read to its end.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{route}: no answer: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { without_chunks(body) } else { body.to_owned() };
    Answer { status, head: head.to_owned(), body }
}

/// The content of a chunked body (RFC 9112 §7.1).
fn without_chunks(mut body: &str) -> String {
    let mut content = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        content += &rest[..length];
        body = rest[length..].trim_start_matches("\r\n");
    }
    content
}

/// An intent to apply a Spec: a good one, but for what `change` does to it.
pub(crate) fn spec_with(change: impl FnOnce(&mut Value)) -> String {
    let mut spec = json!({"version": 1, "adapter": [{"pf": NIC, "vfs": 2}], "partition": [{
        "name": "web", "cpus": 1, "memory": "64MiB", "boot": {"kernel": "/bin/sh"},
        "vf": [{"name": "net0", "class": "network", "mac": "52:54:00:aa:00:01"}]}]});
    change(&mut spec);
    json!({"intent": "apply", "spec": spec}).to_string()
}
