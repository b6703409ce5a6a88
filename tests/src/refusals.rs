//! Refusals: the exit status, the words, and an unchanged host.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, adapter, how_the_host_is, partition, vf},
    harness::Outcome,
    level1::{NIC0, NIC1, attribute, sh, sh_json, wait_until},
};

/// Specs that the host can't carry out, each with the exit status and the words of the refusal.
pub fn an_impossible_spec_is_refused_with_reasons() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    let web = |request: &str| [VERSION, &partition("web"), &vf("net0", "network", request)].concat();
    const NO_PF: &str = "required an SR-IOV physical function; found there is none at this address; `ioward host` shows those there are";
    let refused = [
        (
            format!("{VERSION}{}", adapter(NIC0, "8")),
            "vf-capacity: 0000:01:00.0: required at most 7 VFs (TotalVFs); found 8 asked for; ask for fewer, or for \"max\"",
        ),
        (
            web("pf = \"0000:01:00.0\"\nindex = 7"),
            "vf-index: web/net0: 0000:01:00.0: required an index below 7 (TotalVFs); found index 7",
        ),
        (web("pf = \"0000:09:00.0\""), &format!("function-exists: web/net0: 0000:09:00.0: {NO_PF}")),
        (
            format!("{VERSION}{}", adapter("0000:09:00.0", "1")),
            &format!("function-exists: 0000:09:00.0: {NO_PF}"),
        ),
        // The host bridge exists, but is not a PF.
        (web("pf = \"0000:00:00.0\""), &format!("function-exists: web/net0: 0000:00:00.0: {NO_PF}")),
        (
            web("pf = \"0000:02:00.0\""),
            "class: web/net0: 0000:02:00.0: required class network; found class nvme",
        ),
        (
            web("min_link_speed = \"10Gbit\""),
            "link-speed: web/net0: 0000:03:00.0: required a link of 10Gbit or faster; found one of 1Gbit",
        ),
        (
            [VERSION, &partition("web").replace("vmlinuz", "no-such-kernel")].concat(),
            "boot-file: web: required a file to boot from at /run/lab/guest/no-such-kernel; found No such file or directory",
        ),
    ];
    for (spec, reason) in refused {
        for command in ["plan", "apply"] {
            let file = daemon.write("bad.toml", &spec)?;
            let answer = daemon.ioward(&[command, "-f", &file])?;
            assert_eq!((answer.status, answer.stdout.as_str()), (3, ""), "{spec}: {answer:?}");
            assert!(answer.stderr.contains(reason), "{command} of {spec} does not say {reason}: {answer:?}");
        }
        assert_eq!(how_the_host_is()?, before);
    }
    assert_eq!(daemon.done(&["partitions", "--json"])?.trim(), "[]");
    assert!(!daemon.done(&["events"])?.contains("plan"), "nothing was begun");
    Ok(())
}

/// VFIO without an IOMMU would let a guest write to all of the host's memory.
pub fn without_an_iommu_no_vf_is_assigned() -> Outcome {
    let before = how_the_host_is()?;
    // As on a kernel without an IOMMU: the folder exists, without any group.
    sh("mount -t tmpfs tmpfs /sys/kernel/iommu_groups")?;
    let tested = no_vf_is_given_away();
    sh("umount /sys/kernel/iommu_groups")?;
    assert_eq!(how_the_host_is()?, before);
    tested
}

fn no_vf_is_given_away() -> Outcome {
    let daemon = Daemon::start()?;
    let before = how_the_host_is()?;
    let spec = [VERSION, &partition("web"), &vf("net0", "network", "")].concat();
    let file = daemon.write("spec.toml", &spec)?;
    for command in ["plan", "apply"] {
        let answer =
            daemon.ioward(&[command, "-f", &file, "--allow-management-nic", "--allow-disruption"])?;
        assert_eq!((answer.status, answer.stdout.as_str()), (3, ""), "{answer:?}");
        let told = "required an IOMMU that keeps a partition's VFs to that partition's memory; found no IOMMU is on; \
                    turn on VT-d or AMD-Vi in the firmware";
        assert!(answer.stderr.contains("iommu: web/net0: ") && answer.stderr.contains(told), "{answer:?}");
        assert_eq!(how_the_host_is()?, before);
    }
    assert!(daemon.done(&["host"])?.contains("No IOMMU is on"));
    let doctor = sh("ioward doctor 2>&1; echo status $?")?;
    assert!(doctor.contains("✗ IOMMU: ") && doctor.contains("status 1"), "{doctor}");
    // VFs for the host's own use need no IOMMU.
    daemon.apply(&[VERSION, &adapter(NIC0, "2")].concat())?;
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "2");
    daemon.apply(&[VERSION, &adapter(NIC0, "0")].concat())?;
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}

