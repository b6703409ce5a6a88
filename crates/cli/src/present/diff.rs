//! The difference that a plan makes to functions and partitions, worked out from its steps, as a person reads it.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::{
    AdapterState, IntoMap, Name, Owner, PartitionKind, PartitionSpec, Plan, StandbyNic, Step, VfCount, VfId,
    VfRequest, VfSettings,
};
use ioward_pci::Bdf;

use super::{
    spec_diff,
    text::{counted, natural},
};

/// How something is other than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Made, or given.
    New,
    /// Changed.
    Changed,
    /// Taken, or gone.
    Gone,
}

impl Sign {
    /// As it stands before a line.
    #[must_use]
    pub fn as_char(self) -> char {
        match self {
            Self::New => '+',
            Self::Changed => '~',
            Self::Gone => '-',
        }
    }

    /// Of a thing before and after; `None`: it is the same.
    #[must_use]
    pub fn between<T: PartialEq>(before: Option<&T>, after: Option<&T>) -> Option<Self> {
        (before != after).then(|| Self::of(before.is_some(), after.is_some()))
    }

    /// Of something that was there before, and is there after.
    #[must_use]
    pub fn of(before: bool, after: bool) -> Self {
        match (before, after) {
            (false, true) => Self::New,
            (true, false) => Self::Gone,
            _ => Self::Changed,
        }
    }
}

/// One thing that is not as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub sign: Sign,
    /// The thing that changes, and how.
    pub text: String,
    /// Changes within it, as those of a partition's VFs.
    pub within: Vec<Change>,
}

impl Change {
    fn new(sign: Sign, what: impl std::fmt::Display, parts: &[String]) -> Self {
        let colon = if parts.is_empty() { "" } else { ": " };
        Self { sign, text: format!("{what}{colon}{}", parts.join(", ")), within: Vec::new() }
    }
}

/// All changes that a plan makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Physical functions, each followed by its virtual functions.
    pub functions: Vec<Change>,
    /// Client partitions.
    pub partitions: Vec<Change>,
}

impl Diff {
    /// How many functions and partitions are made or given, changed, and taken or gone.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [Sign::New, Sign::Changed, Sign::Gone].map(|sign| {
            let all = self.functions.iter().chain(&self.partitions);
            all.filter(|change| change.sign == sign).count()
        })
    }
}

/// The changes of a plan, by function and by partition.
#[must_use]
pub fn of(plan: &Plan) -> Diff {
    let mut all = Changes::default();
    for step in &plan.steps {
        all.note(step);
    }
    let before: BTreeMap<VfId, &VfSettings> =
        plan.before.iter().map(|before| (before.vf, &before.settings)).into_map();
    let owners: BTreeMap<VfId, &Owner> =
        plan.placements.iter().map(|placement| (placement.vf, &placement.owner)).into_map();
    let pfs: BTreeSet<Bdf> = all.pfs.keys().copied().chain(all.vfs.keys().map(|vf| vf.pf)).collect();
    let mut functions = Vec::new();
    for pf in pfs {
        functions.extend(all.pfs.get(&pf).and_then(|change| change.present(pf)));
        let its = VfId { pf, index: 0 }..=VfId { pf, index: u16::MAX };
        functions.extend(all.vfs.range(its).filter_map(|(vf, change)| {
            change.present(*vf, owners.get(vf).copied(), before.get(vf).copied())
        }));
    }
    let partitions = all.partitions.iter().map(|(name, change)| change.present(name));
    Diff { functions, partitions: partitions.collect() }
}

/// All that the steps say, by what they say it of.
#[derive(Default)]
struct Changes<'a> {
    pfs: BTreeMap<Bdf, PfChange<'a>>,
    vfs: BTreeMap<VfId, VfChange<'a>>,
    partitions: BTreeMap<&'a Name, PartitionChange<'a>>,
}

#[derive(Default)]
struct PfChange<'a> {
    /// Numbers of VFs, before and after.
    count: Option<(u16, u16)>,
    autoprobe: Option<bool>,
    held: Option<(&'a AdapterState, Option<&'a AdapterState>)>,
    released: bool,
    /// Whether it is in service then.
    in_service: Option<bool>,
    /// It keeps the VFs that it gives.
    keeps_vfs: bool,
}

