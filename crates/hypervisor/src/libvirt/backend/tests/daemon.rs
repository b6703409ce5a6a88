//! A libvirt daemon with domains, as far as this backend can tell it from a real one: libvirt 11.3, with what it was seen to do in
//! the lab.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ioward_pci::Bdf;
use tokio::{
    net::UnixListener,
    sync::broadcast,
    task::{JoinHandle, JoinSet},
};

use super::super::{Bounds, LibvirtConfig};
use crate::libvirt::{
    Domain, Lifecycle,
    tests::{BOUNDS, Call, Daemon, MESSAGE, REMOTE},
    wire::{self, Procedure},
    xdr::{Reader, Writer},
    xml,
};

/// The sockets of the daemon for QEMU alone, and of the one for everything.
pub(super) const MODULAR: &str = "virtqemud-sock";
const MONOLITHIC: &str = "libvirt-sock";
pub(super) const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";
/// The process that plays the QEMU of all domains: whoever connects to a test sees this one.
pub(super) fn own_pid() -> u32 {
    std::process::id()
}

/// A domain. `live` and `persistent` are its two definitions.
pub(super) struct Dom {
    pub name: String,
    pub uuid: String,
    pub id: Option<u32>,
    pub live: Option<String>,
    pub persistent: Option<String>,
    /// Why it is off: `virDomainShutoffReason`.
    pub reason: i32,
    /// Its guest does not do what it is asked for.
    pub stubborn: bool,
    /// What its guest was asked to let go of, and has not.
    pub asked: BTreeSet<String>,
    /// What libvirt says when it is to start.
    pub no_start: Option<&'static str>,
    /// What its QEMU has, and libvirt's daemon has not written down before it died.
    pub unknown: BTreeSet<String>,
    /// It was saved, and starts as it was then (`virsh managedsave`).
    pub saved: Option<String>,
}

/// The world that the daemon shows.
pub(super) struct World {
    pub domains: Vec<Dom>,
    /// The calls that change something, by name and in order.
    pub calls: Vec<String>,
    /// The daemon dies with the next call of this name, which it has carried out by then.
    pub dies_with: Option<&'static str>,
    /// As `dies_with`, but it has answered that call, too.
    pub dies_after: Option<&'static str>,
    /// What it says to a device that there is no slot for.
    pub no_slot: &'static str,
    /// The call of this name is neither carried out nor answered.
    pub hangs_at: Option<&'static str>,
    dead: bool,
    next_id: u32,
    proc: PathBuf,
    pid_files: PathBuf,
    events: broadcast::Sender<Vec<u8>>,
}

/// A host with libvirt on it.
pub(super) struct Host {
    pub folder: tempfile::TempDir,
    world: Arc<Mutex<World>>,
    daemon: Option<JoinHandle<()>>,
}

/// A domain with `ports` root ports of which the first is taken, and something that ioward does not know.
pub(super) fn definition(name: &str, uuid: &str, ports: u32) -> String {
    let port = |n| format!("    <controller type='pci' index='{n}' model='pcie-root-port'/>\n");
    let ports: String = (1..=ports).map(port).collect();
    format!(
        "<domain type='kvm'>\n  <name>{name}</name>\n  <uuid>{uuid}</uuid>\n  <metadata><m:team xmlns:m='urn:t'>ops &amp; \
         co</m:team></metadata>\n  <memory unit='MiB'>64</memory>\n  <devices>\n    <controller type='pci' index='0' \
         model='pcie-root'/>\n{ports}    <disk type='file'><address type='pci' bus='0x01'/></disk>\n  </devices>\n</domain>\n"
    )
}

