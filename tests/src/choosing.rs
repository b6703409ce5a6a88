//! Choosing: suitable functions, the reasons against the others, saved plans, and the doctor.

use std::{fs, time::Duration};

use ioward_tests::{
    daemon::{Daemon, VERSION, adapter, how_the_host_is, partition, vf},
    harness::Outcome,
    level1::{NIC0, NIC1, attribute, sh, wait_until},
};
use serde_json::Value;

/// A Spec that the host can't carry out, and the expected reasons.
struct Impossible {
    spec: String,
    rule: &'static str,
    required: &'static str,
    found: &'static str,
}

pub fn an_unsuitable_function_is_shown_with_rule_requirement_and_finding() -> Outcome {
    let daemon = Daemon::start()?;
    sh("ip addr add 10.9.0.1/24 dev eth0")?;
    // An earlier test may have changed its number of VFs, for which igb takes the link down for a moment.
    let has_link = || sh("grep -q 1 /sys/class/net/eth1/carrier").is_ok();
    wait_until("eth1 has a link", Duration::from_secs(30), has_link)?;
    let before = how_the_host_is()?;
    let web = |request: &str| [VERSION, &partition("web"), &vf("net0", "network", request)].concat();
    let all_of_nic1 = format!("{}{}", web("pf = \"0000:03:00.0\""), adapter(NIC1, "8"));
    let impossible = [
        Impossible {
            spec: web("pf = \"0000:01:00.0\""),
            rule: "management-nic",
            required: "a PF that the host does not use",
            found: "eth0 has address 10.9.0.1/24",
        },
        Impossible {
            spec: web("pf = \"0000:03:00.0\"\nmin_link_speed = \"10Gbit\""),
            rule: "link-speed",
            required: "a link of 10Gbit or faster",
            found: "one of 1Gbit",
        },
        Impossible {
            spec: web("needs = [\"rdma\"]"),
            rule: "capability",
            required: "rdma",
            found: "its PF has no RDMA device",
        },
        Impossible {
            spec: web("pf = \"0000:03:00.0\"\nmin_tx_rate = \"100Mbit\""),
            rule: "capability",
            required: "guaranteed-rate",
            found: "its driver igb cannot do that",
        },
        Impossible {
            spec: all_of_nic1,
            rule: "vf-capacity",
            required: "at most 7 VFs (TotalVFs)",
            found: "8 asked for",
        },
        Impossible {
            spec: web("pf = \"0000:03:00.0\"\nindex = 7"),
            rule: "vf-index",
            required: "an index below 7 (TotalVFs)",
            found: "index 7",
        },
    ];
    for Impossible { spec, rule, required, found } in impossible {
        let file = daemon.write("impossible.toml", &spec)?;
        let shown = daemon.ioward(&["compatible", "web", "-f", &file])?;
        assert_eq!(shown.status, 3, "{spec}: {shown:?}");
        let told = on_one_line(&shown.stdout);
        let line = format!("{rule}: required {required}; found {found}");
        assert!(told.contains(&line), "'{line}' is not in {shown:?}");
        assert!(shown.stderr.contains("nothing suits web/net0"), "{shown:?}");

        let json = daemon.ioward(&["compatible", "web", "--json", "-f", &file])?;
        let json: Value = serde_json::from_str(&json.stdout)?;
        let candidates = json[0]["candidates"].as_array().ok_or("no candidates")?;
        let rules =
            candidates.iter().flat_map(|candidate| candidate["reasons"].as_array().into_iter().flatten());
        assert!(rules.into_iter().any(|reason| reason["rule"] == rule), "{json}");

        let planned = daemon.ioward(&["plan", "-f", &file])?;
        assert_eq!(planned.status, 3, "{spec}: {planned:?}");
        let told = on_one_line(&planned.stderr);
        let line = format!("required {required}; found {found}");
        assert!(
            told.contains(&line) && told.contains(&format!("{rule}: ")),
            "'{line}' is not in {planned:?}"
        );
        assert_eq!(how_the_host_is()?, before);
    }
    Ok(())
}

