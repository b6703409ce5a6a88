//! Runs the management partition: takes the state, opens the API socket, and goes on until it is told to stop.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use ioward_fabric::{Fabric, linux::LinuxFabric};
use ioward_hypervisor::{
    Hypervisor, HypervisorError,
    qemu::{QemuConfig, QemuHypervisor},
};
use ioward_store::StoreError;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    error::{ImpError, in_full},
    events::now_ms,
    http,
    imp::{Imp, Run},
    service::{self, Supervisor},
};

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

/// Why the daemon did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It is not root.
    #[error(
        "ioward serve needs root: it sets VF counts, binds drivers and starts machines; try: sudo ioward serve"
    )]
    NotRoot,
    /// The state can't be used.
    #[error("cannot use the state")]
    Store(#[from] StoreError),
    /// The partitions of a daemon before can't be found.
    #[error("cannot use the runtime folder")]
    Hypervisor(#[from] HypervisorError),
    /// What a daemon before left can't be taken over.
    #[error("cannot take over what is running: {0}")]
    Adopt(String),
    /// Another daemon answers.
    #[error("another daemon answers at {0}; stop it first")]
    AlreadyRunning(PathBuf),
    /// The service manager passes on what is no API socket.
    #[error("cannot use the socket that the service manager passes on (LISTEN_FDS)")]
    Given(#[source] io::Error),
    /// The API socket can't be opened.
    #[error("cannot {what} {path}", path = .path.display())]
    Socket {
        /// What was to be done, as a verb.
        what: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs the management partition until SIGTERM or SIGINT. Partitions go on running after it.
///
/// # Errors
/// When it can't start.
pub async fn serve(config: ServeConfig) -> Result<(), ServeError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ServeError::NotRoot);
    }
    let supervisor = Supervisor::from_environment();
    let given = service::given_socket().map_err(ServeError::Given)?;
    allow_many_files();
    supervisor.tell("STATUS=Taking over what is running");
    let (store, contents) = ioward_store::open(&config.state_dir)?;
    let mut machines = QemuConfig { runtime_dir: config.runtime_dir, ..QemuConfig::default() };
    machines.emulator = config.emulator.unwrap_or(machines.emulator);
    let hypervisor = QemuHypervisor::open(machines).await?;
    let fabric: Arc<dyn Fabric> = Arc::new(LinuxFabric::new());
    let hypervisor: Arc<dyn Hypervisor> = Arc::new(hypervisor);
    let imp = Imp::new(fabric, hypervisor, Box::new(store), contents, this_run());
    match given {
        // It stays when the daemon goes: whoever asks meanwhile waits for the next one.
        Some(given) => {
            let listener = UnixListener::from_std(given).map_err(ServeError::Given)?;
            run(listener, &config.socket, imp, told_to_stop(), supervisor).await
        }
        None => serve_at(&config.socket, imp, told_to_stop(), supervisor).await,
    }
}

/// Runs a management partition behind an API socket until `stop` ends: what [`serve`] does, on any machine.
///
/// # Errors
/// When it can't start.
pub async fn serve_on(
    socket: &Path,
    imp: Arc<Imp>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    serve_at(socket, imp, stop, Supervisor::default()).await
}

async fn serve_at(
    socket: &Path,
    imp: Arc<Imp>,
    stop: impl Future<Output = ()>,
    supervisor: Supervisor,
) -> Result<(), ServeError> {
    let listener = listen(socket)?;
    let served = run(listener, socket, imp, stop, supervisor).await;
    let _ = fs::remove_file(socket);
    served
}

async fn run(
    listener: UnixListener,
    socket: &Path,
    imp: Arc<Imp>,
    stop: impl Future<Output = ()>,
    supervisor: Supervisor,
) -> Result<(), ServeError> {
    imp.adopt().await.map_err(|error: ImpError| ServeError::Adopt(in_full(&error)))?;
    tokio::spawn(Arc::clone(&imp).follow_hypervisor());
    let follower = tokio::spawn(Arc::clone(&imp).follow_host());
    let flusher = tokio::spawn(Arc::clone(&imp).keep_flushing());
    tracing::info!("listening at {}", socket.display());
    supervisor
        .tell(&format!("READY=1\nSTATUS=Serving {} partitions", imp.notes.look(|s| s.partitions.len())));

    let server = axum::serve(listener, http::router(Arc::clone(&imp)));
    let supervisor = Arc::new(supervisor);
    let alive = tokio::spawn(show_life(Arc::clone(&imp), Arc::clone(&supervisor)));
    let served = tokio::select! {
        served = server.into_future() => served,
        () = stop => Ok(()),
    };
    supervisor.tell("STOPPING=1\nSTATUS=Finishing what is under way");
    // A change that is under way is finished or undone: nothing is left half done.
    let _nothing_begins = imp.finish_changes().await;
    follower.abort();
    flusher.abort();
    imp.flush_or_say();
    alive.abort();
    served.map_err(|source| ServeError::Socket { what: "serve", path: socket.to_owned(), source })
}

/// Gives signs of life for as long as tasks are run and the state can be looked at.
async fn show_life(imp: Arc<Imp>, supervisor: Arc<Supervisor>) {
    let Some(each) = supervisor.watchdog_each() else { return };
    loop {
        let partitions = imp.notes.look(|state| state.partitions.len());
        supervisor.tell(&format!("WATCHDOG=1\nSTATUS=Serving {partitions} partitions"));
        tokio::time::sleep(each).await;
    }
}

/// Each partition takes a few descriptors; 1,024, which is what most are allowed at first, are for some hundred of them.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the number of open files stays as it is: {error}");
    }
}

fn this_run() -> Run {
    // Without the file, all boots pass for one: what is undone is undone by looking anyway.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Run { epoch: now_ms(), boot: boot.trim().to_owned() }
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

/// Opens the API socket for root alone. One that a dead daemon left is replaced.
fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let fail = |what| move |source| ServeError::Socket { what, path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail("create the folder of"))?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(ServeError::AlreadyRunning(path.to_owned()));
    }
    match fs::symlink_metadata(path) {
        Ok(left) if left.file_type().is_socket() => fs::remove_file(path).map_err(fail("replace"))?,
        _ => {}
    }
    // The socket must not be open to others for even a moment: it is made under a narrow mask.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    let listener = listener.map_err(fail("listen at"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(fail("protect"))?;
    Ok(listener)
}
