//! Compatibility, plans in files, and the doctor.

use std::{fs, fs::File, process::Stdio};

use serde_json::{Value, json};

use crate::support::{BEGIN, Daemon, Folder, GOOD_SPEC, Run, data, error, ioward, run, send};

const DONE: &str = r#"{"number":1,"time_ms":0,"event":"plan-started","plan":3,"steps":5}
{"number":4,"time_ms":0,"event":"plan-done","plan":3}
"#;

fn candidate(index: u16, reasons: Value) -> Value {
    json!({"vf": {"pf": "0000:01:00.0", "index": index}, "reasons": reasons})
}

/// `ioward compatible web`, where the daemon answers so.
fn compatible(answer: Value, more: &[&str]) -> (Run, Daemon) {
    let (daemon, folder) = (Daemon::with("200 OK", answer), Folder::new());
    let spec = folder.file("web.toml", GOOD_SPEC);
    let arguments = [&["compatible", "web", "-f", spec.to_str().unwrap()], more].concat();
    (daemon.run(&arguments), daemon)
}

#[test]
fn what_suits_is_shown_and_no_more_is_asked_than_that() {
    let answer =
        json!([{"request": "web/net0", "candidates": [candidate(0, json!([])), candidate(1, json!([]))]}]);
    let (shown, daemon) = compatible(answer.clone(), &[]);
    let expected = "\
web/net0
SUITS  PF            VFS  NOTE
yes    0000:01:00.0  0-1  have to be made
";
    assert_eq!((shown.status, shown.stdout.as_str(), shown.stderr.as_str()), (0, expected, ""));
    let [request] = &daemon.requests()[..] else { panic!("{:?}", daemon.requests()) };
    assert_eq!(request.route, "POST /v1/compatible");
    assert_eq!((&request.body["partition"], &request.body["spec"]["version"]), (&json!("web"), &json!(1)));

    let (shown, _) = compatible(answer.clone(), &["--json"]);
    assert_eq!(serde_json::from_str::<Value>(&shown.stdout).unwrap(), answer);
    let (nothing_asked, _) = compatible(json!([]), &[]);
    assert_eq!((nothing_asked.status, nothing_asked.stdout.as_str()), (0, "web asks for no VF\n"));
}

#[test]
fn a_request_that_nothing_suits_is_a_refusal_with_every_reason() {
    let (shown, _) = compatible(data("compatible.json"), &[]);
    assert_eq!(shown.status, 3);
    assert!(
        shown.stdout.contains("\n  link-speed: required a link of 10Gbit or faster; found one of 1Gbit\n"),
        "{}",
        shown.stdout
    );
    assert!(shown.stdout.lines().all(|line| line.chars().count() <= 80), "{}", shown.stdout);
    let expected = "ioward: nothing suits web/disk0: what is shown says which rules stand in the way\n";
    assert_eq!(shown.stderr, expected);
    assert_eq!(compatible(data("compatible.json"), &["--json"]).0.status, 3);
}

#[test]
fn a_partition_that_is_not_in_the_spec_is_not_found() {
    let body = error("not-found", "the Spec has no partition 'web'; it has db", json!([]));
    let daemon = Daemon::with("404 Not Found", body);
    let folder = Folder::new();
    let spec = folder.file("web.toml", GOOD_SPEC);
    let refused = daemon.run(&["compatible", "wbe", "-f", spec.to_str().unwrap()]);
    assert_eq!(
        (refused.status, refused.stderr.as_str()),
        (1, "ioward: the Spec has no partition 'web'; it has db\n")
    );
}

#[test]
fn a_plan_in_a_file_is_the_plan_that_is_carried_out() {
    let mut disturbing_nobody = data("plan.json");
    disturbing_nobody["disturbs"] = json!([]);
    let (daemon, folder) = (Daemon::planning(disturbing_nobody.clone(), DONE), Folder::new());
    let spec = folder.file("web.toml", GOOD_SPEC);
    let file = folder.path().join("web.plan");
    let file = file.to_str().unwrap();
    let planned = daemon.run(&["plan", "-f", spec.to_str().unwrap(), "-o", file]);
    assert_eq!(planned.status, 0, "{}", planned.stderr);
    assert!(planned.stdout.starts_with("plan: 5 steps\n"), "it is shown too: {}", planned.stdout);

    for arguments in [&["apply", file][..], &["apply", "--plan", file]] {
        let before = daemon.requests().len();
        let applied = daemon.run(arguments);
        assert_eq!(applied.status, 0, "{}", applied.stderr);
        assert!(applied.stdout.starts_with("plan: 5 steps\n"), "{}", applied.stdout);
        let requests = daemon.requests();
        assert_eq!(requests.len(), before + 2, "it is not planned again on this side: {requests:?}");
        let plan = |value: &Value| serde_json::from_value::<ioward_model::Plan>(value.clone()).unwrap();
        assert_eq!(requests[before].route, BEGIN);
        assert_eq!(plan(&requests[before].body["plan"]), plan(&disturbing_nobody));
    }
}

#[test]
fn a_stale_plan_is_refused_as_the_daemon_says() {
    let reason =
        json!({"rule": "plan-current", "required": "a plan for what is there now", "found": "revision 3"});
    let body = error("refused", "refused: a rule is not met", json!([reason]));
    let daemon = Daemon::new(move |_, stream| send(stream, "409 Conflict", &body.to_string()));
    let folder = Folder::new();
    let file = folder.file("web.plan", data("plan.json").to_string());
    let refused = daemon.run(&["apply", "--yes", "--plan", file.to_str().unwrap()]);
    let expected = "ioward: refused: a rule is not met\n  plan-current: required a plan for what is there now; found revision 3\n";
    assert_eq!((refused.status, refused.stderr.as_str()), (3, expected));
}

