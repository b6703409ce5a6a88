//! The management partition's process: confines itself, then serves people and guests, and asks the hypervisor side for whatever
//! takes root.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    sync::Arc,
};

use ioward_fabric::Fabric;
use ioward_hypervisor::Hypervisor;
use ioward_privsep::{ConfineError, Hello, LinkError, confine, connect, receive_hello};
use tokio::{
    net::{UnixListener, UnixStream},
    runtime::Builder,
};

use crate::{
    access::Access,
    clock::Clock,
    error::error_chain,
    events::now_ms,
    imp::{Imp, Run},
    serve::{ServeError, Supervised, run},
};

/// Why the process did not begin. What happens later, the hypervisor side is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfinedError {
    /// Nobody is at the other end.
    #[error("this is a part of 'ioward serve', which starts it")]
    NotStarted(#[source] LinkError),
    /// It may do more than it should, and must not go on.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// There is no runtime to be had.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

/// Is the management partition's process, from its first thread on: what it has to say to is its stdin.
///
/// # Errors
/// When it can't begin. Otherwise it ends when it is told to, or with the hypervisor side.
pub fn confined() -> Result<(), ConfinedError> {
    keep_standard_streams_only();
    // For ps(1) and the kernel's log, where it is "exe" otherwise.
    let _ = rustix::thread::set_name(c"ioward-imp");
    let no_start = |error| ConfinedError::NotStarted(LinkError::Io(error));
    let mut host = take_stdin().map_err(no_start)?;
    let (hello, api) = receive_hello(&mut host).map_err(ConfinedError::NotStarted)?;
    confine(&hello.confinement)?;
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(ConfinedError::Runtime)?;
    runtime.block_on(serve(hello, host, api)).map_err(ConfinedError::Runtime)
}

/// Closes the descriptors that whoever started the daemon left open for its children.
fn keep_standard_streams_only() {
    const FIRST: u32 = 3;
    #[expect(unsafe_code, reason = "a descriptor that was inherited has no owner but its number")]
    // SAFETY: this is the first thing the process does: nothing in it owns a descriptor beyond the standard streams. It fails on
    // kernels before 5.9 only, and then what is inherited stays open.
    unsafe {
        libc::close_range(FIRST, u32::MAX, 0)
    };
}

fn take_stdin() -> io::Result<StdStream> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    // Code that reads stdin by mistake finds nothing there.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(socket.into())
}

async fn serve(hello: Hello, host: StdStream, api: OwnedFd) -> io::Result<()> {
    host.set_nonblocking(true)?;
    let (remote, told) = connect(UnixStream::from_std(host)?);
    let stop = async {
        // Told, or left alone.
        let _ = told.stop.await;
    };
    let telling = remote.clone();
    let supervised = Supervised { each: hello.watchdog_each, tell: Arc::new(move |life| telling.tell(life)) };
    let served = async {
        let (store, contents) = ioward_store::open(&hello.state_dir)?;
        let fabric: Arc<dyn Fabric> = Arc::new(remote.clone());
        let hypervisor: Arc<dyn Hypervisor> = Arc::new(remote.clone());
        let this_run = Run { epoch: now_ms(), boot: hello.boot.clone(), clock: Clock::default() };
        let imp = Imp::new(fabric, hypervisor, Box::new(store), contents, this_run);
        let listener = UnixListener::from_std(StdListener::from(api)).map_err(ServeError::Given)?;
        // The daemon is the hypervisor side, which is root.
        let access = Access { owner: 0, groups: hello.groups };
        run(listener, &hello.socket, imp, access, stop, supervised).await
    };
    if let Err(error) = served.await {
        remote.failed(error_chain(&error));
    }
    remote.close();
    // All of that is to arrive; where nobody reads it any more, this ends too.
    let _ = told.writer.await;
    Ok(())
}