#[derive(Default)]
struct VfChange<'a> {
    taken: Option<&'a Owner>,
    given: Option<&'a Owner>,
    /// Whose it stays, where a step says it.
    of: Option<&'a Owner>,
    made_again: bool,
    /// It is the domain's before and after.
    stays: bool,
    settings: VfSettings,
    driver: Option<Option<&'a str>>,
}

#[derive(Default)]
struct PartitionChange<'a> {
    defined: Option<(&'a PartitionSpec, Option<&'a PartitionSpec>)>,
    undefined: Option<&'a PartitionSpec>,
    runs: Option<bool>,
    channel: Option<bool>,
    vfs: BTreeMap<&'a Name, Held<'a>>,
}

/// The steps that concern one VF of a partition.
#[derive(Default)]
struct Held<'a> {
    taken: Option<VfId>,
    given: Option<VfId>,
    detached: Option<VfId>,
    attached: Option<VfId>,
    /// Its standby is active from now on, or it is.
    switched: Option<bool>,
    /// Its standby on a bridge, which is new, or gone.
    standby: Option<Option<&'a StandbyNic>>,
    /// It is the domain's before and after.
    stays: bool,
}

impl<'a> Changes<'a> {
    fn note(&mut self, step: &'a Step) {
        match step {
            Step::HoldAdapter { pf, to, from } => self.pf(*pf).held = Some((to, from.as_ref())),
            Step::ReleaseAdapter { pf, .. } => self.pf(*pf).released = true,
            Step::TakeOutOfService { pf, .. } => self.pf(*pf).in_service = Some(false),
            Step::ReturnToService { pf, .. } => self.pf(*pf).in_service = Some(true),
            Step::SetAutoprobe { pf, to, .. } => self.pf(*pf).autoprobe = Some(*to),
            Step::SetVfCount { pf, to, from } => {
                let count = &mut self.pf(*pf).count;
                *count = Some((count.map_or(*from, |(before, _)| before), *to));
                if *to == 0 {
                    // Settings go with the VFs; later steps concern new ones.
                    for (_, vf) in self.vfs.iter_mut().filter(|(vf, _)| vf.pf == *pf) {
                        (vf.made_again, vf.settings, vf.driver) = (true, VfSettings::default(), None);
                    }
                }
            }
            Step::Assign { owner, to } => {
                let vf = self.vf(to.vf);
                // Earlier settings only put it back as it was found.
                *vf = VfChange { given: Some(owner), taken: vf.taken, ..VfChange::default() };
                self.held(owner).given = Some(to.vf);
            }
            Step::Unassign { owner, from } => {
                self.vf(from.vf).taken = Some(owner);
                self.held(owner).taken = Some(from.vf);
            }
            Step::ConfigureVf { vf, to } => {
                let vf = self.vf(*vf);
                vf.settings = to.or(&vf.settings);
            }
            Step::BindDriver { vf, to } => self.vf(*vf).driver = Some(to.as_deref()),
            Step::ResetVf { .. } => {}
            Step::DefinePartition { to, from } => {
                self.partition(&to.name).defined = Some((to, from.as_ref()));
            }
            Step::UndefinePartition { from } => self.partition(&from.name).undefined = Some(from),
            Step::CreateChannel { partition } => self.partition(partition).channel = Some(true),
            Step::DestroyChannel { partition } => self.partition(partition).channel = Some(false),
            Step::AttachVf { owner, vf } => {
                self.vf(*vf).of = Some(owner);
                self.held(owner).attached = Some(*vf);
            }
            Step::DetachVf { owner, vf, .. } => {
                self.vf(*vf).of = Some(owner);
                self.held(owner).detached = Some(*vf);
            }
            Step::AdoptVf { owner, vf } => {
                self.vf(*vf).stays = true;
                self.held(owner).stays = true;
            }
            Step::ReleaseVf { owner, vf } => {
                self.vf(*vf).stays = true;
                self.held(owner).stays = true;
                self.pf(vf.pf).keeps_vfs = true;
            }
            Step::AttachStandby { owner, nic } => self.held(owner).standby = Some(Some(nic)),
            Step::DetachStandby { owner, .. } => self.held(owner).standby = Some(None),
            Step::SwitchOver { owner, to, .. } => self.held(owner).switched = Some(to.is_some()),
            Step::StartPartition { partition } => self.partition(partition).runs = Some(true),
            Step::StopPartition { partition, .. } => self.partition(partition).runs = Some(false),
        }
    }

