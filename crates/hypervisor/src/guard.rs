//! Sees to it that these never happen, whichever backend has the partition and whoever asks:
//!
//! - a function that is no VF is handed to a partition;
//! - a VF is handed out whose IOMMU group holds anything foreign: the kernel lets a process have a function through VFIO only
//!   together with the whole group, and devices in one group may reach each other past the IOMMU. So a group is handed out whole,
//!   to one partition, or not at all;
//! - two partitions hold one VF, of whichever kinds they are;
//! - a VF that a machine or domain holds, or one beside it in its group, is bound to a driver of the host's;
//! - a namespace is given a VF that no driver of the host's has, or one that is in it is bound to another driver;
//! - a standby is given to a partition that nobody knows or that is no machine, or one with a MAC that no station can have;
//! - a partition that nobody knows or that is no machine is moved, or one that holds a VF: nobody could tell by then who has it;
//! - a VF is handed out or bound while the VFs of its PF are made anew: another may be at its address by then.
//!
//! A machine or a domain has its VFs through VFIO; the IOMMU keeps it apart from the host. A namespace has them by a driver of the host's,
//! which does the DMA: no group matters to it.
//!
//! Who holds which VF is asked of the backend each time, so that a daemon that has just started knows it too. An act is held
//! against that and against all acts under way at once; from then on until it has ended, every other act is held against it.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use ioward_model::{
    Accelerator, Adoptable, DomainRef, FunctionFacts, KindName, MachineLayout, Migration, Name, Owner,
    PartitionSpec, Spec, StandbyNic,
};
use ioward_pci::Bdf;
use tokio::sync::mpsc;

use crate::{
    ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle, PartitionStatus, StopMode,
    libvirt::Uuid, lock::lock,
};

/// The one driver of a VF that a machine or domain holds, and none of a namespace's.
const VFIO: &str = "vfio-pci";

type Look = dyn Fn(Bdf) -> io::Result<Option<FunctionFacts>> + Send + Sync;

/// A hypervisor that can't be made to break the rules.
pub struct Guard {
    inner: Arc<dyn Hypervisor>,
    look: Box<Look>,
    /// One act at a time is held against the others.
    turn: tokio::sync::Mutex<()>,
    acts: Acts,
}

/// The acts under way.
type Acts = Arc<Mutex<Vec<Arc<Act>>>>;

struct Act {
    function: Bdf,
    /// The PF that it is of, or is.
    pf: Bdf,
    kind: Kind,
}

#[derive(PartialEq, Eq)]
enum Kind {
    /// It is handed to somebody.
    HandOut(Owner),
    /// It is bound to another driver, or to none.
    Rebind {
        /// To vfio-pci.
        to_vfio: bool,
    },
    /// It is a PF, and gets another number of VFs.
    Recount,
}

/// A function that nobody does anything to that would be at odds with the act that this was made for. That has ended when this
/// is dropped.
#[must_use]
pub struct Claim {
    acts: Acts,
    act: Arc<Act>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.acts).retain(|act| !Arc::ptr_eq(act, &self.act));
    }
}

/// Who holds which function, or is about to, at one moment.
struct Holdings {
    under_way: Vec<Arc<Act>>,
    partitions: Vec<PartitionStatus>,
}

impl Holdings {
    fn holders(&self, function: Bdf) -> impl Iterator<Item = Owner> {
        let held = self.partitions.iter().flat_map(move |partition| {
            let its = partition.vfs.iter().filter(move |(_, held)| *held == function);
            its.map(|(vf, _)| Owner { partition: partition.name.clone(), vf: vf.clone() })
        });
        let about_to_be = self.under_way.iter().filter(move |act| act.function == function);
        held.chain(about_to_be.filter_map(|act| match &act.kind {
            Kind::HandOut(owner) => Some(owner.clone()),
            Kind::Rebind { .. } | Kind::Recount => None,
        }))
    }

    /// Which kind a partition is of. One that nobody knows gets nothing anyway.
    fn kind(&self, partition: &Name) -> KindName {
        let known = self.partitions.iter().find(|status| status.name == *partition);
        known.map_or(KindName::Machine, |status| status.kind)
    }

    /// Whether a partition runs without this VF, and would take it.
    fn lacks(&self, owner: &Owner) -> bool {
        let known = self.partitions.iter().find(|status| status.name == owner.partition);
        known.is_some_and(|status| !status.kind.uses_vfio() && status.lacks.contains(&owner.vf))
    }

    /// Those of the holders who have it through VFIO.
    fn through_vfio(&self, function: Bdf) -> impl Iterator<Item = Owner> {
        self.holders(function).filter(|holder| self.kind(&holder.partition).uses_vfio())
    }