impl Host {
    /// With a domain `web` that is off, and a daemon that runs.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [proc, pid_files] = ["proc", "qemu"].map(|name| folder.path().join(name));
        fs::create_dir(&pid_files).unwrap();
        fs::create_dir(&proc).unwrap();
        let world = World {
            domains: Vec::new(),
            calls: Vec::new(),
            dies_with: None,
            dies_after: None,
            no_slot: "internal error: No more available PCI slots",
            hangs_at: None,
            dead: false,
            next_id: 1,
            proc,
            pid_files,
            events: broadcast::Sender::new(64),
        };
        let mut host = Self { folder, world: Arc::new(Mutex::new(world)), daemon: None };
        host.world().add("web", UUID, 4);
        host.start_daemon();
        host
    }

    /// A function of the host's is in this IOMMU group.
    pub(super) fn puts_into_group(&self, function: &str, group: &str) {
        let folder = self.config().sysfs.join("bus/pci/devices").join(function);
        fs::create_dir_all(&folder).unwrap();
        symlink(format!("/sys/kernel/iommu_groups/{group}"), folder.join("iommu_group")).unwrap();
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The two definitions of `web`: of its machine, and for its next start.
    pub(super) fn definitions(&self) -> (Option<String>, Option<String>) {
        let mut world = self.world();
        let web = world.web();
        (web.live.clone(), web.persistent.clone())
    }

    pub(super) fn config(&self) -> LibvirtConfig {
        let path = |name: &str| self.folder.path().join(name);
        LibvirtConfig {
            runtime_dir: path("run"),
            sockets: [MODULAR, MONOLITHIC].map(path).into(),
            pid_files: path("qemu"),
            sysfs: path("sys"),
            proc: path("proc"),
            devices: path("dev"),
            bounds: Bounds {
                calls: BOUNDS,
                reconnect: Duration::from_secs(5),
                unplug: Duration::from_secs(30),
                power_down: Duration::from_secs(120),
            },
        }
    }

    pub(super) fn start_daemon(&mut self) {
        self.start_daemon_at(MONOLITHIC);
    }

    /// The one that listens there.
    pub(super) fn start_daemon_at(&mut self, socket: &str) {
        let socket = self.folder.path().join(socket);
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        self.world().dead = false;
        let world = Arc::clone(&self.world);
        self.daemon = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(Daemon(stream), Arc::clone(&world)));
            }
        }));
    }

    /// Its domains run on, and its socket stays.
    pub(super) async fn kill_daemon(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.abort();
            let _ = daemon.await;
        }
    }

    /// Calls that changed something since the last time.
    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.world().calls)
    }
}

impl World {
    pub(super) fn add(&mut self, name: &str, uuid: &str, ports: u32) {
        self.domains.push(Dom {
            name: name.into(),
            uuid: uuid.into(),
            id: None,
            live: None,
            persistent: Some(definition(name, uuid, ports)),
            reason: 0,
            stubborn: false,
            asked: BTreeSet::new(),
            unknown: BTreeSet::new(),
            no_start: None,
            saved: None,
        });
        self.tell(name, Lifecycle::Defined);
    }

    pub(super) fn dom(&mut self, name: &str) -> &mut Dom {
        self.domains.iter_mut().find(|dom| dom.name == name).expect("such a domain")
    }

    pub(super) fn web(&mut self) -> &mut Dom {
        self.dom("web")
    }

