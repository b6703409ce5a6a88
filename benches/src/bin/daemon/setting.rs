//! MAC, VLAN and trust of all 127 VFs of an adapter changed in one Spec, against the messages that the kernel has to get for it: one for
//! each VF, with all three in it.
//!
//! The kernel is played: a thread that takes each rtnetlink message from a socket and acknowledges it at once, so that what is left is what
//! ioward does around the messages. How often it looks at the host, and how many messages it sends, is counted, and does not depend on the machine.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use async_trait::async_trait;
use ioward_benches::{
    cpu::milliseconds,
    growth::LINEAR,
    row::{Role, Row},
};
use ioward_fabric::{Fabric, FabricError, sim::SimFabric};
use ioward_model::{
    Class, Intent, Inventory, MacAddress, Name, PartitionSpec, Spec, State, VfId, VfRequest, VfSettings,
    VfStatistics, Vlan,
};
use ioward_netlink::{
    IFLA_EXT_MASK, NLM_F_ACK, NLM_F_REQUEST, RTEXT_FILTER_SKIP_STATS, RTM_GETLINK, RTM_SETLINK,
    message::{attribute, request},
};
use ioward_pci::Bdf;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use tokio::{runtime::Runtime, sync::mpsc};

use crate::{
    daemon::{apply, imp, machine, machine_spec},
    stayed::Stayed,
};

/// VFs, in the sizes of the row.
const VFS: [usize; 3] = [8, 32, 127];
/// Rounds.
const ROUNDS: usize = 7;
/// What the change may take of the messages alone.
const OF_MESSAGES: f64 = 1.2;
/// How often the host may be looked at for it.
const LOOKS: f64 = 1.0;
/// How many messages there may be about one VF.
const MESSAGES: f64 = 1.0;

// include/uapi/linux/if_link.h.
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_VF_INFO: u16 = 1;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_TRUST: u16 = 9;
/// The header of a message, and of an answer.
const HEADER: usize = 16;

/// How long it takes, and what is asked and told for it.
pub fn many() -> [Row; 2] {
    let most = VFS[2];
    let mut row =
        Row::new("set", "MAC, VLAN and trust of VFs changed; the kernel is played by a thread", "ms");
    for (role, what) in [(Role::Ours, "ioward"), (Role::Floor, "one message a VF")] {
        for vfs in VFS {
            row = row.with(role, format!("{what}, {vfs} VFs"));
        }
    }
    let sizes = |from: usize| (from..).zip(VFS).map(|(place, vfs)| (vfs as f64, place)).collect();
    let row = row.ratio(2, 5, OF_MESSAGES).grows("ioward", "VFs", sizes(0), LINEAR).grows(
        "one message a VF",
        "VFs",
        sizes(3),
        None,
    );
    let hosts = VFS.map(Host::with);
    let mut counts = Counted::default();
    let row = row.take_turns(ROUNDS, |round, place| {
        let host = &hosts[place % VFS.len()];
        if place >= VFS.len() {
            return Ok::<_, String>(host.messages_alone(wish(round)));
        }
        let (took, counted) = host.change(wish(round));
        if host.vfs == most {
            counts = counted;
        }
        Ok(took)
    });
    let Counted { looks, asked, told } = counts;
    let per_vf = (asked + told) as f64 / most as f64;
    let mut messages = Row::new("set-messages", format!("the last of {most} VFs"), "")
        .with_samples(Role::Ours, "looks at the host", vec![looks as f64])
        .with_samples(Role::Ours, "messages for each VF", vec![per_vf])
        .at_most(0, LOOKS)
        .at_most(1, MESSAGES);
    messages.notes.push(format!("{asked} questions about a VF, {told} messages that set one"));
    [row.unwrap(), messages]
}

/// What VFs are to be like in a round: each differs from the one before.
#[derive(Clone, Copy)]
struct Wish {
    mac: u8,
    vlan: u16,
    trust: bool,
}

fn wish(round: usize) -> Wish {
    let odd = u8::try_from(round % 2).unwrap();
    Wish { mac: odd, vlan: 100 + u16::from(odd), trust: odd == 1 }
}

impl Wish {
    fn mac_of(self, index: u8) -> MacAddress {
        MacAddress::new([0x52, 0x54, 0, 0xaa, self.mac, index])
    }
}

/// A daemon's inside with a partition that is off and has all VFs.
struct Host {
    vfs: usize,
    runtime: Runtime,
    imp: Arc<ioward_imp::Imp>,
    counts: Arc<Counts>,
    kernel: Arc<Kernel>,
    folder: tempfile::TempDir,
}

impl Host {
    fn with(vfs: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, contents) = ioward_store::open(&folder.path().join("state")).unwrap();
        let machines = Arc::new(Stayed::of(&State::default(), true, folder.path().join("nobody")));
        let counts = Arc::<Counts>::default();
        let kernel = Arc::new(Kernel::start());
        let fabric =
            Told { below: machine(vfs).fabric(), counts: Arc::clone(&counts), kernel: Arc::clone(&kernel) };
        let imp = imp(Arc::new(fabric), machines, Box::new(store), contents);
        let runtime = Runtime::new().unwrap();
        let host = Self { vfs, runtime, imp, counts, kernel, folder };
        // Other than what the first round wishes.
        host.change(wish(1));
        let stop = Intent::Stop { partition: name() };
        host.runtime.block_on(apply(&host.imp, &stop));
        host
    }

    /// From the Spec to the end of its plan, in milliseconds.
    fn change(&self, wish: Wish) -> (f64, Counted) {
        let vf = |index: usize| {
            let index = u8::try_from(index).unwrap();
            VfRequest {
                mac: Some(wish.mac_of(index)),
                vlan: Vlan::new(wish.vlan),
                trust: Some(wish.trust),
                ..VfRequest::new(format!("net{index}").parse().unwrap(), Class::Network)
            }
        };
        let partition = PartitionSpec {
            vfs: (0..self.vfs).map(vf).collect(),
            ..PartitionSpec::new(name(), machine_spec(self.folder.path()))
        };
        let spec = Spec { version: 1, adapters: Vec::new(), partitions: vec![partition] };
        self.counts.take();
        let begun = Instant::now();
        self.runtime.block_on(apply(&self.imp, &Intent::Apply { spec }));
        (milliseconds(begun.elapsed()), self.counts.take())
    }

    fn messages_alone(&self, wish: Wish) -> f64 {
        let begun = Instant::now();
        for index in 0..self.vfs {
            let index = u8::try_from(index).unwrap();
            self.kernel.tell(&message(
                index.into(),
                Some(wish.mac_of(index)),
                Some(wish.vlan),
                Some(wish.trust),
            ));
        }
        milliseconds(begun.elapsed())
    }
}

