//! The API of the embedded machine against its OpenAPI document: Schemathesis asks what the document allows and what it does not, and
//! each answer must be one that is documented, and no 5xx. tests/schema/ says what is asked.
//!
//! Schemathesis speaks HTTP over TCP: a relay on loopback passes on to the daemon's socket, with the rights of whoever runs this.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use crate::error::{Error, Result};
use crate::process::{run, run_aside};
use crate::workspace::Workspace;
use crate::{lab, packages};

/// Runs all of it. The `ioward` is that of the dev profile.
pub fn test(workspace: &Workspace) -> Result<()> {
    let schemathesis = install(workspace)?;
    run(workspace.cargo().args(["build", "--package", "ioward"]))?;
    let machine = Machine::start(&workspace.binaries.join("ioward"))?;
    let failed = |source| Error::Other(format!("can't listen on loopback: {source}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let socket = machine.socket.clone();
    // It ends with this process.
    thread::spawn(move || relay(&listener, &socket));

    let folder = workspace.root.join("tests/schema");
    let mut command = Command::new(schemathesis);
    command.current_dir(&folder).env("PYTHONPATH", &folder).env("PYTHONDONTWRITEBYTECODE", "1");
    command.args(["--no-color", "run"]).arg(workspace.root.join("crates/api/openapi.json"));
    run(command.arg("--url").arg(format!("http://127.0.0.1:{port}")))
}

/// Makes the virtual environment in the cache, once for each list of packages.
fn install(workspace: &Workspace) -> Result<PathBuf> {
    let _lock = workspace.lock_cache()?;
    let wanted = workspace.root.join("tests/schema/requirements.txt");
    let list = fs::read_to_string(&wanted).map_err(Error::file("read", &wanted))?;
    let environment = workspace.cache.join("schemathesis");
    let (program, done) = (environment.join("bin/schemathesis"), environment.join("requirements.txt"));
    if fs::read_to_string(&done).is_ok_and(|installed| installed == list) {
        return Ok(program);
    }
    if !has_venv() {
        packages::install(&mut lab::apt(workspace)?, &["python3-venv"])?;
    }
    run_aside(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin/pip"));
    run_aside(pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&wanted))?;
    fs::write(&done, list).map_err(Error::file("write", &done))?;
    Ok(program)
}

fn has_venv() -> bool {
    let mut probe = Command::new("python3");
    probe.args(["-c", "import ensurepip, venv"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// The embedded machine, with two partitions that run, until dropped.
struct Machine {
    demo: Child,
    socket: PathBuf,
}

impl Machine {
    fn start(ioward: &Path) -> Result<Self> {
        let mut command = Command::new(ioward);
        command.args(["demo", "--yes", "--serve"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let start = |source| Error::Start { program: ioward.display().to_string(), source };
        let mut demo = command.spawn().map_err(start)?;
        let stdout = demo.stdout.take().map(BufReader::new);
        let mut machine = Self { demo, socket: PathBuf::new() };
        let mut lines = stdout.into_iter().flat_map(BufRead::lines).map_while(io::Result::ok);
        // As it says: ioward --socket PATH host
        let told = lines.by_ref().find_map(|line| {
            let mut words = line.split_whitespace().skip_while(|word| *word != "--socket").skip(1);
            words.next().map(PathBuf::from)
        });
        let ended = || Error::Other("ioward demo --serve ended before it said where its socket is".into());
        machine.socket = told.ok_or_else(ended)?;
        // What it still says has somewhere to go.
        thread::spawn(move || lines.for_each(drop));
        Ok(machine)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // By Ctrl-C's signal it leaves nothing behind.
        let pid = rustix::process::Pid::from_child(&self.demo);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.demo.wait();
    }
}

/// Passes on each connection to the socket.
fn relay(listener: &TcpListener, socket: &Path) {
    for client in listener.incoming().flatten() {
        let Ok(daemon) = UnixStream::connect(socket) else { continue };
        let _ = pass_on(client, daemon);
    }
}

fn pass_on(client: TcpStream, daemon: UnixStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = (client.try_clone()?, client);
    let (mut to_daemon, mut from_daemon) = (daemon.try_clone()?, daemon);
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_daemon);
        let _ = to_daemon.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = io::copy(&mut from_daemon, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    Ok(())
}
