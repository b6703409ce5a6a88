//! The PF driver for network adapters: settings and counters of VFs through the PF's interface, over rtnetlink.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use ioward_model::{
    BitRate, Capability, Class, IntoMap, LinkState, MacAddress, PhysicalFunction, VfId, VfSettings,
    VfStatistics, Vlan, VlanProtocol,
};
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{
    adapters::{Family, PfDriver},
    details::Details,
    netlink::{LinkInfo, Netlink, VfAttribute, VfInfo, VlanTag},
    sysfs::{Sysfs, driver_of, names, number, text},
};
use crate::FabricError;

/// How long a driver may answer EBUSY because it is resetting the VF, which it does for a new MAC as for an FLR. Unless
/// that is waited for, the second of two settings fails, and taking the first one back fails with it.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(2);
/// How long to wait before asking such a driver again.
pub(crate) const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Network adapters, through the interfaces that their drivers make of them.
pub(super) struct Nics;

impl Family for Nics {
    fn claims(&self, pf: &PhysicalFunction) -> bool {
        pf.class == Class::Network
    }

    fn capabilities(&self, pf: &PhysicalFunction, driver: &str) -> BTreeSet<Capability> {
        of_driver(driver, !pf.rdma_devices.is_empty())
    }

    fn open(&self, sysfs: &Sysfs<'_>, pf: Bdf) -> Result<Option<Box<dyn PfDriver>>, FabricError> {
        Ok(NicPf::open(sysfs, pf)?.map(|nic| Box::new(nic) as Box<dyn PfDriver>))
    }
}

use Capability::{
    GuaranteedRate, LinkState as Link, RateLimit, Spoofchk, Trust, Vlan as Tag, Vlan8021ad as ServiceTag,
};

/// `drivers/net/ethernet` of Linux 6.12: what is not in a driver's `net_device_ops`, or what its function refuses always.
/// A driver that is not here is believed to do everything: the kernel has the last word.
const LACKS: [(&str, &[Capability]); 14] = [
    // intel/igb/igb_main.c: igb_ndo_set_vf_bw wants no minimum; no ndo_set_vf_link_state; 802.1Q only.
    ("igb", &[GuaranteedRate, Link, ServiceTag]),
    // intel/ixgbe/ixgbe_sriov.c: ixgbe_ndo_set_vf_bw wants no minimum; 802.1Q only.
    ("ixgbe", &[GuaranteedRate, ServiceTag]),
    // intel/i40e/i40e_virtchnl_pf.c: i40e_ndo_set_vf_bw wants no minimum; 802.1Q only.
    ("i40e", &[GuaranteedRate, ServiceTag]),
    // intel/fm10k/fm10k_iov.c: neither trust nor spoof checking nor a link state; 802.1Q only.
    ("fm10k", &[GuaranteedRate, Link, ServiceTag, Spoofchk, Trust]),
    // mellanox/mlx5/core/en_main.c: mlx5e_set_vf_vlan takes 802.1Q only.
    ("mlx5_core", &[ServiceTag]),
    // mellanox/mlx4/en_netdev.c: no ndo_set_vf_trust.
    ("mlx4_core", &[Trust]),
    // broadcom/bnx2x/bnx2x_main.c: neither rates nor trust; 802.1Q only.
    ("bnx2x", &[GuaranteedRate, RateLimit, ServiceTag, Trust]),
    // qlogic/qede/qede_main.c: qede_set_vf_vlan takes 802.1Q only.
    ("qede", &[ServiceTag]),
    // sfc/efx.c: neither rates nor trust; 802.1Q only.
    ("sfc", &[GuaranteedRate, RateLimit, ServiceTag, Trust]),
    // emulex/benet/be_main.c: be_set_vf_tx_rate wants no minimum; no trust; 802.1Q only.
    ("be2net", &[GuaranteedRate, ServiceTag, Trust]),
    // chelsio/cxgb4/cxgb4_main.c: cxgb4_mgmt_set_vf_rate wants no minimum; neither trust nor spoof checking; 802.1Q only.
    ("cxgb4", &[GuaranteedRate, ServiceTag, Spoofchk, Trust]),
    // hisilicon/hns3/hns3pf/hclge_main.c: hclge_set_vf_rate wants no minimum; 802.1Q only.
    ("hns3", &[GuaranteedRate, ServiceTag]),
    // cisco/enic/enic_main.c: a VF's MAC and port profile, and nothing else.
    ("enic", &[GuaranteedRate, Link, RateLimit, ServiceTag, Spoofchk, Tag, Trust]),
    // marvell/octeontx2/nic/otx2_pf.c: VLAN (802.1Q only), trust and MAC.
    ("rvu_nicpf", &[GuaranteedRate, Link, RateLimit, ServiceTag, Spoofchk]),
];

