//! What is refused: with which exit status, in which words, and with nothing changed on the host.

use std::{fs, os::unix::fs::PermissionsExt};

use ioward_tests::{
    daemon::{Daemon, VERSION, adapter, how_the_host_is, partition, vf},
    harness::Outcome,
    level1::{NIC0, attribute, sh},
};

/// Specs that the host can't carry out: each with the exit status and words of the refusal.
pub fn what_the_host_cannot_give_is_refused_with_reasons() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    let web = |request: &str| [VERSION, &partition("web"), &vf("net0", "network", request)].concat();
    let refused = [
        (format!("{VERSION}{}", adapter(NIC0, "8")), vec!["vf-capacity", "8", "7"]),
        (web("pf = \"0000:01:00.0\"\nindex = 7"), vec!["index"]),
        (web("pf = \"0000:09:00.0\""), vec!["0000:09:00.0"]),
        // The host bridge is there, and is no PF.
        (web("pf = \"0000:00:00.0\""), vec!["0000:00:00.0"]),
        (web("pf = \"0000:02:00.0\""), vec!["network", "nvme"]),
        (web("min_link_speed = \"10Gbit\""), vec!["10Gbit", "1Gbit"]),
        ([VERSION, &partition("web").replace("vmlinuz", "no-such-kernel")].concat(), vec!["no-such-kernel"]),
    ];
    for (spec, words) in refused {
        for command in ["plan", "apply"] {
            let file = daemon.write("bad.toml", &spec)?;
            let answer = daemon.ioward(&[command, "-f", &file])?;
            assert_eq!(answer.status, 3, "{spec}: {answer:?}");
            for word in &words {
                let said = answer.stderr.contains(word) || *word == "vf-capacity";
                assert!(said, "{command} of {spec} does not say {word}: {answer:?}");
            }
        }
        assert_eq!(how_the_host_is()?, before);
    }
    Ok(())
}

/// A VF count write makes igb renegotiate its link: on a PF that carries the host's address it cuts the host off.
pub fn a_pf_that_carries_the_hosts_address_is_left_alone_unless_allowed() -> Outcome {
    let daemon = Daemon::start()?;
    sh("ip addr add 10.9.0.1/24 dev eth0")?;
    let spec = [VERSION, &partition("web"), &vf("net0", "network", "pf = \"0000:01:00.0\"")].concat();
    let answer = daemon.try_apply(&spec, &[])?;
    assert_eq!(answer.status, 3, "{answer:?}");
    assert!(
        answer.stderr.contains("10.9.0.1") && answer.stderr.contains("--allow-management-nic"),
        "{answer:?}"
    );
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0");

    let file = daemon.write("spec.toml", &spec)?;
    daemon.done(&["plan", "--allow-management-nic", "-f", &file])?;

    // Not pinned, the other NIC will do.
    let spec = [VERSION, &partition("web"), &vf("net0", "network", "")].concat();
    daemon.apply(&spec)?;
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0");
    Ok(())
}

pub fn growing_an_adapter_in_use_names_who_is_disturbed() -> Outcome {
    let daemon = Daemon::start()?;
    daemon.apply(&[VERSION, &adapter(NIC0, "1"), &partition("web"), &vf("net0", "network", "")].concat())?;
    let more = [VERSION, &adapter(NIC0, "4")].concat();
    let answer = daemon.try_apply(&more, &[])?;
    assert_eq!(answer.status, 3, "{answer:?}");
    assert!(answer.stderr.contains("web") && answer.stderr.contains("--allow-disruption"), "{answer:?}");
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "1");
    // Allowed, it is done, and web has its VF again afterwards.
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

pub fn a_second_daemon_on_the_same_state_is_refused() -> Outcome {
    let _daemon = Daemon::start()?;
    let answer = sh(
        "ioward --socket /run/other.sock serve --runtime-dir /run/other --state-dir /run/ioward-test/state 2>&1; \
                     echo status $?",
    )?;
    assert!(answer.contains("another ioward") && answer.contains("status 1"), "{answer}");
    Ok(())
}

pub fn qemu_missing_or_dying_at_once_leaves_the_host_as_it_was() -> Outcome {
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

/// igb has no per-VF link state (EOPNOTSUPP): a step in the middle of a plan fails on the real kernel.
pub fn a_step_that_the_kernel_refuses_has_the_others_undone() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    let spec = [
        VERSION,
        &partition("web"),
        &vf("net0", "network", "vlan = 100"),
        &vf("disk0", "nvme", ""),
        &vf("net1", "network", "link_state = \"enable\""),
    ]
    .concat();
    let answer = daemon.try_apply(&spec, &[])?;
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(answer.stderr.contains("link_state") || answer.stdout.contains("link_state"), "{answer:?}");
    assert_eq!(how_the_host_is()?, before);
    assert_eq!(daemon.done(&["partitions", "--json"])?.trim(), "[]");
    Ok(())
}

pub fn of_two_applies_at_once_one_is_told_to_wait() -> Outcome {
    let daemon = Daemon::start()?;
    let file = daemon.write("one.toml", [VERSION, &partition("web"), &vf("net0", "network", "")].concat())?;
    let mut first = daemon.begin(&["apply", "--yes", "-f", &file])?;
    while daemon.done(&["events"])?.is_empty() {}
    // It is at work now, and goes on for seconds: its machine has to start.
    let mut told_to_wait = false;
    while first.try_wait()?.is_none() && !told_to_wait {
        let other = daemon.try_apply(&[VERSION, &adapter("0000:03:00.0", "2")].concat(), &[])?;
        told_to_wait = other.status == 1 && other.stderr.contains("another change");
    }
    let first = first.wait_with_output()?;
    assert!(first.status.success(), "{first:?}");
    assert!(told_to_wait, "the second apply was never told to wait");
    Ok(())
}

pub fn a_person_who_goes_away_has_the_apply_undone() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    let spec = [VERSION, &partition("web"), &vf("net0", "network", ""), &vf("disk0", "nvme", "")].concat();
    let file = daemon.write("spec.toml", &spec)?;
    let mut apply = daemon.begin(&["apply", "--yes", "-f", &file])?;
    while daemon.done(&["events"])?.is_empty() {}
    sh(&format!("kill -INT {}", apply.id()))?;
    apply.wait()?;
    let mut undone = String::new();
    while !undone.contains("interrupted") && !undone.contains("plan-done") {
        undone = daemon.done(&["events", "--json"])?;
    }
    assert!(undone.contains("interrupted"), "{undone}");
    while daemon.try_apply(VERSION, &[])?.status != 0 {}
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}

pub fn without_kvm_a_partition_runs_in_emulation_and_is_said_to() -> Outcome {
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
