//! [`Ledger`]: whatever guests ask for while others change the host, written down independently of the management partition. A MAC
//! that one guest alone asks for, and only once, says of every setting of a VF whose it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ioward_fabric::sim::{MachineView, SimMachine, VfView};
use ioward_model::{
    AuditEntry, MacAddress, Name, Owner, Plan, State, Step, Verdict, VfId, VfOp, VfSettings, Vlan,
};
use ioward_pci::Bdf;

use crate::{
    host::Host,
    hypervisor::Guests,
    world::{Ended, Wrong},
};

/// How MACs begin that one request alone is for. A `guest_may` of MACs allows them.
const MARK: [u8; 4] = [0x52, 0x54, 0, 0x80];

/// A ledger. Clones are handles on the same one.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Inner>>);

#[derive(Clone, Debug, Default)]
struct Inner {
    /// Whose request each mark is; `None` for one that was never sent whole.
    marks: BTreeMap<MacAddress, Option<Owner>>,
    /// Marks that have been set on a VF.
    set: BTreeSet<MacAddress>,
    /// What guests have been told that it is done.
    told: Vec<(Name, VfOp)>,
    /// What was granted to the present holders of VFs, and not changed by a plan since.
    granted: BTreeMap<Owner, (VfId, VfSettings)>,
    /// Entries of the audit log that `granted` has.
    audited: usize,
    /// Both as they were before the last plan.
    before: (BTreeMap<Owner, (VfId, VfSettings)>, usize),
    wrong: Vec<Wrong>,
}

impl Ledger {
    /// This ledger for a world in the middle of the last plan, when guests had been told of so many changes.
    pub fn copy(&self, told: usize) -> Self {
        let mut copy = self.lock().clone();
        copy.told.truncate(told);
        (copy.granted, copy.audited) = copy.before.clone();
        Self(Arc::new(Mutex::new(copy)))
    }

    /// A MAC that nobody has asked for, and `owner` is about to.
    pub fn mark(&self, owner: Owner) -> MacAddress {
        let mut inner = self.lock();
        let [high, low] = u16::try_from(inner.marks.len()).unwrap().to_be_bytes();
        let [a, b, c, d] = MARK;
        let mac = MacAddress::new([a, b, c, d, high, low]);
        inner.marks.insert(mac, Some(owner));
        mac
    }

    /// A request was not sent whole: nothing of it is to be done.
    pub fn is_not_sent(&self, op: &VfOp) {
        if let VfOp::Set { change: VfSettings { mac: Some(mac), .. }, .. } = op
            && let Some(owner) = self.lock().marks.get_mut(mac)
        {
            *owner = None;
        }
    }

    /// A guest was told that a change is made.
    pub fn is_told(&self, partition: &Name, op: &VfOp) {
        self.lock().told.push((partition.clone(), op.clone()));
    }

    /// How many changes guests have been told of.
    pub fn told(&self) -> usize {
        self.lock().told.len()
    }

    /// Looks at a change of a VF that is about to be made: what a guest asked for is for a VF in its own hands.
    pub fn is_about_to_be_set(&self, machine: &SimMachine, guests: &Guests, vf: VfId, change: &VfSettings) {
        let mut inner = self.lock();
        let Some((mac, owner)) = change.mac.and_then(|mac| Some((mac, inner.marks.get(&mac)?.clone())))
        else {
            return;
        };
        let Some(owner) = owner else {
            inner.wrong.push(format!("{vf} is given {mac}, and half a request was sent for it"));
            return;
        };
        let view = machine.snapshot();
        let function = vf_of(&view, vf).map(|vf| vf.address);
        let holder = hands(guests).into_iter().find(|(_, held)| Some(*held) == function);
        let holder = holder.map(|(holder, _)| holder);
        // The first time it is the request itself. Later a plan, or what puts it back, may set it before the VF is handed over.
        let is_own = if inner.set.insert(mac) {
            holder.as_ref() == Some(&owner)
        } else {
            holder.as_ref().is_none_or(|holder| *holder == owner)
        };
        if !is_own {
            inner.wrong.push(format!("{vf} is given {mac}, which {owner} asked for, and {holder:?} has it"));
        }
    }

