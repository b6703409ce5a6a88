//! The life of a simulated partition: processes that run the real agent, and processes that do as they please.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use ioward_channel::{
    AgentMessage, ImpMessage, VERSION, Welcome,
    shared::{EndFds, Endpoint, SharedError, Side},
};
use ioward_hypervisor::{
    Accelerator, ChannelEnd, Guard, Hypervisor, HypervisorError, HypervisorEvent, PartitionStatus, StopMode,
    sim::{Bounds, SimConfig, SimHypervisor},
};
use ioward_model::{
    Boot, Class, FunctionFacts, Migration, Name, OpError, OpErrorKind, OpOutcome, Owner, PartitionSpec, Spec,
    StandbyNic, VfOp, VfSettings, VfView,
};
use ioward_pci::Bdf;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal},
};
use tokio::{sync::mpsc, time::timeout};

/// Far above what anything here takes; whoever waits this long has found a bug.
const LONG: Duration = Duration::from_secs(60);
/// A bound that is meant to be reached.
const SHORT: Duration = Duration::from_millis(100);

/// The program that partitions of these tests run: not a test.
#[test]
#[ignore = "the program of the partitions in the other tests"]
fn plays_a_partition() {
    let status = ioward_agent::simulated::main();
    std::process::exit(i32::from(status != ExitCode::SUCCESS));
}

/// A runtime folder.
struct Bench {
    folder: tempfile::TempDir,
    bounds: Bounds,
}

impl Bench {
    fn new() -> Self {
        let bounds = Bounds { start: LONG, command: LONG, unplug: LONG, power_down: LONG };
        Self { folder: tempfile::tempdir().unwrap(), bounds }
    }

    /// Partitions that run the real agent.
    fn hypervisor(&self) -> Guard {
        let arguments = ["--ignored", "--exact", "plays_a_partition", "--nocapture"];
        self.open(std::env::current_exe().unwrap().to_str().unwrap(), &arguments)
    }

    /// Partitions that run a shell script.
    fn of_script(&self, script: &str) -> Guard {
        self.open("/bin/sh", &["-c", script])
    }

    fn open(&self, program: &str, arguments: &[&str]) -> Guard {
        let partitions = SimHypervisor::new(SimConfig {
            runtime_dir: self.folder.path().to_owned(),
            program: program.into(),
            arguments: arguments.iter().map(Into::into).collect(),
            bounds: self.bounds.clone(),
        });
        let partitions = partitions.unwrap();
        partitions.add_bridge("br0".parse().unwrap());
        // Each function that they are given is a VF that may be given.
        let facts = |function: Bdf| FunctionFacts {
            physical: Some("0000:01:00.0".parse().unwrap()),
            is_bridge: false,
            driver: Some("vfio-pci".into()),
            group: Some(vec![function.to_string()]),
        };
        Guard::new(Arc::new(partitions), move |function| Ok(Some(facts(function))))
    }
}

async fn define(hypervisor: &Guard, name: &str) -> Name {
    let text = format!("version = 1\n[[partition]]\nname = \"{name}\"\nboot = {{ disk = '/none' }}\n");
    hypervisor.define(&Spec::parse(text.as_bytes()).unwrap().partitions[0]).await.unwrap();
    name.parse().unwrap()
}

async fn status(hypervisor: &Guard, partition: &Name) -> PartitionStatus {
    hypervisor.partitions().await.unwrap().into_iter().find(|status| status.name == *partition).unwrap()
}

async fn next_end(events: &mut mpsc::Receiver<HypervisorEvent>) -> (Name, String) {
    let event = timeout(LONG, events.recv()).await.expect("no partition ended").unwrap();
    let HypervisorEvent::Ended { partition, why } = event else { unreachable!("{event:?}") };
    (partition, why)
}

fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

/// A person at a console.
struct Person(UnixStream);

impl Person {
    async fn at_console_of(hypervisor: &Guard, partition: &Name) -> Self {
        let socket = UnixStream::connect(status(hypervisor, partition).await.console.unwrap()).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut person = Self(socket);
        // Output before the first reader is lost. Now there is a reader.
        person.types("hello?", "[2] web# ");
        person
    }

    /// Types a line and reads until the machine says something.
    fn types(&mut self, line: &str, until: &str) -> String {
        self.0.write_all(format!("{line}\r").as_bytes()).unwrap();
        self.reads(until)
    }

