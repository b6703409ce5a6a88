//! Values against their schemas: what is read fits, what is written fits, and what is refused for its form does not.

use std::{fmt::Debug, fs, path::Path};

use ioward_api::{
    AuditLine, ChangeView, Compatible, IntentRequest, KindView, PartitionView, PlanRequest, PrepareRequest,
    Problem, Reaped, VfDetail,
};
use ioward_model::{
    Drift, Event, GuestMay, HostUse, Inventory, NamespaceRef, Plan, PlanRecord, Spec, State, Step,
    StepRecord, VfCount, VfOp, VfRequest, VfSettings, Vlan, doctor,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{document::document, fit::wrong};

struct Checked(Value);

impl Checked {
    fn wrong<T: ToSchema>(&self, value: &Value) -> Option<String> {
        wrong(&self.0, &self.0["components"]["schemas"][&*T::name()], value)
    }

    /// The value is one of the type, and it fits the schema as it is and as the type writes it.
    fn fits<T: ToSchema + Serialize + DeserializeOwned + Debug>(&self, value: &Value) {
        let read: T =
            serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
        let written = serde_json::to_value(read).unwrap();
        for value in [value, &written] {
            let why = self.wrong::<T>(value);
            assert!(why.is_none(), "{} {value}: {why:?}", T::name());
        }
    }

    /// The type refuses the value, and so does the schema.
    fn does_not_fit<T: ToSchema + DeserializeOwned>(&self, value: &Value) {
        assert!(serde_json::from_value::<T>(value.clone()).is_err(), "{value}");
        assert!(self.wrong::<T>(value).is_some(), "{} {value}", T::name());
    }
}

fn read(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What the tests of the command show, and a recorded host.
#[test]
fn recorded_answers_fit() {
    let document = Checked(document());
    document.fits::<Inventory>(&read("crates/cli/tests/data/inventory.json"));
    document.fits::<Inventory>(&read("tests/data/lab-vfs.host.json"));
    document.fits::<Plan>(&read("crates/cli/tests/data/plan.json"));
    for partition in read("crates/cli/tests/data/partitions.json").as_array().unwrap() {
        document.fits::<PartitionView>(partition);
    }
    for compatible in read("crates/cli/tests/data/compatible.json").as_array().unwrap() {
        document.fits::<Compatible>(compatible);
    }
}

#[test]
fn values_written_in_several_forms_fit_in_each() {
    let document = Checked(document());
    for vlan in
        [json!(0), json!(4094), json!({"id": 5}), json!({"id": 100, "protocol": "802.1ad", "priority": 3})]
    {
        document.fits::<Vlan>(&vlan);
    }
    for vlan in [
        json!(4095),
        json!("100"),
        json!({"priority": 3}),
        json!({"id": 1, "priority": 8}),
        json!({"id": 1, "x": 1}),
    ] {
        document.does_not_fit::<Vlan>(&vlan);
    }
    for count in [json!(0), json!("max"), json!({"spare": 2})] {
        document.fits::<VfCount>(&count);
    }
    for count in [json!(-1), json!(65536), json!("most"), json!({})] {
        document.does_not_fit::<VfCount>(&count);
    }
    for namespace in [json!("web"), json!({"pid_file": "/run/web.pid"})] {
        document.fits::<NamespaceRef>(&namespace);
    }
    document.does_not_fit::<NamespaceRef>(&json!({"pid": 1}));
    for guest_may in
        [json!(["mac", "reset", "stats"]), json!({"vlan": "100-110", "mac": true, "trust": false}), json!({})]
    {
        document.fits::<GuestMay>(&guest_may);
    }
    for guest_may in [json!(["everything"]), json!({"everything": true}), json!({"mac": 1}), json!("mac")] {
        document.does_not_fit::<GuestMay>(&guest_may);
    }
    for kind in [
        json!({"cpus": 2, "memory": "2GiB"}),
        json!({"libvirt": "web"}),
        json!({"netns": {"pid_file": "/run/p"}}),
    ] {
        document.fits::<KindView>(&kind);
    }
}

#[test]
fn requests_fit() {
    let document = Checked(document());
    let vf = json!({"name": "net0", "class": "network", "subclass": "ethernet", "min_link_speed": "1Gbit", "needs": ["vlan-802.1ad"],
        "apart_from": [{"vf": "db/net0", "by": "numa-node"}], "pf": "0000:01:00.0", "index": 3, "mac": "52:54:00:aa:00:01",
        "vlan": 100, "min_tx_rate": "25%", "link_state": "auto", "guest_may": ["mac"]});
    document.fits::<VfRequest>(&vf);
    let mut unknown = vf.clone();
    unknown["vlna"] = json!(1);
    document.does_not_fit::<VfRequest>(&unknown);
    let boot = json!({"kernel": "/k", "cmdline": "quiet"});
    let spec = json!({"version": 1, "adapter": [{"pf": "01:00.0", "vfs": "max"}], "partition": [
        {"name": "web", "cpus": 2, "memory": "512MiB", "boot": boot, "guest": {"os": "linux"}, "vf": [vf]},
        {"name": "db", "libvirt": "db"}]});
    document.fits::<Spec>(&spec);
    let intents = [
        json!({"intent": "apply", "spec": spec}),
        json!({"intent": "remove", "partition": "web"}),
        json!({"intent": "attach", "partition": "web", "vfs": [{"name": "net1", "class": "network"}]}),
        json!({"intent": "detach", "partition": "web", "vf": "net1"}),
        json!({"intent": "evacuate", "pf": "0000:01:00.0", "leave_out": true}),
        json!({"intent": "return", "pf": "0000:01:00.0"}),
        json!({"intent": "adopt", "domain": "web", "partition": "shop"}),
    ];
    for mut intent in intents {
        document.fits::<PlanRequest>(&intent);
        intent["options"] = json!({"allow_disruption": true});
        intent["wait_seconds"] = json!(60);
        document.fits::<IntentRequest>(&intent);
        intent["options"] = json!({"allow_everything": true});
        document.does_not_fit::<IntentRequest>(&intent);
    }
    document.does_not_fit::<PlanRequest>(&json!({"intent": "destroy", "partition": "web"}));
    document.does_not_fit::<PlanRequest>(&json!({"intent": "stop"}));
    document.fits::<VfOp>(
        &json!({"op": "set", "vf": "net0", "change": {"mac": "52:54:00:aa:00:02", "vlan": 100}}),
    );
    document.does_not_fit::<VfOp>(&json!({"op": "set", "vf": "net0", "change": {"vlna": 100}}));
    let function = json!({"address": "0000:01:10.0", "vf": "net0"});
    document.fits::<PrepareRequest>(&json!({"name": "web", "functions": [function], "wait_seconds": 40}));
}

#[test]
fn answers_fit() {
    let document = Checked(document());
    let vf = json!({"pf": "0000:01:00.0", "index": 1});
    let identity =
        json!({"vendor_id": "8086", "device_id": "10c9", "function": 0, "macs": ["00:1b:21:12:34:56"]});
    let original = json!({"num_vfs": 2, "autoprobe": true});
    let adapter = json!({"original": original, "wanted": {"spare": 1}, "identity": identity});
    let held = json!({"step": "hold-adapter", "pf": "0000:01:00.0", "to": adapter, "from": null});
    let assignment = json!({"vf": vf, "address": null, "settings": {"trust": true}, "guest_settings": {}, "original_settings": {},
        "original_driver": null, "attached": false});
    let steps = [
        held.clone(),
        json!({"step": "bind-driver", "vf": vf, "to": null}),
        json!({"step": "assign", "owner": "web/net0", "to": assignment}),
        json!({"step": "stop-partition", "partition": "web", "force": false}),
    ];
    steps.iter().for_each(|step| document.fits::<Step>(step));
    let drifts = [
        json!({"drift": "vf-count", "pf": "0000:01:00.0", "noted": 4, "found": 2, "breaks": ["web/net0"]}),
        json!({"drift": "driver", "vf": vf, "noted": "vfio-pci", "found": null, "left_because": "it is in use"}),
        json!({"drift": "settings", "vf": vf, "noted": {"vlan": 100}, "found": {"vlan": {"id": 7, "priority": 1}}}),
    ];
    drifts.iter().for_each(|drift| document.fits::<Drift>(drift));
    let orphan = json!({"pf": "0000:01:00.0", "index": 1, "address": "0000:01:10.2"});
    let events = [
        json!({"event": "step-started", "plan": 3, "step": 2, "what": held}),
        json!({"event": "adapter-moved", "from": "0000:01:00.0", "to": "0000:02:00.0", "identity": identity}),
        json!({"event": "host-booted"}),
        json!({"event": "host-restored", "left": drifts}),
        json!({"event": "orphan-reaped", "orphan": orphan}),
        json!({"event": "restarted", "epoch": 1_795_747_260_000_u64}),
    ];
    for mut event in events {
        event["number"] = json!(7);
        event["time_ms"] = json!(1);
        document.fits::<Event>(&event);
        event["event"] = json!("no-event");
        document.does_not_fit::<Event>(&event);
    }
    document.fits::<Reaped>(&orphan);
    let refused = json!({"verdict": "refused", "why": "vlan is not in guest_may of this VF"});
    let entry =
        json!({"time_ms": 1, "partition": "web", "uid": 1000, "request": {"op": "list"}, "verdict": refused});
    document.fits::<AuditLine>(&entry);
    let dropped = json!({"changes": 0, "refusals": 2, "reads": 1700});
    document.fits::<AuditLine>(&json!({"partition": "web", "dropped": dropped}));
    document.fits::<ChangeView>(
        &json!({"id": "12046313-7", "revision": 5, "intent": "apply", "uid": 0, "status": "rolled-back",
        "steps": 9, "steps_done": 4, "begun_ms": 1, "ended_ms": 2, "error": "no"}),
    );
    let reason = json!({"rule": "link-speed", "function": "0000:01:00.0", "request": "web/net0", "key": "min_link_speed",
        "required": "10Gbit", "found": "1Gbit"});
    let ways = json!([{"gives": [{"relaxation": "allow-disruption"}, {"relaxation": "give-up-vf", "partition": "web",
        "pf": "0000:01:00.0"}]}]);
    let error = json!({"kind": "refused", "message": "refused", "reasons": [reason], "ways": ways});
    document.fits::<Problem>(
        &json!({"type": "urn:ioward:problem:refused", "title": "Refused", "status": 409, "detail": "refused",
        "error": error}),
    );
    let process = json!({"kind": "process", "pid": 812, "command": "qemu", "runs": {"is": "libvirt-domain", "name": "web"}});
    document.fits::<VfDetail>(&json!({"pf": "0000:01:00.0", "index": 1, "address": "0000:01:10.2", "driver": "vfio-pci",
        "iommu_group": 7, "owner": null, "holder": process, "made": {"min_tx_rate": "500Mbit", "online": true}}));
    let domain = json!({"name": "web", "libvirt": "web"});
    let partition = json!({"spec": domain, "running": true, "channel": true, "vfs": {"net0": assignment}});
    let adapters = json!({"0000:01:00.0": adapter});
    document.fits::<State>(&json!({"revision": 3, "adapters": adapters, "partitions": {"web": partition}}));
    let outcome = json!({"settings_before": {"vlan": 5}, "driver_before": "igbvf"});
    document.fits::<StepRecord>(&json!({"is": "begun", "found": outcome}));
    document.fits::<StepRecord>(&json!({"is": "done", "order": 1, "outcome": {}, "noted": assignment}));
    let plan = read("crates/cli/tests/data/plan.json");
    document.fits::<PlanRecord>(
        &json!({"number": 7, "plan": plan, "boot": "b", "begun_ms": 1, "ended": "undone"}),
    );
    document.fits::<HostUse>(&json!({"use": "default-route", "netdev": "eth0"}));
    let finding = json!({"check": "vfio-pci", "verdict": "missing", "found": "it is not loaded", "remedy": "modprobe vfio-pci"});
    document.fits::<doctor::Report>(&json!({"able": false, "findings": [finding]}));
    document.does_not_fit::<VfSettings>(&json!({"link_state": "on"}));
}
