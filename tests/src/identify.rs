//! ioward's description of the host, compared with lspci, ip and sysfs.

use std::{error::Error, time::Duration};

use ioward_tests::{
    daemon::Daemon,
    harness::Outcome,
    level1::{NIC0, NIC1, NVME, attribute, set_attribute, sh, sh_json, virtual_functions, wait_until},
};
use serde_json::Value;

fn pf<'a>(host: &'a Value, address: &str) -> &'a Value {
    let all = host["physical_functions"].as_array().expect("physical_functions is a list");
    all.iter().find(|pf| pf["address"] == address).unwrap_or_else(|| panic!("{address} is not in {host}"))
}

pub fn the_host_is_described_as_lspci_and_sysfs_describe_it() -> Outcome {
    let daemon = Daemon::start()?;
    set_attribute(NIC0, "sriov_drivers_autoprobe", "0")?;
    set_attribute(NIC0, "sriov_numvfs", "2")?;
    // igb takes its link down for that.
    let has_link = || sh("grep -q 1 /sys/class/net/eth0/carrier").is_ok();
    wait_until("eth0 has a link", Duration::from_secs(30), has_link)?;
    let host: Value = serde_json::from_str(&daemon.done(&["host", "--json"])?)?;
    assert_eq!(host["physical_functions"].as_array().map(Vec::len), Some(3));
    for (address, class, driver, total) in
        [(NIC0, "network", "igb", 7), (NVME, "nvme", "nvme", 4), (NIC1, "network", "igb", 7)]
    {
        let pf = pf(&host, address);
        assert_eq!((&pf["class"], &pf["driver"]), (&class.into(), &driver.into()), "{pf}");
        assert_eq!(pf["sriov"]["total_vfs"], total);
        assert_eq!(
            format!("0x{}", pf["vendor_id"].as_str().unwrap_or_default()),
            attribute(address, "vendor")?
        );
        let seen = sh(&format!("lspci -s {address} -vvv"))?;
        for said in as_lspci_says_it(pf) {
            assert!(seen.contains(&said), "'{said}' is not in {seen}");
        }
        let group = sh(&format!("basename $(readlink /sys/bus/pci/devices/{address}/iommu_group)"))?;
        assert_eq!(pf["iommu_group"].to_string(), group.trim());
        assert_eq!(pf["reasons"], serde_json::json!([]));
    }
    let nic = pf(&host, NIC0);
    let vfs: Vec<_> = nic["virtual_functions"].as_array().into_iter().flatten().collect();
    let addresses: Vec<_> = vfs.iter().filter_map(|vf| vf["address"].as_str()).collect();
    assert_eq!(addresses, virtual_functions(NIC0)?);
    let link = &sh_json("ip -j link show eth0")?[0];
    let netdev = &nic["netdevs"][0];
    for key in ["address", "ifindex", "mtu"] {
        let ours = if key == "address" { "mac" } else { key };
        assert_eq!(netdev[ours], link[key], "{key}");
    }
    assert_eq!(netdev["permanent_mac"], link["address"], "nobody has changed it");
    assert_eq!(
        (&netdev["name"], &netdev["up"], &netdev["carrier"]),
        (&"eth0".into(), &true.into(), &true.into())
    );
    assert_eq!(netdev["speed_mbps"].to_string(), sh("cat /sys/class/net/eth0/speed")?.trim());
    the_nvme_controller_is_as_nvme_cli_says(&pf(&host, NVME)["nvme"])
}

/// Lines of `lspci -vvv` that must be there if the description of a PF is true.
fn as_lspci_says_it(pf: &Value) -> Vec<String> {
    let sriov = &pf["sriov"];
    let flag = |set: &Value| if *set == true { '+' } else { '-' };
    let speed = match pf["link"]["speed_mts"].as_u64() {
        Some(2_500) => "2.5GT/s",
        Some(5_000) => "5GT/s",
        other => panic!("no speed of the lab: {other:?}"),
    };
    let supported = sriov["supported_page_sizes"].as_array().into_iter().flatten().filter_map(Value::as_u64);
    let mut said = vec![
        format!("VF offset: {}, stride: {}", sriov["first_vf_offset"], sriov["vf_stride"]),
        format!("Device ID: {}", sriov["vf_device_id"].as_str().unwrap_or_default()),
        format!("Number of VFs: {},", sriov["num_vfs"]),
        format!("Enable{} ", flag(&sriov["vf_enable"])),
        format!("ARIHierarchy{}", flag(&sriov["ari"])),
        format!("Supported Page Size: {:08x}", supported.map(|size| size >> 12).sum::<u64>()),
        format!("System Page Size: {:08x}", sriov["system_page_size"].as_u64().unwrap_or(0) >> 12),
        format!("LnkSta:\tSpeed {speed}, Width x{}", pf["link"]["width"]),
        format!("MSI-X: Enable+ Count={} ", pf["msix_vectors"]),
    ];
    let bars = sriov["vf_bars"].as_array().into_iter().flatten();
    said.extend(bars.map(|bar| {
        let bits = if bar["is_64bit"] == true { 64 } else { 32 };
        let prefetchable = if bar["prefetchable"] == true { "prefetchable" } else { "non-prefetchable" };
        format!("({bits}-bit, {prefetchable})")
    }));
    said
}