fn of_driver(driver: &str, has_rdma_device: bool) -> BTreeSet<Capability> {
    let lacks = LACKS.iter().find(|(name, _)| *name == driver).map_or(&[][..], |(_, lacks)| *lacks);
    let can = |capability: &Capability| match capability {
        Capability::Rdma => has_rdma_device,
        other => !lacks.contains(other),
    };
    Capability::ALL.into_iter().filter(can).collect()
}

/// A network PF: one whose driver has made interfaces of it.
pub(super) struct NicPf {
    pf: Bdf,
    folder: PathBuf,
    driver: String,
    netlink: Netlink,
}

/// An interface, by what does not change when it is renamed.
struct Interface {
    ifindex: u32,
    link: LinkInfo,
}

impl NicPf {
    /// `None` when the PF has no interface: it is no network adapter, has no driver, or its interface is in another
    /// network namespace.
    fn open(sysfs: &Sysfs<'_>, pf: Bdf) -> Result<Option<Self>, FabricError> {
        let folder = sysfs.pf(pf)?;
        if names(&folder.join("net")).is_empty() {
            return Ok(None);
        }
        let netlink = Netlink::open().map_err(|source| FabricError::Refused {
            what: "open an rtnetlink socket".to_owned(),
            why: source.to_string(),
            source,
        })?;
        let driver = driver_of(&folder).unwrap_or_else(|| "the driver".to_owned());
        Ok(Some(Self { pf, folder, driver, netlink }))
    }

    /// Every interface with its index and permanent address.
    fn permanent_macs(&self) -> Result<Vec<(u32, Option<MacAddress>)>, FabricError> {
        let interfaces = self.interfaces(false)?;
        Ok(interfaces
            .into_iter()
            .map(|interface| (interface.ifindex, interface.link.permanent_mac))
            .collect())
    }

    /// The settings of all VFs, by index.
    fn all_settings(&self) -> Result<Vec<(u32, VfSettings)>, FabricError> {
        let of_one = |interface: Interface| {
            interface.link.vfs.into_iter().map(|vf| (vf.index, settings(&vf))).collect()
        };
        let with_vfs = self.interfaces(false)?.into_iter().find(|interface| !interface.link.vfs.is_empty());
        Ok(with_vfs.map(of_one).unwrap_or_default())
    }

    fn set_vf(&self, ifindex: u32, vf: VfId, setting: VfAttribute) -> io::Result<()> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            match self.netlink.set_vf(ifindex, vf.index, setting) {
                Err(error) if is_busy(&error) && Instant::now() < until => thread::sleep(ASK_AGAIN_AFTER),
                outcome => return outcome,
            }
        }
    }

    /// A VF and the interface through which it is set. Of several ports on one PF it is the one that knows the VF.
    fn vf(&self, vf: VfId, counters: bool) -> Result<(u32, VfInfo), FabricError> {
        let mut all = self.interfaces(counters)?.into_iter();
        let found = all.find_map(|interface| {
            let info = interface.link.vfs.iter().find(|info| info.index == u32::from(vf.index))?;
            Some((interface.ifindex, *info))
        });
        found.ok_or_else(|| self.unsupported("tell the settings of its VFs"))
    }

    /// The interfaces of the PF by port, looked up afresh: they may have been renamed.
    fn interfaces(&self, counters: bool) -> Result<Vec<Interface>, FabricError> {
        let folder = self.folder.join("net");
        let mut ports: Vec<(u32, u32)> = Vec::new();
        for name in names(&folder) {
            let port = number(&folder.join(&name).join("dev_port")).unwrap_or(0);
            ports.push((port, number(&folder.join(&name).join("ifindex"))?));
        }
        ports.sort_unstable();
        let read = |(_, ifindex)| match self.netlink.link(ifindex, counters) {
            Ok(link) => Ok(Interface { ifindex, link }),
            Err(source) => Err(FabricError::Refused {
                what: format!("tell about interface {ifindex} of {}", self.pf),
                why: source.to_string(),
                source,
            }),
        };
        ports.into_iter().map(read).collect()
    }

    fn unsupported(&self, what: &str) -> FabricError {
        FabricError::Unsupported { function: self.pf, driver: self.driver.clone(), what: what.to_owned() }
    }

    fn refused(&self, vf: VfId, setting: VfAttribute, source: io::Error) -> FabricError {
        if let Some(Errno::OPNOTSUPP | Errno::NOSYS) = Errno::from_io_error(&source) {
            return self.unsupported(&format!("set {} of a VF", name(setting)));
        }
        let why = why(&source, setting, is_up(&self.folder));
        FabricError::Refused { what: format!("set {} of {vf}", describe(setting)), why, source }
    }
}

