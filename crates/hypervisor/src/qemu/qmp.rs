//! A QMP client: one connection to one machine, commands one after another, every answer waited for within a bound.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::BorrowedFd,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};

use super::wire::{self, Lines, Message, Nonsense, Refusal};
use crate::text::printable;

/// Answers that may wait to be fetched. There is one command at a time, so more than a few that came late mean an
/// emulator that answers what nobody asked.
const MAX_WAITING: usize = 16;

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// Nobody listens (yet).
    #[error("cannot connect to its QMP socket: {0}")]
    Connect(io::Error),
    /// QEMU said no.
    #[error("{}", .0.description)]
    Refused(Refusal),
    /// QEMU did not say anything. The command may still be carried out.
    #[error("no answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// The connection is over.
    #[error("the QMP connection ended: {0}")]
    Closed(String),
}

/// What a machine says unasked, over whichever connection.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The reason that it gave for its end, in words, once it gave one.
    pub(super) farewell: OnceLock<String>,
    /// It has stopped executing or begun to, or may have while nobody was connected.
    pub(super) stirred: Notify,
}

/// One connection. QEMU serves one at a time: a second one is not greeted before the first is closed.
pub(super) struct Qmp {
    writer: OwnedWriteHalf,
    answers: mpsc::Receiver<Result<Answer, String>>,
    reader: JoinHandle<()>,
    last_id: u64,
    /// Set while a command is being written: one that was cut short leaves the stream in the middle of a line.
    half_written: bool,
}

struct Answer {
    id: u64,
    result: Result<Value, Refusal>,
}

impl Qmp {
    /// Connects to a QMP socket and negotiates. What the machine says unasked goes into `heard`.
    pub(super) async fn connect(path: &Path, heard: Arc<Heard>, bound: Duration) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(path).await.map_err(QmpError::Connect)?;
        Self::over(stream, heard, bound).await
    }

    /// The same over a stream that is connected already.
    pub(super) async fn over(
        stream: UnixStream,
        heard: Arc<Heard>,
        bound: Duration,
    ) -> Result<Self, QmpError> {
        let (reader, writer) = stream.into_split();
        let mut incoming = Incoming { reader, lines: Lines::default() };
        match timeout(bound, incoming.next()).await.map_err(|_| QmpError::NoAnswer(bound))? {
            Ok(Message::Greeting) => {}
            Ok(_) => return Err(QmpError::Closed("it did not begin with a greeting".into())),
            Err(why) => return Err(QmpError::Closed(why)),
        }
        let (sender, answers) = mpsc::channel(MAX_WAITING);
        let reader = tokio::spawn(read(incoming, sender, Arc::clone(&heard)));
        let mut qmp = Self { writer, answers, reader, last_id: 0, half_written: false };
        qmp.execute("qmp_capabilities", &Value::Null, bound).await?;
        heard.stirred.notify_one();
        Ok(qmp)
    }

    /// Whether a command can be tried.
    pub(super) fn is_usable(&self) -> bool {
        !self.half_written && !self.reader.is_finished()
    }

    /// Carries out one command. May be dropped at any time: an answer that comes late is not taken for another's.
    pub(super) async fn execute(
        &mut self,
        name: &str,
        arguments: &Value,
        bound: Duration,
    ) -> Result<Value, QmpError> {
        timeout(bound, self.exchange(name, arguments, None)).await.map_err(|_| QmpError::NoAnswer(bound))?
    }

    /// Hands a descriptor over, which QEMU then knows by a name (`getfd`).
    pub(super) async fn hand_over(
        &mut self,
        fd: BorrowedFd<'_>,
        name: &str,
        bound: Duration,
    ) -> Result<(), QmpError> {
        let arguments = json!({"fdname": name});
        let handed = self.exchange("getfd", &arguments, Some(fd));
        timeout(bound, handed).await.map_err(|_| QmpError::NoAnswer(bound))?.map(|_| ())
    }

    async fn exchange(
        &mut self,
        name: &str,
        arguments: &Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        self.last_id += 1;
        let line = wire::command(self.last_id, name, arguments);
        self.half_written = true;
        let sent = match fd {
            // The rest of the line, should there be one, follows as usual.
            Some(fd) => send_with(self.writer.as_ref(), &line, fd).await,
            None => Ok(0),
        };
        let written = match sent {
            Ok(sent) => self.writer.write_all(line.get(sent..).unwrap_or_default()).await,
            Err(error) => Err(error),
        };
        written.map_err(|error| QmpError::Closed(error.to_string()))?;
        self.half_written = false;
        loop {
            match self.answers.recv().await {
                Some(Ok(answer)) if answer.id == self.last_id => {
                    return answer.result.map_err(QmpError::Refused);
                }
                Some(Ok(_late)) => {}
                Some(Err(why)) => return Err(QmpError::Closed(why)),
                None => return Err(QmpError::Closed("it was closed".into())),
            }
        }
    }

    /// Waits until everything that the other side sent before it closed has been read.
    pub(super) async fn drained(&mut self) {
        // The reader neither panics nor is it cancelled before `self` is dropped, and its result is in `answers`.
        let _ = (&mut self.reader).await;
    }
}

