//! What others do to the host and its partitions, and how the management partition puts it right.

use ioward_fabric::Fabric as _;
use ioward_model::{Difference, Drift, Name, Owner, VfId};
use ioward_pci::Bdf;

use super::{World, Wrong};
use crate::{
    actions::{Action, DOMAIN, Deed, NAMESPACE, name},
    checks, wait_until,
};

impl World {
    /// The actions of others: guests, fate, and people with a shell.
    pub(super) async fn others_do(&mut self, action: &Action) -> Result<(), Wrong> {
        let machine = self.host.machine.clone();
        match action {
            Action::GuestSetsMac { vf, mac } => {
                let result = machine.guest_sets_mac(*vf, *mac);
                self.story.tell(|| format!("  {result:?}"));
            }
            Action::GuestEnds { partition } => {
                let runs = self.hypervisor.runs_of_others();
                let was_running = match runs.get(partition) {
                    Some((runs, _)) => *runs,
                    None => self.state().partitions.get(partition).is_some_and(|held| held.running),
                };
                if !was_running && [DOMAIN, NAMESPACE].contains(&partition.as_str()) {
                    if self.hypervisor.started_by_others(partition) && !self.is_untold(partition) {
                        let runs = || self.state().partitions[partition].running;
                        wait_until("the state says that it was started", runs).await?;
                    }
                    return Ok(());
                }
                self.hypervisor.ends_by_itself(partition);
                if self.is_untold(partition) {
                    return Ok(());
                }
                let ended = || !self.state().partitions.get(partition).is_some_and(|held| held.running);
                wait_until("the state says that the guest has ended", ended).await?;
            }
            Action::Unplug { pf } => {
                if machine.unplug(*pf) {
                    self.host.is_taken_out(*pf);
                    self.disturbed(*pf);
                    self.hypervisor.notice_losses();
                }
            }
            Action::Replug { pf } => {
                if machine.replug(*pf).is_some() {
                    self.disturbed(*pf);
                }
            }
            Action::HandCount { pf, count } => {
                let view = machine.snapshot();
                let Some(present) = view.physical_functions.get(pf) else { return Ok(()) };
                // Waiting for a guest is covered by the fabric's own tests.
                if present.vfs.iter().any(|vf| vf.held || self.hypervisor.is_open(vf.address)) {
                    return Ok(());
                }
                let results = [machine.write_numvfs(*pf, 0), machine.write_numvfs(*pf, *count)];
                self.story.tell(|| format!("  {results:?}"));
                self.disturbed(*pf);
            }
            Action::HandBind { vf, driver } => {
                let view = machine.snapshot();
                let Some(present) = view.physical_functions.get(&vf.pf) else { return Ok(()) };
                let function = present.vfs.get(usize::from(vf.index));
                if function.is_none_or(|vf| vf.held || self.hypervisor.is_open(vf.address)) {
                    return Ok(());
                }
                let result = machine.fabric().bind(*vf, driver.as_deref()).await;
                self.story.tell(|| format!("  {result:?}"));
                self.disturbed(vf.pf);
            }
            Action::Virsh(deed) => self.virsh(deed).await?,
            Action::Reconcile => self.reconcile().await?,
            Action::Crash { ends } => {
                let before = self.state();
                self.kill_daemon().await;
                if let Some(ends) = ends {
                    self.hypervisor.ends_by_itself(ends);
                }
                self.start_daemon().await?;
                let mut after = self.state();
                let untold = self.loose.untold.clone();
                for (name, held) in &mut after.partitions {
                    if ends.as_ref() == Some(name) && !held.running || untold.contains(name) {
                        held.running = before.partitions[name].running;
                    }
                }
                self.loose.untold.clear();
                if after != before {
                    return Err(format!("the state before the crash was {before:?}, and after it {after:?}"));
                }
            }
            Action::Ask { .. } | Action::KeepPlan { .. } | Action::ApplyKept | Action::Operate { .. } => {}
        }
        Ok(())
    }

