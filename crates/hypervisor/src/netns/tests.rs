//! The backend over a kernel of values, which moves interfaces as net/core/dev.c and net/core/rtnetlink.c do.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    os::unix::net::UnixStream,
    sync::{Condvar, MutexGuard, mpsc as std_mpsc},
    time::Duration,
};

use ioward_model::PartitionKind;
use ioward_netlink::{Link, Namespace};
use rustix::io::Errno;
use tempfile::TempDir;

use super::{
    find::{Absent, Identity},
    *,
};

const HOME: u64 = 0;
const FUNCTION: &str = "0000:01:10.0";
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// What happens in the middle of a move.
type Meanwhile = Box<dyn FnOnce(&mut World) + Send>;

#[derive(Default)]
struct World {
    /// By name.
    namespaces: BTreeMap<String, u64>,
    made: u64,
    /// Interfaces and the namespaces that they are in.
    links: Vec<(u64, Link)>,
    drivers: BTreeMap<Bdf, String>,
    meanwhile: Option<Meanwhile>,
    /// Names that nobody may use: the host's own namespace has them too.
    own: BTreeSet<String>,
    /// Looks until the driver has made the interface.
    slow: u32,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<World>>, Arc<(Mutex<bool>, Condvar)>);

fn function() -> Bdf {
    FUNCTION.parse().unwrap()
}

fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

impl World {
    fn add_namespace(&mut self, name: &str) {
        self.made += 1;
        self.namespaces.insert(name.into(), self.made);
    }

    /// As default_device_exit_net(): what is in it comes home, under its own name or another one.
    fn delete_namespace(&mut self, name: &str) {
        let id = self.namespaces.remove(name).unwrap();
        self.empty(id);
    }

    fn empty(&mut self, id: u64) {
        for at in 0..self.links.len() {
            let (place, link) = &self.links[at];
            if *place == id {
                let mut link = link.clone();
                if self.is_taken(HOME, &link.name) {
                    link.name = format!("dev{}", link.index).into_bytes();
                }
                self.links[at] = (HOME, link);
            }
        }
    }

    fn add_link(&mut self, place: u64, name: &str, function: Option<Bdf>) {
        let index = u32::try_from(self.links.len()).unwrap() + 1;
        let name = name.as_bytes().to_vec();
        self.links.push((place, Link { index, name, other_names: Vec::new(), function }));
    }

    fn is_taken(&self, place: u64, name: &[u8]) -> bool {
        self.links.iter().any(|(at, link)| *at == place && link.is_called(name))
    }

    fn free_name(&self, place: u64, wanted: &[u8]) -> Option<Vec<u8>> {
        if wanted.ends_with(b"%d") {
            let stem = std::str::from_utf8(&wanted[..wanted.len() - 2]).unwrap();
            return (0..).map(|n| format!("{stem}{n}").into_bytes()).find(|name| !self.is_taken(place, name));
        }
        (!self.is_taken(place, wanted)).then(|| wanted.to_vec())
    }

    /// As do_setlink(): it is moved first, and then its new name may be taken.
    fn move_link(&mut self, from: u64, index: u32, to: u64, name: &[u8]) -> io::Result<()> {
        let at = self.links.iter().position(|(place, link)| *place == from && link.index == index);
        let at = at.ok_or(Errno::NODEV)?;
        let old = self.links[at].1.name.clone();
        if self.is_taken(to, &old) {
            let new = self.free_name(to, name).ok_or(Errno::EXIST)?;
            self.links[at].1.name = new;
            self.links[at].0 = to;
            return Ok(());
        }
        let new = self.free_name(to, name);
        self.links[at].0 = to;
        self.links[at].1.name = new.ok_or(Errno::EXIST)?;
        Ok(())
    }

    /// Where the interface of the VF is, and its name there.
    fn place(&self) -> Option<(u64, String)> {
        let its = self.links.iter().find(|(_, link)| link.function == Some(function()));
        its.map(|(place, link)| (*place, String::from_utf8(link.name.clone()).unwrap()))
    }
}

fn number(place: &Place) -> u64 {
    (0..1000).find(|number| Identity::numbered(*number) == place.identity).unwrap()
}

fn place(number: u64) -> Place {
    Place { namespace: Namespace::own().unwrap(), identity: Identity::numbered(number) }
}