fn name() -> Name {
    "web".parse().unwrap()
}

/// `RTM_SETLINK` of one VF, as the fabric writes it.
fn message(vf: u32, mac: Option<MacAddress>, vlan: Option<u16>, trust: Option<bool>) -> Vec<u8> {
    let mut info = Vec::new();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    if let Some(mac) = mac {
        let mut value = [0; 36];
        value[..4].copy_from_slice(&vf.to_ne_bytes());
        value[4..10].copy_from_slice(&mac.bytes());
        attribute(&mut info, IFLA_VF_MAC, &value);
    }
    if let Some(vlan) = vlan {
        attribute(&mut info, IFLA_VF_VLAN, &words(&[vf, vlan.into(), 0]));
    }
    if let Some(trust) = trust {
        attribute(&mut info, IFLA_VF_TRUST, &words(&[vf, trust.into()]));
    }
    let mut list = Vec::new();
    attribute(&mut list, IFLA_VF_INFO, &info);
    let mut message = request(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 2);
    attribute(&mut message, IFLA_VFINFO_LIST, &list);
    message
}

/// A thread that acknowledges.
struct Kernel {
    socket: OwnedFd,
}

impl Kernel {
    fn start() -> Self {
        let flags = SocketFlags::CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok((length, _)) = recv(&theirs, &mut message[..], RecvFlags::empty()) {
                // The socket is closed.
                if length == 0 || send(&theirs, &message[..HEADER], SendFlags::empty()).is_err() {
                    return;
                }
            }
        });
        Self { socket }
    }

    fn tell(&self, message: &[u8]) {
        send(&self.socket, message, SendFlags::empty()).unwrap();
        let mut answer = [0; HEADER];
        recv(&self.socket, &mut answer[..], RecvFlags::empty()).unwrap();
    }
}

/// How often it was asked for what.
#[derive(Default)]
struct Counts {
    looks: AtomicUsize,
    asked: AtomicUsize,
    told: AtomicUsize,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    looks: usize,
    asked: usize,
    told: usize,
}

impl Counts {
    fn take(&self) -> Counted {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::AcqRel);
        Counted { looks: take(&self.looks), asked: take(&self.asked), told: take(&self.told) }
    }
}

/// The simulated machine, whose PFs are told by messages.
struct Told {
    below: SimFabric,
    counts: Arc<Counts>,
    kernel: Arc<Kernel>,
}

impl Told {
    /// What the PF's interface says of all VFs.
    fn ask(&self) {
        self.counts.asked.fetch_add(1, Ordering::AcqRel);
        let mut message = request(RTM_GETLINK, NLM_F_REQUEST, 2);
        attribute(&mut message, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        self.kernel.tell(&message);
    }
}

#[async_trait]
impl Fabric for Told {
    async fn identify(&self) -> Result<Inventory, FabricError> {
        self.counts.looks.fetch_add(1, Ordering::AcqRel);
        self.below.identify().await
    }

    async fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        self.ask();
        self.below.settings(vf).await
    }

    /// As `crates/fabric/src/linux/nic.rs` does: it asks what the VF is like, and sends a message for each setting.
    async fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        self.ask();
        let (index, vlan) = (u32::from(vf.index), change.vlan.map(Vlan::id));
        let each = [
            change.trust.map(|trust| message(index, None, None, Some(trust))),
            change.mac.map(|mac| message(index, Some(mac), None, None)),
            vlan.map(|vlan| message(index, None, Some(vlan), None)),
        ];
        for message in each.iter().flatten() {
            self.counts.told.fetch_add(1, Ordering::AcqRel);
            self.kernel.tell(message);
        }
        self.below.configure(vf, change).await
    }

    async fn set_autoprobe(&self, pf: Bdf, on: bool) -> Result<(), FabricError> {
        self.below.set_autoprobe(pf, on).await
    }

    async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
        self.below.set_vf_count(pf, count).await
    }

    async fn recover(&self, pf: Bdf, how: ioward_model::Recovery) -> Result<(), FabricError> {
        self.below.recover(pf, how).await
    }

    async fn vf_address(&self, vf: VfId) -> Result<Bdf, FabricError> {
        self.below.vf_address(vf).await
    }

    async fn driver(&self, vf: VfId) -> Result<Option<String>, FabricError> {
        self.below.driver(vf).await
    }

    async fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        self.below.bind(vf, driver).await
    }

    async fn reset(&self, vf: VfId) -> Result<(), FabricError> {
        self.below.reset(vf).await
    }

    async fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError> {
        self.below.statistics(vf).await
    }

    async fn is_open(&self, vf: VfId) -> Result<bool, FabricError> {
        self.below.is_open(vf).await
    }

    async fn changes(&self) -> mpsc::Receiver<()> {
        self.below.changes().await
    }
}
