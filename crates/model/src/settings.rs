//! What can be set and read of one VF, by its PF.

use serde::{Deserialize, Serialize};

use crate::{BitRate, MacAddress, Vlan};

/// The link a VF sees (`IFLA_VF_LINK_STATE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// It follows the port.
    Auto,
    /// Up, whatever the port does: VFs of one port still reach each other.
    Enable,
    /// Down.
    Disable,
}

/// Settings of a VF. As a change, `None` leaves a setting alone; as a reading, `None` means the adapter has no such
/// setting or does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VfSettings {
    /// Ethernet address. Set by the PF it is binding: the VF's own driver may not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// VLAN that the port tags the VF's frames with; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// Whether the VF may turn on promiscuous modes and change its own MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<bool>,
    /// Whether frames with a foreign source address are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoofchk: Option<bool>,
    /// Guaranteed transmit rate; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tx_rate: Option<BitRate>,
    /// Greatest transmit rate; 0 for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tx_rate: Option<BitRate>,
    /// The link the VF sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_state: Option<LinkState>,
    /// NVMe: flexible queue resources (VQ) assigned to the secondary controller, the admin queue included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// NVMe: flexible interrupt resources (VI) assigned to the secondary controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupts: Option<u16>,
    /// NVMe: whether the secondary controller is online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
}

/// Combines two settings field by field: the one place that lists the fields.
macro_rules! zip_settings {
    ($left:expr, $right:expr, |$l:ident, $r:ident| $combined:expr) => {{
        let (left, right): (&VfSettings, &VfSettings) = ($left, $right);
        zip_settings!(@fields left right |$l, $r| $combined =>
            mac vlan trust spoofchk min_tx_rate max_tx_rate link_state queues interrupts online)
    }};
    (@fields $left:ident $right:ident |$l:ident, $r:ident| $combined:expr => $($field:ident)*) => {
        VfSettings { $($field: { let ($l, $r) = ($left.$field, $right.$field); $combined }),* }
    };
}

impl VfSettings {
    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These settings where they say something, `base` elsewhere.
    #[must_use]
    pub fn or(&self, base: &Self) -> Self {
        zip_settings!(self, base, |wanted, base| wanted.or(base))
    }

    /// What of these settings is not so in `present`: the change that is still to be made.
    #[must_use]
    pub fn missing_from(&self, present: &Self) -> Self {
        zip_settings!(self, present, |wanted, present| wanted.filter(|_| wanted != present))
    }

    /// What `present` says about the settings that `self` speaks of: the inverse of applying `self`.
    #[must_use]
    pub fn restored_from(&self, present: &Self) -> Self {
        zip_settings!(self, present, |touched, present| touched.and(present))
    }

    /// These settings, but for those that `other` speaks of.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        zip_settings!(self, other, |own, other| own.filter(|_| other.is_none()))
    }

    /// The settings that it speaks of, as `name=value`, in a fixed order.
    #[must_use]
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
        let link = |state| match state {
            LinkState::Auto => "auto".to_owned(),
            LinkState::Enable => "enable".to_owned(),
            LinkState::Disable => "disable".to_owned(),
        };
        [
            ("mac", self.mac.map(|v| v.to_string())),
            ("vlan", self.vlan.map(|v| v.to_string())),
            ("trust", self.trust.map(on_off)),
            ("spoofchk", self.spoofchk.map(on_off)),
            ("min_tx_rate", self.min_tx_rate.map(|v| v.to_string())),
            ("max_tx_rate", self.max_tx_rate.map(|v| v.to_string())),
            ("link_state", self.link_state.map(link)),
            ("queues", self.queues.map(|v| v.to_string())),
            ("interrupts", self.interrupts.map(|v| v.to_string())),
            ("online", self.online.map(on_off)),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
    }
}

/// Traffic counters of a VF as its PF keeps them (`IFLA_VF_STATS`); all since the VF was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfStatistics {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Broadcast frames received.
    pub broadcast: u64,
    /// Multicast frames received.
    pub multicast: u64,
    /// Received frames dropped.
    pub rx_dropped: u64,
    /// Frames to send dropped.
    pub tx_dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_only_what_differs() {
        let wanted = VfSettings { trust: Some(true), vlan: Vlan::new(5), ..VfSettings::default() };
        let present =
            VfSettings { trust: Some(true), vlan: Vlan::new(7), online: Some(true), ..VfSettings::default() };
        assert_eq!(wanted.missing_from(&present).describe(), [("vlan", "5".to_owned())]);
        assert_eq!(
            wanted.restored_from(&present).describe(),
            [("vlan", "7".to_owned()), ("trust", "on".to_owned())]
        );
        assert!(wanted.missing_from(&wanted).is_empty());
    }
}
