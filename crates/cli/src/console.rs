//! `ioward console`: a partition's serial console, bridged to this terminal.

use std::{future, io};

use ioward_api::{KindView, PartitionView};
use ioward_model::{Name, NamespaceRef};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
};

use crate::{client::Client, error::CliError, present::text, signals::Signals};

/// Ctrl-]: what telnet and `virsh console` leave with.
const LEAVE: u8 = 0x1d;

/// Bridges stdin and stdout to the console until Ctrl-], the end of the partition, or a signal.
///
/// # Errors
/// When there is no such partition, it does not run, or its console can't be reached.
pub async fn console(client: &Client, name: Name) -> Result<(), CliError> {
    let partitions: Vec<PartitionView> = client.get("/v1/partitions").await?;
    let found = partitions.into_iter().find(|partition| partition.name == name);
    let partition = found.ok_or_else(|| CliError::no_such_partition(&name))?;
    if !partition.running {
        return Err(CliError::NotFound(format!("{name} is stopped; start it with: ioward start {name}")));
    }
    let path = partition.console.ok_or_else(|| no_console(&name, &partition.kind))?;
    let failed = |source| CliError::Console { partition: name.clone(), path: path.clone(), source };
    let socket = UnixStream::connect(&path).await.map_err(failed)?;

    let mut signals = Signals::new().map_err(CliError::Start)?;
    let on_terminal = isatty(io::stdin());
    if on_terminal {
        eprintln_lossy(&format!("connected to the console of {name}; Ctrl-] leaves"));
    }
    let raw = on_terminal.then(RawTerminal::enter).transpose().map_err(CliError::Terminal)?;
    let ended = tokio::select! {
        ended = bridge(socket) => ended,
        number = signals.next() => Ok(End::Signal(number)),
    };
    drop(raw);
    match ended {
        Ok(End::Signal(signal)) => Err(CliError::ConsoleSignal { partition: name, signal }),
        Ok(End::Left) => {
            if on_terminal {
                eprintln_lossy(&format!("\nleft the console of {name}"));
            }
            Ok(())
        }
        Ok(End::Closed) => {
            eprintln_lossy(&format!("the console of {name} closed: its machine has ended"));
            Ok(())
        }
        Ok(End::OutputFailed(error)) => Err(CliError::Output(error)),
        Err(source) => Err(failed(source)),
    }
}

/// Where to look instead.
fn no_console(partition: &Name, kind: &KindView) -> CliError {
    CliError::NotFound(match kind {
        KindView::Machine { .. } => {
            format!("{partition} has no console; 'ioward partitions' shows how it is")
        }
        KindView::Domain { libvirt } => {
            let domain = text::shell_word(libvirt.as_str());
            format!("the console of {partition} is libvirt's; use: virsh -c qemu:///system console {domain}")
        }
        KindView::Namespace { netns } => {
            let enter = match netns {
                NamespaceRef::Named(name) => format!("ip netns exec {} sh", text::shell_word(name)),
                NamespaceRef::PidFile(file) => {
                    let file = text::shell_word(&file.display().to_string());
                    format!("nsenter --net --target \"$(cat {file})\" sh")
                }
            };
            format!("{partition} is a network namespace and has no console; for a shell in it use: {enter}")
        }
    })
}

/// A remark beside the console's own text; nobody depends on it.
fn eprintln_lossy(text: &str) {
    let _ = io::Write::write_all(&mut io::stderr(), format!("{text}\n").as_bytes());
}

/// Why a bridge ended.
enum End {
    /// The person has left.
    Left,
    /// The machine has closed its side.
    Closed,
    /// stdout takes nothing.
    OutputFailed(io::Error),
    /// A signal of this number.
    Signal(u8),
}

async fn bridge(socket: UnixStream) -> io::Result<End> {
    let (from_guest, mut to_guest) = socket.into_split();
    let input = async {
        match send(tokio::io::stdin(), &mut to_guest).await {
            Ok(End::Left) => Ok(End::Left),
            // Input has ended; output goes on. `to_guest` is kept: QEMU hangs up on a console that is half closed.
            Ok(_) => future::pending().await,
            Err(error) if is_hang_up(&error) => Ok(End::Closed),
            Err(error) => Err(error),
        }
    };
    tokio::select! {
        // The guest's last output is shown, whatever else has happened.
        biased;
        ended = show(from_guest, tokio::io::stdout()) => ended,
        ended = input => ended,
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Guest to person, until the guest's side ends.
async fn show(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<End> {
    let mut buffer = [0; 4096];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) => return Ok(End::Closed),
            Err(error) if is_hang_up(&error) => return Ok(End::Closed),
            read => read?,
        };
        let written = async {
            to.write_all(&buffer[..count]).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            return Ok(End::OutputFailed(error));
        }
    }
}

/// Person to guest, until the person leaves or the input ends (`End::Closed`).
async fn send(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<End> {
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(End::Closed);
        }
        let typed = &buffer[..count];
        let leave = typed.iter().position(|byte| *byte == LEAVE);
        to.write_all(&typed[..leave.unwrap_or(count)]).await?;
        if leave.is_some() {
            return Ok(End::Left);
        }
    }
}

/// A terminal in raw mode; dropping it puts the terminal back as it was.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that has gone away needs nothing put right.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
