//! The state: the VFs of each partition with their settings, and the original state of each adapter.
//!
//! Steps change it through [`State::record`] only (`step/record.rs`), so a journal and a state always agree. A few
//! changes are not steps: the end of a plan, a guest's settings, an address or an identity that was learned,
//! adapters that have moved ([`State::move_adapters`]), and a machine that ended on its own.

use std::collections::BTreeMap;

use ioward_pci::Bdf;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    AdapterSpec, FailedOver, Identity, Intent, MacAddress, Name, OutOfService, Owner, PartitionSpec, Plan,
    Spec, StandbyNic, VfCount, VfId, VfSettings, handover::Move,
};

/// Everything ioward keeps between two plans. Stored as rows: [`crate::Row`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct State {
    /// Counts the plans carried out.
    pub revision: u64,
    /// Adapters that ioward has changed.
    pub adapters: BTreeMap<Bdf, AdapterState>,
    /// Client partitions.
    pub partitions: BTreeMap<Name, PartitionState>,
    /// Adapters that are out of service, whether or not anything of them is held.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub out_of_service: BTreeMap<Bdf, OutOfService>,
    /// Moves of partitions to other hosts, and from there, by the partitions' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moves: BTreeMap<Name, Move>,
    /// The Spec that was last applied, as it was written: what is held may differ since, and adapters may have other addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Box<Spec>>,
}

/// An adapter that ioward holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdapterState {
    /// The values to restore when it is released.
    pub original: AdapterOriginal,
    /// The number of VFs a Spec asked for; `None`: as many as are assigned.
    pub wanted: Option<VfCount>,
    /// Its identity, whatever its address; `None`: no mark tells it from others, or an older ioward recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// The original state of an adapter, before ioward changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdapterOriginal {
    /// NumVFs.
    pub num_vfs: u16,
    /// `sriov_drivers_autoprobe`.
    pub autoprobe: bool,
}

impl State {
    /// Why a VF is out of service by itself, and at which address that is noted.
    #[must_use]
    pub fn vf_out_of_service(&self, vf: VfId) -> Option<(Bdf, &OutOfService)> {
        let mut out = self.out_of_service.iter();
        out.find(|(_, out)| out.vf == Some(vf)).map(|(address, out)| (*address, out))
    }
}

/// A client partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartitionState {
    /// Its Spec.
    pub spec: PartitionSpec,
    /// Whether it was started and has not been stopped since.
    pub running: bool,
    /// Whether it has a channel.
    pub channel: bool,
    /// Nobody could say whether it was made, nor take it back: the next plan for this partition makes it, or destroys it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub channel_in_doubt: bool,
    /// The VFs it holds, by their names in it.
    pub vfs: BTreeMap<Name, Assignment>,
    /// What it has on bridges of the host's, by the names of the VFs whose standbys they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub standbys: BTreeMap<Name, StandbyNic>,
}

/// A VF that belongs to a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Assignment {
    /// The VF.
    pub vf: VfId,
    /// Its address, once it is known.
    pub address: Option<Bdf>,
    /// Settings made by a plan.
    pub settings: VfSettings,
    /// Settings that the guest has changed since, within its permissions. A plan leaves them alone.
    #[serde(default)]
    pub guest_settings: VfSettings,
    /// The original values of those settings.
    pub original_settings: VfSettings,
    /// Whether ioward has bound it, and its driver before that.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub original_driver: Option<Option<String>>,
    /// Whether it has been handed to the hypervisor.
    pub attached: bool,
    /// Nobody could say whether it was, nor take it back: the next plan for its partition hands it over, or takes it away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attached_in_doubt: bool,
    /// Its standby is active in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_over: Option<FailedOver>,
}