    fn pf(&mut self, pf: Bdf) -> &mut PfChange<'a> {
        self.pfs.entry(pf).or_default()
    }

    fn vf(&mut self, vf: VfId) -> &mut VfChange<'a> {
        self.vfs.entry(vf).or_default()
    }

    fn partition(&mut self, name: &'a Name) -> &mut PartitionChange<'a> {
        self.partitions.entry(name).or_default()
    }

    fn held(&mut self, owner: &'a Owner) -> &mut Held<'a> {
        self.partition(&owner.partition).vfs.entry(&owner.vf).or_default()
    }
}

impl PfChange<'_> {
    fn present(&self, pf: Bdf) -> Option<Change> {
        let mut parts = Vec::new();
        let mut sign = Sign::Changed;
        parts.extend(
            self.in_service.map(|is| if is { "in service again" } else { "out of service" }.to_owned()),
        );
        if let Some((before, after)) = self.count {
            sign = Sign::of(before > 0, after > 0);
            parts.push(match (before, after) {
                (0, after) => format!("{} made", counted(after.into(), "VF")),
                (before, 0) => format!("{} gone", counted(before.into(), "VF")),
                (before, after) if before == after => {
                    format!("{} gone and made again", counted(before.into(), "VF"))
                }
                (before, after) => format!("from {before} through 0 to {after} VFs"),
            });
        }
        if let Some((to, from)) = self.held {
            let before = from.and_then(|from| from.wanted);
            let said = self.count.is_some_and(|(_, count)| to.wanted == Some(VfCount::Exactly(count)));
            if to.wanted != before && !said {
                parts.push(to.wanted.map_or("as many VFs as are assigned".to_owned(), wanted));
            }
        }
        parts.extend(self.autoprobe.map(|on| format!("driver autoprobe {}", if on { "on" } else { "off" })));
        if self.released {
            parts.push(
                if self.keeps_vfs { "forgotten, with its VFs as they are" } else { "left as it was found" }
                    .to_owned(),
            );
        }
        (!parts.is_empty()).then(|| Change::new(sign, pf, &parts))
    }
}

/// A number of VFs that was asked for.
fn wanted(count: VfCount) -> String {
    match count {
        VfCount::Exactly(count) => format!("asked for {count}"),
        VfCount::Max => "asked for as many as it can give".to_owned(),
        VfCount::Spare(spare) => format!("asked for {spare} more than are assigned"),
    }
}

impl VfChange<'_> {
    fn present(&self, vf: VfId, owner: Option<&Owner>, before: Option<&VfSettings>) -> Option<Change> {
        let sign = Sign::of(self.taken.is_some(), self.given.is_some());
        let mut parts = Vec::new();
        match (self.taken, self.given) {
            (None, None) => parts.extend(self.of.or(owner).map(ToString::to_string)),
            (taken, given) => {
                let from = taken.map(|owner| format!("from {owner}"));
                let to = given.map(|owner| format!("to {owner}"));
                parts.push(from.into_iter().chain(to).collect::<Vec<_>>().join(" "));
            }
        }
        if self.stays {
            parts.push("stays as it is".to_owned());
        } else if self.given.is_none() && self.taken.is_some() {
            parts.push("left as it was found".to_owned());
            return Some(Change::new(sign, vf, &parts));
        }
        if self.made_again {
            parts.push("made again".to_owned());
        }
        parts.extend(self.settings(before));
        // That a VF that is given is bound for it goes without saying.
        if self.given.is_none() && !self.made_again {
            parts.extend(self.driver.map(|driver| match driver {
                Some(driver) => format!("bound to {driver}"),
                None => "bound to no driver".to_owned(),
            }));
        }
        (!parts.is_empty()).then(|| Change::new(sign, vf, &parts))
    }
}

