//! Payloads: CBOR maps with numbered fields, and how they become values of `ioward-model`.
//!
//! These structures are the protocol: a number, once given, keeps its meaning for ever. Unknown numbers are skipped. A
//! value that comes in is checked here, field by field, before anything else sees it.

use ioward_model::{
    BitRate, Class, LinkState, MacAddress, Name, OpErrorKind, OpOutcome, PairRole, PairView, VfOp,
    VfSettings, VfStatistics, VfView, Vlan, VlanProtocol, for_each_setting,
};
use ioward_pci::Bdf;
use minicbor::{Decode, Decoder, Encode, Encoder, bytes::ByteArray, decode, encode};

use crate::text::clean;

/// The greatest number of `may` words of a VF.
pub const MAX_WORDS: usize = 32;
/// The greatest length of a `may` word, in bytes.
pub const MAX_WORD_BYTES: usize = 256;

/// An array of at most `MAX` elements.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

impl<C, T: Encode<C>, const MAX: usize> Encode<C> for List<T, MAX> {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        self.0.encode(e, ctx)
    }
}

impl<'b, C, T: Decode<'b, C>, const MAX: usize> Decode<'b, C> for List<T, MAX> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let mut elements = Vec::new();
        for element in d.array_iter_with(ctx)? {
            if elements.len() == MAX {
                return Err(decode::Error::message(format!("a list has more than {MAX} elements")));
            }
            elements.push(element?);
        }
        Ok(Self(elements))
    }
}

/// First message of an agent.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Hello<'a> {
    #[n(0)]
    pub min_version: u16,
    #[n(1)]
    pub max_version: u16,
    #[b(2)]
    pub agent: &'a str,
    #[n(3)]
    pub nonce: u64,
}

/// Answer to a hello.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Welcome<'a> {
    #[n(0)]
    pub version: u16,
    #[n(1)]
    pub epoch: u64,
    #[n(2)]
    pub nonce: u64,
    #[b(3)]
    pub partition: &'a str,
}

/// The management partition has (re)connected and knows no agent.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Reset {
    #[n(0)]
    pub epoch: u64,
}

/// Something about the channel itself is wrong.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct ChannelError<'a> {
    #[n(0)]
    pub code: u16,
    #[b(1)]
    pub message: &'a str,
    #[n(2)]
    pub min_version: u16,
    #[n(3)]
    pub max_version: u16,
    #[n(4)]
    pub nonce: Option<u64>,
}

/// A payload with no fields yet.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Empty {}

/// A VF configuration operation.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Request<'a> {
    #[n(0)]
    pub op: u8,
    #[b(1)]
    pub vf: Option<&'a str>,
    #[n(2)]
    pub change: Option<Settings>,
}

/// The result of an operation.
#[derive(Default, Encode, Decode)]
#[cbor(map)]
pub struct Response<'a> {
    #[n(0)]
    pub result: u8,
    #[b(1)]
    pub vf: Option<View<'a>>,
    #[b(2)]
    pub vfs: Option<List<View<'a>, { crate::MAX_VFS }>>,
    #[n(3)]
    pub statistics: Option<Statistics>,
    #[b(4)]
    pub error: Option<OpError<'a>>,
}

/// Why an operation was not done.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct OpError<'a> {
    #[n(0)]
    pub kind: u8,
    #[b(1)]
    pub message: &'a str,
}

/// A VF came, went or changed.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Notice<'a> {
    #[n(0)]
    pub change: u8,
    #[b(1)]
    pub vf: Option<View<'a>>,
    #[b(2)]
    pub name: Option<&'a str>,
}

/// A value of a setting as it is in a message.
pub trait OnWire: Sized {
    type Raw;

    fn to_raw(self) -> Self::Raw;

    /// # Errors
    /// The message says why it is no such value.
    fn from_raw(raw: Self::Raw) -> Result<Self, String>;
}

/// Types that are in a message as they are.
macro_rules! as_it_is {
    ($($type:ty),*) => {$(
        impl OnWire for $type {
            type Raw = Self;

            fn to_raw(self) -> Self {
                self
            }

            fn from_raw(raw: Self) -> Result<Self, String> {
                Ok(raw)
            }
        }
    )*};
}

as_it_is!(bool, u16);

impl OnWire for MacAddress {
    type Raw = ByteArray<6>;

    fn to_raw(self) -> ByteArray<6> {
        self.bytes().into()
    }

    fn from_raw(raw: ByteArray<6>) -> Result<Self, String> {
        Ok(Self::new(raw.into()))
    }
}

