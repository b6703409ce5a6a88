//! The commands that the demonstration types on the consoles of its partitions.

use std::time::Duration;

use ioward_api::PartitionView;
use ioward_model::{Class, Name};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{client::Client, error::CliError, terminal};

/// No command: the answer names it, and so is known from whatever stood on the console before.
const MARK: &str = "ready?";
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has a partition list its VFs and change the first of its network VFs: a MAC, and VLANs. What its Spec does not
/// allow is refused, and shown all the same.
pub async fn configure(partition: &PartitionView) -> Result<(), CliError> {
    let mut console = Console::open(partition).await?;
    console.type_in("vf list").await?;
    if let Some(vf) = partition.vfs.iter().find(|vf| vf.class == Class::Network) {
        for change in ["mac=52:54:00:aa:00:77", "vlan=105", "vlan=200"] {
            console.type_in(&format!("vf set {} {change}", vf.name)).await?;
        }
        console.type_in(&format!("vf get {}", vf.name)).await?;
    }
    Ok(())
}

/// Types one command on the console of a partition, and shows what comes of it.
pub async fn type_in(client: &Client, partition: &str, command: &str) -> Result<(), CliError> {
    let partitions: Vec<PartitionView> = client.get("/v1/partitions").await?;
    let found = partitions.iter().find(|known| known.name.as_str() == partition);
    let found = found.ok_or_else(|| CliError::Demo(format!("there is no partition {partition}")))?;
    Console::open(found).await?.type_in(command).await
}

struct Console {
    partition: Name,
    stream: UnixStream,
}

impl Console {
    async fn open(partition: &PartitionView) -> Result<Self, CliError> {
        let unreached = |why: &dyn std::fmt::Display| {
            CliError::Demo(format!("cannot reach the console of {}: {why}", partition.name))
        };
        let console = partition.console.as_ref().ok_or_else(|| unreached(&"it has none"))?;
        let stream = UnixStream::connect(console).await.map_err(|error| unreached(&error))?;
        let mut console = Self { partition: partition.name.clone(), stream };
        while !console.answer(MARK).await?.contains(MARK) {}
        Ok(console)
    }

    /// Types a command and shows what comes of it, as it would stand on the console.
    async fn type_in(&mut self, command: &str) -> Result<(), CliError> {
        let answer = self.answer(command).await?;
        terminal::print(&format!("{}# {command}\n{answer}", self.partition))
    }

    /// The output of a command, up to the next prompt: `web# `, or `[3] web# ` after one that ended with status 3.
    async fn answer(&mut self, command: &str) -> Result<String, CliError> {
        let prompt = format!("{}# ", self.partition);
        let broken = |why: String| CliError::Demo(format!("the console of {}: {why}", self.partition));
        let (mut reader, mut writer) = self.stream.split();
        writer
            .write_all(format!("{command}\n").as_bytes())
            .await
            .map_err(|error| broken(error.to_string()))?;
        let mut answer = Vec::new();
        let read = async {
            while !answer.ends_with(prompt.as_bytes()) {
                let mut part = [0; 4096];
                match reader.read(&mut part).await {
                    Ok(0) => return Err(broken("it is closed".to_owned())),
                    Ok(length) => answer.extend_from_slice(&part[..length]),
                    Err(error) => return Err(broken(error.to_string())),
                }
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, read).await.map_err(|_| broken("no answer".to_owned()))??;
        let answer = String::from_utf8_lossy(&answer).replace('\r', "");
        // A console shows what is typed before what comes of it.
        let answer = answer.strip_prefix(&format!("{command}\n")).unwrap_or(&answer);
        // The exit status before the prompt says no more than the answer does.
        let printed = answer.rfind('\n').map_or(0, |end| end + 1);
        Ok(answer[..printed].to_owned())
    }
}
