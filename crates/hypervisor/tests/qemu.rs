//! The life of a partition, with a real QEMU and guests of a few bytes. QEMU has to be installed: `cargo xtask test`
//! sees to that.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    time::Duration,
};

use common::{
    Bench, DEAF, LONG, MOODY, OBEDIENT, chain, is_closed, next_end, signal, status, type_on, user,
    wait_for_log,
};
use ioward_hypervisor::{
    ChannelEnd, Hypervisor, HypervisorError, PartitionStatus, StopMode, on_this_host,
    qemu::{Bounds, QemuConfig, Users},
};
use ioward_model::{Boot, Halt, PartitionSpec};
use rustix::process::Signal;

#[tokio::test]
async fn a_partition_is_defined_started_stopped_and_forgotten() {
    let bench = Bench::new();
    let hypervisor = bench.open().await;
    let web = bench.define(&hypervisor, "web", &bench.disk(DEAF)).await;
    assert!(!status(&hypervisor, &web).await.running);
    let mode = fs::metadata(bench.file(&web, "")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "the sockets in it control the machine");

    let accelerator = hypervisor.start(&web).await.unwrap();
    assert_eq!(accelerator, hypervisor.check().await.unwrap());
    let running = status(&hypervisor, &web).await;
    assert!(running.running);
    assert_eq!(running.accelerator, Some(accelerator));
    UnixStream::connect(running.console.as_ref().unwrap()).unwrap();

    hypervisor.start(&web).await.unwrap();
    assert_eq!(status(&hypervisor, &web).await.pid, running.pid, "starting it again changes nothing");
    assert!(matches!(hypervisor.undefine(&web).await, Err(HypervisorError::Running(_))));

    hypervisor.stop(&web, StopMode::Force).await.unwrap();
    hypervisor.stop(&web, StopMode::Force).await.unwrap();
    let stopped = status(&hypervisor, &web).await;
    assert!(!stopped.running && stopped.pid.is_none() && !stopped.console.unwrap().exists());

    hypervisor.undefine(&web).await.unwrap();
    hypervisor.undefine(&web).await.unwrap();
    assert!(hypervisor.partitions().await.unwrap().is_empty());
    assert!(!bench.file(&web, "").exists());
    assert!(matches!(hypervisor.start(&web).await, Err(HypervisorError::NoSuchPartition(_))));
}

#[tokio::test]
async fn a_guest_that_obeys_its_power_button_is_stopped_gracefully() {
    let bench = Bench::new();
    let hypervisor = bench.open().await;
    let web = bench.define(&hypervisor, "web", &bench.disk(OBEDIENT)).await;
    let mut events = hypervisor.events().await;
    hypervisor.start(&web).await.unwrap();
    wait_for_log(&bench.file(&web, "console.log"), "u").await;
    hypervisor.stop(&web, StopMode::Graceful).await.unwrap();
    assert!(!status(&hypervisor, &web).await.running);
    assert!(events.try_recv().is_err(), "it was asked for");
}

#[tokio::test]
async fn a_guest_that_ignores_its_power_button_keeps_running_and_force_does_not_wait_for_it() {
    let mut bench = Bench::new();
    bench.bounds.power_down = Duration::from_millis(100);
    let hypervisor = bench.open().await;
    let web = bench.define(&hypervisor, "web", &bench.disk(DEAF)).await;
    hypervisor.start(&web).await.unwrap();
    let error = hypervisor.stop(&web, StopMode::Graceful).await.unwrap_err();
    assert!(matches!(error, HypervisorError::GuestUnresponsive { .. }), "{error}");
    assert!(status(&hypervisor, &web).await.running);
    drop(hypervisor);

    bench.bounds.power_down = Duration::from_secs(24 * 3600);
    let hypervisor = bench.open().await;
    let (graceful, forced) =
        tokio::join!(hypervisor.stop(&web, StopMode::Graceful), hypervisor.stop(&web, StopMode::Force));
    graceful.unwrap();
    forced.unwrap();
}