impl PfDriver for NicPf {
    fn describe(&self, details: &mut Details) -> Result<(), FabricError> {
        let macs = self.permanent_macs()?;
        details.permanent_macs =
            macs.into_iter().filter_map(|(ifindex, mac)| Some((ifindex, mac?))).into_map();
        details.settings = self.all_settings()?.into_iter().into_map();
        Ok(())
    }

    fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        Ok(settings(&self.vf(vf, false)?.1))
    }

    fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError> {
        self.vf(vf, true)?.1.statistics.ok_or_else(|| self.unsupported("count the traffic of a VF"))
    }

    /// Makes the changes one by one; when one fails those before it are put back.
    fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        let (ifindex, before) = self.vf(vf, false)?;
        let mut done = Vec::new();
        for (to, back) in
            changes(&before, change).map_err(|setting| self.unsupported(&format!("set {setting} of a VF")))?
        {
            if let Err(source) = self.set_vf(ifindex, vf, to) {
                // Best effort: what the caller needs to know is why the change failed.
                for undo in done.into_iter().rev() {
                    let _ = self.set_vf(ifindex, vf, undo);
                }
                return Err(self.refused(vf, to, source));
            }
            done.push(back);
        }
        Ok(())
    }
}

fn is_busy(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::BUSY)
}

/// Whether any interface of the PF has a link.
fn is_up(folder: &Path) -> bool {
    let net = folder.join("net");
    names(&net).iter().any(|name| text(&net.join(name).join("carrier")).is_ok_and(|carrier| carrier == "1"))
}

/// A VF's settings in the model's words; what makes no sense is as if it were not told.
pub(crate) fn settings(vf: &VfInfo) -> VfSettings {
    let rate = |megabits| Some(BitRate::from_megabits(megabits));
    VfSettings {
        mac: vf.mac,
        vlan: vf.vlan.and_then(vlan),
        trust: vf.trust,
        spoofchk: vf.spoofchk,
        min_tx_rate: vf.rate.and_then(|(min, _)| rate(min)),
        max_tx_rate: vf.rate.and_then(|(_, max)| rate(max)),
        link_state: match vf.link_state {
            Some(0) => Some(LinkState::Auto),
            Some(1) => Some(LinkState::Enable),
            Some(2) => Some(LinkState::Disable),
            _ => None,
        },
        ..VfSettings::default()
    }
}

fn vlan(tag: VlanTag) -> Option<Vlan> {
    let id = u16::try_from(tag.id).ok().and_then(Vlan::new)?;
    id.tagged(VlanProtocol::from_ethertype(tag.protocol)?, tag.qos.try_into().ok()?)
}