fn the_nvme_controller_is_as_nvme_cli_says(nvme: &Value) -> Outcome {
    assert_eq!(nvme["serial"], sh("cat /sys/class/nvme/nvme0/serial")?.trim());
    let caps = sh_json("nvme primary-ctrl-caps /dev/nvme0 -o json")?;
    let resources = &nvme["resources"];
    for (ours, theirs) in [
        ("queues_total", "vqfrt"),
        ("queues_assigned", "vqrfa"),
        ("queues_max_per_vf", "vqfrsm"),
        ("interrupts_total", "vifrt"),
        ("interrupts_assigned", "virfa"),
        ("interrupts_max_per_vf", "vifrsm"),
    ] {
        assert_eq!(resources[ours], caps[theirs], "{ours}: {caps}");
    }
    let secondaries = nvme["secondaries"].as_array().ok_or("no secondaries")?;
    assert_eq!(secondaries.len(), 4);
    let list = sh_json("nvme list-secondary /dev/nvme0 -o json")?;
    for (ours, theirs) in
        secondaries.iter().zip(list["secondary-controllers"].as_array().into_iter().flatten())
    {
        assert_eq!(
            [&ours["controller_id"], &ours["queues"], &ours["interrupts"]],
            [
                &theirs["secondary-controller-identifier"],
                &theirs["num-virtual-queues"],
                &theirs["num-virtual-interrupts"]
            ],
            "{theirs}"
        );
    }
    Ok(())
}

/// A bug report's host is what the reporter saw, except for whatever identifies the host.
pub fn a_recorded_host_is_shown_as_the_live_one_was() -> Outcome {
    let daemon = Daemon::start()?;
    for (pf, vfs) in [(NIC0, "3"), (NVME, "2")] {
        set_attribute(pf, "sriov_drivers_autoprobe", "0")?;
        set_attribute(pf, "sriov_numvfs", vfs)?;
    }
    sh("ip link set eth0 vf 1 mac 52:54:00:aa:00:01 vlan 7; ip addr add 192.0.2.7/24 dev eth1")?;
    // igb takes the link down to make VFs, and the two hosts are looked at in sequence.
    for link in ["eth0", "eth1"] {
        let has_link = || sh(&format!("grep -q 1 /sys/class/net/{link}/carrier")).is_ok();
        wait_until(&format!("{link} has a link"), Duration::from_secs(60), has_link)?;
    }
    let live: Value = serde_json::from_str(&daemon.done(&["host", "--json"])?)?;
    let file = daemon.write("recorded.json", "")?;
    let recorded = |more: &[&str]| -> Result<Value, Box<dyn Error>> {
        daemon.done(&[&["snapshot", &file], more].concat())?;
        Ok(serde_json::from_str(&daemon.done(&["host", "--json", "--host", &file])?)?)
    };
    assert_eq!(blanked(recorded(&["--unmasked"])?, false), blanked(live.clone(), false));
    assert!(sh(&format!("cat {file}"))?.contains("52:54:00:aa:00:01"));

    let masked = recorded(&[])?;
    let (seen, stands_in) = (blanked(live, true), blanked(masked, true));
    assert_eq!(stands_in, seen);
    assert!(seen.to_string().matches("\"masked\"").count() >= 9, "{seen}");
    let text = sh(&format!("cat {file}"))?;
    assert!(!text.contains("52:54:00") && !text.contains("192.0.2"), "{text}");
    Ok(())
}

/// A host without its generation, and with one word in place of everything that `ioward snapshot` masks.
fn blanked(mut host: Value, masked: bool) -> Value {
    fn blank(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let is_use = fields.contains_key("use");
                for (name, value) in fields {
                    // The ID of an adapter is made of one of the others.
                    let tells =
                        matches!(name.as_str(), "mac" | "permanent_mac" | "serial" | "serial_number" | "id");
                    if (tells || is_use && name == "address") && value.is_string() {
                        *value = "masked".into();
                    }
                    blank(value);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(blank),
            _ => {}
        }
    }
    host["generation"] = Value::Null;
    if masked {
        blank(&mut host);
    }
    host
}

/// A bug report brings a tree rather than a machine.
pub fn a_copied_tree_is_identified_without_daemon_or_privilege() -> Outcome {
    sh(
        "rm -rf /tmp/tree; mkdir -p /tmp/tree/proc/net /tmp/tree/proc/self /tmp/tree/sys/bus/pci/devices; cd /sys; \
        for dir in devices/pci0000:00 kernel/iommu_groups class/net; do \
          find $dir -type d -printf '/tmp/tree/sys/%p\\0' | xargs -0 mkdir -p; \
          find $dir \\( -type l -o -name config -o -name vendor -o -name device -o -name class -o -name 'sriov_*' \
            -o -name numa_node -o -name address -o -name ifindex -o -name flags -o -name mtu -o -name serial -o -name model \
            -o -name resource \\) -print0 | xargs -0 cp --parents --no-dereference --target-directory=/tmp/tree/sys 2>/dev/null; done; \
        cp -a /sys/bus/pci/devices/. /tmp/tree/sys/bus/pci/devices/; chmod -R a+rX /tmp/tree",
    )?;
    let host = sh(
        "cd /tmp && setpriv --reuid 65534 --regid 65534 --clear-groups ioward host --root /tmp/tree --json",
    )?;
    let host: Value = serde_json::from_str(&host)?;
    for (address, total) in [(NIC0, 7), (NVME, 4), (NIC1, 7)] {
        assert_eq!(pf(&host, address)["sriov"]["total_vfs"], total, "{host}");
    }
    Ok(())
}