impl Fake {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Whoever asks it waits.
    fn wait_while_stuck(&self) {
        let stuck = self.1.0.lock().unwrap();
        let _free = self.1.1.wait_while(stuck, |stuck| *stuck).unwrap();
    }

    fn set_stuck(&self, stuck: bool) {
        *self.1.0.lock().unwrap() = stuck;
        self.1.1.notify_all();
    }
}

impl Kernel for Fake {
    fn find(&self, namespace: &NamespaceRef) -> Result<Place, Absent> {
        let NamespaceRef::Named(name) = namespace else { panic!("no pid files here") };
        let world = self.world();
        if world.own.contains(name) {
            return Err(Absent::Refused("is the host's own".into()));
        }
        world.namespaces.get(name).map(|id| place(*id)).ok_or_else(|| Absent::Gone("is not there".into()))
    }

    fn home(&self) -> io::Result<Place> {
        Ok(place(HOME))
    }

    fn links(&self, place: &Place) -> io::Result<Vec<Link>> {
        self.wait_while_stuck();
        let mut world = self.world();
        if world.slow > 0 {
            world.slow -= 1;
            if world.slow == 0 {
                world.add_link(HOME, "eth4", Some(function()));
            }
        }
        let its = world.links.iter().filter(|(at, _)| *at == number(place));
        Ok(its.map(|(_, link)| link.clone()).collect())
    }

    fn move_link(&self, from: &Place, index: u32, to: &Place, name: &[u8]) -> io::Result<()> {
        let mut world = self.world();
        if let Some(meanwhile) = world.meanwhile.take() {
            meanwhile(&mut world);
        }
        world.move_link(number(from), index, number(to), name)
    }

    fn rename_link(&self, index: u32, name: &[u8]) -> io::Result<()> {
        let mut world = self.world();
        let its = world.links.iter_mut().find(|(at, link)| *at == HOME && link.index == index);
        its.ok_or(Errno::NODEV)?.1.name = name.to_vec();
        Ok(())
    }

    fn is_home(&self, function: Bdf) -> bool {
        self.world().links.iter().any(|(at, link)| *at == HOME && link.function == Some(function))
    }

    fn driver(&self, function: Bdf) -> io::Result<Option<String>> {
        Ok(self.world().drivers.get(&function).cloned())
    }

    fn unbind(&self, function: Bdf) -> io::Result<()> {
        let mut world = self.world();
        world.drivers.remove(&function);
        world.links.retain(|(_, link)| link.function != Some(function));
        Ok(())
    }
}

/// A host with namespace `web`, a VF whose interface is `eth4`, and partition web.
struct Host {
    kernel: Fake,
    netns: NetnsHypervisor<Fake>,
    events: mpsc::Receiver<HypervisorEvent>,
    folder: TempDir,
    bounds: Bounds,
}

impl Host {
    async fn new() -> Self {
        Self::with(Bounds { interface: LONG, operation: LONG, look: LONG }).await
    }

    /// Looks are made by the tests.
    async fn with(bounds: Bounds) -> Self {
        let kernel = Fake::default();
        {
            let mut world = kernel.world();
            world.add_namespace("web");
            world.add_link(HOME, "lo", None);
            world.add_link(HOME, "eth4", Some(function()));
            world.drivers.insert(function(), "igbvf".into());
        }
        let folder = tempfile::tempdir().unwrap();
        let config = NetnsConfig {
            runtime_dir: folder.path().into(),
            bounds: bounds.clone(),
            ..NetnsConfig::default()
        };
        let netns = NetnsHypervisor::open_on(kernel.clone(), config).await.unwrap();
        let events = netns.events().await;
        let host = Self { kernel, netns, events, folder, bounds };
        host.netns.define(&spec("web", "web")).await.unwrap();
        host
    }

    /// Another daemon, after this one was killed.
    async fn restarted(self) -> Self {
        let Self { kernel, netns, folder, bounds, .. } = self;
        drop(netns);
        let config = NetnsConfig {
            runtime_dir: folder.path().into(),
            bounds: bounds.clone(),
            ..NetnsConfig::default()
        };
        let netns = NetnsHypervisor::open_on(kernel.clone(), config).await.unwrap();
        let events = netns.events().await;
        Self { kernel, netns, events, folder, bounds }
    }