/// The messages that make `change`, each with the one that takes it back. Only what differs is sent: drivers reset a VF
/// for every change, or refuse to "change" what they cannot. What cannot be read cannot be put back, so it is not set.
///
/// Trust comes first and the link last: a VF that sees its link come up finds everything else as it is to be.
pub(crate) fn changes(
    before: &VfInfo,
    change: &VfSettings,
) -> Result<Vec<(VfAttribute, VfAttribute)>, &'static str> {
    if change.queues.is_some() || change.interrupts.is_some() || change.online.is_some() {
        return Err("queues, interrupts or online");
    }
    let mut all = Vec::new();
    let mut add = |to, back| {
        if to != back {
            all.push((to, back));
        }
    };
    if let Some(trust) = change.trust {
        let present = before.trust.ok_or("trust")?;
        add(VfAttribute::Trust(trust.into()), VfAttribute::Trust(present.into()));
    }
    if let Some(mac) = change.mac {
        let present = before.mac.ok_or("mac")?;
        add(VfAttribute::Mac(mac.bytes()), VfAttribute::Mac(present.bytes()));
    }
    if let Some(vlan) = change.vlan {
        let to = VlanTag {
            id: vlan.id().into(),
            qos: vlan.priority().into(),
            protocol: vlan.protocol().ethertype(),
        };
        add(VfAttribute::Vlan(to), VfAttribute::Vlan(before.vlan.ok_or("vlan")?));
    }
    if let Some(spoofchk) = change.spoofchk {
        let present = before.spoofchk.ok_or("spoofchk")?;
        add(VfAttribute::SpoofCheck(spoofchk.into()), VfAttribute::SpoofCheck(present.into()));
    }
    if change.min_tx_rate.is_some() || change.max_tx_rate.is_some() {
        // Both travel together, so the one that is not to change goes along as it is.
        let (min, max) = before.rate.ok_or("min_tx_rate or max_tx_rate")?;
        let to = VfAttribute::Rate {
            min: change.min_tx_rate.map_or(min, BitRate::megabits),
            max: change.max_tx_rate.map_or(max, BitRate::megabits),
        };
        add(to, VfAttribute::Rate { min, max });
    }
    if let Some(state) = change.link_state {
        let to = match state {
            LinkState::Auto => 0,
            LinkState::Enable => 1,
            LinkState::Disable => 2,
        };
        add(VfAttribute::LinkState(to), VfAttribute::LinkState(before.link_state.ok_or("link_state")?));
    }
    Ok(all)
}

pub(crate) fn name(setting: VfAttribute) -> &'static str {
    match setting {
        VfAttribute::Mac(_) => "mac",
        VfAttribute::Vlan(_) => "vlan",
        VfAttribute::SpoofCheck(_) => "spoofchk",
        VfAttribute::LinkState(_) => "link_state",
        VfAttribute::Rate { .. } => "min_tx_rate or max_tx_rate",
        VfAttribute::Trust(_) => "trust",
    }
}

pub(crate) fn describe(setting: VfAttribute) -> String {
    match setting {
        VfAttribute::Mac(mac) => format!("mac {}", MacAddress::new(mac)),
        VfAttribute::Vlan(tag) => {
            vlan(tag).map_or_else(|| format!("vlan {}", tag.id), |vlan| format!("vlan {vlan}"))
        }
        VfAttribute::Rate { min, max } => format!("min_tx_rate {min}Mbit and max_tx_rate {max}Mbit"),
        VfAttribute::SpoofCheck(on) => format!("spoofchk {}", if on == 1 { "on" } else { "off" }),
        VfAttribute::Trust(on) => format!("trust {}", if on == 1 { "on" } else { "off" }),
        VfAttribute::LinkState(_) => "link_state".to_owned(),
    }
}

