//! rtnetlink as far as VFs need it: one link with its VF list (`RTM_GETLINK`), and one change to one VF (`RTM_SETLINK`).
//!
//! The list's own 16-bit length wraps around with some 220 VFs (nlattr has no more bits), so that it has to be read by the
//! number of VFs and not by its length. And a setting that the driver does not have is reported as 0xffffffff, which must not
//! come out as "off".
//!
//! include/uapi/linux/if_link.h, rtnl_fill_vfinfo() in net/core/rtnetlink.c.

use std::io;

use ioward_model::{MacAddress, VfStatistics};
use ioward_netlink::{
    IFLA_EXT_MASK, NLM_F_ACK, NLM_F_REQUEST, RTEXT_FILTER_SKIP_STATS, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK,
    Socket,
    message::{
        IFINFOMSG, NLA_HEADER, NLA_TYPE_MASK, attribute, attributes, first_attribute, invalid, request,
        u16_at, u32_at, u64_at,
    },
};

const IFLA_NUM_VF: u16 = 21;
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_VF_INFO: u16 = 1;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_SPOOFCHK: u16 = 4;
const IFLA_VF_LINK_STATE: u16 = 5;
const IFLA_VF_RATE: u16 = 6;
const IFLA_VF_STATS: u16 = 8;
const IFLA_VF_TRUST: u16 = 9;
/// A VLAN with its protocol, which `IFLA_VF_VLAN` does not tell.
const IFLA_VF_VLAN_LIST: u16 = 12;
const IFLA_VF_VLAN_INFO: u16 = 1;
/// The protocol that `IFLA_VF_VLAN` stands for.
const ETH_P_8021Q: u16 = 0x8100;
const RTEXT_FILTER_VF: u32 = 1;

/// The attributes of a VF, by their `IFLA_VF_*` number, with their `struct ifla_vf_*`. All begin with the VF's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VfAttribute {
    Mac([u8; 6]),
    Vlan(VlanTag),
    SpoofCheck(u32),
    LinkState(u32),
    Rate { min: u32, max: u32 },
    Trust(u32),
}

/// A VLAN as the kernel has it, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VlanTag {
    pub(crate) id: u32,
    pub(crate) qos: u32,
    /// EtherType.
    pub(crate) protocol: u16,
}

/// The answer of the kernel about one VF. `None`: it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VfInfo {
    pub(crate) index: u32,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) vlan: Option<VlanTag>,
    pub(crate) spoofchk: Option<bool>,
    pub(crate) link_state: Option<u32>,
    /// Least and greatest rate in Mbit/s.
    pub(crate) rate: Option<(u32, u32)>,
    pub(crate) trust: Option<bool>,
    pub(crate) statistics: Option<VfStatistics>,
}

/// The answer of the kernel about one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) permanent_mac: Option<MacAddress>,
    pub(super) vfs: Vec<VfInfo>,
}

/// A socket to the kernel's network configuration.
pub(super) struct Netlink {
    socket: Socket,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open()? })
    }

    /// An interface with its VFs, with or without their counters.
    pub(super) fn link(&self, ifindex: u32, counters: bool) -> io::Result<LinkInfo> {
        let mask = if counters { RTEXT_FILTER_VF } else { RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS };
        let mut message = request(RTM_GETLINK, NLM_F_REQUEST, ifindex);
        attribute(&mut message, IFLA_EXT_MASK, &mask.to_ne_bytes());
        parse_link(&self.socket.ask(message, RTM_NEWLINK)?)
    }

    /// Sets one attribute of one VF.
    pub(super) fn set_vf(&self, ifindex: u32, vf: u16, setting: VfAttribute) -> io::Result<()> {
        let (kind, value) = emit_vf(vf.into(), setting);
        let mut info = Vec::new();
        attribute(&mut info, kind, &value);
        let mut list = Vec::new();
        attribute(&mut list, IFLA_VF_INFO, &info);
        let mut message = request(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, ifindex);
        attribute(&mut message, IFLA_VFINFO_LIST, &list);
        self.socket.tell(message)
    }
}

