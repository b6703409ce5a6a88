//! Serial consoles: one connection to each, for as long as somebody watches, and what the guest prints passed on to all who do.
//!
//! ```text
//!   guest ──> listening task ──> the latest pieces ──> watcher, watcher, …     a slow one misses some, and is told
//!   guest <── writer in turn <── whoever types
//! ```
//!
//! Bytes are passed on as they are: what they do to a terminal is for whoever has the terminal. A console has one plug
//! ([`Hypervisor::open_console`]), so the connection is closed when nobody watches any more.

use std::{
    collections::BTreeMap,
    io,
    os::unix::net::UnixStream as StdUnixStream,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::body::Bytes;
use ioward_hypervisor::Hypervisor;
use ioward_model::Name;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::broadcast::{self, WeakSender, error::RecvError},
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::error::ImpError;

/// The largest piece of output, in bytes.
const PIECE: usize = 4096;
/// How many of the latest pieces are kept for watchers.
const KEPT_PIECES: usize = 64;
/// How many may watch one console.
const MAX_WATCHERS: usize = 64;
/// How long a console may take to be opened, and to take what is typed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a console stays open after something was typed: a machine that is hung up on forgets what it has not read yet.
const LINGER: Duration = Duration::from_secs(5);
/// What a watcher reads in the place of what it missed.
const MISSED: &[u8] = b"\r\n[ioward: output was lost here, since it was not read in time]\r\n";

/// The part that has the consoles.
pub(crate) struct Consoles {
    hypervisor: Arc<dyn Hypervisor>,
    /// Held while one is opened: two who come at once share the connection.
    lines: tokio::sync::Mutex<BTreeMap<Name, Weak<Line>>>,
}

/// A connection to a console.
struct Line {
    /// Gone once the guest's side is closed.
    said: WeakSender<Bytes>,
    to_guest: tokio::sync::Mutex<OwnedWriteHalf>,
    listening: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Somebody who watches a console.
pub(crate) struct Watcher {
    said: broadcast::Receiver<Bytes>,
    _line: Arc<Line>,
}

impl Watcher {
    /// The next piece of output; `None` once the machine has ended.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        match self.said.recv().await {
            Ok(piece) => Some(piece),
            Err(RecvError::Lagged(_)) => Some(Bytes::from_static(MISSED)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Consoles {
    pub(crate) fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { hypervisor, lines: tokio::sync::Mutex::default() }
    }

    /// The output of a partition's console from now on.
    ///
    /// # Errors
    /// When it has none, or too many watch it.
    pub(crate) async fn watch(&self, partition: &Name) -> Result<Watcher, ImpError> {
        let (line, said) = self.line(partition).await?;
        if said.receiver_count() >= MAX_WATCHERS {
            let message = format!("{MAX_WATCHERS} watch the console of {partition} already");
            return Err(ImpError::TooMany(message));
        }
        Ok(Watcher { said: said.subscribe(), _line: line })
    }

    /// Types on a partition's console.
    ///
    /// # Errors
    /// When it has none, or the guest does not read.
    pub(crate) async fn type_in(&self, partition: &Name, typed: &[u8]) -> Result<(), ImpError> {
        let (line, _) = self.line(partition).await?;
        let write = async {
            let mut to_guest = line.to_guest.lock().await;
            to_guest.write_all(typed).await
        };
        let written = timeout(PATIENCE, write).await;
        let written = written.unwrap_or_else(|_| {
            let why = format!("it reads nothing for {} s; a part may have been typed", PATIENCE.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        });
        tokio::spawn(async move {
            sleep(LINGER).await;
            drop(line);
        });
        written.map_err(|source| ImpError::Console { partition: partition.clone(), source })
    }

    /// The connection to a console; a new one where there is none, or the machine of the old one has ended.
    async fn line(&self, partition: &Name) -> Result<(Arc<Line>, broadcast::Sender<Bytes>), ImpError> {
        let mut lines = self.lines.lock().await;
        lines.retain(|_, line| line.strong_count() > 0);
        let open = lines.get(partition).and_then(Weak::upgrade);
        if let Some(line) = open
            && let Some(said) = line.said.upgrade()
        {
            return Ok((line, said));
        }
        let failed = |source| ImpError::Console { partition: partition.clone(), source };
        let opened = timeout(PATIENCE, self.hypervisor.open_console(partition)).await;
        let socket = opened.map_err(|_| failed(io::ErrorKind::TimedOut.into()))??;
        let socket = StdUnixStream::from(socket);
        let connected = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
        let (from_guest, to_guest) = connected.map_err(failed)?.into_split();
        let (said, _) = broadcast::channel(KEPT_PIECES);
        let listening = tokio::spawn(listen(from_guest, said.clone())).abort_handle();
        let line = Line { said: said.downgrade(), to_guest: tokio::sync::Mutex::new(to_guest), listening };
        let line = Arc::new(line);
        lines.insert(partition.clone(), Arc::downgrade(&line));
        Ok((line, said))
    }
}

/// Guest to watchers, until the guest's side is closed. A guest that prints is never held up.
async fn listen(mut from_guest: OwnedReadHalf, said: broadcast::Sender<Bytes>) {
    let mut piece = [0; PIECE];
    while let Ok(length @ 1..) = from_guest.read(&mut piece).await {
        // Nobody may be watching, but type.
        let _ = said.send(Bytes::copy_from_slice(&piece[..length]));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::fd::OwnedFd,
        sync::Mutex,
    };

    use async_trait::async_trait;
    use ioward_hypervisor::{
        Accelerator, ChannelEnd, HypervisorError, HypervisorEvent, Obstacle, PartitionStatus, StopMode,
    };
    use ioward_model::{Owner, PartitionSpec};
    use ioward_pci::Bdf;
    use tokio::sync::mpsc;

    use super::*;

    /// Consoles whose other ends are in the hands of the test.
    #[derive(Default)]
    struct Plugs(Mutex<Vec<StdUnixStream>>);

    impl Plugs {
        fn opened(&self) -> usize {
            self.0.lock().unwrap().len()
        }

        fn latest(&self) -> StdUnixStream {
            self.0.lock().unwrap().last().unwrap().try_clone().unwrap()
        }

        /// The machines end.
        fn end(&self) {
            self.0.lock().unwrap().iter().for_each(|end| end.shutdown(std::net::Shutdown::Both).unwrap());
        }
    }

    #[async_trait]
    impl Hypervisor for Plugs {
        async fn open_console(&self, partition: &Name) -> Result<OwnedFd, HypervisorError> {
            if partition.as_str() != "web" {
                return Err(HypervisorError::NotRunning(partition.clone()));
            }
            let (ours, theirs) = StdUnixStream::pair().unwrap();
            self.0.lock().unwrap().push(theirs);
            Ok(ours.into())
        }

        async fn check(&self) -> Result<Accelerator, HypervisorError> {
            unreachable!()
        }

        async fn check_definition(&self, _: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
            unreachable!()
        }

        async fn define(&self, _: &PartitionSpec) -> Result<(), HypervisorError> {
            unreachable!()
        }

        async fn undefine(&self, _: &Name) -> Result<(), HypervisorError> {
            unreachable!()
        }

        async fn start(&self, _: &Name) -> Result<Accelerator, HypervisorError> {
            unreachable!()
        }

        async fn stop(&self, _: &Name, _: StopMode) -> Result<(), HypervisorError> {
            unreachable!()
        }

        async fn attach_vf(&self, _: &Owner, _: Bdf) -> Result<(), HypervisorError> {
            unreachable!()
        }

        async fn detach_vf(&self, _: &Owner, _: bool) -> Result<(), HypervisorError> {
            unreachable!()
        }

        async fn create_channel(&self, _: &Name) -> Result<(), HypervisorError> {
            unreachable!()
        }

        async fn destroy_channel(&self, _: &Name) -> Result<(), HypervisorError> {
            unreachable!()
        }

        async fn connect_channel(&self, _: &Name) -> Result<ChannelEnd, HypervisorError> {
            unreachable!()
        }

        async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
            unreachable!()
        }

        async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
            unreachable!()
        }
    }

    fn consoles() -> (Arc<Plugs>, Consoles, Name) {
        let plugs = Arc::<Plugs>::default();
        (Arc::clone(&plugs), Consoles::new(plugs), "web".parse().unwrap())
    }

    /// What it reads, until that contains `end`.
    async fn read_to(watcher: &mut Watcher, end: &[u8]) -> Vec<u8> {
        let mut read = Vec::new();
        while !read.windows(end.len()).any(|window| window == end) {
            read.extend(watcher.next().await.expect("the console is closed"));
        }
        read
    }

    #[tokio::test]
    async fn all_who_watch_share_one_connection_which_ends_with_the_last() {
        let (plugs, consoles, web) = consoles();
        let (mut one, mut other) = (consoles.watch(&web).await.unwrap(), consoles.watch(&web).await.unwrap());
        let mut guest = plugs.latest();
        guest.write_all(b"\x1b[31mlogin: \xff").unwrap();
        for watcher in [&mut one, &mut other] {
            assert_eq!(read_to(watcher, b"\xff").await, b"\x1b[31mlogin: \xff", "byte for byte");
        }
        drop(one);
        consoles.type_in(&web, b"root\r").await.unwrap();
        let mut typed = [0; 5];
        guest.read_exact(&mut typed).unwrap();
        assert_eq!((&typed, plugs.opened()), (b"root\r", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_console_that_nobody_watches_any_more_is_hung_up_on() {
        let (plugs, consoles, web) = consoles();
        consoles.type_in(&web, b"reboot\r").await.unwrap();
        let mut guest = plugs.latest();
        let mut typed = [0; 7];
        guest.read_exact(&mut typed).unwrap();
        drop(consoles.watch(&web).await.unwrap());
        assert_eq!(plugs.opened(), 1, "it is still open");
        sleep(LINGER * 2).await;
        assert_eq!(guest.read(&mut typed).unwrap(), 0, "it is hung up on");
        let _again = consoles.watch(&web).await.unwrap();
        assert_eq!(plugs.opened(), 2);
    }

    /// A page that nobody looks at would have held up the guest, or grown the daemon.
    #[tokio::test]
    async fn who_does_not_read_in_time_loses_output_and_is_told() {
        let (plugs, consoles, web) = consoles();
        let (mut slow, mut quick) =
            (consoles.watch(&web).await.unwrap(), consoles.watch(&web).await.unwrap());
        let mut guest = plugs.latest();
        for number in 0..2 * KEPT_PIECES {
            let line = format!("line {number}\n");
            guest.write_all(line.as_bytes()).unwrap();
            read_to(&mut quick, line.as_bytes()).await;
        }
        assert_eq!(slow.next().await.as_deref(), Some(MISSED));
        let rest = read_to(&mut slow, format!("line {}\n", 2 * KEPT_PIECES - 1).as_bytes()).await;
        assert!(rest.starts_with(format!("line {KEPT_PIECES}\n").as_bytes()), "the latest are there");
    }

    #[tokio::test]
    async fn the_end_of_a_machine_is_the_end_of_its_console_and_the_next_one_has_another() {
        let (plugs, consoles, web) = consoles();
        let mut watcher = consoles.watch(&web).await.unwrap();
        plugs.end();
        assert_eq!(watcher.next().await, None);
        let _of_the_next = consoles.watch(&web).await.unwrap();
        assert_eq!(plugs.opened(), 2);
        let stopped = consoles.watch(&"db".parse().unwrap()).await;
        assert!(matches!(stopped, Err(ImpError::Hypervisor(HypervisorError::NotRunning(_)))));
    }

    #[tokio::test]
    async fn so_many_may_watch_and_no_more() {
        let (_plugs, consoles, web) = consoles();
        let mut all = Vec::new();
        for _ in 0..MAX_WATCHERS {
            all.push(consoles.watch(&web).await.unwrap());
        }
        assert!(matches!(consoles.watch(&web).await, Err(ImpError::TooMany(_))));
        all.pop();
        assert!(consoles.watch(&web).await.is_ok());
    }
}
