//! A look at a domain.

use super::{
    known::{Devices, Known, Run, why_off},
    process::Processes,
    record::Record,
};
use crate::{
    libvirt::{
        Connection, Definition, Domain, LibvirtError, Refusal,
        xml::{self, Facts, XmlError},
    },
    text::printable,
};

/// What a look at a domain has shown.
pub(super) struct Seen {
    /// Over which it was looked.
    pub connection: Connection,
    /// The domain; `None` when libvirt has none of that UUID.
    pub domain: Option<Domain>,
    /// The machine, while it runs.
    pub live: Option<Facts>,
    /// What it starts with next; `None` for one that is there only while it runs.
    pub persistent: Option<Facts>,
    /// The short of it.
    pub known: Known,
}

/// Why a domain could not be seen or changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    #[error(transparent)]
    Xml(#[from] XmlError),
}

impl Trouble {
    /// Whether the connection was lost, and the same may go well over the next one.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Libvirt(LibvirtError::Lost(_) | LibvirtError::NoDaemon(_)))
    }

    /// Whether libvirt was asked, and has not answered.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self, Self::Libvirt(error) if error.is_unanswered())
    }
}

/// Looks at the domain that is noted.
pub(super) async fn look(
    connection: Connection,
    processes: &Processes,
    noted: &Record,
) -> Result<Seen, Trouble> {
    let seen = |domain, live: Option<Facts>, persistent: Option<Facts>, known| Seen {
        connection: connection.clone(),
        domain,
        live,
        persistent,
        known,
    };
    match see(&connection, noted).await {
        Ok(Sight { domain, live, persistent, why_off }) => {
            let run = match live.as_ref().and_then(|live| Some((live, live.id?))) {
                Some((live, id)) => {
                    let process = processes.of(&domain.name, noted.uuid).await;
                    Some(Run { id, process, accelerator: live.accelerator })
                }
                None => None,
            };
            let known = Known {
                name: printable(&domain.name, 200),
                there: true,
                run,
                why_off,
                live: Devices::of(live.as_ref()),
                persistent: Devices::of(persistent.as_ref()),
            };
            Ok(seen(Some(domain), live, persistent, known))
        }
        // It may go between two questions.
        Err(Trouble::Libvirt(error)) if error.refusal() == Some(Refusal::NoDomain) => {
            Ok(seen(None, None, None, noted.gone()))
        }
        Err(error) => Err(error),
    }
}

struct Sight {
    domain: Domain,
    live: Option<Facts>,
    persistent: Option<Facts>,
    why_off: Option<String>,
}

async fn see(connection: &Connection, noted: &Record) -> Result<Sight, Trouble> {
    let read = |definition: String| {
        let facts = xml::read(&definition);
        facts.map(|facts| facts.with_names(&noted.adopted, &noted.released))
    };
    let domain = connection.domain_with(noted.uuid).await?;
    let current = read(connection.xml(&domain, Definition::Current).await?)?;
    // By its definition, and not by what was found before: it may start or stop in between.
    if current.id.is_none() {
        let (state, reason) = connection.state(&domain).await?;
        let (live, persistent, why_off) = (None, Some(current), why_off(state, reason));
        return Ok(Sight { domain, live, persistent, why_off });
    }
    let persistent = match connection.is_persistent(&domain).await? {
        true => Some(read(connection.xml(&domain, Definition::Persistent).await?)?),
        false => None,
    };
    Ok(Sight { domain, live: Some(current), persistent, why_off: None })
}