    fn reads(&mut self, until: &str) -> String {
        let mut said = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&said).contains(until) {
            let read = self.0.read(&mut byte);
            assert!(matches!(read, Ok(1)), "{read:?} after {:?}", String::from_utf8_lossy(&said));
            said.push(byte[0]);
        }
        String::from_utf8(said).unwrap()
    }
}

/// Blocking calls of a test beside the tasks of the hypervisor.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A management partition that grants everything but to set, at one end of a channel until the other closes.
fn serve(fds: EndFds, partition: &Name) -> thread::JoinHandle<SharedError> {
    let (mut end, partition) = (Endpoint::from_fds(Side::Imp, fds).unwrap(), partition.clone());
    thread::spawn(move || {
        loop {
            let frame = match end.try_receive() {
                Ok(Some(frame)) => frame.unwrap(),
                Ok(None) => {
                    let bound = Timespec { tv_sec: 1, tv_nsec: 0 };
                    poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&bound)).unwrap();
                    end.clear().unwrap();
                    continue;
                }
                Err(error) => return error,
            };
            let answer = match AgentMessage::from_frame(&frame).unwrap() {
                AgentMessage::Hello(hello) => ImpMessage::Welcome(Welcome {
                    version: VERSION,
                    epoch: 1,
                    nonce: hello.nonce,
                    partition: partition.clone(),
                }),
                AgentMessage::Request { id, op: VfOp::Set { .. } } => {
                    let result = Err(OpError::new(OpErrorKind::Denied, "vlan is not in guest_may"));
                    ImpMessage::Response { id, more: false, result }
                }
                AgentMessage::Request { id, .. } => {
                    ImpMessage::Response { id, more: false, result: Ok(OpOutcome::Vfs(vec![view()])) }
                }
                AgentMessage::Subscribe { id } => {
                    ImpMessage::Response { id, more: false, result: Ok(OpOutcome::Done) }
                }
            };
            for frame in answer.to_frames() {
                assert!(end.try_send(&frame).unwrap());
            }
        }
    })
}

fn view() -> VfView {
    VfView {
        name: "net0".parse().unwrap(),
        class: Class::Network,
        host_address: bdf("0000:01:10.0"),
        settings: VfSettings { mac: Some("52:54:00:aa:00:01".parse().unwrap()), ..VfSettings::default() },
        may: vec!["mac".to_owned()],
        failover: None,
        fault: None,
    }
}

