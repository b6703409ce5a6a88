//! The choice of the demonstration: a built-in one, or one made by keyboard.

use std::{io::IsTerminal, path::Path};

use ioward_model::{Boot, Class, Inventory, PhysicalFunction, Spec};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::{error::CliError, present::text, spec_file::SpecSource, terminal};

/// Two partitions: `web` with a network VF that it may set the MAC of, `db` with a network VF and an NVMe VF. Which
/// adapters they come from, how many VFs those give and what `web` may do is asked, unless `default` is wanted or there
/// is no terminal to ask on.
///
/// # Errors
/// When the machine has no such adapters, or the person ends the input.
pub async fn choose(inventory: &Inventory, boot: &Path, default: bool) -> Result<Spec, CliError> {
    let network = of_class(inventory, Class::Network);
    let nvme = of_class(inventory, Class::Nvme);
    let (Some(first), Some(disk)) = (network.first(), nvme.first()) else {
        return Err(CliError::Demo("this machine has no network adapter or no NVMe adapter".to_owned()));
    };
    let mut chosen =
        Chosen { web: first, db: network.last().unwrap_or(first), vfs: 4, web_may_set_mac: true };
    if !default && std::io::stdin().is_terminal() {
        chosen.web = pick("web's network VF", &network, chosen.web).await?;
        chosen.db = pick("db's network VF", &network, chosen.db).await?;
        let most = chosen.web.total_vfs();
        chosen.vfs =
            number(&format!("VFs that {} is to give, 2 to {most}", chosen.web.address), 2, most, 4).await?;
        chosen.web_may_set_mac = agreed("May web set the MAC address of its VF?").await?;
    }
    chosen.spec(disk, boot)
}

/// Asks for a yes; the end of input is a no.
///
/// # Errors
/// When the terminal can't be read.
pub async fn agreed(question: &str) -> Result<bool, CliError> {
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    let answer = ask(&format!("{question} [Y/n] ")).await?;
    Ok(answer.is_some_and(|answer| matches!(answer.to_lowercase().as_str(), "" | "y" | "yes")))
}

struct Chosen<'a> {
    web: &'a PhysicalFunction,
    db: &'a PhysicalFunction,
    vfs: u16,
    web_may_set_mac: bool,
}

impl Chosen<'_> {
    fn spec(&self, disk: &PhysicalFunction, boot: &Path) -> Result<Spec, CliError> {
        let may = if self.web_may_set_mac { "[\"mac\", \"reset\"]" } else { "[\"reset\"]" };
        let boot = toml::to_string(&Boot { kernel: Some(boot.to_owned()), ..Boot::default() })
            .map_err(|error| CliError::Demo(error.to_string()))?;
        let boot = boot.trim();
        let text = format!(
            r#"version = 1

[[adapter]]
pf  = "{web}"
vfs = {vfs}

[[partition]]
name = "web"
cpus = 2
boot = {{ {boot} }}

[[partition.vf]]
name  = "net0"
class = "network"
pf    = "{web}"
mac   = "52:54:00:aa:00:01"
guest_may = {may}

[[partition]]
name = "db"
boot = {{ {boot} }}

[[partition.vf]]
name  = "net0"
class = "network"
pf    = "{db}"
guest_may = {{ vlan = "100-110", max_tx_rate = "<=500Mbit" }}

[[partition.vf]]
name  = "disk0"
class = "nvme"
pf    = "{disk}"
"#,
            web = self.web.address,
            vfs = self.vfs,
            db = self.db.address,
            disk = disk.address,
        );
        Spec::parse(text.as_bytes()).map_err(|error| {
            let from = Box::new(SpecSource { file: "the choice".to_owned(), text });
            CliError::Spec { from, error }
        })
    }
}

fn of_class(inventory: &Inventory, class: Class) -> Vec<&PhysicalFunction> {
    let all = inventory.physical_functions.iter();
    all.filter(|pf| pf.class == class && pf.total_vfs() >= 2 && pf.in_use_by_host.is_empty()).collect()
}

/// Has one of several adapters chosen.
async fn pick<'a>(
    what: &str,
    adapters: &[&'a PhysicalFunction],
    default: &'a PhysicalFunction,
) -> Result<&'a PhysicalFunction, CliError> {
    let mut question = format!("Which adapter gives {what}?\n");
    let mut default_number = 1;
    for (n, pf) in (1..).zip(adapters) {
        if pf.address == default.address {
            default_number = n;
        }
        let speed = pf
            .speed_mbps()
            .map_or("no link".to_owned(), |mbps| format!("{} Gbit/s", f64::from(mbps) / 1000.0));
        let (free, total) = (pf.vfs_available, pf.total_vfs());
        let adapter = format!("{n}. {}: {free} of {total} VFs free, {speed}; {}", pf.address, pf.name);
        question += &text::wrap(&adapter, terminal::page_width(), "  ", "     ");
    }
    let count = u16::try_from(adapters.len()).unwrap_or(u16::MAX);
    let n = number(&format!("{question}Number"), 1, count, default_number).await?;
    Ok(adapters.get(usize::from(n) - 1).copied().unwrap_or(default))
}

/// Has a number chosen; asks again until it is one.
async fn number(question: &str, least: u16, most: u16, default: u16) -> Result<u16, CliError> {
    loop {
        let Some(answer) = ask(&format!("{question} [{default}] ")).await? else {
            return Err(CliError::Declined);
        };
        if answer.is_empty() {
            return Ok(default);
        }
        match answer.parse() {
            Ok(number) if (least..=most).contains(&number) => return Ok(number),
            _ => eprintln!("'{}' is no number from {least} to {most}", answer.escape_debug()),
        }
    }
}

/// Asks, and gives the line that was typed; `None` at the end of input.
async fn ask(question: &str) -> Result<Option<String>, CliError> {
    let mut out = tokio::io::stdout();
    out.write_all(question.as_bytes()).await.map_err(CliError::Start)?;
    out.flush().await.map_err(CliError::Start)?;
    let mut line = String::new();
    let read = BufReader::new(tokio::io::stdin()).read_line(&mut line).await.map_err(CliError::Start)?;
    Ok((read > 0).then(|| line.trim().to_owned()))
}
