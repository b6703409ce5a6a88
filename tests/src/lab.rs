//! Checks the assumptions of the other tests about the lab: real SR-IOV, IOMMU groups, KVM.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ioward_tests::daemon::{BOOT, SOON};
use ioward_tests::guest::Guest;
use ioward_tests::harness::Outcome;
use ioward_tests::level1::{NIC0, NIC1, NVME, attribute, set_attribute, sh, virtual_functions, wait_until};

pub fn three_adapters_can_give_7_7_and_4_vfs() -> Outcome {
    // The 82576's registers say 8, and its Linux driver makes one less: the eighth's queues are the PF's own.
    for (pf, in_registers, from_driver) in [(NIC0, 8, "7"), (NVME, 4, "4"), (NIC1, 8, "7")] {
        let seen = sh(&format!("lspci -s {pf} -vvv"))?;
        assert!(seen.contains("Single Root I/O Virtualization (SR-IOV)"), "{pf}: {seen}");
        assert!(seen.contains(&format!("Total VFs: {in_registers},")), "{pf}: {seen}");
        assert_eq!(attribute(pf, "sriov_totalvfs")?, from_driver, "{pf}");
    }
    let all = sh("lspci -vvv")?.matches("Single Root I/O Virtualization (SR-IOV)").count();
    assert_eq!(all, 3, "functions with an SR-IOV capability");
    Ok(())
}

pub fn every_vf_appears_and_has_an_iommu_group_of_its_own() -> Outcome {
    for (pf, total) in [(NIC0, 7), (NVME, 4), (NIC1, 7)] {
        set_attribute(pf, "sriov_drivers_autoprobe", "0")?;
        set_attribute(pf, "sriov_numvfs", &total.to_string())?;
        let vfs = virtual_functions(pf)?;
        assert_eq!(vfs.len(), total, "{pf}: {vfs:?}");
        let mut groups = BTreeSet::new();
        for vf in &vfs {
            assert!(!sh(&format!("lspci -s {vf}"))?.is_empty(), "lspci does not show {vf}");
            let group = fs::canonicalize(Path::new("/sys/bus/pci/devices").join(vf).join("iommu_group"))?;
            assert_eq!(
                fs::read_dir(group.join("devices"))?.count(),
                1,
                "{vf} is not alone in its IOMMU group"
            );
            groups.insert(group);
        }
        assert_eq!(groups.len(), total);
        set_attribute(pf, "sriov_numvfs", "0")?;
        set_attribute(pf, "sriov_drivers_autoprobe", "1")?;
        assert_eq!(virtual_functions(pf)?, Vec::<String>::new());
    }
    Ok(())
}

pub fn a_guest_under_kvm_answers_on_its_console_and_obeys_the_power_button() -> Outcome {
    let (console, qmp) = (Path::new("/run/lab-test.console"), Path::new("/run/lab-test.qmp"));
    let mut machine = BareMachine::start(console, qmp)?;
    let mut guest = Guest::connect(console, BOOT)?;
    assert_eq!(guest.run("hostname", SOON)?, "lab-test");
    assert_eq!(guest.try_run("echo two words; exit_status() { return 3; }; exit_status", SOON)?.0, 3);
    let agent = guest.try_run("ioward-agent --help", SOON)?;
    assert_ne!(agent.0, 127, "ioward-agent can't be run in the guest: {}", agent.1);

    let mut monitor = UnixStream::connect(qmp)?;
    monitor.set_read_timeout(Some(SOON))?;
    let mut answers = BufReader::new(monitor.try_clone()?).lines();
    for command in ["qmp_capabilities", "system_powerdown"] {
        writeln!(monitor, r#"{{"execute":"{command}"}}"#)?;
        answers.next().ok_or("QMP closed")??;
    }
    guest.wait_until_off(SOON)?;
    wait_until("QEMU has ended", SOON, || machine.has_ended())
}

/// A guest of level 1's KVM, started without ioward. Killed when dropped.
struct BareMachine(Child);

impl BareMachine {
    fn start(console: &Path, qmp: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let qemu = Command::new("qemu-system-x86_64")
            .args([
                "-machine",
                "q35,accel=kvm",
                "-cpu",
                "host",
                "-m",
                "256M",
                "-nodefaults",
                "-display",
                "none",
            ])
            .args([
                "-kernel",
                &env::var("IOWARD_LAB_GUEST_KERNEL")?,
                "-initrd",
                &env::var("IOWARD_LAB_GUEST_INITRD")?,
            ])
            .args([
                "-append",
                "console=ttyS0 loglevel=4 mitigations=off nopv no_timer_check ioward.hostname=lab-test",
            ])
            .arg("-chardev")
            .arg(format!("socket,id=console,server=on,wait=off,path={}", console.display()))
            .args(["-serial", "chardev:console", "-qmp"])
            .arg(format!("unix:{},server=on,wait=off", qmp.display()))
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(qemu))
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }
}

impl Drop for BareMachine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