/// The meaning of an errno when a VF is set.
pub(crate) fn why(error: &io::Error, setting: VfAttribute, link_is_up: bool) -> String {
    match (Errno::from_io_error(error), setting) {
        (Some(Errno::PERM | Errno::ACCESS), _) => "this needs CAP_NET_ADMIN".to_owned(),
        // igb limits rates against the speed of the link, and without a link against nothing.
        (Some(Errno::INVAL), VfAttribute::Rate { .. }) if !link_is_up => {
            "the PF has no link, and its driver measures rates against the link's speed; bring the link up first".to_owned()
        }
        (Some(Errno::INVAL), VfAttribute::Rate { .. }) => {
            "the driver does not take these rates: above the link's speed, or a guaranteed rate it does not have".to_owned()
        }
        (Some(Errno::INVAL), VfAttribute::Mac(_)) => "the driver takes only unicast addresses".to_owned(),
        (Some(Errno::PROTONOSUPPORT), VfAttribute::Vlan(_)) => {
            "the driver does not tag with this protocol; use 802.1Q".to_owned()
        }
        (Some(Errno::INVAL), _) => "the driver does not take this value".to_owned(),
        (Some(Errno::BUSY), _) => "the VF is being reset; try again in a moment".to_owned(),
        (Some(Errno::NETDOWN), _) => "the PF's interface is down; bring it up first".to_owned(),
        (Some(Errno::NODEV), _) => "the PF's interface is gone".to_owned(),
        _ => format!("{error}; see dmesg"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOT1Q_7_3: VlanTag = VlanTag { id: 7, qos: 3, protocol: 0x8100 };

    fn present() -> VfInfo {
        VfInfo {
            index: 0,
            mac: Some(MacAddress::ZERO),
            vlan: Some(DOT1Q_7_3),
            spoofchk: Some(true),
            link_state: Some(0),
            rate: Some((10, 100)),
            trust: None,
            statistics: None,
        }
    }

    #[test]
    fn what_the_driver_does_not_tell_is_no_setting() {
        let reserved = VlanTag { id: 4095, ..DOT1Q_7_3 };
        let told = settings(&VfInfo { vlan: Some(reserved), link_state: Some(9), ..present() });
        assert_eq!((told.trust, told.vlan, told.link_state), (None, None, None));
        assert_eq!(told.mac, Some(MacAddress::ZERO));
        let change = VfSettings { trust: Some(true), ..VfSettings::default() };
        assert_eq!(changes(&present(), &change), Err("trust"), "it could not be put back");
    }

    #[test]
    fn what_is_so_already_is_not_sent() {
        assert_eq!(changes(&present(), &settings(&present())), Ok(Vec::new()));
    }

    #[test]
    fn one_rate_changes_and_the_other_goes_along_as_it_is() {
        let change = VfSettings { max_tx_rate: Some(BitRate::from_megabits(500)), ..VfSettings::default() };
        let expected = (VfAttribute::Rate { min: 10, max: 500 }, VfAttribute::Rate { min: 10, max: 100 });
        assert_eq!(changes(&present(), &change), Ok(vec![expected]));
    }

    /// A VLAN is all of its tag: one that was asked for by its ID alone kept the priority of the one before, and read
    /// back as something else than was asked for.
    #[test]
    fn a_vlan_is_set_with_its_priority_and_protocol() {
        for (text, qos, protocol) in
            [("9", 0, 0x8100), ("0", 0, 0x8100), ("7,proto=802.1ad,prio=5", 5, 0x88a8)]
        {
            let vlan: Vlan = text.parse().unwrap();
            let to = VlanTag { id: vlan.id().into(), qos, protocol };
            let change = VfSettings { vlan: Some(vlan), ..VfSettings::default() };
            let expected = vec![(VfAttribute::Vlan(to), VfAttribute::Vlan(DOT1Q_7_3))];
            assert_eq!(changes(&present(), &change), Ok(expected));
            assert_eq!(settings(&VfInfo { vlan: Some(to), ..present() }).vlan, Some(vlan));
        }
        let strange = VlanTag { protocol: 0x9100, ..DOT1Q_7_3 };
        let told = settings(&VfInfo { vlan: Some(strange), ..present() });
        assert_eq!(told.vlan, None, "a protocol that has no word here");
    }

    #[test]
    fn a_vf_finds_everything_set_when_its_link_comes_up() {
        let change = VfSettings {
            mac: Some(MacAddress::new([0x52, 0x54, 0, 0, 0, 1])),
            vlan: Vlan::new(5),
            link_state: Some(LinkState::Enable),
            ..VfSettings::default()
        };
        let order: Vec<_> =
            changes(&present(), &change).unwrap().into_iter().map(|(to, _)| name(to)).collect();
        assert_eq!(order, ["mac", "vlan", "link_state"]);
    }

    #[test]
    fn an_unknown_driver_is_believed_and_rdma_needs_a_device() {
        let mut all: BTreeSet<_> = Capability::ALL.into_iter().collect();
        all.remove(&Capability::Rdma);
        for (driver, lacks) in [("new_nic", &[][..]), ("mlx4_core", &[Capability::Trust])] {
            let mut can = all.clone();
            can.retain(|capability| !lacks.contains(capability));
            assert_eq!(of_driver(driver, false), can, "{driver}");
        }
        assert!(of_driver("mlx5_core", true).contains(&Capability::Rdma));
    }

    #[test]
    fn settings_of_an_nvme_vf_are_refused() {
        let change = VfSettings { online: Some(true), ..VfSettings::default() };
        assert!(changes(&present(), &change).is_err());
    }
}