/// A value that is present, even `null`: ioward bound it, and it had no driver before. A missing one means
/// something else.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Assignment {
    /// An assignment before any of its steps.
    #[must_use]
    pub fn new(vf: VfId) -> Self {
        Self {
            vf,
            address: None,
            settings: VfSettings::default(),
            guest_settings: VfSettings::default(),
            original_settings: VfSettings::default(),
            original_driver: None,
            attached: false,
            attached_in_doubt: false,
            failed_over: None,
        }
    }

    /// The settings that the VF should have: the guest's where it changed them, the plan's elsewhere.
    #[must_use]
    pub fn effective_settings(&self) -> VfSettings {
        self.guest_settings.or(&self.settings)
    }

    /// Whether the VF is out of its machine because its standby on a bridge is active.
    #[must_use]
    pub fn is_unplugged(&self) -> bool {
        self.failed_over.as_ref().is_some_and(|over| over.unplugged)
    }

    /// Whether it is in its partition's hands, or out of its machine only as long as its standby is active.
    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.attached || self.is_unplugged()
    }

    /// The settings that the VF should have now. One that is to be out of its machine gives its MAC up: what is for its partition would
    /// never get to the bridge.
    ///
    /// It has none as long as it is in: a driver that was told of another would know it no more for the primary of its standby, and not
    /// let go (igbvf, and failover_slave_unregister() in net/core/failover.c). Then it gets one that nobody uses, so that it is seen to
    /// have let go: a driver registers its MAC once more as it goes, and igb shows nothing of that.
    #[must_use]
    pub fn settings_now(&self, is_in: bool) -> VfSettings {
        let mut noted = self.effective_settings();
        if self.is_unplugged() {
            noted.mac = noted.mac.map(|mac| if is_in { MacAddress::ZERO } else { mac.parked() });
        }
        noted
    }

    /// The settings that the VF should have and lacks, as far as its adapter reports them. The MAC of a trusted VF
    /// is left to its guest, while that has it, unless it is one that the VF was given while its standby was active. `is_in`: the machine
    /// has it.
    #[must_use]
    pub fn lost_settings(&self, present: &VfSettings, is_in: bool) -> VfSettings {
        let mut noted = self.settings_now(is_in);
        let is_of_a_switch = noted
            .mac
            .is_some_and(|own| present.mac.is_some_and(|mac| mac == own.parked() || mac == MacAddress::ZERO));
        if present.trust == Some(true) && !self.is_unplugged() && !is_of_a_switch {
            noted.mac = None;
        }
        let missing = noted.missing_from(present);
        let untold = missing.without(&missing.restored_from(present));
        missing.without(&untold)
    }

    /// The same as of now, where `wanted` was lacking at a look before: that knew whether the machine has it.
    #[must_use]
    pub fn lost_since(&self, wanted: &VfSettings, present: &VfSettings) -> VfSettings {
        let mut lost = self.lost_settings(present, wanted.mac == Some(MacAddress::ZERO));
        if self.is_unplugged() {
            lost.mac = lost.mac.filter(|_| wanted.mac.is_some());
        }
        lost
    }
}

impl State {
    /// The assignment of a VF; `None` while it has no owner.
    #[must_use]
    pub fn assignment(&self, vf: VfId) -> Option<&Assignment> {
        let mut all = self.partitions.values().flat_map(|partition| partition.vfs.values());
        all.find(|assignment| assignment.vf == vf)
    }

    /// The owner of a VF.
    #[must_use]
    pub fn owner(&self, vf: VfId) -> Option<Owner> {
        self.partitions.iter().find_map(|(partition, state)| {
            let (name, _) = state.vfs.iter().find(|(_, assignment)| assignment.vf == vf)?;
            Some(Owner { partition: partition.clone(), vf: name.clone() })
        })
    }

    /// The minimum number of VFs that a PF held by ioward must have; `total` is its maximum.
    #[must_use]
    pub fn fewest_vfs(&self, pf: Bdf, total: u16) -> u16 {
        let on_pf = self.assignments().filter(|(_, assignment)| assignment.vf.pf == pf);
        let needed = on_pf.map(|(_, assignment)| assignment.vf.index.saturating_add(1)).max().unwrap_or(0);
        match self.adapters.get(&pf).and_then(|adapter| adapter.wanted) {
            Some(VfCount::Exactly(count)) => count.max(needed),
            Some(VfCount::Max) => total.max(needed),
            // A spare VF is a wish that disturbs nobody: a lack of it is not drift.
            Some(VfCount::Spare(_)) | None => needed,
        }
    }

    /// All assigned VFs with their owners.
    pub fn assignments(&self) -> impl Iterator<Item = (Owner, &Assignment)> {
        self.partitions.iter().flat_map(|(partition, state)| {
            state
                .vfs
                .iter()
                .map(|(vf, assignment)| (Owner { partition: partition.clone(), vf: vf.clone() }, assignment))
        })
    }

