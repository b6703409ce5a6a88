//! One connection to libvirt: calls, events, and a sign of life from time to time. Once it is lost it stays so.

use std::{
    collections::HashMap,
    future::pending,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    error::{AuthType, LibvirtError},
    wire::{self, EVENT_IDS, Event, Message, Messages, Procedure, Refusal},
    xdr::{Reader, Writer, XdrError},
};

/// Where libvirt listens: the daemon for QEMU alone, and the one for everything, which older hosts have. Where both are there,
/// the second is a proxy for the first at best (libvirt.org, "libvirt daemons").
pub const SOCKETS: [&str; 2] = ["/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"];

/// Calls that may be unanswered at a time. A daemon reads no further, and so answers no ping, while it has five requests from one
/// client, of which the one that it is reading is the fifth (`max_client_requests` in libvirtd.conf; `virnetserverclient.c`).
const CALLS_AT_ONCE: usize = 4;
/// Events that may wait to be fetched.
const EVENTS_WAITING: usize = 1024;
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// How long libvirt may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For most calls. libvirt itself waits 30 s for a domain that is busy.
    pub call: Duration,
    /// To start a domain, to turn it off, or to plug a device in: the first VF pins the whole memory of a machine.
    pub start: Duration,
    /// It is asked for a sign of life when it has said nothing for so long, and again after as long.
    pub quiet: Duration,
    /// It is gone when it has not answered so many times, or has taken nothing of what is sent to it for as long.
    pub unanswered: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        // The last two are libvirt's own `keepalive_interval` and `keepalive_count`.
        Self { call: seconds(60), start: seconds(300), quiet: seconds(5), unanswered: 5 }
    }
}

/// A connection. Clones are the same connection, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Connection {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    /// Why it is over.
    end: Arc<OnceLock<Arc<str>>>,
    pub(super) bounds: Bounds,
}

/// The events of a connection, in the order in which they came.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` when the connection is over. May be dropped at any time.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

#[derive(Debug)]
struct Request {
    procedure: Procedure,
    arguments: Vec<u8>,
    waiting: Waiting,
}

/// Whoever waits for an answer, if they still do. The room is free again when the answer has come, and no sooner: the daemon is
/// at work on it until then.
#[derive(Debug)]
struct Waiting {
    procedure: Procedure,
    answer: oneshot::Sender<Result<Vec<u8>, Refusal>>,
    _room: OwnedSemaphorePermit,
}

impl Connection {
    /// Connects to the first of `sockets` that somebody listens at, opens `qemu:///system`, and asks for all events.
    ///
    /// # Errors
    /// When nobody listens, or who does wants a password, or is not libvirt.
    pub async fn open(sockets: &[PathBuf], bounds: Bounds) -> Result<(Self, Events), LibvirtError> {
        let mut tried = Vec::new();
        for socket in sockets {
            match timeout(bounds.call, UnixStream::connect(socket)).await {
                Ok(Ok(stream)) => return Self::over(stream, bounds).await,
                Ok(Err(error)) if is_nobody(&error) => tried.push((socket.clone(), error.to_string())),
                Ok(Err(error)) => {
                    return Err(LibvirtError::Connect { socket: socket.clone(), why: Arc::new(error) });
                }
                Err(_) => return Err(LibvirtError::NoAnswer { call: "connect", after: bounds.call }),
            }
        }
        Err(LibvirtError::NoDaemon(tried))
    }

    /// The same over a stream that is connected already.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn over(stream: UnixStream, bounds: Bounds) -> Result<(Self, Events), LibvirtError> {
        let (requests, to_send) = mpsc::channel(1);
        let (to_user, events) = mpsc::channel(EVENTS_WAITING);
        let end = Arc::default();
        let wire = Wire {
            stream,
            incoming: Messages::default(),
            chunk: vec![0; CHUNK].into(),
            unsent: Vec::new(),
            wrote: false,
            asked_for_life: false,
            waiting: HashMap::new(),
            last_serial: 0,
            events: to_user,
            missed: 0,
        };
        tokio::spawn(wire.run(to_send, bounds, Arc::clone(&end)));
        let room = Arc::new(Semaphore::new(CALLS_AT_ONCE));
        let connection = Self { requests, room, end, bounds };