/// A VF count write makes igb renegotiate its link: on a PF that carries the host's address it cuts the host off.
pub fn a_pf_that_carries_the_hosts_address_is_left_alone_unless_allowed() -> Outcome {
    let daemon = Daemon::start()?;
    sh("ip addr add 10.9.0.1/24 dev eth0")?;
    let look = || -> Result<_, Box<dyn std::error::Error>> {
        // Each loss of the link counts.
        let losses = sh("cat /sys/class/net/eth0/carrier_down_count")?;
        Ok((how_the_host_is()?, sh_json("ip -j addr show eth0")?, losses))
    };
    let before = look()?;
    let spec = [VERSION, &partition("web"), &vf("net0", "network", "pf = \"0000:01:00.0\"")].concat();
    let told = "management-nic: web/net0: 0000:01:00.0: required a PF that the host does not use; found eth0 has address \
                10.9.0.1/24; use another adapter, or allow it with --allow-management-nic";
    for spec in [&spec, &[VERSION, &adapter(NIC0, "1")].concat()] {
        let answer = daemon.try_apply(spec, &[])?;
        assert_eq!((answer.status, answer.stdout.as_str()), (3, ""), "{answer:?}");
        assert!(
            answer.stderr.contains(&told.replace("web/net0: ", "")) || answer.stderr.contains(told),
            "{answer:?}"
        );
        assert_eq!(look()?, before);
    }

    let file = daemon.write("spec.toml", &spec)?;
    daemon.done(&["plan", "--allow-management-nic", "-f", &file])?;

    // Without a pin, the other NIC is chosen.
    let spec = [VERSION, &partition("web"), &vf("net0", "network", "")].concat();
    daemon.apply(&spec)?;
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0");
    Ok(())
}

pub fn growing_an_adapter_in_use_names_the_disturbed_partitions() -> Outcome {
    let daemon = Daemon::start()?;
    daemon.apply(&[VERSION, &adapter(NIC0, "1"), &partition("web"), &vf("net0", "network", "")].concat())?;
    let more = [VERSION, &adapter(NIC0, "4")].concat();
    let answer = daemon.try_apply(&more, &[])?;
    assert_eq!(answer.status, 3, "{answer:?}");
    assert!(answer.stderr.contains("web") && answer.stderr.contains("--allow-disruption"), "{answer:?}");
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "1");
    // When allowed, it is done, and web has its VF again afterwards.
    daemon.guest("web")?;
    let answer = daemon.try_apply(&more, &["--allow-disruption"])?;
    assert_eq!(answer.status, 0, "{answer:?}; {}", daemon.log());
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "4");
    assert!(daemon.done(&["vfs"])?.contains("web/net0"));
    Ok(())
}

pub fn without_root_the_daemon_says_so() -> Outcome {
    let answer = sh(
        "setpriv --reuid 65534 --regid 65534 --clear-groups ioward --socket /tmp/s serve 2>&1; echo status $?",
    )?;
    assert!(answer.contains("needs root") && answer.contains("status 1"), "{answer}");
    Ok(())
}

pub fn without_a_daemon_the_command_says_how_to_start_one() -> Outcome {
    let answer = sh("ioward --socket /run/no-such.sock host 2>&1; echo status $?")?;
    assert!(answer.contains("ioward serve") && answer.contains("status 1"), "{answer}");
    Ok(())
}

/// Whoever is in none of the groups is told which there are.
pub fn without_root_the_command_says_so() -> Outcome {
    let _daemon = Daemon::start()?;
    let before = how_the_host_is()?;
    for command in ["host", "partitions", "remove web"] {
        let answer = sh(&format!(
            "setpriv --reuid 65534 --regid 65534 --clear-groups ioward --socket /run/ioward-test/api.sock {command} 2>&1; \
             echo status $?"
        ))?;
        let told = "user 65534 may not use ioward, which is for members of group ioward-view or ioward-admin, and root";
        assert!(answer.contains(told) && answer.contains("status 1"), "{answer}");
    }
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}

pub fn a_second_daemon_on_the_same_state_is_refused() -> Outcome {
    let _daemon = Daemon::start()?;
    let answer = sh(
        "ioward --socket /run/other.sock serve --runtime-dir /run/other --state-dir /run/ioward-test/state 2>&1; \
                     echo status $?",
    )?;
    assert!(answer.contains("another ioward") && answer.contains("status 1"), "{answer}");
    Ok(())
}

