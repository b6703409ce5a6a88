//! The settings of a VF: one table of all of them, and the values they take.
//!
//! [`for_each_setting!`](crate::for_each_setting) is the table. A setting is one row of it, and what a driver of `fabric`
//! does to carry it out; the rest follows from the row:
//!
//! ```text
//! row ─┬─> VfSettings, Setting          here
//!      ├─> VfRequest                    spec.rs: the key of a Spec
//!      ├─> the words of guest_may       guest_may.rs
//!      ├─> a numbered field             channel/wire.rs
//!      ├─> an option of the CLI         cli/vf_args.rs, and `name=value` of ioward-agent
//!      └─> a rule, and a relaxation     planner
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{BitRate, Capability, Class, MacAddress, Vlan};

/// Calls the macro `$with` with the table of settings, a row for each:
///
/// - the variant of [`Setting`], and the number of its field on the channel, which never changes;
/// - its name everywhere (JSON, Specs, `guest_may`, the agent; with `-` for `_` as an option), the kind of [`Value`] and
///   the type;
/// - the type in a Spec: none for a setting that a Spec does not speak of;
/// - the class of VFs that have it, and what their adapter must be able to do;
/// - a description.
///
/// The caller has the types in scope.
#[macro_export]
macro_rules! for_each_setting {
    ($with:ident) => {
        $with! {
            Mac 0 mac: Mac(MacAddress), asked [MacAddress], Network needs [],
                "MAC address [default: derived from the names]";
            Vlan 1 vlan: Vlan(Vlan), asked [Vlan], Network needs [Vlan],
                "VLAN that the port tags its frames with, 1 to 4094; 0 is untagged; as 100, or 100,proto=802.1ad,prio=3";
            Trust 2 trust: Switch(bool), asked [bool], Network needs [Trust],
                "Whether it may be promiscuous and change its MAC";
            Spoofchk 3 spoofchk: Switch(bool), asked [bool], Network needs [Spoofchk],
                "Whether frames with a foreign source address are dropped";
            MinTxRate 4 min_tx_rate: Rate(BitRate), asked [Guarantee], Network needs [GuaranteedRate],
                "Guaranteed transmit rate, as 500Mbit or 25% of the port's; 0Mbit for none";
            MaxTxRate 5 max_tx_rate: Rate(BitRate), asked [BitRate], Network needs [RateLimit],
                "Greatest transmit rate; 0Mbit for no limit";
            LinkState 6 link_state: Link(LinkState), asked [LinkState], Network needs [LinkState],
                "The link it sees";
            Queues 7 queues: Count(u16), asked [u16], Nvme needs [],
                "NVMe queue resources (VQ), the admin queue included [default: an even share]";
            Interrupts 8 interrupts: Count(u16), asked [u16], Nvme needs [],
                "NVMe interrupt resources (VI) [default: an even share]";
            Online 9 online: Switch(bool), asked [], Nvme needs [],
                "Whether its NVMe secondary controller is online";
        }
    };
}

/// The link a VF sees (`IFLA_VF_LINK_STATE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// It follows the port.
    Auto,
    /// Up, whatever the port does: VFs of one port still reach each other.
    Enable,
    /// Down.
    Disable,
}

impl LinkState {
    /// All of them, by their number in `IFLA_VF_LINK_STATE` and on the channel.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Enable, Self::Disable];

    /// The word used in Specs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Enable => "enable",
            Self::Disable => "disable",
        }
    }
}

/// The kinds of values that settings take, and the values.
macro_rules! values {
    ($($kind:ident($type:ty)),*) => {
        /// The kind of value that a setting takes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $(#[doc = concat!("A `", stringify!($type), "`.")] $kind),* }

        /// The value of a setting, whichever it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Value { $(#[doc = concat!("A `", stringify!($type), "`.")] $kind($type)),* }
    };
}

values!(Mac(MacAddress), Vlan(Vlan), Switch(bool), Rate(BitRate), Link(LinkState), Count(u16));

impl Kind {
    /// How a value is written on a command line.
    #[must_use]
    pub fn form(self) -> &'static str {
        match self {
            Self::Mac => "52:54:00:aa:00:01",
            Self::Vlan => "0..4094[,proto=802.1ad][,prio=0..7]",
            Self::Switch => "on|off",
            Self::Rate => "500Mbit",
            Self::Link => "auto|enable|disable",
            Self::Count => "N",
        }
    }

    /// Reads a value as it is written on a command line.
    ///
    /// # Errors
    /// Why the text is none, and how one is written.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Mac => match text.parse::<MacAddress>().map_err(|error| error.to_string())? {
                mac if mac.is_unicast() => Ok(Value::Mac(mac)),
                mac => Err(format!("{mac} is no address for one station (multicast or all zero)")),
            },
            Self::Vlan => text.parse().map(Value::Vlan).map_err(|error| format!("{error}")),
            Self::Switch => match text {
                "on" | "true" => Ok(Value::Switch(true)),
                "off" | "false" => Ok(Value::Switch(false)),
                _ => Err("use on or off".to_owned()),
            },
            // Nothing per second is the same in every unit.
            Self::Rate if text == "0" => Ok(Value::Rate(BitRate::from_megabits(0))),
            Self::Rate => text.parse().map(Value::Rate).map_err(|error| format!("{error}")),
            Self::Link => {
                let known = LinkState::ALL.into_iter().find(|state| state.as_str() == text);
                known.map(Value::Link).ok_or_else(|| "use auto, enable or disable".to_owned())
            }
            Self::Count => {
                text.parse().map(Value::Count).map_err(|_| "use a number from 0 to 65535".to_owned())
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Vlan(vlan) => vlan.fmt(f),
            Self::Switch(on) => f.write_str(if *on { "on" } else { "off" }),
            Self::Rate(rate) => rate.fmt(f),
            Self::Link(state) => f.write_str(state.as_str()),
            Self::Count(count) => count.fmt(f),
        }
    }
}