fn emit_vf(vf: u32, setting: VfAttribute) -> (u16, Vec<u8>) {
    let words = |kind, words: &[u32]| (kind, words.iter().flat_map(|word| word.to_ne_bytes()).collect());
    match setting {
        VfAttribute::Mac(mac) => {
            // MAX_ADDR_LEN bytes, of which Ethernet uses six.
            let mut value = [0; 36];
            value[..4].copy_from_slice(&vf.to_ne_bytes());
            value[4..10].copy_from_slice(&mac);
            (IFLA_VF_MAC, value.to_vec())
        }
        VfAttribute::Vlan(VlanTag { id, qos, protocol: ETH_P_8021Q }) => words(IFLA_VF_VLAN, &[vf, id, qos]),
        VfAttribute::Vlan(VlanTag { id, qos, protocol }) => {
            // struct ifla_vf_vlan_info: the protocol in network byte order, then two bytes of padding.
            let (_, mut info): (u16, Vec<u8>) = words(IFLA_VF_VLAN_INFO, &[vf, id, qos]);
            info.extend(protocol.to_be_bytes());
            info.extend([0; 2]);
            let mut list = Vec::new();
            attribute(&mut list, IFLA_VF_VLAN_INFO, &info);
            (IFLA_VF_VLAN_LIST, list)
        }
        VfAttribute::SpoofCheck(on) => words(IFLA_VF_SPOOFCHK, &[vf, on]),
        VfAttribute::LinkState(state) => words(IFLA_VF_LINK_STATE, &[vf, state]),
        VfAttribute::Rate { min, max } => words(IFLA_VF_RATE, &[vf, min, max]),
        VfAttribute::Trust(on) => words(IFLA_VF_TRUST, &[vf, on]),
    }
}

fn mac_at(bytes: &[u8], at: usize) -> Option<MacAddress> {
    Some(MacAddress::new(*bytes.get(at..)?.first_chunk()?))
}

