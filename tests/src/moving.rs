//! A guest moves from one QEMU to another on the real kernel: by its standby, from a VF that is taken from it to another one, while it is
//! pinged from outside. Level 1 is both hosts.

use std::{
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream},
    thread,
    time::{Duration, Instant},
};

use ioward_hypervisor::{Guard, Hypervisor, StopMode};
use ioward_model::{Migration, Name, Owner, Spec, StandbyNic};
use ioward_tests::{
    daemon::{SOON, VERSION, partition},
    guest::Guest,
    harness::Outcome,
    level1::sh,
};

use crate::standby::{MAC, NOBODY, Pings, Scene, hypervisor, lower, reaches};

/// Of the host that the guest moves to.
const RUNTIME: &str = "/run/ioward-test/there";
/// Its machines' users are others than the first one's.
const NOBODY_THERE: u32 = NOBODY + 1000;

const NO_MAC: &str = "00:00:00:00:00:00";

fn set_mac(vf: usize, mac: &str) -> Outcome {
    sh(&format!("ip -n out link set eth0 vf {vf} mac {mac}")).map(drop)
}

/// Carries the state from one machine to the other, as two daemons do.
fn carry(out: OwnedFd, into: OwnedFd) -> thread::JoinHandle<std::io::Result<u64>> {
    thread::spawn(move || std::io::copy(&mut UnixStream::from(out), &mut UnixStream::from(into)))
}

/// Until both machines stand still with the same state.
async fn both_complete(here: &Guard, there: &Guard, web: &Name) -> Outcome {
    let deadline = Instant::now() + SOON;
    loop {
        let look = (here.migration(web).await?, there.migration(web).await?);
        match look {
            (Migration::Complete, Migration::Complete) => return Ok(()),
            (
                Migration::Complete | Migration::UnderWay { .. },
                Migration::Complete | Migration::UnderWay { .. },
            ) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return Err(format!("the move came to this: {other:?}").into()),
        }
    }
}

/// A VF nails a machine to its host everywhere else. Here the guest keeps its address and its connections.
pub fn a_guest_moves_to_another_machine_and_vf_while_it_is_pinged() -> Outcome {
    let scene = Scene::new()?;
    let _ = fs::remove_dir_all(RUNTIME);
    scene.define(&partition("web"))?;
    scene.attach_standby("web/net0", "br0", MAC)?;
    set_mac(0, MAC)?;
    scene.attach("web/net0", 0)?;
    scene.start()?;
    let mut guest = Guest::connect(&scene.status()?.console.ok_or("it has one")?, SOON)?;
    assert_eq!(lower(&mut guest, 2)?, ["igbvf", "virtio_net"]);
    let master = "$(ls -d /sys/class/net/*/lower_* | head -1 | cut -d/ -f5)";
    guest.run(&format!("ip addr add 10.0.0.2/24 dev {master} && ip link set {master} up"), SOON)?;
    assert!(reaches(&mut guest)? > 0, "it goes through the VF");
    // What only a guest that does not boot anew still knows.
    guest.run("LIVES=through", SOON)?;

    let here = scene.hypervisor.as_ref().ok_or("it is closed")?;
    let there: Guard = scene.runtime.block_on(hypervisor(RUNTIME, NOBODY_THERE))?;
    let web: Name = "web".parse()?;
    let owner: Owner = "web/net0".parse()?;
    let spec = Spec::parse(format!("{VERSION}{}", partition("web")).as_bytes())?;
    let nic = StandbyNic { bridge: "br0".parse()?, mac: MAC.parse()? };
    scene.runtime.block_on(there.define(&spec.partitions[0]))?;
    scene.runtime.block_on(there.attach_standby(&owner, &nic))?;
    let refused = scene.runtime.block_on(here.send(&web)).expect_err("it holds its VF").to_string();
    assert!(refused.contains("it holds net0"), "{refused}");

    let pings = Pings::start()?;
    let begun = Instant::now();
    // As in any other detaching: the filter goes before, and what igbvf registers as it goes, afterwards.
    set_mac(0, NO_MAC)?;
    scene.detach("web/net0")?;
    set_mac(0, NO_MAC)?;
    println!("after {:.1} s its VF is out", begun.elapsed().as_secs_f32());
    scene.runtime.block_on(async {
        let layout = here.layout(&web).await?;
        let into = there.receive(&web, &layout).await?;
        println!("after {:.1} s a machine waits for its state", begun.elapsed().as_secs_f32());
        let carried = carry(here.send(&web).await?, into);
        both_complete(here, &there, &web).await?;
        println!("after {:.1} s both stand still", begun.elapsed().as_secs_f32());
        // The one decision.
        here.stop(&web, StopMode::Force).await?;
        there.resume(&web).await?;
        let bytes = carried.join().map_err(|_| "the carrier panicked")??;
        println!("after {:.1} s it runs there; {} MiB went over", begun.elapsed().as_secs_f32(), bytes >> 20);
        Outcome::Ok(())
    })?;
    assert!(!scene.status()?.running);
    set_mac(1, MAC)?;
    scene.runtime.block_on(there.attach_vf(&owner, scene.vfs[1].parse()?))?;
    let status = scene.runtime.block_on(there.partitions())?.remove(0);
    drop(guest);
    let mut guest = Guest::connect(&status.console.ok_or("it has one")?, SOON)?;
    assert_eq!(lower(&mut guest, 2)?, ["igbvf", "virtio_net"]);
    println!("after {:.1} s it has its VF", begun.elapsed().as_secs_f32());
    assert_eq!(guest.run("echo $LIVES", SOON)?, "through");
    assert!(reaches(&mut guest)? > 0, "it goes through the other VF");
    println!("while it moved: {}", pings.end()?.trim());
    scene.runtime.block_on(there.stop(&web, StopMode::Force))?;
    drop(there);
    let _ = fs::remove_dir_all(RUNTIME);
    Ok(())
}