impl VfChange<'_> {
    /// Old and new where the old one is known.
    fn settings(&self, before: Option<&VfSettings>) -> Vec<String> {
        let before: BTreeMap<_, _> =
            before.map(VfSettings::describe).unwrap_or_default().into_iter().into_map();
        let settings = self.settings.describe().into_iter().filter_map(|(name, value)| {
            match before.get(name).filter(|_| self.given.is_none()) {
                // It goes with its VF and comes back with it.
                Some(before) if *before == value && self.made_again => None,
                Some(before) if *before == value => Some(format!("{name}={value} set again")),
                Some(before) => Some(spec_diff::arrow(name, before, value)),
                None => Some(format!("{name}={value}")),
            }
        });
        settings.collect()
    }
}

impl<'a> PartitionChange<'a> {
    fn present(&self, name: &Name) -> Change {
        let made = matches!(self.defined, Some((_, None)));
        let sign = Sign::of(!made, self.undefined.is_none());
        let mut parts = Vec::new();
        match self.defined {
            Some((to, None)) => {
                parts.push(to.kind.to_string());
                parts.extend(to.numa_node.map(|node| format!("on NUMA node {node}")));
            }
            Some((to, Some(from))) => parts.extend(spec_diff::partition(from, to)),
            None => {}
        }
        parts.extend(
            self.channel.map(|made| if made { "gets a channel" } else { "loses its channel" }.to_owned()),
        );
        parts.extend(self.runs.map(|runs| if runs { "starts" } else { "is stopped" }.to_owned()));
        parts.extend(self.undefined.map(forgotten));
        let mut change = Change::new(sign, name, &parts);
        let reworded = self.defined.map(|(to, from)| reworded(from, to)).unwrap_or_default();
        let names: BTreeSet<&Name> = self.vfs.keys().copied().chain(reworded).collect();
        let mut names: Vec<&Name> = names.into_iter().collect();
        names.sort_by_key(|name| natural(name.as_str()));
        let untouched = Held::default();
        let request = |spec: Option<&'a PartitionSpec>, name: &Name| spec.and_then(|spec| spec.vf(name));
        let vfs = names.into_iter().map(|name| {
            let held = self.vfs.get(name).unwrap_or(&untouched);
            let (to, from) = self.defined.map_or((None, None), |(to, from)| (Some(to), from));
            held.present(name, request(from, name), request(to, name))
        });
        change.within = vfs.collect();
        change
    }
}

/// What becomes of a partition that is removed: what others run goes on.
pub fn forgotten(partition: &PartitionSpec) -> String {
    match &partition.kind {
        PartitionKind::Machine(_) => "is forgotten".to_owned(),
        other => format!("is forgotten, and {other} stays as it is"),
    }
}

/// The VF requests that ask for something else than before.
fn reworded<'a>(from: Option<&'a PartitionSpec>, to: &'a PartitionSpec) -> Vec<&'a Name> {
    let before = |name: &Name| from.and_then(|from| from.vf(name));
    let changed = to.vfs.iter().filter(|vf| before(&vf.name).is_some_and(|before| before != *vf));
    changed.map(|vf| &vf.name).collect()
}