    fn is_rebound(&self, function: Bdf) -> bool {
        self.under_way.iter().any(|act| act.function == function && matches!(act.kind, Kind::Rebind { .. }))
    }

    /// To a driver of the host's, or to none.
    fn leaves_vfio(&self, function: Bdf) -> bool {
        let leaves = Kind::Rebind { to_vfio: false };
        self.under_way.iter().any(|act| act.function == function && act.kind == leaves)
    }

    fn check_count(&self, pf: Bdf) -> Result<(), String> {
        match self.under_way.iter().any(|act| act.pf == pf && act.kind == Kind::Recount) {
            true => Err(format!("the number of VFs of {pf} is being changed")),
            false => Ok(()),
        }
    }
}

impl Guard {
    /// Over this backend, on a host whose functions `look` looks at; `None` when there is no such function.
    pub fn new(
        inner: Arc<dyn Hypervisor>,
        look: impl Fn(Bdf) -> io::Result<Option<FunctionFacts>> + Send + Sync + 'static,
    ) -> Self {
        Self { inner, look: Box::new(look), turn: tokio::sync::Mutex::default(), acts: Acts::default() }
    }

    /// Lets a PF get another number of VFs, as long as what is returned is kept. Who holds one of them now is not asked: the kernel
    /// waits for them.
    ///
    /// # Errors
    /// Why it must not now, in words.
    pub async fn recount(&self, pf: Bdf) -> Result<Claim, String> {
        let _turn = self.turn.lock().await;
        let acts = lock(&self.acts).clone();
        if let Some(act) = acts.iter().find(|act| act.pf == pf) {
            return Err(match &act.kind {
                Kind::HandOut(owner) => format!("{} is being given to {owner}", act.function),
                Kind::Rebind { .. } => format!("{} is being bound to another driver", act.function),
                Kind::Recount => "it is being changed already".into(),
            });
        }
        Ok(self.claim(pf, pf, Kind::Recount))
    }

    /// Lets a VF of this PF be bound to this driver, as long as what is returned is kept. `None` for a VF that is to be bound to
    /// vfio-pci, for who has it through that: any time is a good one.
    ///
    /// # Errors
    /// Why it must not be bound, in words.
    pub async fn rebind(
        &self,
        pf: Bdf,
        function: Bdf,
        driver: Option<&str>,
    ) -> Result<Option<Claim>, String> {
        let _turn = self.turn.lock().await;
        let holdings =
            self.holdings().await.map_err(|error| format!("nobody knows who holds it: {error}"))?;
        if driver == Some(VFIO) && holdings.through_vfio(function).next().is_some() {
            return Ok(None);
        }
        holdings.check_count(pf)?;
        self.check_rebind(function, driver, &holdings)?;
        Ok(Some(self.claim(function, pf, Kind::Rebind { to_vfio: driver == Some(VFIO) })))
    }

    async fn hand_out(&self, function: Bdf, owner: &Owner) -> Result<Claim, HypervisorError> {
        let _turn = self.turn.lock().await;
        let holdings = self.holdings().await?;
        let pf = self.check_hand_out(function, owner, &holdings).map_err(|why| {
            HypervisorError::NotAttachable { function, partition: owner.partition.clone(), why }
        })?;
        Ok(self.claim(function, pf, Kind::HandOut(owner.clone())))
    }

    fn claim(&self, function: Bdf, pf: Bdf, kind: Kind) -> Claim {
        let act = Arc::new(Act { function, pf, kind });
        lock(&self.acts).push(Arc::clone(&act));
        Claim { acts: Arc::clone(&self.acts), act }
    }

    /// Acts first: one that ends in between has left its mark on what partitions hold.
    async fn holdings(&self) -> Result<Holdings, HypervisorError> {
        let under_way = lock(&self.acts).clone();
        Ok(Holdings { under_way, partitions: self.inner.partitions().await? })
    }