pub fn a_qemu_that_is_missing_or_dies_at_once_leaves_the_host_unchanged() -> Outcome {
    let before = how_the_host_is()?;
    let spec = [VERSION, &partition("web"), &vf("net0", "network", "")].concat();
    let missing = Daemon::start_with(&["--emulator", "/no/such/qemu"])?;
    let answer = missing.try_apply(&spec, &[])?;
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(
        answer.stderr.contains("/no/such/qemu") && answer.stderr.contains("qemu-system-x86"),
        "{answer:?}"
    );
    drop(missing);
    assert_eq!(how_the_host_is()?, before);

    let dying = "/run/dying-qemu";
    fs::write(
        dying,
        "#!/bin/sh\ncase $* in *-daemonize*|*-version*|*--version*) exec qemu-system-x86_64 \"$@\";; esac\n\
                      echo 'the memory controller is on fire' >&2; exit 3\n",
    )?;
    fs::set_permissions(dying, fs::Permissions::from_mode(0o755))?;
    let daemon = Daemon::start_with(&["--emulator", dying])?;
    let answer = daemon.try_apply(&spec, &[])?;
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(answer.stderr.contains("the memory controller is on fire"), "{answer:?}");
    assert_eq!(how_the_host_is()?, before, "what was done before the failing step is undone");
    assert_eq!(daemon.done(&["partitions", "--json"])?.trim(), "[]");
    Ok(())
}

/// igb takes no rate above that of the link (EINVAL): a step in the middle of a plan fails on the real kernel.
pub fn a_step_refused_by_the_kernel_rolls_back_the_plan() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    // Without a link it would be refused before anything is done.
    let has_link = || sh("grep -q 1 /sys/class/net/eth0/carrier").is_ok();
    wait_until("eth0 has a link", Duration::from_secs(60), has_link)?;
    let spec = [
        VERSION,
        &partition("web"),
        &vf("net0", "network", "vlan = 100"),
        &vf("disk0", "nvme", ""),
        &vf("net1", "network", "max_tx_rate = \"20Gbit\""),
    ]
    .concat();
    let answer = daemon.try_apply(&spec, &[])?;
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(answer.stdout.contains("max_tx_rate=20Gbit") && answer.stderr.contains("failed"), "{answer:?}");
    assert_eq!(how_the_host_is()?, before);
    assert_eq!(daemon.done(&["partitions", "--json"])?.trim(), "[]");
    Ok(())
}

pub fn of_two_concurrent_applies_one_has_to_wait() -> Outcome {
    let daemon = Daemon::start()?;
    let web = [VERSION, &partition("web"), &vf("net0", "network", "pf = \"0000:01:00.0\"")].concat();
    let file = daemon.write("one.toml", web)?;
    let mut first = daemon.begin(&["apply", "--yes", "-f", &file])?;
    daemon.events_until("the apply has begun", |events| !events.is_empty())?;
    // It is running now, for some seconds: its machine has to start.
    let mut told_to_wait = false;
    while first.try_wait()?.is_none() && !told_to_wait {
        let other = daemon.try_apply(&[VERSION, &adapter(NIC1, "2")].concat(), &[])?;
        told_to_wait = other.status == 1 && other.stderr.contains("another change");
    }
    let first = first.wait_with_output()?;
    assert!(first.status.success(), "{first:?}");
    assert!(told_to_wait, "the second apply was never told to wait");
    assert_eq!(
        (attribute(NIC0, "sriov_numvfs")?, attribute(NIC1, "sriov_numvfs")?),
        ("1".into(), "0".into())
    );
    Ok(())
}

pub fn an_apply_is_rolled_back_when_its_user_disconnects() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    let spec = [VERSION, &partition("web"), &vf("net0", "network", ""), &vf("disk0", "nvme", "")].concat();
    let file = daemon.write("spec.toml", &spec)?;
    let apply = daemon.begin(&["apply", "--yes", "-f", &file])?;
    daemon.events_until("the apply has begun", |events| !events.is_empty())?;
    sh(&format!("kill -INT {}", apply.id()))?;
    let left = apply.wait_with_output()?;
    let told = String::from_utf8_lossy(&left.stderr);
    assert!(
        left.status.code() == Some(130) && told.contains("interrupted; everything is as it was before"),
        "{left:?}"
    );
    daemon.events_until("the apply is rolled back", |events| events.contains("cancelled"))?;
    let free = || daemon.try_apply(VERSION, &[]).is_ok_and(|answer| answer.status == 0);
    wait_until("the daemon takes another change", SOON, free)?;
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}

pub fn without_kvm_a_partition_runs_in_emulation_and_says_so() -> Outcome {
    let daemon = Daemon::start()?;
    sh("mv /dev/kvm /dev/kvm.away")?;
    let applied = daemon.try_apply(&[VERSION, &partition("web"), &vf("net0", "network", "")].concat(), &[]);
    sh("mv /dev/kvm.away /dev/kvm")?;
    let applied = applied?;
    assert_eq!(applied.status, 0, "{applied:?}; {}", daemon.log());
    assert!(applied.stdout.contains("/dev/kvm") && applied.stdout.contains("emulation"), "{applied:?}");
    assert!(daemon.done(&["partitions", "--json"])?.contains("\"tcg\""));
    Ok(())
}