/// A daemon that is stopped, or dies, takes no machine with it, and the one after it knows them all.
#[tokio::test]
async fn a_new_hypervisor_finds_the_machines_of_the_one_before() {
    let bench = Bench::new();
    let first = bench.open().await;
    let web = bench.define(&first, "web", &bench.disk(MOODY)).await;
    let db = bench.define(&first, "db", &bench.disk(DEAF)).await;
    let accelerator = first.start(&web).await.unwrap();
    first.start(&db).await.unwrap();
    first.create_channel(&web).await.unwrap();
    let (web_before, db_before) = (status(&first, &web).await, status(&first, &db).await);

    let error = on_this_host(bench.config()).await.map(|_| ()).unwrap_err();
    assert!(
        chain(&error).contains("another ioward"),
        "two at once would start machines twice: {}",
        chain(&error)
    );
    drop(first);
    signal(&db_before, Signal::KILL);
    let is_alive =
        |file| bench.file(&db, file).exists() && UnixStream::connect(bench.file(&db, file)).is_ok();
    while is_alive("console.sock") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let second = bench.open().await;
    assert_eq!(status(&second, &web).await, web_before);
    assert_eq!(status(&second, &web).await.accelerator, Some(accelerator));
    assert!(!status(&second, &db).await.running);
    assert!(!bench.file(&db, "qmp.sock").exists(), "what the dead one left is cleared away");
    second.connect_channel(&web).await.unwrap();

    let mut events = second.events().await;
    type_on(web_before.console.as_ref().unwrap(), b'x');
    assert_eq!(next_end(&mut events).await, (web.clone(), "the guest turned itself off".into()));
    second.start(&web).await.unwrap();
    second.stop(&web, StopMode::Force).await.unwrap();
}

/// Says something to a machine that nobody else is connected to.
fn qmp(socket: &Path, command: &str) {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for line in ["", "qmp_capabilities", command].map(|command| format!("{{\"execute\": \"{command}\"}}\n")) {
        if !line.contains("\"\"") {
            (&stream).write_all(line.as_bytes()).unwrap();
        }
        let is_answer = |line: &String| line.contains("\"return\"") || line.contains("\"QMP\"");
        lines.by_ref().map(Result::unwrap).find(is_answer).unwrap();
    }
}

/// A daemon that found a machine which did not execute waited for it, and knew nothing of it afterwards.
#[tokio::test]
async fn a_machine_that_does_not_execute_is_found_so_and_is_reset() {
    let bench = Bench::new();
    let first = bench.open().await;
    let web = bench.define(&first, "web", &bench.disk(OBEDIENT)).await;
    let accelerator = first.start(&web).await.unwrap();
    let before = status(&first, &web).await;
    assert_eq!(before.halted, None);
    first.reset(&web).await.unwrap();
    wait_for_log(&bench.file(&web, "console.log"), "u").await;
    drop(first);
    let socket = bench.file(&web, "qmp.sock");
    tokio::task::spawn_blocking(move || qmp(&socket, "stop")).await.unwrap();

    let second = bench.open().await;
    let found = status(&second, &web).await;
    assert_eq!(found, PartitionStatus { halted: Some(Halt::Paused), ..before.clone() });
    assert_eq!(second.start(&web).await.unwrap(), accelerator, "it is there");
    second.reset(&web).await.unwrap();
    assert_eq!(status(&second, &web).await, before);
    wait_for_log(&bench.file(&web, "console.log"), "uu").await;
    second.stop(&web, StopMode::Force).await.unwrap();
    assert!(matches!(second.reset(&web).await, Err(HypervisorError::NotRunning(_))));
}

#[tokio::test]
async fn a_machine_that_is_killed_is_told_about_and_can_be_started_again() {
    let bench = Bench::new();
    let hypervisor = bench.open().await;
    let web = bench.define(&hypervisor, "web", &bench.disk(DEAF)).await;
    let mut events = hypervisor.events().await;
    hypervisor.start(&web).await.unwrap();
    signal(&status(&hypervisor, &web).await, Signal::KILL);
    assert_eq!(next_end(&mut events).await, (web.clone(), "killed by signal 9".into()));
    let ended = status(&hypervisor, &web).await;
    assert!(!ended.running && !ended.console.unwrap().exists());
    hypervisor.start(&web).await.unwrap();
    assert!(status(&hypervisor, &web).await.running);
}