#[test]
fn what_is_no_plan_never_gets_to_the_daemon() {
    let (daemon, folder) = (Daemon::with("200 OK", json!({})), Folder::new());
    let whole = data("plan.json").to_string();
    let wrong = [
        ("a Spec", GOOD_SPEC.to_owned(), "expected value at line 1 column 1"),
        ("nothing", String::new(), "EOF while parsing a value at line 1 column 0"),
        ("half of one", whole[..whole.len() / 2].to_owned(), "EOF while parsing"),
        ("something else", "{\"id\": 3}".to_owned(), "missing field `parent`"),
        ("no such step", whole.replace("start-partition", "burn"), "unknown variant `burn`"),
    ];
    for (what, content, why) in wrong {
        folder.file("web.plan", content);
        let mut command = ioward(&daemon.socket(), &["apply", "--plan", "web.plan"]);
        let run = run(command.current_dir(folder.path()));
        assert_eq!(run.status, 2, "{what}: {}", run.stderr);
        let begins = run.stderr.starts_with("ioward: web.plan: this is no plan: ");
        assert!(begins && run.stderr.contains(why), "{what}: {}", run.stderr);
        assert!(
            run.stderr.ends_with("; 'ioward plan -f SPEC -o FILE' writes one, and a Spec goes with -f\n"),
            "{what}: {}",
            run.stderr
        );
    }
    let missing = daemon.run(&["apply", "--plan", "/nonexistent"]);
    assert!(missing.status == 2 && missing.stderr.contains("No such file"), "{}", missing.stderr);
    let mut endless = ioward(&daemon.socket(), &["apply", "--plan", "-"]);
    let endless = run(endless.stdin(Stdio::from(File::open("/dev/zero").unwrap())));
    assert!(
        endless.status == 2 && endless.stderr.contains("a plan has at most 16777216 bytes; this has more"),
        "{}",
        endless.stderr
    );
    for arguments in [
        &["apply"][..],
        &["apply", "--plan", "a", "-f", "b"],
        &["apply", "a", "-f", "b"],
        &["apply", "a", "--plan", "b"],
        &["apply", "a", "--allow-management-nic"],
        &["apply", "--plan", "a", "--allow-disruption"],
    ] {
        assert_eq!(daemon.run(arguments).status, 2, "{arguments:?}");
    }
    assert_eq!(daemon.requests(), []);
}

#[test]
fn the_doctor_says_what_a_host_lacks_and_needs_no_daemon() {
    let folder = Folder::new();
    let tree = |path: &str, content: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    fs::create_dir_all(folder.path().join("sys/bus/pci/devices")).unwrap();
    tree("proc/cmdline", "quiet amd_iommu=off\n");
    tree("proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t\t: fpu svm\n");
    tree("proc/sys/kernel/osrelease", "6.12.1\n");
    tree("dev/null", "");
    tree(
        "lib/modules/6.12.1/modules.dep",
        "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n",
    );
    let root = folder.path().to_str().unwrap();
    let none = "/nonexistent".as_ref();
    let doctor = run(&mut ioward(none, &["doctor", "--root", root]));
    let expected = "\
✗ IOMMU: the kernel was told to leave it off: amd_iommu=off
    to do: take amd_iommu=off from the kernel command line and boot again
✗ SR-IOV adapter: no PCI function has the SR-IOV capability
    to do: turn SR-IOV on in the firmware of the machine ('SR-IOV Support') and
    in that of the adapter (its maker's tool, as mlxconfig or bnxtnvm), then
    power the machine off and on; or put in an adapter that has it: 'lspci -vvv'
    shows 'Single Root I/O Virtualization'
✗ vfio-pci: the driver is not loaded
    to do: modprobe vfio-pci; to have it at each start: echo vfio-pci
    >/etc/modules-load.d/vfio-pci.conf
✗ KVM: there is no /dev/kvm: partitions would run in software emulation, slowly
    to do: modprobe kvm_amd
";
    assert_eq!((doctor.status, doctor.stdout.as_str()), (1, expected));
    let expected = "ioward: 4 things are missing for VFs of partitions: see the lines that begin with ✗\n";
    assert_eq!(doctor.stderr, expected);

    let json = run(&mut ioward(none, &["doctor", "--json", "--root", root]));
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["able"], &json["findings"][0]["check"]), (&json!(false), &json!("iommu")));
    assert_eq!(json["findings"][0]["verdict"], "missing");
    let no_tree = run(&mut ioward(none, &["doctor", "--root", "/nonexistent"]));
    assert_eq!(no_tree.status, 2, "{}", no_tree.stderr);
}

/// Whatever this machine is like: it is told, and in one of the two ways.
#[test]
fn the_doctor_looks_at_this_very_machine() {
    let doctor = run(&mut ioward("/nonexistent".as_ref(), &["doctor"]));
    if doctor.stderr.contains("a copied tree has at least sys/bus/pci/devices") {
        return;
    }
    let lacking = doctor.stdout.lines().filter(|line| line.starts_with('✗')).count();
    assert_eq!(doctor.status, i32::from(lacking > 0), "{}{}", doctor.stdout, doctor.stderr);
    assert!(doctor.stdout.contains(" QEMU: "), "{}", doctor.stdout);
}