    /// Looks at the machine after a change: no two VFs in anybody's hands have the same MAC.
    pub fn is_set(&self, machine: &SimMachine, guests: &Guests) {
        let view = machine.snapshot();
        let vfs = Host::vf_views(&view);
        let mut stations = BTreeMap::new();
        for (holder, function) in hands(guests) {
            let Some(settings) = vfs.get(&function).map(|vf| &vf.settings) else { continue };
            let Some(mac) = settings.mac.filter(|mac| mac.is_unicast()) else { continue };
            let vlan = settings.vlan.map(Vlan::id).filter(|vlan| *vlan != 0);
            let others: &mut Vec<(Owner, Option<u16>)> = stations.entry(mac).or_default();
            if let Some((other, _)) =
                others.iter().find(|(_, its)| its.is_none() || vlan.is_none() || *its == vlan)
            {
                self.lock().wrong.push(format!("{holder} and {other} have the MAC {mac}"));
            }
            others.push((holder, vlan));
        }
    }

    /// Holds the audit log against guests, state and host, while nothing changes: what guests were told is in it, what is noted of
    /// them comes from it, and the host shows what it says was done, unless `plan` has changed that since.
    pub fn holds(
        &self,
        audit: &[AuditEntry],
        (state, view): (&State, &MachineView),
        plan: Option<(&Plan, Ended)>,
    ) -> Vec<Wrong> {
        let mut inner = self.lock();
        inner.before = (inner.granted.clone(), inner.audited);
        let mut wrong = std::mem::take(&mut inner.wrong);
        let granted: Vec<_> = audit.iter().filter(|entry| entry.verdict == Verdict::Granted).collect();
        let is_granted = |partition: &Name, is: &dyn Fn(&VfOp) -> bool| {
            granted.iter().any(|entry| entry.partition == *partition && is(&entry.request))
        };
        for (partition, op) in &inner.told {
            if !is_granted(partition, &|request| request == op) {
                wrong.push(format!(
                    "{partition} was told that this is done, and the audit log is not: {op:?}"
                ));
            }
        }
        for (owner, held) in state.assignments() {
            for (setting, value) in held.guest_settings.values() {
                let says = |op: &VfOp| matches!(op, VfOp::Set { vf, change } if *vf == owner.vf && change.get(setting) == Some(value));
                if !is_granted(&owner.partition, &says) {
                    let what = format!("{}={value}", setting.as_str());
                    wrong.push(format!(
                        "{owner} is noted to have set {what}, and the audit log does not say it"
                    ));
                }
            }
        }
        for entry in &audit[inner.audited.min(audit.len())..] {
            let VfOp::Set { vf, change } = &entry.request else { continue };
            if entry.verdict == Verdict::Granted {
                let owner = Owner { partition: entry.partition.clone(), vf: vf.clone() };
                let held = state.assignments().find(|(other, _)| *other == owner);
                if let Some((_, held)) = held {
                    let (of, so_far) = inner.granted.entry(owner).or_insert((held.vf, VfSettings::default()));
                    (*of, *so_far) = (held.vf, change.or(so_far));
                }
            }
        }
        inner.audited = audit.len();
        inner.granted.retain(|_, (vf, _)| !plan.is_some_and(|(plan, ended)| has_changed(plan, ended, *vf)));
        for (owner, (vf, change)) in &inner.granted {
            if state.owner(*vf).as_ref() != Some(owner) {
                wrong.push(format!("{vf} was {owner}'s, and no plan has taken it"));
            }
            let missing = vf_of(view, *vf).map(|vf| change.missing_from(&vf.settings));
            if !missing.as_ref().is_some_and(VfSettings::is_empty) {
                wrong.push(format!("{owner} was granted {change:?}, and {vf} does not show {missing:?}"));
            }
        }
        wrong
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The VFs in the hands of machines, by function.
fn hands(guests: &Guests) -> Vec<(Owner, Bdf)> {
    let guests = guests.lock();
    let vfs =
        guests.iter().flat_map(|(partition, guest)| guest.vfs.iter().map(move |vf| (partition, guest, vf)));
    vfs.filter(|(_, guest, (_, held))| held.open || !guest.running)
        .map(|(partition, _, (vf, held))| {
            (Owner { partition: partition.clone(), vf: vf.clone() }, held.function)
        })
        .collect()
}

fn vf_of(view: &MachineView, vf: VfId) -> Option<&VfView> {
    view.physical_functions.get(&vf.pf)?.vfs.get(usize::from(vf.index))
}

/// Whether a plan may have left a VF otherwise than it was.
fn has_changed(plan: &Plan, ended: Ended, vf: VfId) -> bool {
    let is_about = |step: &Step| {
        step.subject().vf == Some(vf) || matches!(step, Step::SetVfCount { pf, .. } if *pf == vf.pf)
    };
    matches!(ended, Ended::Done | Ended::NotUndone) && plan.steps.iter().any(is_about)
}