/// Sends what there is room for, with a descriptor beside it (unix(7), SCM_RIGHTS).
async fn send_with(stream: &UnixStream, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
    let fds = [fd];
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(&fds));
        Ok(sendmsg(stream, &[io::IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)?)
    };
    stream.async_io(Interest::WRITABLE, send).await
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads for as long as the connection lasts, so that QEMU never has to keep events for a client that does not read.
async fn read(mut incoming: Incoming, answers: mpsc::Sender<Result<Answer, String>>, heard: Arc<Heard>) {
    let why = loop {
        match incoming.next().await {
            Ok(Message::Answer { id, result }) => {
                if answers.try_send(Ok(Answer { id, result })).is_err() {
                    break "it answers what nobody asked".to_owned();
                }
            }
            Ok(Message::Event { name, data }) if name == "SHUTDOWN" => {
                heard.farewell.get_or_init(|| shutdown_in_words(&data));
            }
            // What has become of it is asked: these may come in any number.
            Ok(Message::Event { name, .. }) if matches!(&*name, "STOP" | "RESUME" | "RESET") => {
                heard.stirred.notify_one();
            }
            Ok(Message::Event { .. } | Message::Greeting) => {}
            Err(why) => break why,
        }
    };
    // Full means that nobody is waiting for an answer; they will find the channel closed.
    let _ = answers.try_send(Err(why));
}

/// The cause in the event SHUTDOWN (QEMU, `qapi/run-state.json`, ShutdownCause).
fn shutdown_in_words(data: &Value) -> String {
    match data.get("reason").and_then(Value::as_str) {
        Some("guest-shutdown") => "the guest turned itself off".into(),
        Some("guest-panic") => "the guest's kernel panicked".into(),
        Some("host-signal") => "its process was told to end by a signal".into(),
        Some("host-qmp-quit") => "it was told to end over QMP".into(),
        Some(reason) => format!("it shut down: {}", printable(reason, 60)),
        None => "it shut down".into(),
    }
}

/// The stream as messages.
struct Incoming {
    reader: OwnedReadHalf,
    lines: Lines,
}

impl Incoming {
    /// The next message, or why there is none.
    async fn next(&mut self) -> Result<Message, String> {
        loop {
            let said = |nonsense: Nonsense| format!("it sent {nonsense}");
            match self.lines.next().map_err(said)? {
                // QMP allows white space between messages.
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => return wire::parse(&line).map_err(said),
                None => {
                    let mut bytes = [0; 4096];
                    match self.reader.read(&mut bytes).await {
                        Ok(0) => return Err("it was closed".into()),
                        Ok(n) => self.lines.push(&bytes[..n]),
                        Err(error) => return Err(error.to_string()),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);
    const GREETING: &str = "{\"QMP\":{}}\n";

    /// An emulator that greets, takes the capabilities, and then says `lines`, one for each further command.
    async fn emulator(lines: &'static [&'static str]) -> (Result<Qmp, QmpError>, Arc<Heard>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let (read, mut write) = theirs.into_split();
            let mut commands = BufReader::new(read).lines();
            write.write_all(GREETING.as_bytes()).await.unwrap();
            for line in ["{\"return\":{},\"id\":1}\n"].iter().chain(lines) {
                commands.next_line().await.unwrap();
                write.write_all(line.as_bytes()).await.unwrap();
            }
            // Stays connected until the client goes.
            while let Ok(Some(_)) = commands.next_line().await {}
        });
        let heard = Arc::<Heard>::default();
        (Qmp::over(ours, Arc::clone(&heard), LONG).await, heard)
    }

    async fn answer_to(lines: &'static [&'static str]) -> Result<Value, QmpError> {
        emulator(lines).await.0.unwrap().execute("query-status", &Value::Null, LONG).await
    }