        let call = "the ways to authenticate";
        let types = connection.call(call, Procedure::AuthList, Writer::default(), wire::auth_types).await?;
        // One is enough, and an empty list means none is needed (`remoteAuthenticate` in libvirt's remote_driver.c).
        if let Some(first) = types.first()
            && !types.contains(&0)
        {
            return Err(LibvirtError::Authentication { method: AuthType(*first).to_string() });
        }
        // remote_connect_open_args: a name, which is there; flags.
        let arguments = Writer::default().u32(1).string("qemu:///system").u32(0);
        connection.call("qemu:///system", Procedure::ConnectOpen, arguments, nothing).await?;
        for id in EVENT_IDS {
            // Of all domains: the one to tell of is left out.
            let (arguments, call) = (Writer::default().i32(id).u32(0), "the events of domains");
            let procedure = Procedure::ConnectDomainEventCallbackRegisterAny;
            connection.call(call, procedure, arguments, wire::callback).await?;
        }
        Ok((connection, Events(events)))
    }

    /// Why the connection is over; `None` as long as it is not.
    #[must_use]
    pub fn lost(&self) -> Option<Arc<str>> {
        self.end.get().cloned()
    }

    pub(super) async fn call<T>(
        &self,
        call: &'static str,
        procedure: Procedure,
        arguments: Writer,
        read: fn(&mut Reader<'_>) -> Result<T, XdrError>,
    ) -> Result<T, LibvirtError> {
        self.call_within(self.bounds.call, call, procedure, arguments, read).await
    }

    /// Carries out one call. May be dropped at any time: an answer that comes late is nobody's.
    pub(super) async fn call_within<T>(
        &self,
        after: Duration,
        call: &'static str,
        procedure: Procedure,
        arguments: Writer,
        read: fn(&mut Reader<'_>) -> Result<T, XdrError>,
    ) -> Result<T, LibvirtError> {
        let answer = timeout(after, self.exchange(procedure, arguments.done())).await;
        match answer.map_err(|_| LibvirtError::NoAnswer { call, after })? {
            Some(Ok(body)) => wire::returned(&body, read).map_err(|why| LibvirtError::Nonsense { call, why }),
            Some(Err(refusal)) => Err(LibvirtError::refused(call, refusal)),
            None => Err(LibvirtError::Lost(self.lost().unwrap_or_else(|| "it was closed".into()))),
        }
    }

    /// `None` when the connection is over.
    async fn exchange(&self, procedure: Procedure, arguments: Vec<u8>) -> Option<Result<Vec<u8>, Refusal>> {
        let room = Arc::clone(&self.room).acquire_owned().await.ok()?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { procedure, answer, _room: room };
        self.requests.send(Request { procedure, arguments, waiting }).await.ok()?;
        answered.await.ok()
    }
}

/// For procedures that return nothing.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn nothing(_: &mut Reader<'_>) -> Result<(), XdrError> {
    Ok(())
}

/// Whether an error says that there is no daemon, and not that it may not be talked to. A daemon that was killed leaves its socket.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The sockets at which libvirt listens on a host like any other.
#[must_use]
pub fn sockets() -> Vec<PathBuf> {
    SOCKETS.iter().map(|path| Path::new(path).to_owned()).collect()
}

/// The connection's own side of it.
struct Wire {
    stream: UnixStream,
    incoming: Messages,
    chunk: Box<[u8]>,
    /// Begins in the middle of a message when a part of that has been sent.
    unsent: Vec<u8>,
    /// Whether something was sent of late.
    wrote: bool,
    /// Once for all the pings that come while something is still to be sent.
    asked_for_life: bool,
    waiting: HashMap<u32, Waiting>,
    last_serial: u32,
    events: mpsc::Sender<Event>,
    /// Events that there was no room for, since the last one that there was.
    missed: u64,
}