    async fn attach(&self) -> Result<(), HypervisorError> {
        self.netns.attach_vf(&owner("web/net0"), function()).await
    }

    async fn detach(&self) {
        self.netns.detach_vf(&owner("web/net0"), false).await.unwrap();
    }

    async fn status(&self) -> PartitionStatus {
        self.netns.partitions().await.unwrap().into_iter().next().unwrap()
    }

    /// What a look tells.
    async fn news(&mut self) -> Vec<HypervisorEvent> {
        self.netns.shared.look_at_all().await;
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    fn place(&self) -> Option<(u64, String)> {
        self.kernel.world().place()
    }

    fn web(&self) -> u64 {
        self.kernel.world().namespaces["web"]
    }
}

fn spec(partition: &str, namespace: &str) -> PartitionSpec {
    let namespace = NamespaceRef::Named(namespace.into());
    PartitionSpec::new(name(partition), PartitionKind::Namespace(namespace))
}

fn started() -> HypervisorEvent {
    HypervisorEvent::Started { partition: name("web") }
}

fn gone(why: &str) -> HypervisorEvent {
    HypervisorEvent::Gone { partition: name("web"), why: format!("its network namespace {why}") }
}

#[tokio::test]
async fn a_vf_is_moved_in_under_its_name_and_comes_home_under_its_old_one() {
    let host = Host::new().await;
    assert!(host.status().await.running);
    for _ in 0..2 {
        host.attach().await.unwrap();
        assert_eq!(host.place(), Some((host.web(), "net0".into())));
    }
    assert_eq!(host.status().await.vfs, [(name("net0"), function())]);
    for _ in 0..2 {
        host.detach().await;
        assert_eq!(host.place(), Some((HOME, "eth4".into())));
    }
    assert!(host.status().await.vfs.is_empty());
}

#[tokio::test]
async fn without_a_namespace_a_vf_is_noted_and_moved_in_when_that_has_come() {
    let mut host = Host::new().await;
    host.kernel.world().delete_namespace("web");
    host.attach().await.unwrap();
    assert_eq!(host.news().await, []);
    assert!(!host.status().await.running);
    assert_eq!(host.place(), Some((HOME, "eth4".into())));

    host.kernel.world().add_namespace("web");
    assert_eq!(host.news().await, [started()]);
    assert_eq!(host.place(), Some((HOME, "eth4".into())), "that is for whoever is told");
    assert_eq!(host.status().await.lacks, [name("net0")]);
    host.attach().await.unwrap();
    assert!(host.status().await.lacks.is_empty());
    assert_eq!(host.place(), Some((host.web(), "net0".into())));
    assert_eq!(host.news().await, [], "told once");
}

#[tokio::test]
async fn a_driver_that_takes_its_time_is_waited_for() {
    let host = Host::new().await;
    {
        let mut world = host.kernel.world();
        world.links.pop();
        world.slow = 5;
    }
    host.attach().await.unwrap();
    assert_eq!(host.place(), Some((host.web(), "net0".into())));
}

#[tokio::test]
async fn a_vf_without_a_driver_or_with_none_that_makes_an_interface_is_refused() {
    let host = Host::with(Bounds { interface: Duration::ZERO, operation: LONG, look: LONG }).await;
    host.kernel.world().links.pop();
    let error = host.attach().await.unwrap_err().to_string();
    assert!(error.contains("igbvf has made none within 0 s"), "{error}");
    host.kernel.world().drivers.clear();
    let error = host.attach().await.unwrap_err().to_string();
    assert!(error.contains("the VF has none without a driver"), "{error}");
    assert!(host.status().await.vfs.is_empty());
}

#[tokio::test]
async fn a_name_that_is_taken_in_the_namespace_is_told_and_the_vf_stays_at_home() {
    let host = Host::new().await;
    let web = host.web();
    host.kernel.world().add_link(web, "net0", None);
    let error = host.attach().await.unwrap_err().to_string();
    assert!(error.contains("has an interface net0 already; rename that"), "{error}");
    assert_eq!(host.place(), Some((HOME, "eth4".into())));
    assert!(host.status().await.vfs.is_empty());
}

/// The kernel has moved it by then, and says that it has not.
#[tokio::test]
async fn a_name_that_is_taken_in_the_middle_leaves_the_vf_at_home() {
    let host = Host::new().await;
    let web = host.web();
    host.kernel.world().meanwhile = Some(Box::new(move |world| world.add_link(web, "net0", None)));
    let error = host.attach().await.unwrap_err().to_string();
    assert!(error.contains("has an interface net0 already"), "{error}");
    assert_eq!(host.place(), Some((HOME, "eth4".into())));
    assert!(host.status().await.vfs.is_empty());
}

#[tokio::test]
async fn a_namespace_that_goes_or_is_made_anew_in_the_middle_leaves_the_vf_at_home() {
    for is_made_anew in [false, true] {
        let host = Host::new().await;
        // Open here, it lives on without its name.
        host.kernel.world().meanwhile = Some(Box::new(move |world| {
            world.namespaces.remove("web");
            if is_made_anew {
                world.add_namespace("web");
            }
        }));
        let error = host.attach().await.unwrap_err().to_string();
        assert!(error.contains("has gone, just when the VF was moved into it"), "{error}");
        assert_eq!(host.place(), Some((HOME, "eth4".into())));
        assert!(host.status().await.vfs.is_empty());
    }
}

#[tokio::test]
async fn a_namespace_that_goes_loses_nothing_and_gets_its_vf_again() {
    let mut host = Host::new().await;
    assert_eq!(host.news().await, [started()]);
    host.attach().await.unwrap();
    // Its name is taken at home, too.
    host.kernel.world().add_link(HOME, "net0", None);
    host.kernel.world().delete_namespace("web");
    assert_eq!(host.news().await, [gone("is not there")]);
    assert_eq!(host.place(), Some((HOME, "dev2".into())));
    assert_eq!(host.status().await.vfs, [(name("net0"), function())], "it is the partition's");
    assert!(!host.status().await.running);

    assert!(host.status().await.lacks.is_empty(), "there is nothing to lack it");
    host.kernel.world().add_namespace("web");
    assert_eq!(host.news().await, [started()]);
    assert_eq!(host.status().await.lacks, [name("net0")]);
    host.attach().await.unwrap();
    assert!(host.status().await.lacks.is_empty());
    assert_eq!(host.place(), Some((host.web(), "net0".into())));
    host.kernel.world().delete_namespace("web");
    host.detach().await;
    assert_eq!(host.place(), Some((HOME, "eth4".into())), "under the name from before all that");
}

/// `ip netns del web; ip netns add web` in a script takes less than the time between two looks.
#[tokio::test]
async fn a_namespace_made_anew_between_two_looks_is_another_one() {
    let mut host = Host::new().await;
    assert_eq!(host.news().await, [started()]);
    host.attach().await.unwrap();
    host.kernel.world().delete_namespace("web");
    host.kernel.world().add_namespace("web");
    assert_eq!(host.news().await, [gone("was made anew"), started()]);
    host.attach().await.unwrap();
    assert_eq!(host.place(), Some((host.web(), "net0".into())));
    assert_eq!(host.news().await, []);
}

#[tokio::test]
async fn an_interface_moved_out_by_hand_is_told_once() {
    let mut host = Host::new().await;
    assert_eq!(host.news().await, [started()]);
    host.attach().await.unwrap();
    let web = host.web();
    host.kernel.world().move_link(web, 2, HOME, b"net0").unwrap();
    let why = "its interface was moved out of the network namespace".into();
    assert_eq!(host.news().await, [HypervisorEvent::Detached { owner: owner("web/net0"), why }]);
    assert_eq!(host.news().await, []);
    assert_eq!(host.status().await.lacks, [name("net0")]);
    host.attach().await.unwrap();
    assert_eq!(host.place(), Some((web, "net0".into())));
    assert!(host.status().await.lacks.is_empty());
}

#[tokio::test]
async fn an_interface_that_ended_with_its_driver_is_told_and_comes_again_with_the_next() {
    let mut host = Host::new().await;
    assert_eq!(host.news().await, [started()]);
    host.attach().await.unwrap();
    host.kernel.unbind(function()).unwrap();
    let why = "its driver was taken from it, and its interface ended with that".into();
    assert_eq!(host.news().await, [HypervisorEvent::Detached { owner: owner("web/net0"), why }]);
    assert_eq!(host.status().await.lacks, [name("net0")]);
    {
        let mut world = host.kernel.world();
        world.drivers.insert(function(), "igbvf".into());
        world.add_link(HOME, "eth7", Some(function()));
    }
    host.attach().await.unwrap();
    assert_eq!(host.place(), Some((host.web(), "net0".into())));
}

/// A container's root can move its interface into a namespace of its own, that nobody finds; or back and forth all the time.
#[tokio::test]
async fn an_interface_that_is_hidden_ends_with_its_driver() {
    let host = Host::with(Bounds { interface: Duration::ZERO, operation: LONG, look: LONG }).await;
    host.attach().await.unwrap();
    let web = host.web();
    host.kernel.world().move_link(web, 2, 999, b"mine").unwrap();
    host.detach().await;
    assert_eq!(host.place(), None);
    assert_eq!(host.kernel.driver(function()).unwrap(), None);
    assert!(host.status().await.vfs.is_empty());
}

#[tokio::test]
async fn the_hosts_own_namespace_takes_no_vf() {
    let host = Host::new().await;
    host.kernel.world().own.insert("host".into());
    host.netns.define(&spec("web", "host")).await.unwrap();
    assert!(!host.status().await.running);
    let refused = host.attach().await.unwrap_err();
    assert_eq!(refused.to_string(), "the network namespace of web (host) is the host's own");
    assert!(host.status().await.vfs.is_empty());
    assert_eq!(host.place(), Some((HOME, "eth4".into())));
}

#[tokio::test]
async fn a_namespace_that_can_never_be_a_partition_is_said_before_it_is_one() {
    let host = Host::new().await;
    host.kernel.world().own.insert("host".into());
    let found = async |partition: &str, namespace: &str| {
        let obstacles = host.netns.check_definition(&spec(partition, namespace)).await.unwrap();
        obstacles.into_iter().map(|obstacle| obstacle.found).collect::<Vec<_>>()
    };
    assert_eq!(found("db", "host").await, ["it is the host's own"]);
    assert_eq!(found("db", "web").await, ["it is partition web"]);
    assert_eq!(found("web", "web").await, [""; 0]);
    assert_eq!(found("db", "later").await, [""; 0], "it may come");
}

#[tokio::test]
async fn a_name_that_is_too_long_for_an_interface_is_refused() {
    let host = Host::new().await;
    let error = host.netns.attach_vf(&owner("web/net0123456789abc"), function()).await.unwrap_err();
    assert!(error.to_string().contains("15 characters at most, and net0123456789abc has 16"), "{error}");
    host.netns.attach_vf(&owner("web/net0123456789ab"), function()).await.unwrap();
}

#[tokio::test]
async fn a_partition_that_becomes_another_namespace_takes_its_vfs_along() {
    let host = Host::new().await;
    host.attach().await.unwrap();
    host.kernel.world().add_namespace("db");
    host.netns.define(&spec("web", "db")).await.unwrap();
    let db = host.kernel.world().namespaces["db"];
    assert_eq!(host.place(), Some((db, "net0".into())));
    host.netns.undefine(&name("web")).await.unwrap();
    assert_eq!(host.place(), Some((HOME, "eth4".into())));
    assert!(host.netns.partitions().await.unwrap().is_empty());
    assert_eq!(fs::read_dir(host.folder.path().join("namespaces")).unwrap().count(), 0);
    host.netns.undefine(&name("web")).await.unwrap();
}

#[tokio::test]
async fn another_daemon_finds_all_of_it_again() {
    let mut host = Host::new().await;
    host.netns.create_channel(&name("web")).await.unwrap();
    assert_eq!(host.news().await, [started()]);
    host.attach().await.unwrap();
    let before = host.status().await;
    let socket = host.folder.path().join("namespaces/web/channel/channel.sock");

    let mut host = host.restarted().await;
    assert_eq!(host.status().await, before);
    assert_eq!(host.news().await, [], "nothing is new");
    UnixStream::connect(&socket).expect("it listens again");

    // What happens while there is none is told by the next.
    host.kernel.world().delete_namespace("web");
    host.kernel.world().add_namespace("web");
    let mut host = host.restarted().await;
    assert!(host.status().await.running);
    assert_eq!(host.news().await, [gone("was made anew"), started()]);
    host.detach().await;
    assert_eq!(host.place(), Some((HOME, "eth4".into())));
}

#[tokio::test]
async fn an_agent_that_connects_is_told_of_until_it_is_served() {
    let mut host = Host::new().await;
    assert_eq!(host.news().await, [started()]);
    let web = name("web");
    assert!(matches!(host.netns.connect_channel(&web).await, Err(HypervisorError::NoAgent(_))));
    host.netns.create_channel(&web).await.unwrap();
    host.netns.create_channel(&web).await.unwrap();
    let socket = host.folder.path().join("namespaces/web/channel/channel.sock");
    let mut agent = UnixStream::connect(&socket).unwrap();
    let connected = HypervisorEvent::AgentConnected { partition: web.clone() };
    assert_eq!(host.events.recv().await, Some(connected.clone()));
    assert_eq!(host.news().await, [connected]);
    let Ok(ChannelEnd::Stream(end)) = host.netns.connect_channel(&web).await else { panic!() };
    UnixStream::from(end).write_all(b"x").unwrap();
    io::Read::read_exact(&mut agent, &mut [0]).unwrap();
    assert_eq!(host.news().await, []);
    assert!(matches!(host.netns.connect_channel(&web).await, Err(HypervisorError::NoAgent(_))));

    host.kernel.world().delete_namespace("web");
    assert_eq!(host.news().await.len(), 1);
    assert!(matches!(host.netns.connect_channel(&web).await, Err(HypervisorError::NotRunning(_))));
    host.netns.destroy_channel(&web).await.unwrap();
    assert!(!socket.exists() && socket.parent().unwrap().exists(), "what is mounted stays");
}

#[tokio::test]
async fn a_kernel_that_does_not_answer_holds_up_its_partition_only() {
    let bounds = Bounds { interface: LONG, operation: Duration::from_millis(100), look: LONG };
    let mut host = Host::with(bounds).await;
    host.kernel.set_stuck(true);
    let error = host.attach().await.unwrap_err().to_string();
    assert!(error.contains("the kernel has not answered"), "{error}");
    let error = host.netns.detach_vf(&owner("web/net0"), true).await.unwrap_err().to_string();
    assert!(error.contains("the kernel has not answered"), "{error}");
    assert_eq!(host.status().await.vfs, [(name("net0"), function())], "who knows");
    host.netns.define(&spec("db", "db")).await.unwrap();
    assert_eq!(host.news().await, []);

    host.kernel.set_stuck(false);
    let (freed, wait) = std_mpsc::channel();
    let operation = Arc::clone(&host.netns.shared.partition(&name("web")).unwrap().operation);
    thread::spawn(move || {
        let _done = operation.blocking_lock();
        freed.send(())
    });
    wait.recv_timeout(LONG).unwrap();
    assert_eq!(host.place(), Some((host.web(), "net0".into())), "it was finished all the same");
    host.detach().await;
}

/// Deep folders in what is mounted would take a stack to remove, and a partition is to be gone without them, too.
#[tokio::test]
async fn what_a_container_leaves_in_its_folder_holds_nothing_up() {
    let host = Host::new().await;
    host.netns.create_channel(&name("web")).await.unwrap();
    let shared = host.folder.path().join("namespaces/web/channel");
    fs::create_dir_all(shared.join("deep/er")).unwrap();
    host.netns.undefine(&name("web")).await.unwrap();
    assert!(shared.join("deep/er").exists() && !shared.join("channel.sock").exists());
    let host = host.restarted().await;
    assert!(host.netns.partitions().await.unwrap().is_empty());

    // In the place of the socket, it keeps that from being made, and nothing else.
    host.netns.define(&spec("web", "web")).await.unwrap();
    host.attach().await.unwrap();
    host.netns.create_channel(&name("web")).await.unwrap();
    fs::remove_file(shared.join("channel.sock")).unwrap();
    fs::create_dir_all(shared.join("channel.sock/mine")).unwrap();
    let host = host.restarted().await;
    assert_eq!(host.status().await.vfs, [(name("net0"), function())]);
}