    #[tokio::test]
    async fn events_between_a_command_and_its_answer_are_not_taken_for_the_answer() {
        let answer = answer_to(&["{\"event\":\"RESUME\"}\n\r\n{\"return\":7,\"id\":2}\n"]).await;
        assert_eq!(answer.unwrap(), 7);
    }

    #[tokio::test]
    async fn nonsense_ends_the_connection_with_an_error() {
        for nonsense in [&["garbage\n"] as &'static [&'static str], &["{\"return\":{}}\n"], &["{\"id\":2}\n"]]
        {
            let (qmp, _) = emulator(nonsense).await;
            let mut qmp = qmp.unwrap();
            let error = qmp.execute("query-status", &Value::Null, LONG).await.unwrap_err();
            assert!(matches!(&error, QmpError::Closed(why) if why.contains("it sent")), "{error}");
            qmp.drained().await;
            assert!(!qmp.is_usable());
        }
    }

    #[tokio::test]
    async fn an_answer_that_comes_late_is_not_taken_for_the_next_ones() {
        let (qmp, _) =
            emulator(&["", "{\"return\":\"late\",\"id\":2}\n{\"return\":\"right\",\"id\":3}\n"]).await;
        let mut qmp = qmp.unwrap();
        let error = qmp.execute("first", &Value::Null, SHORT).await.unwrap_err();
        assert!(matches!(error, QmpError::NoAnswer(_)), "{error}");
        assert!(qmp.is_usable());
        assert_eq!(qmp.execute("second", &Value::Null, LONG).await.unwrap(), "right");
    }

    #[tokio::test]
    async fn half_a_line_and_then_nothing_is_no_answer() {
        let (qmp, _) = emulator(&["{\"return\":"]).await;
        let error = qmp.unwrap().execute("query-status", &Value::Null, SHORT).await.unwrap_err();
        assert!(matches!(error, QmpError::NoAnswer(_)), "{error}");
    }

    #[tokio::test]
    async fn an_emulator_that_answers_what_nobody_asked_is_left() {
        static FLOOD: &str = "{\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n\
            {\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n\
            {\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n\
            {\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n\
            {\"return\":0,\"id\":99}\n{\"return\":0,\"id\":99}\n";
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(GREETING.as_bytes()).await.unwrap();
        theirs.write_all(b"{\"return\":{},\"id\":1}\n").await.unwrap();
        let mut qmp = Qmp::over(ours, Arc::default(), LONG).await.unwrap();
        theirs.write_all(FLOOD.as_bytes()).await.unwrap();
        qmp.drained().await;
        assert!(!qmp.is_usable());
    }

    #[tokio::test]
    async fn silence_or_the_wrong_first_word_is_no_greeting() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(matches!(Qmp::over(ours, Arc::default(), SHORT).await, Err(QmpError::NoAnswer(_))));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"{\"return\":{},\"id\":1}\n").await.unwrap();
        assert!(matches!(Qmp::over(ours, Arc::default(), LONG).await, Err(QmpError::Closed(_))));
    }

    #[tokio::test]
    async fn the_reason_of_a_shutdown_is_kept_after_the_connection_has_ended() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(GREETING.as_bytes()).await.unwrap();
        theirs.write_all(b"{\"return\":{},\"id\":1}\n").await.unwrap();
        theirs
            .write_all(b"{\"event\":\"SHUTDOWN\",\"data\":{\"reason\":\"guest-shutdown\"}}\n")
            .await
            .unwrap();
        let heard = Arc::<Heard>::default();
        let mut qmp = Qmp::over(ours, Arc::clone(&heard), LONG).await.unwrap();
        drop(theirs);
        qmp.drained().await;
        assert_eq!(heard.farewell.get().unwrap(), "the guest turned itself off");
    }
}
