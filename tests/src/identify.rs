//! What ioward says is there, held against lspci, ip and sysfs.

use ioward_tests::{
    daemon::Daemon,
    harness::Outcome,
    level1::{NIC0, NIC1, NVME, attribute, set_attribute, sh, sh_json, virtual_functions},
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
        let offset =
            format!("VF offset: {}, stride: {}", pf["sriov"]["first_vf_offset"], pf["sriov"]["vf_stride"]);
        assert!(seen.contains(&offset), "{offset}: {seen}");
        let group = sh(&format!("basename $(readlink /sys/bus/pci/devices/{address}/iommu_group)"))?;
        assert_eq!(pf["iommu_group"].to_string(), group.trim());
        assert_eq!(pf["reasons"], serde_json::json!([]));
    }
    let nic = pf(&host, NIC0);
    let vfs: Vec<_> = nic["virtual_functions"].as_array().into_iter().flatten().collect();
    let addresses: Vec<_> = vfs.iter().filter_map(|vf| vf["address"].as_str()).collect();
    assert_eq!(addresses, virtual_functions(NIC0)?);
    let link = &sh_json("ip -j link show eth0")?[0];
    assert_eq!(
        (&nic["netdevs"][0]["mac"], &nic["netdevs"][0]["ifindex"]),
        (&link["address"], &link["ifindex"])
    );
    assert_eq!(pf(&host, NVME)["nvme"]["serial"], sh("cat /sys/class/nvme/nvme0/serial")?.trim());
    Ok(())
}

/// A bug report brings a tree, not a machine.
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
