//! The API of the embedded machine against its OpenAPI document: Schemathesis asks what the document allows and what it does not, and
//! each answer must be one that is documented, and no 5xx. tests/schema/ says what is asked.
//!
//! First as a viewer, who is to be refused whatever changes something; then as an administrator. Schemathesis speaks HTTP over TCP: a
//! relay on loopback passes on to the daemon's socket, with the rights of the one or the other.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    os::{fd::OwnedFd, unix::fs::PermissionsExt, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use crate::error::{Error, Result};
use crate::process::{output, run, run_aside};
use crate::workspace::Workspace;
use crate::{lab, packages};

/// A user and a group that are nobody's: those of the viewer.
const VIEWER: (u32, u32) = (65_534, 65_533);

/// Runs all of it. The `ioward` is that of the dev profile.
pub fn test(workspace: &Workspace) -> Result<()> {
    let schemathesis = install(workspace)?;
    run(workspace.cargo().args(["build", "--package", "ioward"]))?;
    let ioward = workspace.binaries.join("ioward");
    let machine = Machine::start(&ioward)?;
    let ask = |relay: &Relay, role: &str, more: &[&str]| {
        let folder = workspace.root.join("tests/schema");
        let mut command = Command::new(&schemathesis);
        command.current_dir(&folder).env("PYTHONPATH", &folder).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("IOWARD_ROLE", role).args(["--no-color", "run"]).args(more);
        command.arg(workspace.root.join("crates/api/openapi.json"));
        run(command.arg("--url").arg(format!("http://127.0.0.1:{}", relay.port)))
    };
    if rustix::process::geteuid().is_root() {
        let changes = || {
            let mut command = Command::new(&ioward);
            output(command.arg("--socket").arg(machine.socket()).args(["changes", "--json"]))
        };
        let before = changes()?;
        ask(
            &Relay::start(workspace, &machine, Some(VIEWER))?,
            "viewer",
            &["--max-time", "40", "--max-examples", "5"],
        )?;
        if changes()? != before {
            return Err(Error::Other("a viewer has begun a change".into()));
        }
    } else {
        eprintln!("schema: only root can ask as somebody else: what a viewer may do is left out");
    }
    // Whatever is left undone by then is left out, so that a slow machine takes no longer. The same above.
    ask(&Relay::start(workspace, &machine, None)?, "administrator", &["--max-time", "110"])
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
    /// For its socket: the viewer gets there.
    folder: PathBuf,
}

impl Machine {
    fn start(ioward: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("ioward-schema-{}", std::process::id()));
        fs::create_dir(&folder).map_err(Error::file("create", &folder))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))
            .map_err(Error::file("open", &folder))?;
        let mut command = Command::new(ioward);
        command.args(["demo", "--yes", "--serve", "--viewers", &VIEWER.1.to_string(), "--socket"]);
        command.arg(folder.join("api.sock")).stdin(Stdio::null()).stdout(Stdio::piped());
        let start = |source| Error::Start { program: ioward.display().to_string(), source };
        let mut demo = command.spawn().map_err(start)?;
        let stdout = demo.stdout.take().map(BufReader::new);
        let machine = Self { demo, folder };
        let mut lines = stdout.into_iter().flat_map(BufRead::lines).map_while(io::Result::ok);
        if !lines.any(|line| line.contains("It stays up")) {
            return Err(Error::Other("ioward demo --serve ended before it stayed up".into()));
        }
        // What it still says has somewhere to go.
        thread::spawn(move || lines.for_each(drop));
        Ok(machine)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // By Ctrl-C's signal it leaves nothing behind.
        let pid = rustix::process::Pid::from_child(&self.demo);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.demo.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What passes on connections to the daemon's socket, until dropped.
struct Relay {
    process: Child,
    port: u16,
}

impl Relay {
    /// With the rights of this user and group, or of whoever runs this.
    fn start(workspace: &Workspace, machine: &Machine, rights: Option<(u32, u32)>) -> Result<Self> {
        let failed = |source| Error::Other(format!("can't listen on loopback: {source}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        // Somebody else may not get at the file.
        let program = workspace.root.join("tests/schema/relay.py");
        let program = fs::read_to_string(&program).map_err(Error::file("read", &program))?;
        let mut command = Command::new("python3");
        command.args(["-c", &program]).arg(machine.socket()).current_dir("/");
        command.stdin(Stdio::from(OwnedFd::from(listener)));
        if let Some((user, group)) = rights {
            command.uid(user).gid(group);
        }
        let process = command.spawn().map_err(|source| Error::Start { program: "python3".into(), source })?;
        Ok(Self { process, port })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
