//! What a domain has already, before it is a partition.

use ioward_model::{DomainRef, Name};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use super::{LibvirtHypervisor, known::Known, look::look, record::Record, refused};
use crate::{HypervisorError, libvirt::xml::HostDevice};

/// A domain, and the PCI functions of the host that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoptable {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Whether it runs.
    pub running: bool,
    /// Whether it is there also while it does not run.
    pub persistent: bool,
    /// Its functions, by address.
    pub functions: Vec<AdoptableFunction>,
}

/// A PCI function of the host that a domain has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptableFunction {
    /// Its address on the host.
    pub function: Bdf,
    /// Whether libvirt binds it to its driver and back. Such a one is not ioward's to take over.
    pub managed: bool,
    /// Whether it is an `<interface type='hostdev'>`, whose MAC and VLAN libvirt sets.
    pub interface: bool,
    /// Its alias, in the machine that runs or else in the definition.
    pub alias: Option<String>,
    /// The name of the VF, of one that ioward gave.
    pub vf: Option<Name>,
    /// Whether the machine that runs has it.
    pub live: bool,
    /// Whether it has it at its next start.
    pub next: bool,
}

impl LibvirtHypervisor {
    /// The PCI functions that a domain has, whoever gave them to it. Nothing is changed or noted.
    ///
    /// # Errors
    /// When there is no such domain, or libvirt can't be asked.
    pub async fn adoptable(
        &self,
        partition: &Name,
        domain: &DomainRef,
    ) -> Result<Adoptable, HypervisorError> {
        let refuse = |error| refused(partition, domain, error);
        let found = self.resolve(domain).await.map_err(refuse)?;
        let known = Known::new(found.name.clone());
        let record = Record::new(partition.clone(), domain.clone(), found.uuid, known);
        let shared = &self.shared;
        let seen = shared.line.ask(|connection| look(connection, &shared.processes, &record)).await;
        let seen = seen.map_err(|trouble| refused(partition, domain, trouble))?;
        let mut functions: Vec<AdoptableFunction> = Vec::new();
        for (facts, is_live) in [(&seen.live, true), (&seen.persistent, false)] {
            for device in facts.iter().flat_map(|facts| &facts.host_devices) {
                let Some(function) = device.function else { continue };
                match functions.iter_mut().find(|it| it.function == function) {
                    Some(known) => known.next = true,
                    None => functions.push(described(device, function, is_live)),
                }
            }
        }
        functions.sort_by_key(|it| it.function);
        Ok(Adoptable {
            name: seen.known.name,
            uuid: found.uuid.to_string(),
            running: seen.live.is_some(),
            persistent: seen.persistent.is_some(),
            functions,
        })
    }
}

fn described(device: &HostDevice, function: Bdf, is_live: bool) -> AdoptableFunction {
    AdoptableFunction {
        function,
        managed: device.managed,
        interface: device.interface,
        alias: device.alias.clone(),
        vf: device.vf.clone(),
        live: is_live,
        next: !is_live,
    }
}