#[tokio::test]
async fn a_machine_that_says_nothing_any_more_is_an_error_within_the_bound_and_can_still_be_ended() {
    let mut bench = Bench::new();
    bench.bounds.kill = Duration::from_millis(100);
    let hypervisor = bench.open().await;
    let web = bench.define(&hypervisor, "web", &bench.disk(DEAF)).await;
    hypervisor.start(&web).await.unwrap();
    drop(hypervisor);

    bench.bounds.command = Duration::from_millis(200);
    let hypervisor = bench.open().await;
    let running = status(&hypervisor, &web).await;
    signal(&running, Signal::STOP);
    let error = hypervisor.create_channel(&web).await.unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
    let now = status(&hypervisor, &web).await;
    assert!(now.running && !now.channel);
    hypervisor.stop(&web, StopMode::Force).await.unwrap();
    assert!(!status(&hypervisor, &web).await.running);
}

#[tokio::test]
async fn a_machine_that_ends_at_once_leaves_its_last_words() {
    let bench = Bench::new();
    let hypervisor = bench.open().await;
    let mut events = hypervisor.events().await;
    // A file that is there, and no kernel.
    let text = bench.disk(&[]);
    fs::write(&text, "no kernel").unwrap();
    let web = bench.define_as(&hypervisor, "web", &format!("kernel = '{}'", text.display())).await;
    let error = hypervisor.start(&web).await.unwrap_err();
    assert!(matches!(error, HypervisorError::EndedAtOnce { .. }), "{error}");
    assert!(error.to_string().contains("exit status 1") && error.to_string().contains("kernel"), "{error}");
    assert!(!status(&hypervisor, &web).await.running);
    assert!(events.try_recv().is_err(), "the error says it");

    // The boot file can be put right.
    let disk = bench.disk(DEAF);
    bench.define(&hypervisor, "web", &disk).await;
    hypervisor.start(&web).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named_before_anything_is_started() {
    let bench = Bench::new();
    let hypervisor = bench.open().await;
    let web = bench.define_as(&hypervisor, "web", "kernel = '/no/such,kernel'").await;
    let error = hypervisor.start(&web).await.unwrap_err();
    assert!(chain(&error).contains("/no/such,kernel: No such file"), "{}", chain(&error));
    let boot = Boot { kernel: Some("/no/such,kernel".into()), ..Boot::default() };
    assert_eq!(hypervisor.check_definition(&PartitionSpec::new(web, boot)).await.unwrap().len(), 1);
}

/// Machines ran as root: a guest that broke out of its QEMU was root. Root starts them as others, so this test is root's.
#[tokio::test]
async fn each_machine_runs_as_a_user_of_its_own_who_has_no_right_to_anything() {
    let bench = Bench::new();
    let first = 1_879_048_192;
    let users = Users { machines: first..first + 100, boot_group: first, boot_group_name: "ioward".into() };
    let config = || QemuConfig { users: Some(users.clone()), ..bench.config() };
    let hypervisor = on_this_host(config()).await.unwrap();
    assert_eq!(hypervisor.check().await.unwrap(), hypervisor.check().await.unwrap());
    let disk = bench.disk(DEAF);
    let web = bench.define(&hypervisor, "web", &disk).await;
    let boot = Boot { disk: Some(disk.clone()), ..Boot::default() };
    let spec = PartitionSpec::new(web.clone(), boot);
    let refused = &hypervisor.check_definition(&spec).await.unwrap()[0];
    assert!(refused.remedy.contains("chgrp ioward"), "{refused:?}");
    assert!(hypervisor.start(&web).await.is_err(), "the disk was given to nobody");

    bench.give(&disk, first);
    assert_eq!(hypervisor.check_definition(&spec).await.unwrap(), []);
    hypervisor.start(&web).await.unwrap();
    hypervisor.create_channel(&web).await.unwrap();
    hypervisor.connect_channel(&web).await.unwrap();
    let other = bench.define(&hypervisor, "db", &bench.disk(OBEDIENT)).await;
    bench.give(&bench.disk(OBEDIENT), first);
    hypervisor.start(&other).await.unwrap();
    let (web_before, db_before) = (status(&hypervisor, &web).await, status(&hypervisor, &other).await);
    assert_eq!((user(&web_before), user(&db_before)), (first + 1, first + 2));
    let mode = fs::metadata(bench.file(&web, "")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "and none of them has a right to its own sockets");
    drop(hypervisor);

    // Another daemon knows them, also by who they are where a record is lost.
    fs::write(bench.file(&other, "partition.json"), "{").unwrap();
    let hypervisor = on_this_host(config()).await.unwrap();
    assert_eq!(status(&hypervisor, &web).await.pid, web_before.pid);
    bench.define(&hypervisor, "db", &bench.disk(OBEDIENT)).await;
    hypervisor.start(&other).await.unwrap();
    assert_eq!(status(&hypervisor, &other).await.pid, db_before.pid);
    drop(hypervisor);

    // The folder of all that is known is wiped. A machine that nobody can speak with any more is ended before its partition has
    // another, whatever order they are defined in: none runs twice, and no two are the same user.
    for partition in [&web, &other] {
        fs::remove_dir_all(bench.file(partition, "")).unwrap();
    }
    let bounds =
        Bounds { start: Duration::from_millis(500), kill: Duration::from_millis(100), ..Bounds::default() };
    let hypervisor = on_this_host(QemuConfig { bounds, ..config() }).await.unwrap();
    bench.define(&hypervisor, "db", &bench.disk(OBEDIENT)).await;
    bench.define(&hypervisor, "web", &disk).await;
    for (partition, before) in [(&web, &web_before), (&other, &db_before)] {
        hypervisor.start(partition).await.unwrap_err();
        assert!(!fs::exists(format!("/proc/{}", before.pid.unwrap())).unwrap());
    }
    drop(hypervisor);
    let hypervisor = on_this_host(config()).await.unwrap();
    for partition in [&web, &other] {
        hypervisor.start(partition).await.unwrap();
    }
    let now = [&status(&hypervisor, &web).await, &status(&hypervisor, &other).await].map(user);
    assert_eq!(now, [first + 1, first + 2]);
}

#[tokio::test]
async fn a_missing_or_broken_emulator_is_named_with_the_package_that_brings_it() {
    let bench = Bench::new();
    let missing = QemuConfig { emulator: "qemu-system-nowhere".into(), ..bench.config() };
    let hypervisor = on_this_host(missing).await.unwrap();
    let web = bench.define(&hypervisor, "web", &bench.disk(DEAF)).await;
    for error in [hypervisor.check().await.unwrap_err(), hypervisor.start(&web).await.unwrap_err()] {
        assert!(matches!(error, HypervisorError::EmulatorMissing { .. }), "{error}");
    }
    drop(hypervisor);

    let broken = QemuConfig { emulator: "/bin/false".into(), ..bench.config() };
    let hypervisor = on_this_host(broken).await.unwrap();
    let error = hypervisor.check().await.unwrap_err();
    assert!(matches!(error, HypervisorError::EmulatorBroken { .. }), "{error}");
    let error = hypervisor.start(&web).await.unwrap_err();
    assert!(matches!(error, HypervisorError::EndedAtOnce { .. }), "{error}");
}

#[tokio::test]
async fn a_channel_comes_and_goes_while_the_machine_runs() {
    let bench = Bench::new();
    let hypervisor = bench.open().await;
    let web = bench.define(&hypervisor, "web", &bench.disk(DEAF)).await;
    assert!(matches!(hypervisor.connect_channel(&web).await, Err(HypervisorError::NotRunning(_))));
    hypervisor.start(&web).await.unwrap();
    assert!(hypervisor.connect_channel(&web).await.is_err(), "there is none yet");

    for _ in 0..3 {
        hypervisor.create_channel(&web).await.unwrap();
        hypervisor.create_channel(&web).await.unwrap();
        assert!(status(&hypervisor, &web).await.channel);
        let ChannelEnd::Stream(end) = hypervisor.connect_channel(&web).await.unwrap() else { unreachable!() };
        let end = UnixStream::from(end);
        hypervisor.destroy_channel(&web).await.unwrap();
        hypervisor.destroy_channel(&web).await.unwrap();
        assert!(!status(&hypervisor, &web).await.channel);
        assert!(is_closed(end));
        assert!(!bench.file(&web, "channel.sock").exists());
    }

    hypervisor.create_channel(&web).await.unwrap();
    hypervisor.stop(&web, StopMode::Force).await.unwrap();
    hypervisor.start(&web).await.unwrap();
    hypervisor.connect_channel(&web).await.expect("a channel lasts over a restart");
    hypervisor.destroy_channel(&web).await.unwrap();
    assert!(!bench.file(&web, "channel.sock").exists(), "one from the command line goes like any other");
}

#[tokio::test]
async fn a_vf_has_one_holder_and_a_machine_that_does_not_take_it_does_not_keep_it() {
    let bench = Bench::new();
    let hypervisor = bench.open().await;
    let disk = bench.disk(DEAF);
    let web = bench.define(&hypervisor, "web", &disk).await;
    bench.define(&hypervisor, "db", &disk).await;
    bench.add_vf("0000:fe:10.0");
    let vf = "0000:fe:10.0".parse().unwrap();
    let (web_net0, db_net0) = ("web/net0".parse().unwrap(), "db/net0".parse().unwrap());

    hypervisor.attach_vf(&web_net0, vf).await.unwrap();
    hypervisor.attach_vf(&web_net0, vf).await.unwrap();
    let error = hypervisor.attach_vf(&db_net0, vf).await.unwrap_err();
    assert!(error.to_string().contains("belongs to web/net0"), "{error}");
    drop(hypervisor);
    let hypervisor = bench.open().await;
    assert!(hypervisor.attach_vf(&db_net0, vf).await.is_err(), "a new daemon knows it too");
    assert_eq!(status(&hypervisor, &web).await.vfs, [("net0".parse().unwrap(), vf)]);

    // The tree is made up, so QEMU finds nothing there: neither at the start nor while it runs.
    let error = hypervisor.start(&web).await.unwrap_err();
    assert!(error.to_string().contains("0000:fe:10.0"), "{error}");
    hypervisor.detach_vf(&web_net0, false).await.unwrap();
    hypervisor.detach_vf(&web_net0, false).await.unwrap();
    hypervisor.start(&web).await.unwrap();
    let error = hypervisor.attach_vf(&web_net0, vf).await.unwrap_err();
    assert!(matches!(&error, HypervisorError::Qmp { command, .. } if command == "device_add"), "{error}");
    assert!(status(&hypervisor, &web).await.vfs.is_empty());
    hypervisor.attach_vf(&db_net0, vf).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_makes_no_sense_hurts_no_other_partition() {
    let bench = Bench::new();
    let first = bench.open().await;
    let web = bench.define(&first, "web", &bench.disk(DEAF)).await;
    let db = bench.define(&first, "db", &bench.disk(DEAF)).await;
    first.start(&db).await.unwrap();
    let pid = status(&first, &db).await.pid;
    drop(first);
    fs::write(bench.file(&db, "partition.json"), "{").unwrap();
    fs::create_dir(bench.file(&web, "../not a name")).unwrap();

    let second = bench.open().await;
    let names: Vec<_> = second.partitions().await.unwrap().into_iter().map(|status| status.name).collect();
    assert_eq!(names, std::slice::from_ref(&web));
    // Defined anew, it is not started a second time beside its own machine.
    bench.define(&second, "db", &bench.disk(DEAF)).await;
    second.start(&db).await.unwrap();
    assert_eq!(status(&second, &db).await.pid, pid);
}
