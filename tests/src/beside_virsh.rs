//! What people do with a domain by virsh while ioward looks after its VFs: each goes on working, and each is followed.

use std::{error::Error, fs};

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, clean_up, how_the_host_is, vf},
    harness::Outcome,
    level1::{NIC0, driver, sh, virtual_functions, wait_until},
};

use crate::{domains::define, libvirtd::Libvirt};

const VF_ALIAS: &str = "ua-ioward-net0";

/// With nobody in the domain who could hold anything up.
pub fn each_verb_of_virsh_goes_on_working_and_is_followed() -> Outcome {
    clean_up();
    let before = how_the_host_is()?;
    let _libvirt = Libvirt::start()?;
    define()?;
    let daemon = Daemon::start()?;
    let net0 = vf("net0", "network", &format!("pf = \"{NIC0}\"\nmac = \"52:54:00:aa:00:01\""));
    let spec = [VERSION, "\n[[partition]]\nname = \"shop\"\nlibvirt = \"web\"\n", &net0].concat();
    daemon.apply(&spec)?;

    sh("virsh start web")?;
    daemon.events_until("its start is told", |events| events.contains("partition shop was started"))?;
    for verb in ["suspend", "resume", "reset", "reboot"] {
        sh(&format!("virsh {verb} web"))?;
        is_as_it_was(&daemon)?;
    }
    // Its VF can't be saved or moved, and libvirt says so. Nothing has become of it by that.
    for verb in ["save web /run/web.save", "managedsave web", "migrate --live web qemu+unix:///system"] {
        let refused = sh(&format!("virsh {verb}")).expect_err("most VFs can't be saved").to_string();
        assert!(refused.contains("error:"), "{refused}");
        is_as_it_was(&daemon)?;
    }
    a_device_of_somebody_elses_comes_and_goes(&daemon)?;
    sh("virsh destroy web")?;
    daemon.events_until("its end is told", |events| events.contains("virsh destroy"))?;
    is_as_it_was(&daemon)?;

    // Which domain it is goes by its UUID.
    sh("virsh domrename web renamed")?;
    assert_eq!(daemon.done(&["drift", "--json"])?.trim(), "[]");
    daemon.done(&["start", "shop"])?;
    assert!(sh("virsh dumpxml renamed")?.contains(VF_ALIAS));
    daemon.done(&["stop", "--yes", "--force", "shop"])?;
    sh("virsh domrename renamed web")?;

    // virsh edit: what ioward does not know stays, and what it gave is put back.
    let edited = sh("virsh dumpxml --inactive web")?.replace("ops &amp; co", "ops &amp; others");
    define_as(&edited)?;
    is_as_it_was(&daemon)?;
    define_as(&without_its_vf(&edited)?)?;
    daemon.events_until("the loss is told", |events| events.contains("shop/net0 was taken out"))?;
    let is_back = || is_as_it_was(&daemon).is_ok();
    wait_until("it is put back", SOON, is_back)?;
    assert!(sh("virsh dumpxml --inactive web")?.contains("ops &amp; others"));

    // virsh detach-device, of one that is off.
    let hostdev = its_vf(&sh("virsh dumpxml --inactive web")?)?;
    fs::write("/run/vf.xml", hostdev)?;
    sh("virsh detach-device web /run/vf.xml --config")?;
    wait_until("it is put back", SOON, is_back)?;

    daemon.done(&["remove", "--yes", "shop"])?;
    assert!(!sh("virsh dumpxml --inactive web")?.contains("ioward"));
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}

/// Its VF is in what the domain is now and in what it starts with next, and ready; no difference is known.
fn is_as_it_was(daemon: &Daemon) -> Outcome {
    for which in ["", "--inactive"] {
        let xml = sh(&format!("virsh dumpxml {which} web"))?;
        if xml.matches(VF_ALIAS).count() != 1 {
            return Err(format!("{which}: {xml}").into());
        }
    }
    let function = virtual_functions(NIC0)?.remove(0);
    let (driver, drift) = (driver(&function), daemon.done(&["drift", "--json"])?);
    if driver.as_deref() != Some("vfio-pci") || drift.trim() != "[]" {
        return Err(format!("{function} on {driver:?}; {drift}").into());
    }
    Ok(())
}

fn a_device_of_somebody_elses_comes_and_goes(daemon: &Daemon) -> Outcome {
    let interface =
        "<interface type='user'><mac address='52:54:00:bb:00:01'/><model type='virtio'/></interface>";
    fs::write("/run/user.xml", interface)?;
    sh("virsh attach-device web /run/user.xml --persistent")?;
    is_as_it_was(daemon)?;
    sh("virsh detach-device web /run/user.xml --config")?;
    is_as_it_was(daemon)
}

fn define_as(xml: &str) -> Outcome {
    fs::write("/run/web.xml", xml)?;
    sh("virsh define /run/web.xml").map(drop)
}

fn its_vf(xml: &str) -> Result<String, Box<dyn Error>> {
    let from = xml.find("<hostdev").ok_or("no VF")?;
    let to = xml.find("</hostdev>").ok_or("no end of the VF")?;
    Ok(format!("{}</hostdev>", &xml[from..to]))
}

fn without_its_vf(xml: &str) -> Result<String, Box<dyn Error>> {
    Ok(xml.replace(&its_vf(xml)?, ""))
}
