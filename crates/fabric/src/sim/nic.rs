//! The PF driver of a network adapter: its records of each VF, and which settings it allows when (`ndo_set_vf_*`
//! and `ndo_get_vf_config` of the drivers on which each family is modelled).

use ioward_model::{MacAddress, VfStatistics, VlanProtocol};
use rustix::io::Errno;

use super::{
    device::{MS, Time},
    family::{Kind, Nic},
    kernel::Host,
};
use crate::linux::netlink::{VfAttribute, VfInfo, VlanTag};

/// The PF driver's record of a VF.
#[derive(Clone, Debug)]
pub(super) struct NicVf {
    mac: MacAddress,
    /// The PF has set the MAC: the VF may not change it.
    mac_is_sticky: bool,
    vlan: VlanTag,
    trust: bool,
    spoofchk: bool,
    rate: (u32, u32),
    link_state: u32,
    /// The driver can't set the VF before this time.
    ready_at: Time,
    traffic: Traffic,
}

/// Counters that grow while a driver runs the VF.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    packets_per_second: u64,
    /// How long it had run when it last stopped.
    ran_for: Time,
    running_since: Option<Time>,
}

/// The port's facts that a setting depends on.
#[derive(Clone, Copy)]
pub(super) struct Port<'a> {
    pub(super) nic: &'a Nic,
    pub(super) has_link: bool,
    /// Whether the driver waits for a VF in reset.
    pub(super) waits: bool,
    /// Guaranteed rates of the other VFs, Mbit/s.
    pub(super) promised: u32,
}

impl NicVf {
    /// A VF as the driver makes it. Adapters other than NICs have one too, unused.
    pub(super) fn new(kind: &Kind, host: &mut Host) -> Self {
        Self {
            mac: MacAddress::ZERO,
            mac_is_sticky: false,
            vlan: VlanTag { id: 0, qos: 0, protocol: VlanProtocol::Dot1Q.ethertype() },
            trust: false,
            spoofchk: matches!(kind, Kind::Nic(nic) if nic.spoofchk_default),
            rate: (0, 0),
            link_state: 0,
            ready_at: host.now,
            traffic: Traffic {
                packets_per_second: 100 + host.random.below(10_000),
                ran_for: 0,
                running_since: None,
            },
        }
    }

    /// Its RTM_GETLINK information.
    pub(super) fn info(&self, index: u16) -> VfInfo {
        VfInfo {
            index: index.into(),
            mac: Some(self.mac),
            vlan: Some(self.vlan),
            spoofchk: Some(self.spoofchk),
            link_state: Some(self.link_state),
            rate: Some(self.rate),
            trust: Some(self.trust),
            statistics: None,
        }
    }

    /// The guaranteed rate, Mbit/s.
    pub(super) fn promised(&self) -> u32 {
        self.rate.0
    }

    /// One change by RTM_SETLINK. The driver may have to wait for the VF first.
    pub(super) fn set(&mut self, setting: VfAttribute, port: Port<'_>, host: &mut Host) -> Result<(), Errno> {
        let Port { nic, has_link, waits, promised } = port;
        if self.ready_at > host.now {
            let patience = if waits { nic.waits_ms * MS } else { 0 };
            host.now = self.ready_at.min(host.now + patience);
            if self.ready_at > host.now {
                return Err(Errno::BUSY);
            }
        }
        match setting {
            VfAttribute::Mac(bytes) => {
                let mac = MacAddress::new(bytes);
                if !mac.is_unicast() && mac != MacAddress::ZERO {
                    return Err(Errno::INVAL);
                }
                // All zeros return the MAC to the VF's control.
                (self.mac, self.mac_is_sticky) = (mac, mac != MacAddress::ZERO);
            }
            VfAttribute::Vlan(tag) if tag.id > 4095 || tag.qos > 7 => return Err(Errno::INVAL),
            VfAttribute::Vlan(tag) => match VlanProtocol::from_ethertype(tag.protocol) {
                Some(VlanProtocol::Dot1Q) => self.vlan = tag,
                Some(VlanProtocol::Dot1ad) if nic.has_service_vlan => self.vlan = tag,
                _ => return Err(Errno::PROTONOSUPPORT),
            },
            VfAttribute::SpoofCheck(on) => self.spoofchk = on != 0,
            VfAttribute::Trust(on) => self.trust = on != 0,
            VfAttribute::LinkState(_) if !nic.has_link_state => return Err(Errno::OPNOTSUPP),
            VfAttribute::LinkState(state @ 0..=2) => self.link_state = state,
            VfAttribute::LinkState(_) => return Err(Errno::INVAL),
            VfAttribute::Rate { min, max } => {
                // rtnl: every driver refuses a guarantee above the limit (do_setvfinfo).
                let contradicts = max != 0 && min > max;
                let without_link = nic.rate_needs_link && !has_link;
                let too_much = max > nic.speed_mbps || min.saturating_add(promised) > nic.speed_mbps;
                if contradicts || without_link || too_much || (min > 0 && !nic.has_min_rate) {
                    return Err(Errno::INVAL);
                }
                self.rate = (min, max);
            }
        }
        let resets = matches!(setting, VfAttribute::Mac(_) | VfAttribute::Vlan(_) | VfAttribute::Trust(_));
        if resets && nic.resets_for_change {
            self.ready_at = host.now + nic.reset_ms * MS;
        }
        Ok(())
    }

    /// The VF's own driver requests another MAC through its mailbox.
    pub(super) fn set_own_mac(&mut self, mac: MacAddress) -> Result<(), Errno> {
        if !mac.is_unicast() {
            return Err(Errno::ADDRNOTAVAIL);
        }
        if self.mac_is_sticky && !self.trust && mac != self.mac {
            return Err(Errno::PERM);
        }
        self.mac = mac;
        Ok(())
    }

    /// A function-level reset: the PF's settings stay, a MAC of the VF's own does not.
    pub(super) fn was_reset(&mut self, kind: &Kind, now: Time) {
        if !self.mac_is_sticky {
            self.mac = MacAddress::ZERO;
        }
        if let Kind::Nic(nic) = kind {
            self.ready_at = now + nic.reset_ms * MS;
        }
    }

    /// A driver starts or stops the VF.
    pub(super) fn runs(&mut self, running: bool, now: Time) {
        let Traffic { ran_for, running_since, .. } = &mut self.traffic;
        if let Some(since) = running_since.take() {
            *ran_for += now - since;
        }
        *running_since = running.then_some(now);
    }

    /// Counters since the VF was made; zeros where the driver does not count.
    pub(super) fn statistics(&self, nic: &Nic, now: Time) -> VfStatistics {
        if !nic.counts {
            return VfStatistics::default();
        }
        let Traffic { packets_per_second, ran_for, running_since } = self.traffic;
        let milliseconds = (ran_for + running_since.map_or(0, |since| now - since)) / MS;
        let packets = packets_per_second * milliseconds / 1_000;
        VfStatistics {
            rx_packets: packets,
            tx_packets: packets / 2,
            rx_bytes: packets * 800,
            tx_bytes: packets / 2 * 400,
            broadcast: packets / 100,
            multicast: packets / 50,
            rx_dropped: 0,
            tx_dropped: 0,
        }
    }
}