impl OnWire for Vlan {
    type Raw = u16;

    fn to_raw(self) -> u16 {
        self.id()
    }

    fn from_raw(id: u16) -> Result<Self, String> {
        Self::new(id).ok_or_else(|| format!("{id} is above 4094"))
    }
}

impl OnWire for BitRate {
    type Raw = u32;

    fn to_raw(self) -> u32 {
        self.megabits()
    }

    fn from_raw(megabits: u32) -> Result<Self, String> {
        Ok(Self::from_megabits(megabits))
    }
}

impl OnWire for LinkState {
    type Raw = u8;

    fn to_raw(self) -> u8 {
        link_state_number(self)
    }

    fn from_raw(number: u8) -> Result<Self, String> {
        link_state(number).ok_or_else(|| format!("{number} is above 2"))
    }
}

/// Protocol and priority of a VLAN's tag.
#[derive(Clone, Copy, Encode, Decode)]
#[cbor(map)]
pub struct VlanTag {
    /// EtherType.
    #[n(0)]
    pub protocol: u16,
    #[n(1)]
    pub priority: u8,
}

impl VlanTag {
    fn of(vlan: Vlan) -> Self {
        Self { protocol: vlan.protocol().ethertype(), priority: vlan.priority() }
    }

    /// The VLAN of an ID with this tag.
    fn on(self, id: Option<Vlan>) -> Result<Vlan, String> {
        let Self { protocol, priority } = self;
        let protocol = VlanProtocol::from_ethertype(protocol)
            .ok_or_else(|| format!("{protocol:#06x} is neither 0x8100 nor 0x88a8"))?;
        let vlan = id.ok_or("it is without a vlan")?;
        vlan.tagged(protocol, priority).ok_or_else(|| format!("priority {priority} is above 7"))
    }
}

macro_rules! wire_settings {
    ($(
        $setting:ident $number:tt $field:ident: $kind:ident($type:ty), asked [$($asked:ty)?],
        $class:ident needs [$($capability:ident)?], $description:literal;
    )*) => {
        /// Settings of a VF, from the table of `ioward-model`; those left out are left alone, or are not there.
        #[derive(Clone, Copy, Default, Encode, Decode)]
        #[cbor(map)]
        pub struct Settings {
            $(
                #[n($number)]
                pub $field: Option<<$type as OnWire>::Raw>,
            )*
            /// The rest of the VLAN's tag, where the ID is not all of it. From version 2 on.
            #[n(10)]
            pub vlan_tag: Option<VlanTag>,
        }

        impl From<&VfSettings> for Settings {
            fn from(settings: &VfSettings) -> Self {
                let vlan_tag = settings.vlan.filter(|vlan| !vlan.is_plain()).map(VlanTag::of);
                Self { $($field: settings.$field.map(OnWire::to_raw),)* vlan_tag }
            }
        }

        impl TryFrom<Settings> for VfSettings {
            type Error = String;

            fn try_from(wire: Settings) -> Result<Self, String> {
                let named = |field: &'static str| move |error: String| format!("{field}: {error}");
                let mut settings = Self {
                    $($field: wire.$field.map(<$type>::from_raw).transpose()
                        .map_err(named(stringify!($field)))?),*
                };
                if let Some(tag) = wire.vlan_tag {
                    settings.vlan = Some(tag.on(settings.vlan).map_err(named("vlan_tag"))?);
                }
                Ok(settings)
            }
        }
    };
}

for_each_setting!(wire_settings);

/// A VF as its partition sees it.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct View<'a> {
    #[b(0)]
    pub name: &'a str,
    #[n(1)]
    pub class: u8,
    #[n(2)]
    pub host_address: u64,
    #[n(3)]
    pub settings: Settings,
    #[n(4)]
    pub may: List<String, MAX_WORDS>,
    #[b(5)]
    pub failover: Option<Pair<'a>>,
    #[n(6)]
    pub fault: Option<String>,
}

/// The part of a VF in a failover pair.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Pair<'a> {
    #[n(0)]
    pub role: u8,
    #[b(1)]
    pub partner: &'a str,
    #[n(2)]
    pub active: bool,
}

/// Traffic counters.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Statistics {
    #[n(0)]
    pub rx_packets: u64,
    #[n(1)]
    pub tx_packets: u64,
    #[n(2)]
    pub rx_bytes: u64,
    #[n(3)]
    pub tx_bytes: u64,
    #[n(4)]
    pub broadcast: u64,
    #[n(5)]
    pub multicast: u64,
    #[n(6)]
    pub rx_dropped: u64,
    #[n(7)]
    pub tx_dropped: u64,
}