    /// The PF of a function that may be handed out.
    fn check_hand_out(&self, function: Bdf, owner: &Owner, holdings: &Holdings) -> Result<Bdf, String> {
        if let Some(other) = holdings.holders(function).find(|holder| holder != owner) {
            return Err(format!("it belongs to {other}"));
        }
        let unreadable = |error: io::Error| format!("it can't be looked at: {error}");
        let facts = (self.look)(function).map_err(unreadable)?.ok_or("there is no such function")?;
        let pf = facts.physical.ok_or("it is no virtual function, and only those are handed out")?;
        holdings.check_count(pf)?;
        if holdings.is_rebound(function) {
            return Err("its driver is being changed".into());
        }
        if !holdings.kind(&owner.partition).uses_vfio() {
            // Whether its driver makes an interface of it is for the backend to see: some take seconds for that.
            return match facts.driver.as_deref() {
                None | Some(VFIO) => {
                    Err("it is bound to no driver of the host's, and a namespace has it by one".into())
                }
                Some(_) => Ok(pf),
            };
        }
        match facts.driver.as_deref() {
            Some(VFIO) => {}
            Some(driver) => return Err(format!("it is bound to {driver}, not to {VFIO}")),
            None => return Err(format!("it is bound to no driver, and has to be to {VFIO}")),
        }
        let no_group = "it has no IOMMU group; turn the IOMMU on (intel_iommu=on, or in the firmware)";
        for name in facts.group.ok_or(no_group)? {
            self.check_member(&name, owner, holdings)
                .map_err(|why| format!("{name} in its IOMMU group {why}"))?;
        }
        Ok(pf)
    }

    /// Whether one device of a group may be with `owner`'s VF there.
    fn check_member(&self, name: &str, owner: &Owner, holdings: &Holdings) -> Result<(), String> {
        let function: Bdf = name.parse().map_err(|_| "is no PCI function")?;
        let unreadable = |error: io::Error| format!("can't be looked at: {error}");
        let facts = (self.look)(function).map_err(unreadable)?.ok_or("is not there")?;
        if facts.is_bridge {
            return Ok(());
        }
        if facts.physical.is_none() {
            return Err("is no virtual function".into());
        }
        if holdings.leaves_vfio(function) {
            return Err("is being bound to another driver".into());
        }
        if let Some(driver) = facts.driver.filter(|driver| driver != VFIO) {
            return Err(format!("is bound to {driver}"));
        }
        match holdings.holders(function).find(|holder| holder.partition != owner.partition) {
            Some(other) => Err(format!("belongs to {other}")),
            None => Ok(()),
        }
    }

    fn check_rebind(&self, function: Bdf, driver: Option<&str>, holdings: &Holdings) -> Result<(), String> {
        // One that its namespace lacks is put right by that: its interface is made anew.
        let is_hosts = driver.is_some_and(|driver| driver != VFIO);
        let mut holders = holdings.holders(function);
        if let Some(holder) = holders.find(|holder| !is_hosts || !holdings.lacks(holder)) {
            return Err(format!("it belongs to {holder}"));
        }
        if holdings.is_rebound(function) {
            return Err("its driver is being changed already".into());
        }
        // Beside one that is held through VFIO there may be one that is bound to that too, or to no driver.
        if !is_hosts {
            return Ok(());
        }
        // Whoever binds one that is not there is told so.
        let Ok(Some(FunctionFacts { group: Some(members), .. })) = (self.look)(function) else {
            return Ok(());
        };
        for member in members {
            let holder = member.parse().ok().and_then(|member| holdings.through_vfio(member).next());
            if let Some(holder) = holder {
                return Err(format!("{member} in its IOMMU group belongs to {holder}"));
            }
        }
        Ok(())
    }

    /// Everything that a partition starts with may have changed since it was given.
    async fn hand_out_again(&self, partition: &Name) -> Result<Vec<Claim>, HypervisorError> {
        let partitions = self.inner.partitions().await?;
        let vfs = partitions.into_iter().find(|status| status.name == *partition).map(|status| status.vfs);
        let mut claims = Vec::new();
        for (vf, function) in vfs.unwrap_or_default() {
            claims.push(self.hand_out(function, &Owner { partition: partition.clone(), vf }).await?);
        }
        Ok(claims)
    }

    /// Whether a partition may be moved to or from here.
    async fn check_move(&self, partition: &Name) -> Result<(), HypervisorError> {
        let Holdings { under_way, partitions } = self.holdings().await?;
        let known = partitions.into_iter().find(|status| status.name == *partition);
        let known = known.ok_or_else(|| HypervisorError::NoSuchPartition(partition.clone()))?;
        if known.kind != KindName::Machine {
            return Err(crate::not_moved(partition));
        }
        let is_given = under_way.iter().find_map(|act| match &act.kind {
            Kind::HandOut(owner) if owner.partition == *partition => Some(owner.vf.clone()),
            _ => None,
        });
        match known.vfs.into_iter().map(|(vf, _)| vf).next().or(is_given) {
            Some(vf) => {
                let why = format!("it holds {vf}, and VFs do not go along; detach them first");
                Err(HypervisorError::NotMoved { partition: partition.clone(), why })
            }
            None => Ok(()),
        }
    }