/// Level 1 has one NUMA node, and QEMU binds the partition's memory to it.
pub fn a_partition_on_a_numa_node_runs_there() -> Outcome {
    let daemon = Daemon::start()?;
    let on_node = |node: &str| partition("web").replace("cpus ", &format!("numa_node = {node}\ncpus "));
    let second = vf("net1", "network", "numa = \"prefer\"\napart_from = [{ vf = \"net0\", by = \"port\" }]");
    daemon.apply(&[VERSION, &on_node("0"), &vf("net0", "network", ""), &second].concat())?;
    let vfs: Value = serde_json::from_str(&daemon.done(&["partitions", "--json"])?)?;
    let machine = fs::read(format!("/proc/{}/cmdline", vfs[0]["pid"]))?;
    let machine = String::from_utf8_lossy(&machine).into_owned();
    assert!(machine.contains("host-nodes=0,policy=bind"), "no memory is bound: {machine}");
    let pf = |n: usize| vfs[0]["vfs"][n]["pf"].as_str().unwrap_or_default().to_owned();
    assert_ne!(pf(0), pf(1), "they are apart: {vfs}");
    daemon.done(&["remove", "--yes", "web", "--force"])?;
    let refused = daemon.try_apply(&[VERSION, &on_node("7")].concat(), &[])?;
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(
        on_one_line(&refused.stderr).contains("required NUMA node 7; found this host has 0"),
        "{refused:?}"
    );
    Ok(())
}

pub fn suitable_functions_are_shown_best_first_as_the_plan_takes_them() -> Outcome {
    let daemon = Daemon::start()?;
    sh("ip addr add 10.9.0.1/24 dev eth0")?;
    let spec = [VERSION, &partition("web"), &vf("net0", "network", ""), &vf("disk0", "nvme", "")].concat();
    let file = daemon.write("web.toml", &spec)?;
    let shown = daemon.done(&["compatible", "web", "-f", &file])?;
    assert!(shown.contains("\nyes    0000:03:00.0  0-6  have to be made\n"), "{shown}");
    assert!(shown.contains("\nyes    0000:02:00.0  0-3  have to be made\n"), "{shown}");
    assert!(shown.contains("\nno     0000:01:00.0  0-6\n"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    let planned = daemon.done(&["plan", "-f", &file])?;
    assert!(planned.contains("+ VF 0 of 0000:03:00.0: to web/net0"), "{planned}");

    let unknown = daemon.ioward(&["compatible", "wbe", "-f", &file])?;
    assert_eq!(unknown.status, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("the Spec has no partition 'wbe'; it has web"), "{unknown:?}");
    Ok(())
}

/// A plan that was reviewed yesterday must not do anything else today.
pub fn a_plan_file_is_carried_out_as_reviewed_or_refused() -> Outcome {
    let daemon = Daemon::start()?;
    let spec = daemon.write("two.toml", [VERSION, &adapter(NIC0, "2")].concat())?;
    let (kept, stale) = (daemon.write("kept.plan", "")?, daemon.write("stale.plan", "")?);
    daemon.done(&["plan", "-f", &spec, "-o", &kept])?;
    daemon.done(&["plan", "-f", &spec, "-o", &stale])?;
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0");
    daemon.done(&["apply", "--yes", "--plan", &kept])?;
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "2");

    let before = how_the_host_is()?;
    let refused = daemon.ioward(&["apply", "--yes", "--plan", &stale])?;
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(on_one_line(&refused.stderr).contains("required a plan for what is there now"), "{refused:?}");
    assert_eq!(how_the_host_is()?, before);

    let half = fs::read(&stale)?;
    fs::write(&stale, &half[..half.len() / 2])?;
    let torn = daemon.ioward(&["apply", "--yes", "--plan", &stale])?;
    assert!(torn.status == 2 && torn.stderr.contains("this is no plan"), "{torn:?}");
    Ok(())
}

/// No daemon runs here: people run the doctor before they start one.
pub fn the_doctor_finds_no_fault_in_the_lab() -> Outcome {
    let told = sh("ioward doctor 2>&1; echo status $?")?;
    assert!(told.contains("status 0") && !told.contains('✗'), "{told}");
    for line in [
        "✓ IOMMU: it is on",
        "✓ vfio-pci: the driver is there",
        "✓ KVM: /dev/kvm is there",
        "✓ root: it is root who looks",
        "this host can give VFs to partitions",
    ] {
        assert!(told.lines().any(|found| found == line), "'{line}' is not in {told}");
    }
    assert_eq!(told.matches("✓ SR-IOV adapter 0000:0").count(), 3, "{told}");
    Ok(())
}

/// Text wrapped at 80 columns, without the line breaks.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