/// The number of each word of an enumeration, both ways.
macro_rules! numbered {
    ($to:ident, $from:ident, $type:ty, { $($number:literal = $variant:path),* $(,)? }) => {
        fn $to(value: $type) -> u8 {
            match value { $($variant => $number),* }
        }

        fn $from(number: u8) -> Option<$type> {
            match number { $($number => Some($variant),)* _ => None }
        }
    };
}

numbered!(class_number, class, Class, {
    0 = Class::Network, 1 = Class::Nvme, 2 = Class::Display, 3 = Class::Accelerator, 4 = Class::Other,
});

numbered!(role_number, role, PairRole, { 0 = PairRole::Primary, 1 = PairRole::Standby });

// The numbers of IFLA_VF_LINK_STATE.
numbered!(link_state_number, link_state, LinkState, {
    0 = LinkState::Auto, 1 = LinkState::Enable, 2 = LinkState::Disable,
});

numbered!(error_kind_number, error_kind, OpErrorKind, {
    1 = OpErrorKind::Denied, 2 = OpErrorKind::NoSuchVf, 3 = OpErrorKind::Invalid, 4 = OpErrorKind::Failed,
    5 = OpErrorKind::Busy,
});

/// A VF's or a partition's name.
pub fn name(field: &str, text: &str) -> Result<Name, String> {
    text.parse().map_err(|error| format!("{field}: {error}"))
}

/// Free text of at most so many bytes.
pub fn free_text(field: &str, text: &str, max: usize) -> Result<String, String> {
    if text.len() > max {
        return Err(format!("{field}: {} bytes; at most {max}", text.len()));
    }
    Ok(clean(text, max))
}

impl<'a> From<&'a VfView> for View<'a> {
    fn from(view: &'a VfView) -> Self {
        let address = view.host_address;
        Self {
            name: view.name.as_str(),
            class: class_number(view.class),
            host_address: u64::from(address.domain()) << 16 | u64::from(address.routing_id()),
            settings: Settings::from(&view.settings),
            may: List(view.may.iter().take(MAX_WORDS).map(|word| clean(word, MAX_WORD_BYTES)).collect()),
            failover: view.failover.as_ref().map(|pair| Pair {
                role: role_number(pair.role),
                partner: pair.partner.as_str(),
                active: pair.active,
            }),
            fault: view.fault.as_ref().map(|fault| clean(fault, MAX_WORD_BYTES)),
        }
    }
}

impl TryFrom<View<'_>> for VfView {
    type Error = String;

    fn try_from(wire: View<'_>) -> Result<Self, String> {
        let [_, _, d0, d1, d2, d3, r0, r1] = wire.host_address.to_be_bytes();
        if wire.host_address >> 48 != 0 {
            return Err(format!("vf.host_address: {:#x} has more than 48 bits", wire.host_address));
        }
        let words = wire.may.0.iter().map(|word| free_text("vf.may", word, MAX_WORD_BYTES));
        Ok(Self {
            name: name("vf.name", wire.name)?,
            // A class that only a newer management partition knows is still a class.
            class: class(wire.class).unwrap_or(Class::Other),
            host_address: Bdf::from_routing_id(
                u32::from_be_bytes([d0, d1, d2, d3]),
                u16::from_be_bytes([r0, r1]),
            ),
            settings: wire.settings.try_into().map_err(|error| format!("vf.settings.{error}"))?,
            may: words.collect::<Result<_, _>>()?,
            failover: wire.failover.map(PairView::try_from).transpose()?,
            fault: wire.fault.map(|fault| free_text("vf.fault", &fault, MAX_WORD_BYTES)).transpose()?,
        })
    }
}

impl TryFrom<Pair<'_>> for PairView {
    type Error = String;

    fn try_from(wire: Pair<'_>) -> Result<Self, String> {
        Ok(Self {
            role: role(wire.role).ok_or_else(|| format!("vf.failover.role: {} is above 1", wire.role))?,
            partner: name("vf.failover.partner", wire.partner)?,
            active: wire.active,
        })
    }
}

impl From<&VfStatistics> for Statistics {
    fn from(statistics: &VfStatistics) -> Self {
        let VfStatistics { rx_packets, tx_packets, rx_bytes, tx_bytes, .. } = *statistics;
        let VfStatistics { broadcast, multicast, rx_dropped, tx_dropped, .. } = *statistics;
        Self { rx_packets, tx_packets, rx_bytes, tx_bytes, broadcast, multicast, rx_dropped, tx_dropped }
    }
}