impl Held<'_> {
    /// The change of a VF, and of its request where that changes.
    fn present(&self, name: &Name, before: Option<&VfRequest>, after: Option<&VfRequest>) -> Change {
        let (sign, text) = match (self.taken, self.given) {
            (None, Some(vf)) => (Sign::New, Some(format!("{vf}{}", may(after)))),
            (Some(vf), None) => (Sign::Gone, Some(vf.to_string())),
            (Some(before), Some(vf)) => (Sign::Changed, Some(format!("{before} → {vf}"))),
            (None, None) => match (self.detached, self.attached) {
                (Some(_), Some(vf)) => (Sign::Changed, Some(format!("{vf}, taken out and put back"))),
                (None, Some(vf)) => (Sign::Changed, Some(format!("{vf}, put back"))),
                (Some(vf), None) => (Sign::Changed, Some(format!("{vf}, taken out"))),
                (None, None) => {
                    let switched =
                        |over| if over { "its standby is active" } else { "is active again" }.to_owned();
                    (Sign::Changed, self.switched.map(switched))
                }
            },
        };
        let stays = if self.stays { ", stays as it is" } else { "" };
        let mut parts = Vec::from_iter(text.map(|text| text + stays));
        parts.extend(self.standby.map(|standby| match standby {
            Some(nic) => format!("with a standby on bridge {}", nic.bridge),
            None => "without its standby".to_owned(),
        }));
        let mut change = Change::new(sign, name, &parts);
        if let (Some(before), Some(after)) = (before, after) {
            change.within = spec_diff::request(before, after);
        }
        change
    }
}