    /// The Spec of what is held now: every partition with its VF requests, and the adapters with a requested number
    /// of VFs. Applying it to a host without drift does nothing.
    #[must_use]
    pub fn to_spec(&self) -> Spec {
        let adapters = self.adapters.iter().filter_map(|(pf, adapter)| {
            let (vfs, spare) = match adapter.wanted? {
                VfCount::Spare(spare) => (None, Some(spare)),
                count => (Some(count), None),
            };
            Some(AdapterSpec { pf: *pf, vfs, spare })
        });
        let partitions = self.partitions.values().map(|partition| partition.spec.clone());
        Spec { version: 1, adapters: adapters.collect(), partitions: partitions.collect() }
    }

    /// Records that a plan and all its steps are done.
    pub fn record_done(&mut self, plan: &Plan) {
        self.revision = plan.id;
        if let Intent::Apply { spec } = &plan.intent {
            self.wanted = Some(Box::new(spec.clone()));
        }
    }

    /// Records a guest's change to the settings of its VF, and their values `before`.
    pub fn record_guest_change(&mut self, vf: VfId, change: &VfSettings, before: &VfSettings) {
        if let Some(assignment) = self.assignment_mut(vf) {
            assignment.original_settings = assignment.original_settings.or(&change.restored_from(before));
            assignment.guest_settings = change.or(&assignment.guest_settings);
        }
    }

    /// Records the settings of a VF `before` a possible change: they are restored when it is released.
    pub fn record_original(&mut self, vf: VfId, before: &VfSettings) {
        if let Some(assignment) = self.assignment_mut(vf) {
            assignment.original_settings = assignment.original_settings.or(before);
        }
    }

    /// Records the address of a VF, if it is known.
    pub fn record_address(&mut self, vf: VfId, address: Option<Bdf>) {
        if let Some(assignment) = self.assignment_mut(vf) {
            assignment.address = address.or(assignment.address);
        }
    }

    pub(crate) fn assignment_mut(&mut self, vf: VfId) -> Option<&mut Assignment> {
        let mut all = self.partitions.values_mut().flat_map(|partition| partition.vfs.values_mut());
        all.find(|assignment| assignment.vf == vf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, Step};

    /// Once serialized, a VF without an original driver looked like one that was never bound: the plan that came
    /// back from the command line differed from the plan that was made.
    #[test]
    fn no_driver_before_differs_from_never_bound() {
        let vf = VfId { pf: "0000:01:00.0".parse().unwrap(), index: 0 };
        for original_driver in [None, Some(None), Some(Some("igbvf".to_owned()))] {
            let assignment = Assignment { original_driver, ..Assignment::new(vf) };
            let json = serde_json::to_string(&assignment).unwrap();
            assert_eq!(serde_json::from_str::<Assignment>(&json).unwrap(), assignment, "{json}");
        }
    }
    #[test]
    fn the_spec_of_a_state_is_the_spec_that_was_applied() {
        let text = r#"version = 1
adapter = [{ pf = "0000:01:00.0", vfs = 4 }, { pf = "0000:02:00.0", vfs = "max" }, { pf = "0000:03:00.0", spare = 2 }]

[[partition]]
name = "db"
boot = { disk = "/srv/db.qcow2" }
vf = [{ name = "net0", class = "network", min_link_speed = "10Gbit", guest_may = ["mac"] }]

[[partition]]
name = "web"
cpus = 2
boot = { kernel = "/boot/vmlinuz" }
"#;
        let spec = Spec::parse(text.as_bytes()).unwrap();
        let mut state = State::default();
        let original = AdapterOriginal { num_vfs: 0, autoprobe: true };
        for adapter in &spec.adapters {
            let to = AdapterState { original, wanted: adapter.count(), identity: None };
            state.record(&Step::HoldAdapter { pf: adapter.pf, to, from: None }, &Outcome::default());
        }
        let held_for_its_vfs_alone = AdapterState { original, wanted: None, identity: None };
        let pf = "0000:04:00.0".parse().unwrap();
        state.record(&Step::HoldAdapter { pf, to: held_for_its_vfs_alone, from: None }, &Outcome::default());
        for partition in &spec.partitions {
            let step = Step::DefinePartition { to: partition.clone(), from: None };
            state.record(&step, &Outcome::default());
        }
        assert_eq!(state.to_spec(), spec);
        assert_eq!(State::default().to_spec(), Spec { version: 1, ..Spec::default() });
        let written = toml::to_string(&state.to_spec()).unwrap();
        assert_eq!(Spec::parse(written.as_bytes()).unwrap(), spec);
    }
}