/// Reads the body of an `RTM_NEWLINK`.
fn parse_link(body: &[u8]) -> io::Result<LinkInfo> {
    let mut rest = body.get(IFINFOMSG..).ok_or_else(|| invalid("the link message is cut off"))?;
    let mut link = LinkInfo::default();
    let mut vfs = 0;
    while !rest.is_empty() {
        if u16_at(rest, 2).map(|kind| kind & NLA_TYPE_MASK) == Some(IFLA_VFINFO_LIST) {
            // By the number of VFs, which comes before it: with many VFs the list's length has wrapped around.
            rest = &rest[NLA_HEADER..];
            for _ in 0..vfs {
                let Some((IFLA_VF_INFO, info, next)) = first_attribute(rest) else {
                    return Err(invalid("the kernel's list of VFs is cut off"));
                };
                link.vfs.extend(parse_vf(info));
                rest = rest.get(next..).unwrap_or_default();
            }
            continue;
        }
        let (kind, value, next) =
            first_attribute(rest).ok_or_else(|| invalid("the link message is malformed"))?;
        match kind {
            IFLA_NUM_VF => vfs = u32_at(value, 0).unwrap_or(0),
            IFLA_PERM_ADDRESS if value.len() == 6 => link.permanent_mac = mac_at(value, 0),
            _ => {}
        }
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(link)
}

/// Reads one `IFLA_VF_INFO`. `None` when it does not say which VF it is about.
fn parse_vf(bytes: &[u8]) -> Option<VfInfo> {
    let mut vf = VfInfo { index: u32::MAX, ..VfInfo::default() };
    // The driver has left the kernel's preset in place: it has no such setting.
    let switch = |value| u32_at(value, 4).filter(|setting| *setting <= 1).map(|setting| setting == 1);
    for (kind, value) in attributes(bytes) {
        match kind {
            IFLA_VF_MAC => {
                vf.index = u32_at(value, 0)?;
                vf.mac = mac_at(value, 4);
            }
            // Of the two that the kernel gives, the list tells more.
            IFLA_VF_VLAN => vf.vlan = vf.vlan.or(vlan_at(value, Some(ETH_P_8021Q))),
            IFLA_VF_VLAN_LIST => {
                let listed = attributes(value).find(|(kind, _)| *kind == IFLA_VF_VLAN_INFO);
                let protocol = |info: &[u8]| Some(u16::from_be_bytes(*info.get(12..)?.first_chunk()?));
                vf.vlan = listed.and_then(|(_, info)| vlan_at(info, protocol(info))).or(vf.vlan);
            }
            IFLA_VF_SPOOFCHK => vf.spoofchk = switch(value),
            IFLA_VF_LINK_STATE => vf.link_state = u32_at(value, 4),
            IFLA_VF_RATE => vf.rate = u32_at(value, 4).zip(u32_at(value, 8)),
            IFLA_VF_STATS => vf.statistics = Some(parse_statistics(value)),
            IFLA_VF_TRUST => vf.trust = switch(value),
            _ => {}
        }
    }
    (vf.index != u32::MAX).then_some(vf)
}

/// A `struct ifla_vf_vlan`, and the beginning of a `struct ifla_vf_vlan_info`.
fn vlan_at(bytes: &[u8], protocol: Option<u16>) -> Option<VlanTag> {
    Some(VlanTag { id: u32_at(bytes, 4)?, qos: u32_at(bytes, 8)?, protocol: protocol? })
}

fn parse_statistics(bytes: &[u8]) -> VfStatistics {
    let mut statistics = VfStatistics::default();
    for (kind, value) in attributes(bytes) {
        let counter = match kind {
            0 => &mut statistics.rx_packets,
            1 => &mut statistics.tx_packets,
            2 => &mut statistics.rx_bytes,
            3 => &mut statistics.tx_bytes,
            4 => &mut statistics.broadcast,
            5 => &mut statistics.multicast,
            7 => &mut statistics.rx_dropped,
            8 => &mut statistics.tx_dropped,
            _ => continue,
        };
        *counter = u64_at(value, 0).unwrap_or(0);
    }
    statistics
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One VF as the kernel reports it, its counters all equal to its index.
    fn vf_info(index: u32) -> Vec<u8> {
        let mut info = Vec::new();
        for setting in [
            VfAttribute::Mac([0x52, 0x54, 0, 0, 0, 1]),
            VfAttribute::Vlan(VlanTag { id: 7, qos: 3, protocol: ETH_P_8021Q }),
            VfAttribute::Rate { min: 10, max: 100 },
            VfAttribute::SpoofCheck(1),
            VfAttribute::LinkState(2),
            VfAttribute::Trust(u32::MAX),
        ] {
            let (kind, value) = emit_vf(index, setting);
            attribute(&mut info, kind, &value);
        }
        let mut counters = Vec::new();
        for kind in [0, 1, 2, 3, 4, 5, 7, 8] {
            attribute(&mut counters, kind, &u64::from(index).to_ne_bytes());
        }
        attribute(&mut info, 8, &counters);
        info
    }

    /// An `RTM_NEWLINK` body as the kernel makes it, the list's length wrapped like the kernel's.
    fn link(vfs: u32) -> Vec<u8> {
        let mut list = Vec::new();
        for index in 0..vfs {
            attribute(&mut list, IFLA_VF_INFO, &vf_info(index));
        }
        let mut body = vec![0; IFINFOMSG];
        attribute(&mut body, IFLA_NUM_VF, &vfs.to_ne_bytes());
        let wrapped = (list.len() + NLA_HEADER).to_ne_bytes();
        body.extend(&wrapped[..2]);
        body.extend(IFLA_VFINFO_LIST.to_ne_bytes());
        body.extend(list);
        attribute(&mut body, IFLA_PERM_ADDRESS, &[0x52, 0x54, 0, 0x11, 0x11, 0x11]);
        body
    }

    #[test]
    fn a_vf_is_read_as_the_kernel_reports_it() {
        let link = parse_link(&link(2)).unwrap();
        let vf = link.vfs[1];
        assert_eq!(vf.index, 1);
        assert_eq!(vf.mac.unwrap().to_string(), "52:54:00:00:00:01");
        let tag = VlanTag { id: 7, qos: 3, protocol: ETH_P_8021Q };
        assert_eq!((vf.vlan, vf.rate, vf.link_state), (Some(tag), Some((10, 100)), Some(2)));
        assert_eq!((vf.spoofchk, vf.trust), (Some(true), None), "0xffffffff: the driver has no such setting");
        assert_eq!(vf.statistics.unwrap().tx_dropped, 1);
        assert_eq!(link.permanent_mac.unwrap().to_string(), "52:54:00:11:11:11");
    }

    /// An 802.1ad VLAN was read as a plain one, and given back as 802.1Q. The bytes of a VF with
    /// `vlan 100 qos 3 proto 802.1ad`, as rtnl_fill_vfinfo() of Linux 6.12 lays them out for netdevsim.
    #[test]
    fn a_vlan_of_802_1ad_is_put_back_as_one() {
        #[rustfmt::skip]
        const VF: &[u8] = &[
            40, 0, 1, 0, /* vf */ 0, 0, 0, 0, 0x52, 0x54, 0, 0x11, 0x22, 0x33, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            // IFLA_VF_BROADCAST
            36, 0, 13, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            // IFLA_VF_VLAN: ID and priority
            16, 0, 2, 0, 0, 0, 0, 0, 100, 0, 0, 0, 3, 0, 0, 0,
            // IFLA_VF_RATE, IFLA_VF_TX_RATE
            16, 0, 6, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0xe8, 3, 0, 0, 12, 0, 3, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0,
            // IFLA_VF_SPOOFCHK, IFLA_VF_LINK_STATE, IFLA_VF_RSS_QUERY_EN, IFLA_VF_TRUST
            12, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 12, 0, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0,
            12, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 12, 0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0,
            // IFLA_VF_VLAN_LIST with one IFLA_VF_VLAN_INFO: the protocol in network byte order
            24, 0, 12, 0, 20, 0, 1, 0, 0, 0, 0, 0, 100, 0, 0, 0, 3, 0, 0, 0, 0x88, 0xa8, 0, 0,
        ];
        let before = parse_vf(VF).unwrap();
        let change = ioward_model::VfSettings { vlan: ioward_model::Vlan::new(5), ..Default::default() };
        let (_, back) = crate::linux::nic::changes(&before, &change).unwrap()[0];
        let (kind, value) = emit_vf(0, back);
        assert_eq!((kind, &value[..]), (12, &VF[VF.len() - 20..]), "IFLA_VF_VLAN_LIST");
    }

    /// vishvananda/netlink#960: above some 220 VFs the list is longer than 64 KiB, and readers that trust its
    /// length see nonsense.
    #[test]
    fn a_list_beyond_64_kib_is_read_whole() {
        let body = link(400);
        assert!(body.len() > 1 << 16);
        let link = parse_link(&body).unwrap();
        assert_eq!(link.vfs.len(), 400);
        assert_eq!(link.vfs[399].statistics.unwrap().rx_packets, 399);
        assert!(link.permanent_mac.is_some(), "and so is what follows it");
    }

    #[test]
    fn a_message_cut_off_anywhere_is_an_error_or_less_and_never_a_panic() {
        let whole = link(3);
        for length in 0..whole.len() {
            if let Ok(link) = parse_link(&whole[..length]) {
                assert!(link.vfs.len() <= 3);
            }
        }
        let mut body = link(1);
        body[IFINFOMSG + 4..IFINFOMSG + 8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(parse_link(&body).is_err(), "more VFs announced than listed");
    }

    #[test]
    fn the_running_kernel_answers() {
        let netlink = Netlink::open().unwrap();
        let loopback = netlink.link(1, true).unwrap();
        assert!(loopback.vfs.is_empty());
        assert_eq!(netlink.link(u32::MAX >> 1, false).unwrap_err().raw_os_error(), Some(19), "ENODEV");
    }
}