/// The permissions of the guest on a VF that is new to it.
fn may(request: Option<&VfRequest>) -> String {
    match request.map(|request| request.guest_may.words()).unwrap_or_default() {
        words if words.is_empty() => String::new(),
        words => format!("; the guest may change {}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The lines of a diff, indented by what they are within.
    fn lines(steps: Value) -> Vec<String> {
        fn add(changes: &[Change], indent: &str, lines: &mut Vec<String>) {
            for change in changes {
                lines.push(format!("{indent}{} {}", change.sign.as_char(), change.text));
                add(&change.within, &format!("{indent}    "), lines);
            }
        }
        let plan = json!({"id": 3, "parent": 2, "generation": 5, "intent": {"intent": "start", "partition": "web"},
            "options": {}, "steps": steps, "disturbs": []});
        let diff = of(&serde_json::from_value(plan).unwrap());
        let mut lines = Vec::new();
        add(&diff.functions, "", &mut lines);
        add(&diff.partitions, "", &mut lines);
        lines
    }

    fn vf(index: u16) -> Value {
        json!({"pf": "0000:01:00.0", "index": index})
    }

    fn assignment(index: u16) -> Value {
        json!({"vf": vf(index), "address": null, "settings": {}, "original_settings": {}, "attached": false})
    }

    fn count(from: u16, to: u16) -> Value {
        json!({"step": "set-vf-count", "pf": "0000:01:00.0", "from": from, "to": to})
    }

    fn partition(cpus: u16, vfs: Value) -> Value {
        json!({"name": "web", "cpus": cpus, "memory": "512MiB", "boot": {"disk": "/web"}, "vf": vfs})
    }

    #[test]
    fn what_is_made_and_given_is_new() {
        let original = json!({"num_vfs": 0, "autoprobe": true});
        let shown = lines(json!([
            {"step": "hold-adapter", "pf": "0000:01:00.0", "to": {"original": original, "wanted": 4}, "from": null},
            {"step": "set-autoprobe", "pf": "0000:01:00.0", "from": true, "to": false},
            count(0, 4),
            {"step": "define-partition", "to": partition(2, json!([])), "from": null},
            {"step": "assign", "owner": "web/net0", "to": assignment(0)},
            {"step": "configure-vf", "vf": vf(0), "to": {"mac": "52:54:00:aa:00:01", "vlan": 100}},
            {"step": "bind-driver", "vf": vf(0), "to": "vfio-pci"},
            {"step": "create-channel", "partition": "web"},
            {"step": "attach-vf", "owner": "web/net0", "vf": vf(0)},
            {"step": "start-partition", "partition": "web"},
        ]));
        let expected = [
            "+ 0000:01:00.0: 4 VFs made, driver autoprobe off",
            "+ VF 0 of 0000:01:00.0: to web/net0, mac=52:54:00:aa:00:01, vlan=100",
            "+ web: 2 CPUs, 512MiB, gets a channel, starts",
            "    + net0: VF 0 of 0000:01:00.0",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_others_run_is_named_and_goes_on() {
        let domain = json!({"name": "web", "libvirt": "shop", "vf": []});
        let renamed = json!({"name": "web", "libvirt": "old", "vf": []});
        let made = lines(json!([{"step": "define-partition", "to": domain, "from": null}]));
        assert_eq!(made, ["+ web: domain shop"]);
        let changed = lines(json!([{"step": "define-partition", "to": domain, "from": renamed}]));
        assert_eq!(changed, ["~ web: domain old → shop"]);
        let gone = lines(json!([{"step": "undefine-partition", "from": domain}]));
        assert_eq!(gone, ["- web: is forgotten, and domain shop stays as it is"]);
    }

    #[test]
    fn what_is_taken_is_gone_and_left_as_it_was_found() {
        let original = json!({"num_vfs": 0, "autoprobe": true});
        let shown = lines(json!([
            {"step": "stop-partition", "partition": "web", "force": false},
            {"step": "detach-vf", "owner": "web/net0", "vf": vf(0), "force": false},
            {"step": "destroy-channel", "partition": "web"},
            {"step": "reset-vf", "vf": vf(0)},
            {"step": "configure-vf", "vf": vf(0), "to": {"mac": "00:00:00:00:00:00"}},
            {"step": "bind-driver", "vf": vf(0), "to": null},
            {"step": "unassign", "owner": "web/net0", "from": assignment(0)},
            {"step": "undefine-partition", "from": partition(2, json!([]))},
            count(4, 0),
            {"step": "release-adapter", "pf": "0000:01:00.0", "from": {"original": original, "wanted": 4}},
        ]));
        let expected = [
            "- 0000:01:00.0: 4 VFs gone, left as it was found",
            "- VF 0 of 0000:01:00.0: from web/net0, left as it was found",
            "- web: loses its channel, is stopped, is forgotten",
            "    - net0: VF 0 of 0000:01:00.0",
        ];
        assert_eq!(shown, expected);
    }

    /// A VF that goes with its adapter's VFs and comes back is neither new nor gone, whatever was set on it on the way.
    #[test]
    fn what_goes_and_comes_back_has_changed() {
        let original = json!({"num_vfs": 0, "autoprobe": true});
        let shown = lines(json!([
            {"step": "detach-vf", "owner": "db/net0", "vf": vf(0), "force": false},
            {"step": "configure-vf", "vf": vf(0), "to": {"mac": "00:00:00:00:00:00"}},
            {"step": "bind-driver", "vf": vf(0), "to": null},
            {"step": "hold-adapter", "pf": "0000:01:00.0", "to": {"original": original, "wanted": "max"},
                "from": {"original": original, "wanted": null}},
            count(2, 0),
            count(0, 7),
            {"step": "configure-vf", "vf": vf(0), "to": {"mac": "52:54:00:aa:00:02"}},
            {"step": "bind-driver", "vf": vf(0), "to": "vfio-pci"},
            {"step": "attach-vf", "owner": "db/net0", "vf": vf(0)},
        ]));
        let expected = [
            "~ 0000:01:00.0: from 2 through 0 to 7 VFs, asked for as many as it can give",
            "~ VF 0 of 0000:01:00.0: db/net0, made again, mac=52:54:00:aa:00:02",
            "~ db",
            "    ~ net0: VF 0 of 0000:01:00.0, taken out and put back",
        ];
        assert_eq!(shown, expected);
        let renewed = lines(json!([count(2, 0), count(0, 2)]));
        assert_eq!(renewed, ["~ 0000:01:00.0: 2 VFs gone and made again"]);
    }

    #[test]
    fn a_vf_that_changes_hands_is_one_line_and_what_was_cleared_is_not_set() {
        let net0 = |vlan: u16| json!([{"name": "net0", "class": "network", "vlan": vlan}]);
        let shown = lines(json!([
            {"step": "detach-vf", "owner": "db/net0", "vf": vf(1), "force": false},
            {"step": "configure-vf", "vf": vf(1), "to": {"vlan": 0, "trust": false}},
            {"step": "bind-driver", "vf": vf(1), "to": null},
            {"step": "unassign", "owner": "db/net0", "from": assignment(1)},
            {"step": "define-partition", "to": partition(4, net0(200)), "from": partition(2, net0(100))},
            {"step": "assign", "owner": "web/net1", "to": assignment(1)},
            {"step": "configure-vf", "vf": vf(1), "to": {"mac": "52:54:00:aa:00:02"}},
            {"step": "configure-vf", "vf": vf(0), "to": {"vlan": 200}},
            {"step": "bind-driver", "vf": vf(1), "to": "vfio-pci"},
            {"step": "attach-vf", "owner": "web/net1", "vf": vf(1)},
        ]));
        let expected = [
            "~ VF 0 of 0000:01:00.0: vlan=200",
            "~ VF 1 of 0000:01:00.0: from db/net0 to web/net1, mac=52:54:00:aa:00:02",
            "~ db",
            "    - net0: VF 1 of 0000:01:00.0",
            "~ web: CPUs 2 → 4",
            "    ~ net0",
            "        ~ vlan 100 → 200",
            "    + net1: VF 1 of 0000:01:00.0",
        ];
        assert_eq!(shown, expected);
    }

    /// A plan showed the new values only: nobody saw that a guest may suddenly set any VLAN.
    #[test]
    fn old_and_new_are_both_shown() {
        let spec = |kernel: &str, vlan: u16, may: Value| {
            json!({"name": "web", "cpus": 2, "memory": "512MiB", "boot": {"kernel": kernel},
                "vf": [{"name": "net0", "class": "network", "vlan": vlan, "guest_may": may}]})
        };
        let before = spec("/boot/a", 100, json!({"mac": true, "vlan": "100-110", "trust": true}));
        let after = spec("/boot/b", 200, json!({"vlan": true, "trust": true, "max_tx_rate": "<=1Gbit"}));
        let mut after_all = after.clone();
        (after_all["autostart"], after_all["boot"]["cmdline"]) = (json!(true), json!("quiet"));
        let plan = json!({"id": 3, "parent": 2, "generation": 5, "intent": {"intent": "start", "partition": "web"},
        "options": {}, "disturbs": [],
        "before": [{"vf": vf(0), "settings": {"vlan": 100, "max_tx_rate": "0Mbit"}}],
        "steps": [
            {"step": "define-partition", "to": after_all, "from": before},
            {"step": "configure-vf", "vf": vf(0), "to": {"vlan": 200, "max_tx_rate": "1Gbit"}},
        ]});
        let diff = of(&serde_json::from_value(plan).unwrap());
        assert_eq!(diff.functions[0].text, "VF 0 of 0000:01:00.0: vlan 100 → 200, max_tx_rate 0Mbit → 1Gbit");
        let web = &diff.partitions[0];
        let expected = "web: autostart off → on, command line none → quiet, kernel /boot/a → /boot/b";
        assert_eq!(web.text, expected);
        let net0: Vec<_> =
            web.within[0].within.iter().map(|change| (change.sign, change.text.as_str())).collect();
        let expected = [
            (Sign::Changed, "vlan 100 → 200"),
            (Sign::Gone, "guest may change mac"),
            (Sign::New, "guest may change max_tx_rate <=1Gbit"),
            (Sign::Changed, "guest may change vlan 100-110 → any"),
        ];
        assert_eq!(net0, expected);
        assert_eq!(diff.counts(), [0, 2, 0]);
    }

    /// A guest's own settings are lost when its VF is made again: that is a change too.
    #[test]
    fn a_vf_that_is_made_again_shows_what_differs_afterwards() {
        let plan = json!({"id": 3, "parent": 2, "generation": 5, "intent": {"intent": "start", "partition": "web"},
            "options": {}, "disturbs": [],
            "before": [{"vf": vf(0), "settings": {"mac": "52:54:00:aa:00:02", "vlan": 105}}],
            "steps": [{"step": "bind-driver", "vf": vf(0), "to": null}, count(2, 0), count(0, 4),
                {"step": "configure-vf", "vf": vf(0), "to": {"mac": "52:54:00:aa:00:02", "vlan": 100}},
                {"step": "attach-vf", "owner": "db/net0", "vf": vf(0)}]});
        let diff = of(&serde_json::from_value(plan).unwrap());
        assert_eq!(diff.functions[1].text, "VF 0 of 0000:01:00.0: db/net0, made again, vlan 105 → 100");
    }
}