    /// Reports and repairs all drift, and touches only what belongs to partitions.
    async fn reconcile(&mut self) -> Result<(), Wrong> {
        let (before, state) = (self.host.machine.snapshot(), self.state());
        let left = self.imp().reconcile().await.map_err(|error| format!("reconcile: {error}"))?;
        for drift in &left {
            self.story.tell(|| format!("  {drift}"));
        }
        // Leaves out what belongs to partitions: the rest is unchanged.
        let [mut before, mut now] = [before, self.host.machine.snapshot()];
        for view in [&mut before, &mut now] {
            for (pf, function) in &mut view.physical_functions {
                let owned = |index| state.owner(VfId { pf: *pf, index }).is_some();
                let vfs = (0..).zip(std::mem::take(&mut function.vfs));
                function.vfs = vfs.filter(|(index, _)| !owned(*index)).map(|(_, vf)| vf).collect();
            }
        }
        let differs = checks::differences(&before, &now);
        if !differs.is_empty() {
            return Err(format!("reconciling touched what is nobody's: {}", differs.join("; ")));
        }
        let is_reached = |drift: &&Drift| {
            !drift.breaks.iter().any(|owner| self.hypervisor.is_out_of_reach(&owner.partition))
                && !matches!(&drift.what, Difference::ChannelMissing { partition } if self.hypervisor.is_out_of_reach(partition))
        };
        self.loose.untold.clear();
        let missing = self.hypervisor.missing();
        let given_back = |owner: &&Owner| {
            let is_off = |name: &Name| self.state().partitions.get(name).is_some_and(|held| !held.running);
            is_off(&owner.partition)
                && !self.hypervisor.is_out_of_reach(&owner.partition)
                && !left.iter().any(|drift| drift.breaks.contains(owner))
                && self.state().assignments().any(|(other, held)| other == **owner && held.attached)
        };
        if let Some(owner) = missing.iter().find(given_back) {
            return Err(format!("{owner} was taken out of a domain that is off, and is not given back"));
        }
        match left.iter().filter(is_reached).find(|drift| drift.left_because.is_none()) {
            Some(drift) => Err(format!("not repaired, without a reason: {drift}")),
            None => Ok(()),
        }
    }

    /// Whether a partition has ended or started, and libvirt is not there to tell it. The next look at the machines finds that.
    pub(super) fn is_untold(&mut self, partition: &Name) -> bool {
        let is_untold = partition.as_str() == DOMAIN && self.hypervisor.is_away();
        if is_untold {
            self.loose.untold.insert(partition.clone());
        }
        is_untold
    }

    /// Somebody does something with the domain, or with libvirt, and the management partition hears of it if anybody can tell.
    pub(super) async fn virsh(&mut self, deed: &Deed) -> Result<(), Wrong> {
        if !self.hypervisor.others_do(deed) {
            self.story.tell(|| "  nothing".to_owned());
            return Ok(());
        }
        if matches!(deed, Deed::LibvirtComes) {
            self.hears_how_the_domain_is().await?;
            self.loose.untold.clear();
        }
        Ok(())
    }

    /// Libvirt is back, and the management partition is told.
    pub(super) async fn hears_how_the_domain_is(&self) -> Result<(), Wrong> {
        let domain = name(DOMAIN);
        let is_told = || {
            let noted = self.state().partitions.get(&domain).map(|held| held.running);
            noted.is_none_or(|noted| {
                self.hypervisor.runs_of_others().get(&domain).is_some_and(|is| is.0 == noted)
            })
        };
        wait_until("the state says how the domain is since libvirt is back", is_told).await
    }

    pub fn disturbed(&mut self, pf: Bdf) {
        for port in self.host.ports(pf) {
            self.loose.pfs.insert(port);
            self.loose.foreign.insert(port);
        }
    }
}
