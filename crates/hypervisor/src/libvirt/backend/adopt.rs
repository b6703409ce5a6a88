//! What a domain has already: looked at before it is a partition, noted as its partition's, and forgotten again. Nothing of the
//! domain is changed by any of this.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::{DomainRef, Owner};
use ioward_pci::Bdf;

use super::{
    LibvirtHypervisor,
    devices::Work,
    find,
    known::Known,
    look::{Seen, Trouble, look},
    record::Record,
};
use crate::{
    Adoptable, AdoptableFunction, HypervisorError,
    libvirt::{
        Connection, Definition, LibvirtError, Uuid,
        xml::{self, Facts, HostDevice},
    },
    text::printable,
};

/// The longest name of a domain that is shown.
const MAX_NAME: usize = 200;

impl LibvirtHypervisor {
    /// The PCI functions that a domain has, whoever gave them to it, and which other domains have them in their definitions.
    pub(super) async fn functions_of(&self, domain: &DomainRef) -> Result<Adoptable, HypervisorError> {
        let shared = &self.shared;
        let question = async |connection: Connection| {
            let found = find(connection.clone(), domain).await?;
            let known = Known::new(found.name.clone());
            // Any name will do: nothing is noted.
            let nobody = "domain".parse().unwrap_or_else(|_| unreachable!("a letter, then letters"));
            let record = Record::new(nobody, domain.clone(), found.uuid, known);
            let seen = look(connection.clone(), &shared.processes, &record).await?;
            let mut functions = functions(&seen.live, &seen.persistent);
            let wanted: BTreeSet<Bdf> = functions.iter().map(|it| it.function).collect();
            if !wanted.is_empty() {
                let mut others = others_with(&connection, found.uuid, &wanted).await?;
                functions.iter_mut().for_each(|it| it.also_of = others.remove(&it.function));
            }
            Ok::<_, Trouble>(Adoptable {
                name: printable(&found.name, MAX_NAME),
                uuid: found.uuid.to_string(),
                running: seen.live.is_some(),
                pid: seen.known.run.and_then(|run| run.process).map(|process| process.pid),
                persistent: seen.persistent.is_some(),
                functions,
            })
        };
        shared.line.ask(question).await.map_err(|trouble| HypervisorError::NoSuchDomain {
            domain: domain.clone(),
            why: trouble.to_string(),
        })
    }
}

fn functions(live: &Option<Facts>, persistent: &Option<Facts>) -> Vec<AdoptableFunction> {
    let mut functions: Vec<AdoptableFunction> = Vec::new();
    for (facts, is_live) in [(live, true), (persistent, false)] {
        for device in facts.iter().flat_map(|facts| &facts.host_devices) {
            let Some(function) = device.function else { continue };
            match functions.iter_mut().find(|it| it.function == function) {
                Some(known) => {
                    known.next = true;
                    // It may have been edited since the machine was started.
                    known.managed |= device.managed;
                    known.interface |= device.interface;
                }
                None => functions.push(described(device, function, is_live)),
            }
        }
    }
    functions.sort_by_key(|it| it.function);
    functions
}

fn described(device: &HostDevice, function: Bdf, is_live: bool) -> AdoptableFunction {
    AdoptableFunction {
        function,
        managed: device.managed,
        interface: device.interface,
        alias: device.alias.as_deref().map(|alias| printable(alias, MAX_NAME)),
        vf: device.vf.clone(),
        live: is_live,
        next: !is_live,
        also_of: None,
    }
}

/// Other domains that have one of these functions in one of their definitions.
async fn others_with(
    connection: &Connection,
    but: Uuid,
    functions: &BTreeSet<Bdf>,
) -> Result<BTreeMap<Bdf, String>, LibvirtError> {
    let mut others = BTreeMap::new();
    for domain in connection.domains().await?.into_iter().filter(|domain| domain.uuid != but) {
        for which in [Definition::Current, Definition::Persistent] {
            let definition = match connection.xml(&domain, which).await {
                Ok(definition) => definition,
                // It has just gone.
                Err(error) if error.refusal().is_some() => continue,
                Err(error) => return Err(error),
            };
            match xml::read(&definition) {
                Ok(facts) => {
                    let has = facts.host_devices.iter().filter_map(|device| device.function);
                    let has = has.filter(|function| functions.contains(function));
                    others.extend(has.map(|function| (function, printable(&domain.name, MAX_NAME))));
                }
                Err(error) => {
                    tracing::warn!(
                        "what the domain {} has is not known: {error}",
                        printable(&domain.name, MAX_NAME)
                    );
                }
            }
        }
    }
    Ok(others)
}

impl Work<'_> {
    /// Notes that the domain has had a VF before it was a partition.
    pub(super) async fn adopt_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let what = || format!("take over {function} from");
        let refuse = |why: &str| HypervisorError::NotAttachable {
            function,
            partition: owner.partition.clone(),
            why: why.to_owned(),
        };
        let seen = self.look(what).await?;
        self.domain(&seen, what)?;
        // What counts now is the machine that runs.
        let has_it = seen.live.as_ref().or(seen.persistent.as_ref()).is_some_and(|facts| facts.has(function));
        if !has_it {
            return Err(refuse("its domain does not have it"));
        }
        for device in seen.live.iter().chain(&seen.persistent).flat_map(|facts| &facts.host_devices) {
            let is_it = device.function == Some(function);
            if is_it && !device.is_plain() {
                return Err(refuse(
                    "its domain has it as managed='yes', or as an interface: it is libvirt's",
                ));
            }
            if !is_it && device.vf.as_ref() == Some(&owner.vf) {
                return Err(refuse("another device of the domain has this name"));
            }
        }
        self.partition.change_between_looks(|record| record.adopt(&owner.vf, function)).await?;
        let seen = self.look(what).await?;
        if seen.known.devices().vfs.iter().any(|held| *held == (owner.vf.clone(), function)) {
            return Ok(());
        }
        self.release_vf(owner).await?;
        Err(refuse("its domain has just lost it"))
    }

    /// Forgets a VF that the domain keeps.
    pub(super) async fn release_vf(&self, owner: &Owner) -> Result<(), HypervisorError> {
        self.partition.change_between_looks(|record| record.release(&owner.vf)).await
    }

    /// Where a domain has a VF that it is to have, but not by ioward, that is its partition's from now on: it had it before it was one,
    /// and a host that has booted has kept no record of that.
    pub(super) async fn as_it_has(
        &self,
        seen: Seen,
        owner: &Owner,
        function: Bdf,
    ) -> Result<Seen, HypervisorError> {
        let adopted = self.partition.record().adopted.get(&owner.vf).copied();
        if had_it(&seen, function) {
            self.partition.change_between_looks(|record| record.adopt(&owner.vf, function)).await?;
        } else if adopted.is_some_and(|adopted| adopted != function) {
            self.partition.change_between_looks(|record| _ = record.adopted.remove(&owner.vf)).await?;
        } else {
            return Ok(seen);
        }
        self.look(|| format!("give {function} to")).await
    }
}

/// Whether the domain has a function, under no name of ioward's, and in no way in which it is libvirt's.
fn had_it(seen: &Seen, function: Bdf) -> bool {
    let devices = seen.live.iter().chain(&seen.persistent).flat_map(|facts| &facts.host_devices);
    let mut has_it =
        devices.filter(|device| device.function == Some(function) && device.vf.is_none()).peekable();
    has_it.peek().is_some() && has_it.all(HostDevice::is_plain)
}
