//! `ioward console`: a partition's serial console, bridged to this terminal through the daemon, which shares it among all who are at it.

use std::{future, io, time::Duration};

use ioward_api::{KindView, PartitionView};
use ioward_model::{Name, NamespaceRef};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::sleep,
};

use crate::{
    client::{Client, ClientError, Lines},
    error::CliError,
    present::text,
    signals::Signals,
};

/// Ctrl-]: what telnet and `virsh console` leave with.
const LEAVE: u8 = 0x1d;
/// Before the next try to reach a daemon that is away.
const AGAIN: Duration = Duration::from_secs(1);
/// What cannot be typed because the machine has ended is seen by its output ending, within this time.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
    if partition.console.is_none() {
        return Err(no_console(&name, &partition.kind));
    }
    let route = format!("/v1/partitions/{name}/console");
    let output = client.get_lines(&route).await?;

    let mut signals = Signals::new().map_err(CliError::Start)?;
    let on_terminal = isatty(io::stdin());
    if on_terminal {
        eprintln_lossy(&format!("connected to the console of {name}; Ctrl-] leaves"));
    }
    let raw = on_terminal.then(RawTerminal::enter).transpose().map_err(CliError::Terminal)?;
    let ended = tokio::select! {
        ended = bridge(client, &route, output) => ended,
        number = signals.next() => Ok(End::Signal(number)),
    };
    drop(raw);
    match ended? {
        End::Signal(signal) => Err(CliError::ConsoleSignal { partition: name, signal }),
        End::Left => {
            if on_terminal {
                eprintln_lossy(&format!("\nleft the console of {name}"));
            }
            Ok(())
        }
        End::Closed => {
            eprintln_lossy(&format!("the console of {name} closed: its machine has ended"));
            Ok(())
        }
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
    /// A signal of this number.
    Signal(u8),
}

async fn bridge(client: &Client, route: &str, output: Lines) -> Result<End, CliError> {
    let input = async {
        match send(tokio::io::stdin(), client, route).await {
            // Input has ended; output goes on.
            Ok(None) => future::pending().await,
            Ok(Some(end)) => Ok(end),
            Err(error) => {
                sleep(LAST_WORDS).await;
                Err(error)
            }
        }
    };
    tokio::select! {
        // The guest's last output is shown, whatever else has happened.
        biased;
        ended = show(client, route, output, tokio::io::stdout()) => ended,
        ended = input => ended,
    }
}

/// Guest to person, until the guest's side ends. The machine runs on while the daemon is away.
async fn show(
    client: &Client,
    route: &str,
    mut output: Lines,
    mut to: impl AsyncWrite + Unpin,
) -> Result<End, CliError> {
    loop {
        let piece = match output.chunk().await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(End::Closed),
            Err(ClientError::BrokenOff { .. }) => {
                eprintln_lossy(
                    "\r\n[ioward: the connection to the daemon is lost; going on as soon as it is back]\r",
                );
                output = again(client, route).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        to.write_all(&piece).await.map_err(CliError::Output)?;
        to.flush().await.map_err(CliError::Output)?;
    }
}

/// The output from now on, from a daemon that is back.
async fn again(client: &Client, route: &str) -> Result<Lines, CliError> {
    loop {
        sleep(AGAIN).await;
        match client.get_lines(route).await {
            Err(CliError::Client(error)) if error.may_pass() => {}
            answered => return answered,
        }
    }
}

/// Person to guest, until the person leaves, or the input ends (`None`). What is typed while the daemon is away is lost.
async fn send(
    mut from: impl AsyncRead + Unpin,
    client: &Client,
    route: &str,
) -> Result<Option<End>, CliError> {
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer).await.map_err(CliError::Terminal)?;
        if count == 0 {
            return Ok(None);
        }
        let typed = &buffer[..count];
        let leave = typed.iter().position(|byte| *byte == LEAVE);
        let typed = &typed[..leave.unwrap_or(count)];
        if !typed.is_empty() {
            match client.post_bytes(route, typed).await {
                Err(CliError::Client(error)) if error.may_pass() => {}
                answered => answered?,
            }
        }
        if leave.is_some() {
            return Ok(Some(End::Left));
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
