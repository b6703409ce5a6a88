//! A physical function on the command line: its address, or the name of its network interface or NVMe controller.

use std::{fmt, str::FromStr};

use ioward_model::{Inventory, PhysicalFunction};
use ioward_pci::Bdf;

use crate::{client::Client, error::CliError};

/// The longest name of an interface, in bytes (IFNAMSIZ, without its end).
const MAX_NAME: usize = 15;

/// A physical function as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PfRef {
    /// By its address.
    Address(Bdf),
    /// By the name of an interface or a controller of it.
    Name(String),
}

impl FromStr for PfRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse();
        let is_name = (1..=MAX_NAME).contains(&text.len())
            && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
            && text.starts_with(|c: char| c.is_alphabetic());
        match address {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) if is_name => Ok(Self::Name(text.to_owned())),
            Err(error) => Err(format!("{error}, or the name of an interface, as enp1s0")),
        }
    }
}

impl fmt::Display for PfRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl PfRef {
    /// The physical function that it names.
    ///
    /// # Errors
    /// When this host has none.
    pub fn find<'a>(&self, inventory: &'a Inventory) -> Result<&'a PhysicalFunction, CliError> {
        let is_it = |pf: &&PhysicalFunction| match self {
            Self::Address(address) => pf.address == *address,
            Self::Name(name) => {
                pf.netdevs.iter().any(|netdev| netdev.name == *name)
                    || pf.nvme.as_ref().is_some_and(|controller| controller.name == *name)
            }
        };
        let missing = || {
            CliError::NotFound(format!(
                "{self} is no physical function of this host; 'ioward host' lists them"
            ))
        };
        inventory.physical_functions.iter().find(is_it).ok_or_else(missing)
    }
}

/// The same of one that is named in any case.
///
/// # Errors
/// As [`address`].
pub async fn address_of(client: &Client, named: &PfRef) -> Result<Bdf, CliError> {
    match named {
        PfRef::Address(address) => Ok(*address),
        PfRef::Name(_) => {
            let inventory: Inventory = client.get("/v1/host").await?;
            Ok(named.find(&inventory)?.address)
        }
    }
}

/// The address of what is named. An address is taken as it is: whether there is such a function is for the planner to say.
///
/// # Errors
/// When the daemon does not answer, or nothing has that name.
pub async fn address(client: &Client, named: Option<&PfRef>) -> Result<Option<Bdf>, CliError> {
    match named {
        None => Ok(None),
        Some(named) => Ok(Some(address_of(client, named).await?)),
    }
}