impl From<Statistics> for VfStatistics {
    fn from(wire: Statistics) -> Self {
        let Statistics { rx_packets, tx_packets, rx_bytes, tx_bytes, .. } = wire;
        let Statistics { broadcast, multicast, rx_dropped, tx_dropped, .. } = wire;
        Self { rx_packets, tx_packets, rx_bytes, tx_bytes, broadcast, multicast, rx_dropped, tx_dropped }
    }
}

impl<'a> From<&'a VfOp> for Request<'a> {
    fn from(op: &'a VfOp) -> Self {
        let (number, change) = match op {
            VfOp::List => (0, None),
            VfOp::Get { .. } => (1, None),
            VfOp::Set { change, .. } => (2, Some(Settings::from(change))),
            VfOp::Reset { .. } => (3, None),
            VfOp::Stats { .. } => (4, None),
            VfOp::Failover { back: false, .. } => (5, None),
            VfOp::Failover { back: true, .. } => (6, None),
        };
        Self { op: number, vf: op.vf().map(Name::as_str), change }
    }
}

impl TryFrom<Request<'_>> for VfOp {
    type Error = String;

    fn try_from(wire: Request<'_>) -> Result<Self, String> {
        let vf = || name("vf", wire.vf.ok_or("vf: missing")?);
        Ok(match wire.op {
            0 => Self::List,
            1 => Self::Get { vf: vf()? },
            2 => Self::Set { vf: vf()?, change: change(wire.change.unwrap_or_default())? },
            3 => Self::Reset { vf: vf()? },
            4 => Self::Stats { vf: vf()? },
            5 => Self::Failover { vf: vf()?, back: false },
            6 => Self::Failover { vf: vf()?, back: true },
            op => return Err(format!("op: there is no operation {op}")),
        })
    }
}

/// Settings as a change: one that changes nothing is a mistake, or names only settings that this side does not know.
fn change(wire: Settings) -> Result<VfSettings, String> {
    let change = VfSettings::try_from(wire).map_err(|error| format!("change.{error}"))?;
    if change.is_empty() {
        return Err("change: no known setting is in it".to_owned());
    }
    if let Some(mac) = change.mac.filter(|mac| !mac.is_unicast()) {
        return Err(format!("change.mac: {mac} is no unicast address"));
    }
    Ok(change)
}

impl<'a> From<&'a OpOutcome> for Response<'a> {
    fn from(outcome: &'a OpOutcome) -> Self {
        match outcome {
            OpOutcome::Done => Self { result: 1, ..Self::default() },
            OpOutcome::Vf(view) => Self { result: 2, vf: Some(view.into()), ..Self::default() },
            OpOutcome::Vfs(views) => {
                Self { result: 3, vfs: Some(List(views.iter().map(View::from).collect())), ..Self::default() }
            }
            OpOutcome::Stats(counters) => {
                Self { result: 4, statistics: Some(counters.into()), ..Self::default() }
            }
        }
    }
}

impl<'a> From<&'a ioward_model::OpError> for OpError<'a> {
    fn from(error: &'a ioward_model::OpError) -> Self {
        Self { kind: error_kind_number(error.kind), message: &error.message }
    }
}

impl TryFrom<Response<'_>> for Result<OpOutcome, ioward_model::OpError> {
    type Error = String;

    fn try_from(wire: Response<'_>) -> Result<Self, String> {
        Ok(match wire.result {
            0 => {
                let error = wire.error.ok_or("error: missing")?;
                let message = free_text("error.message", error.message, crate::message::MAX_MESSAGE_BYTES)?;
                // A kind of no that only a newer management partition knows is still a no.
                Err(ioward_model::OpError::new(
                    error_kind(error.kind).unwrap_or(OpErrorKind::Failed),
                    message,
                ))
            }
            1 => Ok(OpOutcome::Done),
            2 => Ok(OpOutcome::Vf(wire.vf.ok_or("vf: missing")?.try_into()?)),
            3 => {
                let views = wire.vfs.ok_or("vfs: missing")?.0.into_iter().map(VfView::try_from);
                Ok(OpOutcome::Vfs(views.collect::<Result<_, _>>()?))
            }
            4 => Ok(OpOutcome::Stats(wire.statistics.ok_or("statistics: missing")?.into())),
            result => return Err(format!("result: there is no result {result}")),
        })
    }
}
