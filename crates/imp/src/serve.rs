//! Serves a management partition behind its API socket: takes over what is running, and goes on until it is told to stop.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener as StdListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ioward_hypervisor::HypervisorError;
use ioward_privsep::{ApiGroups, Life};
use ioward_store::StoreError;
use tokio::net::UnixListener;

use crate::{
    access::Access,
    error::{ImpError, error_chain},
    http,
    imp::Imp,
};

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
    /// Partitions of the daemon before can't be taken over.
    #[error("cannot take over what is running: {0}")]
    Adopt(String),
    /// The state folder can't be made the management partition's.
    #[error("cannot use the state folder {path}", path = .path.display())]
    StateFolder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The management partition's process can't be started.
    #[error("cannot start the management partition's own process")]
    Start(#[source] io::Error),
    /// The management partition said why it ended.
    #[error("{0}")]
    Imp(String),
    /// The management partition's process ended, and was not told to.
    #[error("the management partition's process ended: {0}")]
    Ended(String),
    /// Another daemon answers.
    #[error("another daemon answers at {0}; stop it first")]
    AlreadyRunning(PathBuf),
    /// The service manager passes on what is no API socket.
    #[error("cannot use the socket that the service manager passes on (LISTEN_FDS)")]
    Given(#[source] io::Error),
    /// The API socket can't be opened.
    #[error("cannot {what} {path}", path = .path.display())]
    Socket {
        /// The operation, as a verb.
        what: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs a management partition behind an API socket until `stop` ends: what [`serve`] does, on any machine. Members of `groups`, and the
/// user of this process, have their roles.
///
/// # Errors
/// When it can't start.
pub async fn serve_on(
    socket: &Path,
    imp: Arc<Imp>,
    groups: ApiGroups,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listener = listen(socket)?;
    let listener = UnixListener::from_std(listener).map_err(|source| ServeError::Socket {
        what: "listen at",
        path: socket.to_owned(),
        source,
    })?;
    let nobody = Supervised { each: None, tell: Arc::new(|_| ()) };
    let access = Access { owner: rustix::process::geteuid().as_raw(), groups };
    let served = run(listener, socket, imp, access, stop, nobody).await;
    let _ = fs::remove_file(socket);
    served
}

/// Who is told how it goes.
#[derive(Clone)]
pub(crate) struct Supervised {
    /// How often it is to hear of a sign of life.
    pub each: Option<Duration>,
    pub tell: Arc<dyn Fn(Life) + Send + Sync>,
}

pub(crate) async fn run(
    listener: UnixListener,
    socket: &Path,
    imp: Arc<Imp>,
    access: Access,
    stop: impl Future<Output = ()>,
    supervised: Supervised,
) -> Result<(), ServeError> {
    imp.adopt().await.map_err(|error: ImpError| ServeError::Adopt(error_chain(&error)))?;
    tokio::spawn(Arc::clone(&imp).follow_hypervisor());
    let follower = tokio::spawn(Arc::clone(&imp).follow_host());
    let undefined = tokio::spawn(Arc::clone(&imp).follow_undefined());
    let moves = tokio::spawn(Arc::clone(&imp).follow_moves());
    let flusher = tokio::spawn(Arc::clone(&imp).keep_flushing());
    tracing::info!("listening at {}", socket.display());
    (supervised.tell)(Life::Ready { partitions: imp.count() });

    let server = http::serve(listener, http::router(Arc::clone(&imp)), access);
    let alive = tokio::spawn(show_life(Arc::clone(&imp), supervised.clone()));
    tokio::select! {
        never = server => match never {},
        () = stop => {}
    }
    (supervised.tell)(Life::Stopping);
    // A change that is under way is finished or undone: nothing is left half done.
    let _nothing_begins = imp.finish_changes().await;
    // For as long as this process is there.
    std::mem::forget(imp.finish_operations().await);
    imp.stop_channels();
    follower.abort();
    undefined.abort();
    moves.abort();
    flusher.abort();
    imp.flush_or_say();
    alive.abort();
    Ok(())
}

/// Gives signs of life for as long as tasks are run and the state can be looked at.
async fn show_life(imp: Arc<Imp>, supervised: Supervised) {
    let Some(each) = supervised.each else { return };
    loop {
        (supervised.tell)(Life::Alive { partitions: imp.count() });
        tokio::time::sleep(each).await;
    }
}

/// Opens the API socket, for whoever gets to it: what they may do is for their role to say. One that a dead daemon left is replaced.
pub(crate) fn listen(path: &Path) -> Result<StdListener, ServeError> {
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
    let listener = StdListener::bind(path).map_err(fail("listen at"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(fail("open to users"))?;
    listener.set_nonblocking(true).map_err(fail("listen at"))?;
    Ok(listener)
}