    /// Somebody starts a domain.
    pub(super) fn start(&mut self, name: &str) {
        let id = self.next_id;
        self.next_id += 1;
        let dom = self.dom(name);
        let persistent = dom.saved.take().or_else(|| dom.persistent.clone()).expect("it is off");
        dom.live = Some(persistent.replace("<domain type='kvm'>", &format!("<domain type='kvm' id='{id}'>")));
        dom.id = Some(id);
        let uuid = dom.uuid.clone();
        fs::write(self.pid_files.join(format!("{name}.pid")), own_pid().to_string()).unwrap();
        let process = self.proc.join(own_pid().to_string());
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("cmdline"), format!("qemu\0-uuid\0{uuid}\0")).unwrap();
        let stat = format!("7 (qemu) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 {id} 1 2 3\n");
        fs::write(process.join("stat"), stat).unwrap();
        self.tell(name, Lifecycle::Resumed);
        self.tell(name, Lifecycle::Started);
    }

    /// The machine of a domain is off now.
    pub(super) fn stop(&mut self, name: &str, reason: i32) {
        let dom = self.dom(name);
        (dom.id, dom.live, dom.reason) = (None, None, reason);
        dom.asked.clear();
        let is_transient = dom.persistent.is_none();
        self.kill_process(name);
        self.tell(name, Lifecycle::Stopped);
        if is_transient {
            self.domains.retain(|dom| dom.name != name);
        }
    }

    /// The QEMU of a domain is gone, and nobody has told of it.
    pub(super) fn kill_process(&mut self, name: &str) {
        let _ = fs::remove_file(self.pid_files.join(format!("{name}.pid")));
        let _ = fs::remove_dir_all(self.proc.join(own_pid().to_string()));
    }

    pub(super) fn undefine(&mut self, name: &str) {
        self.dom(name).persistent = None;
        self.tell(name, Lifecycle::Undefined);
        self.domains.retain(|dom| dom.name != name || dom.live.is_some());
    }

    pub(super) fn rename(&mut self, name: &str, to: &str) {
        self.tell(name, Lifecycle::Undefined);
        let dom = self.dom(name);
        dom.name = to.into();
        dom.persistent = dom
            .persistent
            .take()
            .map(|xml| xml.replace(&format!("<name>{name}</name>"), &format!("<name>{to}</name>")));
        self.tell(to, Lifecycle::Defined);
    }

    /// A guest lets go of what it was asked for.
    pub(super) fn obey(&mut self, name: &str) {
        let dom = self.dom(name);
        dom.stubborn = false;
        let asked = std::mem::take(&mut dom.asked);
        for alias in asked {
            self.unplugged(name, &alias);
        }
    }

    /// Somebody takes a device out of a machine that runs.
    pub(super) fn unplugged(&mut self, name: &str, alias: &str) {
        let dom = self.dom(name);
        let live = dom.live.as_ref().expect("it runs");
        dom.live = Some(xml::remove(live, alias).unwrap().expect("it is there"));
        let event = domain(Writer::default().i32(0), self.dom(name)).string(alias).done();
        let _ = self.events.send(wire::message(REMOTE, 333, MESSAGE, 0, &event));
    }

    fn tell(&mut self, name: &str, change: Lifecycle) {
        let number = match change {
            Lifecycle::Defined => 0,
            Lifecycle::Undefined => 1,
            Lifecycle::Started => 2,
            Lifecycle::Resumed => 4,
            Lifecycle::Stopped => 5,
            _ => unreachable!("not used"),
        };
        let event = domain(Writer::default().i32(0), self.dom(name)).i32(number).i32(0).done();
        let _ = self.events.send(wire::message(REMOTE, 318, MESSAGE, 0, &event));
    }

    fn by_uuid(&mut self, uuid: &str) -> Result<&mut Dom, Refused> {
        let mut domains = self.domains.iter_mut();
        domains
            .find(|dom| dom.uuid == uuid)
            .ok_or((42, "Domain not found: no domain with matching uuid".into()))
    }

    /// Carries out a call.
    fn handle(&mut self, procedure: u32, arguments: &[u8]) -> Result<Writer, Refused> {
        let is = |it: Procedure| procedure == it as u32;
        let mut reader = Reader::new(arguments);
        if is(Procedure::DomainLookupByName) {
            let name = reader.string().unwrap();
            let found = self.domains.iter().find(|dom| dom.name == name);
            let found = found.ok_or((42, "Domain not found: no domain with matching name".to_owned()))?;
            return Ok(domain(Writer::default(), found));
        }
        if is(Procedure::ConnectListAllDomains) {
            let count = u32::try_from(self.domains.len()).unwrap();
            let all = self.domains.iter().fold(Writer::default().u32(count), domain);
            return Ok(all.u32(count));
        }
        if !is(Procedure::DomainLookupByUuid) {
            reader.string().unwrap();
        }
        let uuid: [u8; 16] = reader.fixed().unwrap();
        let uuid = uuid.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let uuid =
            [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)].map(|(from, to)| &uuid[from..to]).join("-");
        if is(Procedure::DomainLookupByUuid) {
            return Ok(domain(Writer::default(), self.by_uuid(&uuid)?));
        }
        let _id = reader.i32().unwrap();
        let dom = self.by_uuid(&uuid)?;
        let name = dom.name.clone();
        if is(Procedure::DomainGetXmlDesc) {
            let inactive = reader.u32().unwrap() & 2 != 0;
            let live = dom.live.as_ref().filter(|_| !inactive || dom.persistent.is_none());
            return Ok(Writer::default().string(live.or(dom.persistent.as_ref()).unwrap()));
        }
        if is(Procedure::DomainIsPersistent) {
            return Ok(Writer::default().i32(dom.persistent.is_some().into()));
        }
        if is(Procedure::DomainGetState) {
            let state = if dom.id.is_none() {
                5
            } else if dom.stubborn {
                3
            } else {
                1
            };
            return Ok(Writer::default().i32(state).i32(dom.reason));
        }
        let invalid = |why: &str| (55, format!("Requested operation is not valid: {why}"));
        if is(Procedure::DomainCreateWithFlags) {
            self.calls.push("start".into());
            let dom = self.by_uuid(&uuid)?;
            match dom.no_start {
                Some(why) => return Err((1, why.into())),
                None if dom.id.is_some() => return Err(invalid("domain is already running")),
                None => self.start(&name),
            }
            return Ok(domain(Writer::default(), self.by_uuid(&uuid)?));
        }
        if dom.id.is_none() && (is(Procedure::DomainDestroyFlags) || is(Procedure::DomainShutdownFlags)) {
            return Err(invalid("domain is not running"));
        }
        if is(Procedure::DomainDestroyFlags) {
            self.calls.push("turn off".into());
            self.stop(&name, 2);
            return Ok(Writer::default());
        }
        if is(Procedure::DomainShutdownFlags) {
            let is_stubborn = dom.stubborn;
            self.calls.push("press".into());
            if !is_stubborn {
                self.stop(&name, 1);
            }
            return Ok(Writer::default());
        }
        let text = reader.string().unwrap();
        let to_live = reader.u32().unwrap() == 1;
        let place = if to_live { "live" } else { "next" };
        if is(Procedure::DomainAttachDeviceFlags) {
            let alias = text.split("<alias name='").nth(1).unwrap().split('\'').next().unwrap();
            let name = format!("+{alias} {place}");
            if self.hangs_at.take_if(|call| *call == name).is_some() {
                return Err((HANGS, name));
            }
            self.calls.push(name);
            self.attach(&uuid, &text, to_live)?;
        } else if is(Procedure::DomainDetachDeviceAlias) {
            self.calls.push(format!("-{text} {place}"));
            self.detach(&uuid, &text, to_live)?;
        } else if is(Procedure::DomainDetachDeviceFlags) {
            let function = function_of(&text).expect("it is detached by its function");
            self.calls.push(format!("-{function} {place}"));
            self.detach_function(&uuid, function, to_live)?;
        } else {
            panic!("nobody calls {procedure}");
        }
        Ok(Writer::default())
    }

    fn attach(&mut self, uuid: &str, device: &str, to_live: bool) -> Result<(), Refused> {
        let no_slot = self.no_slot;
        let dom = self.by_uuid(uuid)?;
        let name = dom.name.clone();
        let definition = if to_live { &mut dom.live } else { &mut dom.persistent };
        let Some(text) = definition else {
            return Err((55, "Requested operation is not valid: domain is not running".into()));
        };
        let facts = xml::read(text).unwrap();
        if device.starts_with("<channel") && facts.serial_controllers.is_empty() {
            return Err((1, "internal error: no virtio-serial controllers are available".into()));
        }
        if let Some(alias) = dom.unknown.iter().find(|alias| to_live && device.contains(alias.as_str())) {
            let why = format!("Duplicate device ID '{alias}'");
            return Err((1, format!("internal error: unable to execute QEMU command 'device_add': {why}")));
        }
        let takes_slot = device.starts_with("<hostdev") || device.contains("virtio-serial");
        let mut device = device.to_owned();
        if takes_slot {
            let slot = facts.free_root_ports().next();
            let bus = slot.ok_or((1, no_slot.to_owned()))?;
            let end = device.rfind("</").unwrap();
            device.insert_str(end, &format!("<address type='pci' bus='0x{bus:02x}'/>"));
        }
        let with = xml::insert(text, &device);
        *text = with.map_err(|_| (67, "unsupported configuration: non unique alias detected".to_owned()))?;
        if !to_live {
            self.tell(&name, Lifecycle::Defined);
        }
        Ok(())
    }

    /// A device is found by its function, whatever its alias is.
    fn detach_function(&mut self, uuid: &str, function: Bdf, to_live: bool) -> Result<(), Refused> {
        let dom = self.by_uuid(uuid)?;
        let name = dom.name.clone();
        let definition = if to_live { &dom.live } else { &dom.persistent };
        let text = definition.as_ref().ok_or((55, "Requested operation is not valid".to_owned()))?;
        let missing = || (99, format!("device not found: host pci device {function} not found"));
        let without = without(text, function).ok_or_else(missing)?;
        if !to_live {
            dom.persistent = Some(without);
            self.tell(&name, Lifecycle::Defined);
        } else if !dom.stubborn {
            dom.live = Some(without);
            let event = domain(Writer::default().i32(0), self.dom(&name)).string("hostdev0").done();
            let _ = self.events.send(wire::message(REMOTE, 333, MESSAGE, 0, &event));
        }
        Ok(())
    }

    fn detach(&mut self, uuid: &str, alias: &str, to_live: bool) -> Result<(), Refused> {
        let dom = self.by_uuid(uuid)?;
        let name = dom.name.clone();
        let missing = || (1, format!("internal error: no device found with alias {alias}"));
        let definition = if to_live { &dom.live } else { &dom.persistent };
        let text = definition.as_ref().ok_or((55, "Requested operation is not valid".to_owned()))?;
        let without = xml::remove(text, alias).ok().flatten().ok_or_else(missing)?;
        if !to_live {
            dom.persistent = Some(without);
            self.tell(&name, Lifecycle::Defined);
        } else if alias.contains("serial") {
            return Err((
                84,
                "Operation not supported: 'virtio-serial' controller cannot be hot unplugged.".into(),
            ));
        } else if dom.stubborn && alias != xml::CHANNEL_ALIAS {
            // "Device detach request sent successfully"
            dom.asked.insert(alias.into());
        } else {
            self.unplugged(&name, alias);
        }
        Ok(())
    }
}

