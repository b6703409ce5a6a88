//! The hypervisor side of a daemon: starts the management partition as a process that may do next to nothing, and does for it
//! what takes root, as long as both live.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use ioward_fabric::{Fabric, linux::LinuxFabric};
use ioward_hypervisor::{
    Guard, cgroup,
    qemu::{QemuConfig, Users},
};
use ioward_privsep::{
    Account, ApiGroups, Confinement, Hello, Life, MACHINES, Server, Word, hand_over, send_hello,
};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    serve::{ServeError, listen},
    service::{self, Supervisor},
};

/// The command of this program that is the management partition's process: it runs [`crate::confined`].
pub const IMP_COMMAND: &str = "imp";

/// The management partition's control group, and how much memory it may have: some twenty times what it takes with 1,000
/// partitions.
const IMP_GROUP: &str = "ioward-imp";
const IMP_MEMORY: u64 = 1 << 30;

/// Where a daemon works.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The API socket.
    pub socket: PathBuf,
    /// Sockets and records of partitions; gone after a reboot.
    pub runtime_dir: PathBuf,
    /// The state; kept for ever.
    pub state_dir: PathBuf,
    /// The machine emulator; `None` finds it on the PATH.
    pub emulator: Option<PathBuf>,
}

/// Runs a daemon until SIGTERM or SIGINT: the hypervisor side in this process, the management partition in another, which is this
/// program with [`IMP_COMMAND`]. Partitions go on running after it. To be run by the thread that ends last: the other process
/// dies with it.
///
/// # Errors
/// When it can't start, or the management partition ends unasked.
pub async fn serve(config: ServeConfig) -> Result<(), ServeError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ServeError::NotRoot);
    }
    let supervisor = Supervisor::from_environment();
    let given = service::given_socket().map_err(ServeError::Given)?;
    raise_limits();
    supervisor.tell("STATUS=Taking over what is running");
    let account = Account::of_imp();
    let state_folder = |source| ServeError::StateFolder { path: config.state_dir.clone(), source };
    let state_dir = hand_over(&config.state_dir, &account).map_err(state_folder)?;
    let hypervisor = ioward_hypervisor::on_this_host(machines(&config, &account)).await?;
    // One that is passed on stays when the daemon goes: whoever asks meanwhile waits for the next one.
    let (listener, is_ours) = match given {
        Some(given) => (given, false),
        None => (listen(&config.socket)?, true),
    };
    let served = run(&config.socket, &state_dir, &account, hypervisor, &listener, &supervisor).await;
    if is_ours {
        let _ = fs::remove_file(&config.socket);
    }
    served
}

fn machines(config: &ServeConfig, account: &Account) -> QemuConfig {
    let users = Users { machines: MACHINES, boot_group: account.gid, boot_group_name: account.group.clone() };
    let defaults = QemuConfig::default();
    QemuConfig {
        runtime_dir: config.runtime_dir.clone(),
        emulator: config.emulator.clone().unwrap_or_else(|| defaults.emulator.clone()),
        users: Some(users),
        ..defaults
    }
}

async fn run(
    socket: &Path,
    state_dir: &Path,
    account: &Account,
    hypervisor: Guard,
    listener: &UnixListener,
    supervisor: &Supervisor,
) -> Result<(), ServeError> {
    let (ours, theirs) = StdStream::pair().map_err(ServeError::Start)?;
    let mut imp = start_imp(theirs).map_err(ServeError::Start)?;
    bound_memory(&imp);
    let hello = Hello {
        confinement: Confinement {
            uid: account.uid,
            gid: account.gid,
            folder: state_dir.to_owned(),
            parent: std::process::id(),
        },
        state_dir: state_dir.to_owned(),
        socket: socket.to_owned(),
        // Without the file, all boots pass for one: what is undone is undone by looking anyway.
        boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        groups: ApiGroups::of_this_host(),
        watchdog_each: supervisor.watchdog_each(),
    };
    let unsaid = |error| ServeError::Start(io::Error::other(error));
    send_hello(&ours, hello, listener.as_fd()).map_err(unsaid)?;
    ours.set_nonblocking(true).map_err(ServeError::Start)?;
    let stream = UnixStream::from_std(ours).map_err(ServeError::Start)?;

    let (stop, told_to_end) = mpsc::channel(1);
    let (words, mut said) = mpsc::unbounded_channel();
    let fabric: Arc<dyn Fabric> = Arc::new(LinuxFabric::new());
    let mut server =
        tokio::spawn(Server::new(fabric, Arc::new(hypervisor)).serve(stream, words, told_to_end));
    let mut signals = std::pin::pin!(told_to_stop());
    let (mut is_told, mut failure) = (false, None);
    let served = loop {
        tokio::select! {
            () = &mut signals, if !is_told => {
                is_told = true;
                // It ends also where it does not hear it: its end of the socket has gone then.
                let _ = stop.send(()).await;
            }
            Some(word) = said.recv() => match word {
                Word::Life(life) => supervisor.tell(&in_words(&life)),
                Word::Failed(why) => failure = Some(why),
            },
            served = &mut server => break served,
        }
    };
    while let Ok(word) = said.try_recv() {
        if let Word::Failed(why) = word {
            failure = Some(why);
        }
    }
    if let Ok(Err(error)) = &served {
        // Its messages make no sense, so nobody knows what it does.
        failure.get_or_insert(format!("what the management partition says is not understood: {error}"));
        let _ = imp.start_kill();
    }
    let ended = imp.wait().await.map_err(ServeError::Start)?;
    match failure {
        Some(why) => Err(ServeError::Imp(why)),
        None if is_told && ended.success() => Ok(()),
        None => Err(ServeError::Ended(ended.to_string())),
    }
}

/// Starts this very program, whatever its name leads to by now.
fn start_imp(socket: StdStream) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"] {
        command.env_remove(variable);
    }
    command.arg0("ioward").arg(IMP_COMMAND).stdin(Stdio::from(OwnedFd::from(socket)));
    // A terminal's Ctrl-C is for this process, which tells the other.
    command.process_group(0).kill_on_drop(true).spawn()
}

fn bound_memory(imp: &Child) {
    let Some(pid) = imp.id() else { return };
    let group = Path::new(IMP_GROUP);
    if let Err(error) = cgroup::bound_memory(group, IMP_MEMORY) {
        tracing::warn!("the memory of the management partition has no bound: {error}");
    }
    cgroup::enter(group, pid);
}

fn in_words(life: &Life) -> String {
    match life {
        Life::Ready { partitions } => format!("READY=1\nSTATUS=Serving {partitions} partitions"),
        Life::Alive { partitions } => format!("WATCHDOG=1\nSTATUS=Serving {partitions} partitions"),
        Life::Stopping => "STOPPING=1\nSTATUS=Finishing what is under way".to_owned(),
    }
}

/// Each partition takes a few descriptors; 1,024, which is what most are allowed at first, are for some hundred of them. And
/// VFIO pins the whole memory of a machine, whose process has no right beyond its limit.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let files = getrlimit(Resource::Nofile).maximum;
    let wanted = [
        (Resource::Nofile, Rlimit { current: files, maximum: files }),
        (Resource::Memlock, Rlimit { current: None, maximum: None }),
    ];
    for (resource, limit) in wanted {
        let maximum = getrlimit(resource).maximum;
        let as_far_as_allowed = || setrlimit(resource, Rlimit { current: maximum, maximum });
        if let Err(error) = setrlimit(resource, limit).or_else(|_| as_far_as_allowed()) {
            tracing::warn!("the limit {resource:?} stays as it is: {error}");
        }
    }
}

async fn told_to_stop() {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => _ = signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
}