impl Wire {
    /// Until the connection is over, or nobody has it any more.
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        bounds: Bounds,
        end: Arc<OnceLock<Arc<str>>>,
    ) {
        let why = self.work(&mut requests, bounds).await.err().unwrap_or_else(|| "it was closed".into());
        // Before those who wait are told.
        let _ = end.set(why.into());
    }

    async fn work(&mut self, requests: &mut mpsc::Receiver<Request>, bounds: Bounds) -> Result<(), String> {
        let mut look = interval(bounds.quiet);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Counted and not measured: a process that was stopped for a minute has not waited for an answer all the while.
        let (mut heard, mut unanswered) = (true, 0);
        loop {
            if self.asked_for_life && self.unsent.is_empty() {
                self.unsent = wire::pong();
                self.asked_for_life = false;
            }
            let interest = match self.unsent.is_empty() {
                true => Interest::READABLE,
                false => Interest::READABLE | Interest::WRITABLE,
            };
            tokio::select! {
                ready = self.stream.ready(interest) => {
                    let ready = ready.map_err(|error| error.to_string())?;
                    if ready.is_writable() {
                        self.write()?;
                    }
                    if ready.is_readable() && self.read()? {
                        heard = true;
                    }
                }
                // One after another: a daemon that does not read is found out by its silence.
                request = requests.recv(), if self.unsent.is_empty() => match request {
                    Some(request) => self.send(request),
                    None => return self.farewell().await,
                },
                () = told_of(&self.events, self.missed) => {
                    let missed = Event::Missed(self.missed);
                    if self.events.try_send(missed).is_ok() {
                        self.missed = 0;
                    }
                }
                _ = look.tick() => {
                    let stuck = !self.unsent.is_empty() && !self.wrote;
                    if heard && !stuck {
                        unanswered = 0;
                    } else {
                        unanswered += 1;
                    }
                    if unanswered > bounds.unanswered {
                        let silent = (bounds.quiet * bounds.unanswered).as_secs();
                        let what = if heard { "taken nothing that was sent to it" } else { "given no sign of life" };
                        return Err(format!("it has {what} for {silent} s"));
                    }
                    if unanswered > 0 && self.unsent.is_empty() {
                        self.unsent = wire::ping();
                    }
                    self.wrote = false;
                    heard = false;
                }
            }
        }
    }

    fn send(&mut self, request: Request) {
        // Unanswered calls are few, so that a number that has come round is free.
        self.last_serial = self.last_serial.wrapping_add(1);
        self.unsent = wire::call(request.procedure, self.last_serial, &request.arguments);
        self.waiting.insert(self.last_serial, request.waiting);
    }

    fn write(&mut self) -> Result<(), String> {
        match self.stream.try_write(&self.unsent) {
            Ok(sent) => {
                self.unsent.drain(..sent);
                self.wrote = true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// Whether something has come.
    fn read(&mut self) -> Result<bool, String> {
        let count = match self.stream.try_read(&mut self.chunk) {
            Ok(0) => return Err("it was closed by libvirt".into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.to_string()),
        };
        self.incoming.push(self.chunk.get(..count).unwrap_or_default());
        while let Some(message) = self.incoming.next().map_err(|nonsense| format!("it sent {nonsense}"))? {
            self.take(message)?;
        }
        Ok(true)
    }

    fn take(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::Answer { serial, procedure, result } => {
                let waiting = self.waiting.remove(&serial).filter(|w| w.procedure as u32 == procedure);
                let waiting = waiting.ok_or("it answered what nobody asked")?;
                // Whoever asked may have given up.
                let _ = waiting.answer.send(result);
            }
            Message::Event(event) => {
                if self.missed > 0 || self.events.try_send(event).is_err() {
                    self.missed += 1;
                }
            }
            Message::OtherEvent(procedure) => tracing::debug!("libvirt sent an event of kind {procedure}"),
            Message::Ping => self.asked_for_life = true,
            Message::Pong => {}
        }
        Ok(())
    }

    /// Says that this end goes. The daemon would find out by itself.
    async fn farewell(&mut self) -> Result<(), String> {
        let close = wire::call(Procedure::ConnectClose, self.last_serial.wrapping_add(1), &[]);
        let _ = timeout(Duration::from_secs(1), self.stream.writable()).await;
        let _ = self.stream.try_write(&close);
        Ok(())
    }
}

/// Returns when there is room to tell of missed events.
async fn told_of(events: &mpsc::Sender<Event>, missed: u64) {
    if missed == 0 || events.reserve().await.is_err() {
        pending::<()>().await;
    }
}
