//! Messages of every kind with every value they can have. The strategies are boxed: whole, they overflow a test's stack.
#![allow(clippy::unwrap_used, dead_code, reason = "helpers of tests, of which each file uses its part")]

use ioward_channel::{AgentMessage, ChannelError, ErrorCode, Hello, ImpMessage, Notice, Welcome};
use ioward_model::{
    BitRate, Class, LinkState, MacAddress, Name, OpError, OpErrorKind, OpOutcome, PairRole, PairView, VfOp,
    VfSettings, VfStatistics, VfView, Vlan, VlanProtocol,
};
use ioward_pci::Bdf;
use proptest::{collection::vec, option, prelude::*};

pub fn name() -> impl Strategy<Value = Name> {
    "[a-zA-Z][a-zA-Z0-9_-]{0,39}".prop_map(|text| text.parse().unwrap())
}

fn text(max: usize) -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{0,80}".prop_filter("too long", move |text| text.len() <= max)
}

prop_compose! {
    fn any_settings()(
        mac in option::of(any::<[u8; 6]>()), vlan in option::of((0..=4094u16, any::<bool>(), 0..=7u8)),
        trust: Option<bool>,
        spoofchk: Option<bool>, min: Option<u32>, max: Option<u32>,
        link in option::of(prop_oneof![Just(LinkState::Auto), Just(LinkState::Enable), Just(LinkState::Disable)]),
        queues: Option<u16>, interrupts: Option<u16>, online: Option<bool>,
    ) -> VfSettings {
        VfSettings {
            mac: mac.map(MacAddress::new), vlan: vlan.and_then(tagged), trust, spoofchk,
            min_tx_rate: min.map(BitRate::from_megabits), max_tx_rate: max.map(BitRate::from_megabits),
            link_state: link, queues, interrupts, online,
        }
    }
}

fn tagged((id, service, priority): (u16, bool, u8)) -> Option<Vlan> {
    let protocol = if service { VlanProtocol::Dot1ad } else { VlanProtocol::Dot1Q };
    Vlan::new(id)?.tagged(protocol, priority)
}

fn settings() -> BoxedStrategy<VfSettings> {
    any_settings().boxed()
}

fn view() -> BoxedStrategy<VfView> {
    any_view().boxed()
}

fn change() -> impl Strategy<Value = VfSettings> {
    let valid = |change: &VfSettings| !change.is_empty() && change.mac.is_none_or(MacAddress::is_unicast);
    settings().prop_filter("no change", valid)
}

prop_compose! {
    fn any_view()(
        name in name(), class in 0..5usize, domain: u32, id: u16, settings in settings(),
        may in vec(text(256), 0..6), failover in option::of(pair_view()), fault in option::of(text(256)),
    ) -> VfView {
        let class = [Class::Network, Class::Nvme, Class::Display, Class::Accelerator, Class::Other][class];
        VfView { name, class, host_address: Bdf::from_routing_id(domain, id), settings, may, failover, fault }
    }
}

prop_compose! {
    fn pair_view()(primary: bool, partner in name(), active: bool) -> PairView {
        PairView { role: if primary { PairRole::Primary } else { PairRole::Standby }, partner, active }
    }
}

fn op() -> impl Strategy<Value = VfOp> {
    prop_oneof![
        Just(VfOp::List),
        name().prop_map(|vf| VfOp::Get { vf }),
        (name(), change()).prop_map(|(vf, change)| VfOp::Set { vf, change }),
        name().prop_map(|vf| VfOp::Reset { vf }),
        name().prop_map(|vf| VfOp::Stats { vf }),
        (name(), any::<bool>()).prop_map(|(vf, back)| VfOp::Failover { vf, back }),
    ]
}

pub fn agent_message() -> impl Strategy<Value = AgentMessage> {
    prop_oneof![
        (any::<u16>(), any::<u16>(), text(80), any::<u64>()).prop_map(
            |(min_version, max_version, agent, nonce)| {
                AgentMessage::Hello(Hello { min_version, max_version, agent, nonce })
            }
        ),
        (any::<u32>(), op()).prop_map(|(id, op)| AgentMessage::Request { id, op }),
        any::<u32>().prop_map(|id| AgentMessage::Subscribe { id }),
    ]
}

fn result() -> impl Strategy<Value = Result<OpOutcome, OpError>> {
    let counters = any::<[u64; 8]>().prop_map(|[a, b, c, d, e, f, g, h]| VfStatistics {
        rx_packets: a,
        tx_packets: b,
        rx_bytes: c,
        tx_bytes: d,
        broadcast: e,
        multicast: f,
        rx_dropped: g,
        tx_dropped: h,
    });
    let kind = prop_oneof![
        Just(OpErrorKind::Denied),
        Just(OpErrorKind::NoSuchVf),
        Just(OpErrorKind::Invalid),
        Just(OpErrorKind::Failed),
        Just(OpErrorKind::Busy),
    ];
    prop_oneof![
        Just(Ok(OpOutcome::Done)),
        view().prop_map(|view| Ok(OpOutcome::Vf(view))),
        vec(view(), 0..8).prop_map(|views| Ok(OpOutcome::Vfs(views))),
        counters.prop_map(|counters| Ok(OpOutcome::Stats(counters))),
        (kind, text(1024)).prop_map(|(kind, message)| Err(OpError::new(kind, message))),
    ]
}

pub fn imp_message() -> impl Strategy<Value = ImpMessage> {
    let code = prop_oneof![
        Just(ErrorCode::UnsupportedVersion),
        Just(ErrorCode::HelloNeeded),
        Just(ErrorCode::BadFrame),
        Just(ErrorCode::BadMessage),
        (5u16..).prop_map(ErrorCode::Other),
    ];
    prop_oneof![
        (any::<u16>(), any::<u64>(), any::<u64>(), name()).prop_map(|(version, epoch, nonce, partition)| {
            ImpMessage::Welcome(Welcome { version, epoch, nonce, partition })
        }),
        (any::<u32>(), result()).prop_map(|(id, result)| ImpMessage::Response { id, more: false, result }),
        view().prop_map(|view| ImpMessage::Notice(Notice::Added(view))),
        view().prop_map(|view| ImpMessage::Notice(Notice::Changed(view))),
        name().prop_map(|name| ImpMessage::Notice(Notice::Removed(name))),
        (any::<u32>(), code, text(1024), any::<(u16, u16)>(), any::<Option<u64>>()).prop_map(
            |(id, code, message, (min_version, max_version), nonce)| {
                ImpMessage::Error(ChannelError { id, code, message, min_version, max_version, nonce })
            }
        ),
        any::<u64>().prop_map(|epoch| ImpMessage::Reset { epoch }),
    ]
}