    /// A partition's accelerator, while it runs.
    async fn running(&self, partition: &Name) -> Option<Accelerator> {
        let partitions = self.inner.partitions().await.ok()?;
        partitions.into_iter().find(|status| status.name == *partition && status.running)?.accelerator
    }
}

#[async_trait]
impl Hypervisor for Guard {
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        self.inner.check().await
    }

    async fn check_definition(&self, spec: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        self.inner.check_definition(spec).await
    }

    /// A definition is held against the rules of a Spec once more.
    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        let alone = PartitionSpec { vfs: Vec::new(), ..spec.clone() };
        let whole = Spec { version: 1, adapters: Vec::new(), partitions: vec![alone] };
        whole.validate().map_err(|error| HypervisorError::Io {
            what: "define".into(),
            path: spec.name.as_str().into(),
            source: io::Error::other(error.to_string()),
        })?;
        self.inner.define(spec).await
    }

    async fn undefine(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.inner.undefine(partition).await
    }

    async fn start(&self, partition: &Name) -> Result<Accelerator, HypervisorError> {
        match self.hand_out_again(partition).await {
            Ok(_claims) => self.inner.start(partition).await,
            // One that runs has its VFs.
            Err(error) => self.running(partition).await.ok_or(error),
        }
    }

    async fn stop(&self, partition: &Name, mode: StopMode) -> Result<(), HypervisorError> {
        self.inner.stop(partition, mode).await
    }

    async fn reset(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.inner.reset(partition).await
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let _claim = self.hand_out(function, owner).await?;
        self.inner.attach_vf(owner, function).await
    }

    async fn detach_vf(&self, owner: &Owner, force: bool) -> Result<(), HypervisorError> {
        self.inner.detach_vf(owner, force).await
    }

    async fn adoptable(&self, domain: &DomainRef) -> Result<Adoptable, HypervisorError> {
        self.inner.adoptable(domain).await
    }

    /// As if it were given: what must not be given is not taken over either.
    async fn adopt_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let _claim = self.hand_out(function, owner).await?;
        self.inner.adopt_vf(owner, function).await
    }

    async fn release_vf(&self, owner: &Owner) -> Result<(), HypervisorError> {
        self.inner.release_vf(owner).await
    }

    /// Whether its bridge is one, the backend sees: nothing is made of one that is not.
    async fn attach_standby(&self, owner: &Owner, nic: &StandbyNic) -> Result<(), HypervisorError> {
        let partitions = self.inner.partitions().await?;
        let known = partitions.into_iter().find(|status| status.name == owner.partition);
        let known = known.ok_or_else(|| HypervisorError::NoSuchPartition(owner.partition.clone()))?;
        let refuse = |why| Err(HypervisorError::NoStandby { owner: owner.clone(), why });
        if known.kind != KindName::Machine {
            return refuse(format!(
                "only machines of ioward's own have standbys, and it is a {}",
                known.kind
            ));
        }
        if !nic.mac.is_unicast() {
            return refuse(format!("no station can have the MAC {}", nic.mac));
        }
        self.inner.attach_standby(owner, nic).await
    }

    async fn detach_standby(&self, owner: &Owner) -> Result<(), HypervisorError> {
        self.inner.detach_standby(owner).await
    }

    async fn layout(&self, partition: &Name) -> Result<MachineLayout, HypervisorError> {
        self.inner.layout(partition).await
    }

    async fn receive(&self, partition: &Name, layout: &MachineLayout) -> Result<OwnedFd, HypervisorError> {
        self.check_move(partition).await?;
        self.inner.receive(partition, layout).await
    }

    async fn send(&self, partition: &Name) -> Result<OwnedFd, HypervisorError> {
        self.check_move(partition).await?;
        self.inner.send(partition).await
    }

    async fn migration(&self, partition: &Name) -> Result<Migration, HypervisorError> {
        self.inner.migration(partition).await
    }

    async fn resume(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.inner.resume(partition).await
    }

    async fn create_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.inner.create_channel(partition).await
    }

    async fn destroy_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.inner.destroy_channel(partition).await
    }

    async fn connect_channel(&self, partition: &Name) -> Result<ChannelEnd, HypervisorError> {
        self.inner.connect_channel(partition).await
    }

    async fn open_console(&self, partition: &Name) -> Result<OwnedFd, HypervisorError> {
        self.inner.open_console(partition).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        self.inner.partitions().await
    }

    async fn domains(&self) -> Result<Vec<(Name, Uuid)>, HypervisorError> {
        self.inner.domains().await
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        self.inner.events().await
    }
}