macro_rules! vf_settings {
    ($(
        $setting:ident $number:tt $field:ident: $kind:ident($type:ty), asked [$($asked:ty)?],
        $class:ident needs [$($capability:ident)?], $description:literal;
    )*) => {
        /// A setting of a VF.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Setting {
            $(#[doc = $description] $setting),*
        }

        impl Setting {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$setting),*];

            /// Its name: in JSON, in Specs, in `guest_may` and on the agent's command line.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$setting => stringify!($field)),* }
            }

            /// The kind of value that it takes.
            #[must_use]
            pub fn kind(self) -> Kind {
                match self { $(Self::$setting => Kind::$kind),* }
            }

            /// The class of VFs that have it.
            #[must_use]
            pub fn class(self) -> Class {
                match self { $(Self::$setting => Class::$class),* }
            }

            /// The capability that an adapter must have, so that it can be set.
            #[must_use]
            pub fn capability(self) -> Option<Capability> {
                match self { $(Self::$setting => [$(Capability::$capability)?].first().copied()),* }
            }
        }

        /// Settings of a VF. As a change, `None` leaves a setting alone; as a reading, `None` means the adapter has no
        /// such setting or does not tell.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(deny_unknown_fields)]
        pub struct VfSettings {
            $(
                #[doc = $description]
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }

        impl VfSettings {
            /// One setting, where it says something about it.
            #[must_use]
            pub fn get(&self, setting: Setting) -> Option<Value> {
                match setting { $(Setting::$setting => self.$field.map(Value::$kind)),* }
            }

            /// Sets one setting. False when the value is not of its kind: then nothing changes.
            pub fn set(&mut self, setting: Setting, value: Value) -> bool {
                match (setting, value) {
                    $((Setting::$setting, Value::$kind(value)) => self.$field = Some(value),)*
                    _ => return false,
                }
                true
            }
        }
    };
}

for_each_setting!(vf_settings);

impl Setting {
    /// The names of all, for messages.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.iter().map(|setting| setting.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|setting| setting.as_str() == text);
        known.copied().ok_or_else(|| format!("there is no such setting; there are {}", Self::names()))
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl VfSettings {
    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The settings that it speaks of, in the order of the table.
    pub fn values(&self) -> impl Iterator<Item = (Setting, Value)> {
        Setting::ALL.iter().filter_map(|setting| Some((*setting, self.get(*setting)?)))
    }

    /// These settings where they say something, `base` elsewhere.
    #[must_use]
    pub fn or(&self, base: &Self) -> Self {
        self.zip(base, Option::or)
    }

    /// Those of these settings that are not so in `present`: the change that is still to be made.
    #[must_use]
    pub fn missing_from(&self, present: &Self) -> Self {
        self.zip(present, |wanted, present| wanted.filter(|_| wanted != present))
    }

    /// `present`, as far as the settings go that `self` speaks of: the inverse of applying `self`.
    #[must_use]
    pub fn restored_from(&self, present: &Self) -> Self {
        self.zip(present, Option::and)
    }

    /// These settings, but for those that `other` speaks of.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.zip(other, |own, other| own.filter(|_| other.is_none()))
    }

    /// The settings that it speaks of, as name and value, in the order of the table.
    #[must_use]
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        self.values().map(|(setting, value)| (setting.as_str(), value.to_string())).collect()
    }

    /// Combines two settings one by one.
    fn zip(&self, other: &Self, combine: impl Fn(Option<Value>, Option<Value>) -> Option<Value>) -> Self {
        let mut combined = Self::default();
        for setting in Setting::ALL {
            if let Some(value) = combine(self.get(*setting), other.get(*setting)) {
                combined.set(*setting, value);
            }
        }
        combined
    }
}

/// Traffic counters of a VF as its PF keeps them (`IFLA_VF_STATS`); all since the VF was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    fn only_settings_that_differ_are_missing() {
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

    #[test]
    fn every_setting_can_be_written_and_read() {
        for (setting, text) in [
            (Setting::Mac, "52:54:00:aa:00:01"),
            (Setting::Vlan, "7"),
            (Setting::Trust, "on"),
            (Setting::Spoofchk, "off"),
            (Setting::MinTxRate, "10Mbit"),
            (Setting::MaxTxRate, "1Gbit"),
            (Setting::LinkState, "enable"),
            (Setting::Queues, "4"),
            (Setting::Interrupts, "3"),
            (Setting::Online, "on"),
        ] {
            let value = setting.kind().parse(text).unwrap();
            let mut settings = VfSettings::default();
            assert!(settings.set(setting, value), "{setting}");
            assert_eq!(settings.describe(), [(setting.as_str(), text.to_owned())]);
            assert_eq!(setting.as_str().parse(), Ok(setting));
            let json = serde_json::to_value(&settings).unwrap();
            assert!(json.get(setting.as_str()).is_some(), "{json}");
        }
        assert!(!VfSettings::default().set(Setting::Trust, Value::Count(1)), "a count is no switch");
    }
}