async fn connect(hypervisor: &Guard, partition: &Name) -> EndFds {
    match hypervisor.connect_channel(partition).await.unwrap() {
        ChannelEnd::Shared(fds) => fds,
        ChannelEnd::Stream(_) => panic!("a stream"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_defined_started_stopped_and_forgotten() {
    let bench = Bench::new();
    let hypervisor = bench.hypervisor();
    assert_eq!(hypervisor.check().await.unwrap(), Accelerator::Sim);
    let web = define(&hypervisor, "web").await;
    assert!(!status(&hypervisor, &web).await.running);
    assert_eq!(hypervisor.start(&web).await.unwrap(), Accelerator::Sim);
    let running = status(&hypervisor, &web).await;
    assert!(running.running && running.console.unwrap().exists());
    hypervisor.start(&web).await.unwrap();
    assert_eq!(status(&hypervisor, &web).await.pid, running.pid, "starting it again changes nothing");
    assert!(matches!(hypervisor.undefine(&web).await, Err(HypervisorError::Running(_))));

    let mut events = hypervisor.events().await;
    hypervisor.stop(&web, StopMode::Graceful).await.unwrap();
    hypervisor.stop(&web, StopMode::Force).await.unwrap();
    assert!(events.try_recv().is_err(), "it was asked for");
    let stopped = status(&hypervisor, &web).await;
    assert!(!stopped.running && stopped.pid.is_none() && !stopped.console.unwrap().exists());
    hypervisor.undefine(&web).await.unwrap();
    hypervisor.undefine(&web).await.unwrap();
    assert!(!bench.folder.path().join("partitions/web").exists());
    assert!(matches!(hypervisor.start(&web).await, Err(HypervisorError::NoSuchPartition(_))));
}

/// A file that a partition was to boot from was opened by the worker that runs all tasks: a FIFO that nobody writes to held it
/// for ever.
#[tokio::test]
async fn a_fifo_to_boot_from_is_not_waited_for() {
    let hypervisor = Bench::new().hypervisor();
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let boot = Boot {
        kernel: Some(fifo),
        initrd: Some("/none".into()),
        disk: Some(folder.path().to_owned()),
        ..Boot::default()
    };
    let spec = PartitionSpec::new("web".parse().unwrap(), boot);
    let unusable = hypervisor.check_definition(&spec).await.unwrap();
    let found: Vec<_> = unusable.iter().map(|file| file.found.as_str()).collect();
    assert_eq!(found, ["No such file or directory (os error 2)", "a folder"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_the_console_configures_vfs_through_the_channel() {
    let bench = Bench::new();
    let hypervisor = bench.hypervisor();
    let web = define(&hypervisor, "web").await;
    hypervisor.create_channel(&web).await.unwrap();
    hypervisor.start(&web).await.unwrap();
    serve(connect(&hypervisor, &web).await, &web);
    let mut person = Person::at_console_of(&hypervisor, &web).await;
    aside(move || {
        let said = person.types("vf list", "\r\nweb# ");
        assert!(said.contains("net0  network  0000:01:10.0  52:54:00:aa:00:01"), "{said}");
        let said = person.types("vf set net0 vlan=5", "[3] web# ");
        assert!(said.contains("vlan is not in guest_may"), "{said}");
        let said = person.types("vf set net0 vlan=4095", "[2] web# ");
        assert!(said.contains("4094"), "{said}");
        let said = person.types("vf frobnicate", "[2] web# ");
        assert!(said.contains("unrecognized subcommand"), "{said}");
        let said = person.types("vf watch", "present  net0");
        assert!(!said.contains("web# "), "{said}");
        person.types("", "web# ");
        person.types("rm -rf", "[2] web# ");
        person.types("vf lst\x7f\x7fist --json", "\r\nweb# ");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_comes_goes_and_comes_anew_while_the_partition_runs() {
    let bench = Bench::new();
    let hypervisor = bench.hypervisor();
    let web = define(&hypervisor, "web").await;
    assert!(matches!(hypervisor.connect_channel(&web).await, Err(HypervisorError::NotRunning(_))));
    hypervisor.start(&web).await.unwrap();
    assert!(hypervisor.connect_channel(&web).await.is_err(), "there is none yet");
    let mut person = Person::at_console_of(&hypervisor, &web).await;
    let mut person = aside(move || {
        person.types("vf list", "holds no VF");
        person
    })
    .await;

    for _ in 0..3 {
        hypervisor.create_channel(&web).await.unwrap();
        hypervisor.create_channel(&web).await.unwrap();
        assert!(status(&hypervisor, &web).await.channel);
        person = aside(move || {
            person.reads("the channel is there");
            person
        })
        .await;
        // A second connection takes the place of the first, as when the management partition serves it anew.
        let first = serve(connect(&hypervisor, &web).await, &web);
        person = aside(move || {
            person.types("vf list", "52:54:00:aa:00:01");
            person
        })
        .await;
        let second = serve(connect(&hypervisor, &web).await, &web);
        person = aside(move || {
            while !first.is_finished() {
                person.types("vf list", "52:54:00:aa:00:01");
            }
            assert!(matches!(first.join().unwrap(), SharedError::Closed));
            person
        })
        .await;
        hypervisor.destroy_channel(&web).await.unwrap();
        hypervisor.destroy_channel(&web).await.unwrap();
        assert!(!status(&hypervisor, &web).await.channel);
        person = aside(move || {
            person.reads("the channel is gone");
            person.types("vf list", "holds no VF");
            assert!(matches!(second.join().unwrap(), SharedError::Closed));
            person
        })
        .await;
    }
}

/// The management partition takes its time to connect; who asks meanwhile waits and is answered.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_early_is_answered_when_the_management_partition_comes() {
    let bench = Bench::new();
    let hypervisor = bench.hypervisor();
    let web = define(&hypervisor, "web").await;
    hypervisor.create_channel(&web).await.unwrap();
    hypervisor.start(&web).await.unwrap();
    let mut person = Person::at_console_of(&hypervisor, &web).await;
    let person = aside(move || {
        person.types("vf list", "vf list\r\n");
        person
    })
    .await;
    serve(connect(&hypervisor, &web).await, &web);
    aside(move || { person }.reads("52:54:00:aa:00:01")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vfs_are_plugged_in_and_let_go_of() {
    let bench = Bench::new();
    let hypervisor = bench.hypervisor();
    let web = define(&hypervisor, "web").await;
    hypervisor.attach_vf(&owner("web/net0"), bdf("0000:01:10.0")).await.unwrap();
    hypervisor.start(&web).await.unwrap();
    let mut person = Person::at_console_of(&hypervisor, &web).await;
    hypervisor.attach_vf(&owner("web/net1"), bdf("0000:01:10.2")).await.unwrap();
    hypervisor.attach_vf(&owner("web/net1"), bdf("0000:01:10.2")).await.unwrap();
    let mut person = aside(move || {
        person.reads("net1 has been plugged in (0000:01:10.2 on the host)");
        person.types("lspci", "0000:01:10.0  net0\r\n0000:01:10.2  net1");
        person
    })
    .await;
    assert_eq!(status(&hypervisor, &web).await.vfs.len(), 2);
    for _ in 0..2 {
        hypervisor.detach_vf(&owner("web/net1"), false).await.unwrap();
        hypervisor.detach_vf(&owner("web/net1"), false).await.unwrap();
        assert_eq!(status(&hypervisor, &web).await.vfs, [("net0".parse().unwrap(), bdf("0000:01:10.0"))]);
        hypervisor.attach_vf(&owner("web/net1"), bdf("0000:01:10.4")).await.unwrap();
    }
    aside(move || person.reads("net1 has been unplugged")).await;
}

/// As QEMU pairs them.
#[tokio::test]
async fn a_standby_comes_before_its_vf_and_goes_after_it() {
    let bench = Bench::new();
    let hypervisor = bench.hypervisor();
    let web = define(&hypervisor, "web").await;
    hypervisor.start(&web).await.unwrap();
    let nic = StandbyNic { bridge: "br0".parse().unwrap(), mac: "52:54:00:aa:00:01".parse().unwrap() };
    let (net0, net1) = (owner("web/net0"), owner("web/net1"));
    hypervisor.attach_vf(&net1, bdf("0000:01:10.2")).await.unwrap();
    let late = hypervisor.attach_standby(&net1, &nic).await.unwrap_err().to_string();
    assert!(late.contains("its VF is in the machine already"), "{late}");
    hypervisor.attach_standby(&net0, &nic).await.unwrap();
    hypervisor.attach_vf(&net0, bdf("0000:01:10.0")).await.unwrap();
    hypervisor.attach_standby(&net0, &nic).await.unwrap();
    let early = hypervisor.detach_standby(&net0).await.unwrap_err().to_string();
    assert!(early.contains("detach web/net0 first"), "{early}");
    hypervisor.detach_vf(&net0, false).await.unwrap();
    assert_eq!(
        status(&hypervisor, &web).await.standbys,
        std::slice::from_ref(&net0.vf),
        "it stays while its VF is away"
    );
    hypervisor.attach_vf(&net0, bdf("0000:01:10.4")).await.unwrap();
    hypervisor.stop(&web, StopMode::Force).await.unwrap();
    assert_eq!(status(&hypervisor, &web).await.standbys, std::slice::from_ref(&net0.vf));
    hypervisor.detach_standby(&net0).await.unwrap();
    assert_eq!(status(&hypervisor, &web).await.standbys, []);
}

/// It says that it runs, and does nothing it is asked to.
const DEAF: &str = "echo started >&0; exec sleep 600";

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_lets_go_keeps_its_vf_until_it_is_forced() {
    let mut bench = Bench::new();
    bench.bounds.unplug = SHORT;
    let hypervisor = bench.of_script(DEAF);
    let (web, net0) = (define(&hypervisor, "web").await, owner("web/net0"));
    define(&hypervisor, "db").await;
    let vf = bdf("0000:01:10.0");
    hypervisor.start(&web).await.unwrap();
    hypervisor.attach_vf(&net0, vf).await.unwrap();
    let error = hypervisor.detach_vf(&net0, false).await.unwrap_err();
    assert!(
        matches!(&error, HypervisorError::GuestUnresponsive { what, .. } if what == "let go of net0"),
        "{error}"
    );
    assert!(hypervisor.attach_vf(&owner("db/net0"), vf).await.is_err(), "it may still be using it");
    hypervisor.detach_vf(&net0, true).await.unwrap();
    hypervisor.attach_vf(&owner("db/net0"), vf).await.unwrap();
}

/// It lets go of net0, but only once somebody has asked twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_lets_go_late_has_let_go() {
    let mut bench = Bench::new();
    bench.bounds.unplug = SHORT;
    let hypervisor = bench.of_script(
        "echo started >&0; while read word rest; do [ $word = detach ] && read again && echo released net0 >&0; done",
    );
    let (web, net0) = (define(&hypervisor, "web").await, owner("web/net0"));
    hypervisor.start(&web).await.unwrap();
    hypervisor.attach_vf(&net0, bdf("0000:01:10.0")).await.unwrap();
    hypervisor.detach_vf(&net0, false).await.unwrap_err();
    while hypervisor.detach_vf(&net0, false).await.is_err() {}
    assert!(status(&hypervisor, &web).await.vfs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_dies_is_told_about_and_can_be_started_again() {
    let bench = Bench::new();
    let hypervisor = bench.hypervisor();
    let web = define(&hypervisor, "web").await;
    let mut events = hypervisor.events().await;
    hypervisor.attach_vf(&owner("web/net0"), bdf("0000:01:10.0")).await.unwrap();
    hypervisor.start(&web).await.unwrap();
    let pid = Pid::from_raw(status(&hypervisor, &web).await.pid.unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(next_end(&mut events).await, (web.clone(), "killed by signal 9".into()));
    assert!(!status(&hypervisor, &web).await.running);

    hypervisor.start(&web).await.unwrap();
    let mut person = Person::at_console_of(&hypervisor, &web).await;
    aside(move || {
        person.types("lspci", "net0");
        person.types("poweroff", "poweroff\r\n");
    })
    .await;
    assert_eq!(next_end(&mut events).await, (web.clone(), "the guest turned itself off".into()));
    hypervisor.detach_vf(&owner("web/net0"), false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_dies_while_it_is_waited_for_has_let_go() {
    let bench = Bench::new();
    let hypervisor =
        bench.of_script("echo started >&0; while read word rest; do [ $word = detach ] && exit 3; done");
    let web = define(&hypervisor, "web").await;
    let mut events = hypervisor.events().await;
    hypervisor.start(&web).await.unwrap();
    hypervisor.attach_vf(&owner("web/net0"), bdf("0000:01:10.0")).await.unwrap();
    hypervisor.detach_vf(&owner("web/net0"), false).await.unwrap();
    assert_eq!(next_end(&mut events).await, (web, "exit status 3".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ignores_its_power_button_keeps_running_and_can_be_turned_off() {
    let mut bench = Bench::new();
    bench.bounds.power_down = SHORT;
    let hypervisor = bench.of_script(DEAF);
    let web = define(&hypervisor, "web").await;
    hypervisor.start(&web).await.unwrap();
    let error = hypervisor.stop(&web, StopMode::Graceful).await.unwrap_err();
    assert!(matches!(error, HypervisorError::GuestUnresponsive { .. }), "{error}");
    assert!(status(&hypervisor, &web).await.running);
    hypervisor.stop(&web, StopMode::Force).await.unwrap();
    assert!(!status(&hypervisor, &web).await.running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_at_once_leaves_its_last_words() {
    let bench = Bench::new();
    let hypervisor = bench.of_script("echo no such kernel >&2; exit 7");
    let web = define(&hypervisor, "web").await;
    let mut events = hypervisor.events().await;
    let error = hypervisor.start(&web).await.unwrap_err();
    assert!(matches!(error, HypervisorError::EndedAtOnce { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("exit status 7") && text.contains("no such kernel"), "{text}");
    assert!(!status(&hypervisor, &web).await.running);
    assert!(events.try_recv().is_err(), "the error says it");

    let mut bench = Bench::new();
    bench.bounds.start = SHORT;
    let hypervisor = bench.of_script("exec sleep 600");
    define(&hypervisor, "web").await;
    let error = hypervisor.start(&web).await.unwrap_err();
    assert!(matches!(&error, HypervisorError::GuestUnresponsive { what, .. } if what == "start"), "{error}");
    assert!(!status(&hypervisor, &web).await.running);

    let hypervisor = bench.open("/no/such/program", &[]);
    define(&hypervisor, "web").await;
    for error in [hypervisor.check().await.unwrap_err(), hypervisor.start(&web).await.unwrap_err()] {
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}

/// A guest is believed on its control socket only where it was asked, and read only as long as it makes sense.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_talks_nonsense_is_heard_no_more_and_hurts_nobody() {
    for nonsense in ["cat /dev/zero", "yes", "yes released net0", "yes started", "printf '\\377\\n'"] {
        let mut bench = Bench::new();
        bench.bounds.unplug = SHORT;
        let hypervisor = bench.of_script(&format!("echo started >&0; {nonsense} >&0; exec sleep 600"));
        let web = define(&hypervisor, "web").await;
        hypervisor.start(&web).await.unwrap();
        hypervisor.attach_vf(&owner("web/net0"), bdf("0000:01:10.0")).await.unwrap();
        let error = hypervisor.detach_vf(&owner("web/net0"), false).await.err();
        // It may have been asked just before it was heard for the last time.
        assert!(
            error.is_none() && nonsense.contains("released")
                || matches!(error, Some(HypervisorError::GuestUnresponsive { .. })),
            "{nonsense}: {error:?}"
        );
        hypervisor.stop(&web, StopMode::Force).await.unwrap();
    }
}

/// It never reads its control socket: who tells it things must not wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_listen_is_an_error_within_the_bound() {
    let mut bench = Bench::new();
    bench.bounds.command = SHORT;
    let hypervisor = bench.of_script(DEAF);
    let web = define(&hypervisor, "web").await;
    hypervisor.start(&web).await.unwrap();
    hypervisor.create_channel(&web).await.unwrap();
    let error = loop {
        match hypervisor.connect_channel(&web).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, HypervisorError::GuestUnresponsive { .. } | HypervisorError::Io { .. }),
        "{error}"
    );
    hypervisor.stop(&web, StopMode::Force).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_prints_without_end_or_is_not_read_holds_nobody_up() {
    let bench = Bench::new();
    let hypervisor = bench.of_script("echo started >&0; exec yes a long line that is printed for ever");
    let web = define(&hypervisor, "web").await;
    hypervisor.start(&web).await.unwrap();
    let silent = UnixStream::connect(status(&hypervisor, &web).await.console.unwrap()).unwrap();
    let log = bench.folder.path().join("partitions/web/console.log");
    // It has been cut once it is shorter than it was.
    let mut longest = 0;
    loop {
        let length = fs::metadata(&log).unwrap().len();
        if length < longest {
            break;
        }
        longest = length;
        tokio::task::yield_now().await;
    }
    assert!(longest < 2 << 20, "{longest}");
    drop(silent);
    hypervisor.stop(&web, StopMode::Force).await.unwrap();
}

/// Whether a partition's process is stopped by a signal (`proc_pid_stat(5)`, field 3).
async fn stands_still(hypervisor: &Guard, partition: &Name) -> bool {
    let pid = status(hypervisor, partition).await.pid.unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
}

async fn until_complete(hypervisor: &Guard, partition: &Name) {
    let complete = async {
        while hypervisor.migration(partition).await.unwrap() != Migration::Complete {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, complete).await.expect("it is never complete");
}

/// Moves `web` until both stand still.
async fn move_over(source: &Guard, target: &Guard, web: &Name) {
    let layout = source.layout(web).await.unwrap();
    let (into, out) = (target.receive(web, &layout).await.unwrap(), source.send(web).await.unwrap());
    let carried =
        aside(move || std::io::copy(&mut UnixStream::from(out), &mut UnixStream::from(into)).unwrap());
    carried.await;
    until_complete(source, web).await;
    until_complete(target, web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_moves_and_runs_in_one_place_only() {
    let benches = (Bench::new(), Bench::new());
    let (source, target) = (benches.0.hypervisor(), benches.1.hypervisor());
    let web = define(&source, "web").await;
    define(&target, "web").await;
    let nic = StandbyNic { bridge: "br0".parse().unwrap(), mac: "52:54:00:aa:00:01".parse().unwrap() };
    for side in [&source, &target] {
        side.create_channel(&web).await.unwrap();
        side.attach_standby(&owner("web/net0"), &nic).await.unwrap();
    }
    source.start(&web).await.unwrap();
    source.attach_vf(&owner("web/net0"), bdf("0000:01:10.0")).await.unwrap();
    let error = source.send(&web).await.unwrap_err();
    assert!(error.to_string().contains("it holds net0"), "{error}");
    source.detach_vf(&owner("web/net0"), false).await.unwrap();
    move_over(&source, &target, &web).await;
    while !stands_still(&source, &web).await {
        tokio::task::yield_now().await;
    }
    for side in [&source, &target] {
        let error = side.start(&web).await.unwrap_err();
        assert!(matches!(error, HypervisorError::NotMoved { .. }), "a start is no resume: {error}");
        let error = side.attach_vf(&owner("web/net0"), bdf("0000:01:10.0")).await.unwrap_err();
        assert!(matches!(error, HypervisorError::NotMoved { .. }), "{error}");
    }
    // It stays, for once.
    target.stop(&web, StopMode::Force).await.unwrap();
    source.resume(&web).await.unwrap();
    while stands_still(&source, &web).await {
        tokio::task::yield_now().await;
    }
    source.detach_standby(&owner("web/net0")).await.unwrap();
    target.detach_standby(&owner("web/net0")).await.unwrap();
    move_over(&source, &target, &web).await;
    source.stop(&web, StopMode::Force).await.unwrap();
    target.resume(&web).await.unwrap();
    assert!(!status(&source, &web).await.running);
    assert_eq!(target.migration(&web).await.unwrap(), Migration::None);
    target.attach_vf(&owner("web/net0"), bdf("0000:01:10.0")).await.unwrap();
    target.connect_channel(&web).await.unwrap();
    target.stop(&web, StopMode::Graceful).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_goes_on_when_its_way_is_cut_off_or_its_move_is_cancelled() {
    let benches = (Bench::new(), Bench::new());
    let (source, target) = (benches.0.hypervisor(), benches.1.hypervisor());
    let web = define(&source, "web").await;
    define(&target, "web").await;
    source.start(&web).await.unwrap();
    let layout = source.layout(&web).await.unwrap();
    let (into, out) = (target.receive(&web, &layout).await.unwrap(), source.send(&web).await.unwrap());
    let error = target.resume(&web).await.unwrap_err();
    assert!(error.to_string().contains("not come wholly"), "{error}");
    source.resume(&web).await.unwrap();
    assert_eq!(source.migration(&web).await.unwrap(), Migration::None);
    drop((into, out));
    while status(&target, &web).await.running {
        tokio::task::yield_now().await;
    }
    drop(source.send(&web).await.unwrap());
    while !matches!(source.migration(&web).await.unwrap(), Migration::Failed { .. }) {
        tokio::task::yield_now().await;
    }
    assert!(!stands_still(&source, &web).await);
    move_over(&source, &target, &web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_end_with_their_hypervisor() {
    let bench = Bench::new();
    for hypervisor in [bench.hypervisor(), bench.of_script(DEAF)] {
        let web = define(&hypervisor, "web").await;
        hypervisor.start(&web).await.unwrap();
        let pid = Pid::from_raw(status(&hypervisor, &web).await.pid.unwrap().try_into().unwrap()).unwrap();
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        drop(hypervisor);
        aside(move || {
            let bound = Timespec::try_from(LONG).unwrap();
            assert_eq!(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&bound)), Ok(1));
        })
        .await;
    }
}

/// A hypervisor that is killed can end nobody: the control socket that ends with it has to do.
#[test]
fn a_partition_ends_by_itself_when_its_hypervisor_is_killed() {
    let (control, childs_control) = UnixStream::pair().unwrap();
    let (_console, childs_console) = UnixStream::pair().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "plays_a_partition", "--nocapture"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(childs_control)))
        .stdout(Stdio::from(std::os::fd::OwnedFd::from(childs_console)))
        .spawn()
        .unwrap();
    (&control).write_all(b"boot\n").unwrap();
    control.set_read_timeout(Some(LONG)).unwrap();
    let mut said = [0; 8];
    (&control).read_exact(&mut said).unwrap();
    assert_eq!(&said, b"started\n");
    drop(control);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
