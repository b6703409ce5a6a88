//! Several backends as one: who is asked for what, and what becomes of the others when one does not answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, missing_docs)]

mod stub;

use std::{sync::Arc, time::Duration};

use ioward_hypervisor::{Hypervisor, HypervisorError, HypervisorEvent, Router, StopMode};
use ioward_model::{KindName, Name, PartitionSpec, Spec};
use stub::{Mood, Stub};
use tokio::time::Instant;

const VF: &str = "0000:01:10.0";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn spec(partition: &str, kind: &str) -> PartitionSpec {
    let text = format!("version = 1\n[[partition]]\nname = \"{partition}\"\n{kind}\n");
    Spec::parse(text.as_bytes()).unwrap().partitions.remove(0)
}

fn machine(name: &str) -> PartitionSpec {
    spec(name, "boot = { disk = '/none' }")
}

fn domain(name: &str) -> PartitionSpec {
    spec(name, "libvirt = 'some'")
}

struct Host {
    machines: Arc<Stub>,
    domains: Arc<Stub>,
    router: Router,
}

impl Host {
    fn new() -> Self {
        Self::over(Stub::new(KindName::Machine), Stub::new(KindName::Domain))
    }

    fn over(machines: Arc<Stub>, domains: Arc<Stub>) -> Self {
        let router = Router::default()
            .with(KindName::Machine, Arc::clone(&machines) as Arc<dyn Hypervisor>)
            .with(KindName::Domain, Arc::clone(&domains) as Arc<dyn Hypervisor>);
        Self { machines, domains, router }
    }

    /// Another daemon over the same backends.
    fn restarted(self) -> Self {
        Self::over(self.machines, self.domains)
    }

    async fn names(&self) -> Vec<(String, KindName)> {
        let partitions = self.router.partitions().await.unwrap();
        partitions.into_iter().map(|status| (status.name.to_string(), status.kind)).collect()
    }
}

#[tokio::test]
async fn each_backend_has_its_own_partitions_and_all_are_listed() {
    let host = Host::new();
    host.router.define(&machine("web")).await.unwrap();
    host.router.define(&domain("db")).await.unwrap();
    assert_eq!(host.names().await, [("db".into(), KindName::Domain), ("web".into(), KindName::Machine)]);
    host.router.start(&name("db")).await.unwrap();
    host.router.create_channel(&name("web")).await.unwrap();
    host.router.attach_vf(&"db/net0".parse().unwrap(), VF.parse().unwrap()).await.unwrap();
    let [db] = host.domains.partitions().await.unwrap().try_into().unwrap();
    assert!(db.running && db.vfs.len() == 1 && !db.channel);
    assert!(host.machines.partitions().await.unwrap()[0].channel);

    // One that knows nothing asks the backends.
    let host = host.restarted();
    host.router.stop(&name("db"), StopMode::Force).await.unwrap();
    host.router.undefine(&name("web")).await.unwrap();
    assert_eq!(host.names().await, [("db".into(), KindName::Domain)]);
    assert!(matches!(host.router.start(&name("web")).await, Err(HypervisorError::NoSuchPartition(_))));
    host.router.undefine(&name("web")).await.unwrap();
}

#[tokio::test]
async fn a_partition_does_not_become_one_of_another_kind() {
    let host = Host::new();
    host.router.define(&machine("web")).await.unwrap();
    let host = host.restarted();
    let error = host.router.define(&domain("web")).await.unwrap_err();
    assert_eq!(error.to_string(), "partition web is a machine already; remove it first: ioward remove web");
    host.router.undefine(&name("web")).await.unwrap();
    host.router.define(&domain("web")).await.unwrap();
    assert_eq!(host.names().await, [("web".into(), KindName::Domain)]);
}

#[tokio::test]
async fn what_nothing_here_runs_is_refused_and_said_before() {
    let host = Host::new();
    let namespace = spec("pod", "netns = 'blue'");
    let error = host.router.define(&namespace).await.unwrap_err();
    assert!(matches!(&error, HypervisorError::NoBackend { .. }), "{error}");
    let obstacles = host.router.check_definition(&namespace).await.unwrap();
    assert!(obstacles[0].found.contains("namespace blue"), "{obstacles:?}");
    assert_eq!(host.router.check_definition(&domain("db")).await.unwrap()[0].found, "asked of domain");
}

/// A VF that a partition has which nobody lists is a free one to whoever asks.
#[tokio::test(start_paused = true)]
async fn one_that_is_silent_is_taken_at_its_last_word_and_never_left_out() {
    for mood in [Mood::Fails, Mood::Hangs] {
        let host = Host::new();
        host.router.define(&machine("web")).await.unwrap();
        host.router.define(&domain("db")).await.unwrap();
        host.domains.is(mood);
        host.router.partitions().await.unwrap_err();
        // What is not listed may be there.
        let host = host.restarted();
        host.router.define(&domain("db")).await.unwrap_err();
        assert!(!matches!(host.router.start(&name("db")).await, Err(HypervisorError::NoSuchPartition(_))));
        host.router.start(&name("web")).await.unwrap();

        host.domains.is(Mood::Answers);
        assert_eq!(host.names().await.len(), 2);
        host.domains.is(mood);
        assert_eq!(host.names().await.len(), 2, "its last word");
        host.router.start(&name("web")).await.unwrap();
        let web = host.router.partitions().await.unwrap().remove(1);
        assert!(web.running, "the others are as they are now");
        host.router.attach_vf(&"db/net0".parse().unwrap(), VF.parse().unwrap()).await.unwrap();
        host.router.partitions().await.unwrap_err();
        host.domains.is(Mood::Answers);
        assert_eq!(host.router.partitions().await.unwrap()[0].vfs.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_waited_for_once() {
    let host = Host::new();
    host.names().await;
    host.domains.is(Mood::Hangs);
    host.names().await;
    let begun = Instant::now();
    for _ in 0..5 {
        host.names().await;
    }
    assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_events_of_all_come_through_one_receiver() {
    let host = Host::new();
    let mut old = host.router.events().await;
    let mut events = host.router.events().await;
    for (backend, partition) in [(&host.machines, "web"), (&host.domains, "db"), (&host.machines, "web")] {
        backend.tell(HypervisorEvent::Started { partition: name(partition) }).await;
        assert_eq!(events.recv().await.unwrap().partition(), &name(partition));
    }
    assert!(old.recv().await.is_none(), "a second call takes the first one's place");
}