/// The function of the host's that a `<hostdev>` is.
fn function_of(device: &str) -> Option<Bdf> {
    let domain = format!("<domain><name>x</name><memory>1</memory><devices>{device}</devices></domain>");
    xml::read(&domain).ok()?.host_devices.first()?.function
}

/// A definition without the `<hostdev>` that is this function.
fn without(definition: &str, function: Bdf) -> Option<String> {
    const END: &str = "</hostdev>";
    let begins = definition.match_indices("<hostdev").map(|(begin, _)| begin);
    let ranges = begins.filter_map(|begin| Some((begin, begin + definition[begin..].find(END)? + END.len())));
    let (begin, end) =
        ranges.into_iter().find(|(begin, end)| function_of(&definition[*begin..*end]) == Some(function))?;
    Some([definition[..begin].trim_end(), &definition[end..]].concat())
}

type Refused = (i32, String);
/// Instead of a number of libvirt's: there is no answer.
const HANGS: i32 = -1;

fn domain(writer: Writer, dom: &Dom) -> Writer {
    let domain = Domain { name: dom.name.clone(), uuid: dom.uuid.parse().unwrap(), id: dom.id };
    wire::write_domain(writer, &domain)
}

/// Serves one client until it or the daemon ends.
async fn serve(mut daemon: Daemon, world: Arc<Mutex<World>>) {
    let lock = || world.lock().unwrap_or_else(PoisonError::into_inner);
    if lock().dead {
        return;
    }
    daemon.welcome().await;
    let mut events = lock().events.subscribe();
    loop {
        tokio::select! {
            call = daemon.next_whole() => {
                let Some(call) = call else { return };
                if call.program != REMOTE {
                    daemon.send(&wire::pong()).await;
                    continue;
                }
                if call.procedure == Procedure::ConnectClose as u32 {
                    return;
                }
                let (answer, dies, dies_after) = {
                    let mut world = lock();
                    let before = world.calls.len();
                    let answer = world.handle(call.procedure, &call.arguments);
                    let made = |wanted: Option<&str>| {
                        wanted.is_some_and(|call| world.calls[before..].iter().any(|it| it == call))
                    };
                    let (dies, dies_after) = (made(world.dies_with), made(world.dies_after));
                    world.dead |= dies || dies_after;
                    (answer, dies, dies_after)
                };
                if dies {
                    lock().dies_with = None;
                    return;
                }
                // Events of a call come before its answer.
                while let Ok(event) = events.try_recv() {
                    daemon.send(&event).await;
                }
                match answer {
                    Ok(returned) => daemon.answer(&call, returned).await,
                    Err((HANGS, _)) => {}
                    Err((code, why)) => daemon.refuse(&call, code, &why).await,
                }
                if dies_after {
                    lock().dies_after = None;
                    return;
                }
            }
            event = events.recv() => if let Ok(event) = event {
                daemon.send(&event).await;
            }
        }
    }
}

impl Daemon {
    /// May be dropped while nothing has come.
    async fn next_whole(&mut self) -> Option<Call> {
        self.0.readable().await.ok()?;
        self.next().await
    }
}

/// Has the QEMU of all domains hold an IOMMU group open.
pub(super) fn open_group(proc: &Path, group: &str, devices: &Path) {
    let node = devices.join("vfio").join(group);
    symlink(node, proc.join(own_pid().to_string()).join("fd").join(group)).unwrap();
}
