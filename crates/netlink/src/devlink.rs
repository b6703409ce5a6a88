//! devlink health: the reporters of adapters. A driver has one for each part of its adapter that can fail (its firmware, a queue), notes
//! errors there, and recovers from them, by itself or when it is asked to.
//!
//! include/uapi/linux/devlink.h; net/devlink/health.c (net/core/devlink.c before Linux 6.3).

use std::io;

use rustix::net::{SocketFlags, SocketType, bind, netlink, netlink::SocketAddrNetlink, socket_with};
use rustix::{fd::OwnedFd, net::AddressFamily};

use crate::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST,
    generic::Family,
    link::ended,
    message::{GENLMSG, attribute, attributes, generic, message_body, text, u32_at, u64_at},
};

const NAME: &[u8] = b"devlink";
/// The group of all its news.
const GROUP: &[u8] = b"config";
const DEVLINK_CMD_HEALTH_REPORTER_GET: u8 = 52;
const DEVLINK_CMD_HEALTH_REPORTER_RECOVER: u8 = 54;
const DEVLINK_ATTR_BUS_NAME: u16 = 1;
const DEVLINK_ATTR_DEV_NAME: u16 = 2;
const DEVLINK_ATTR_PORT_INDEX: u16 = 3;
const DEVLINK_ATTR_HEALTH_REPORTER: u16 = 114;
const DEVLINK_ATTR_HEALTH_REPORTER_NAME: u16 = 115;
const DEVLINK_ATTR_HEALTH_REPORTER_STATE: u16 = 116;
const DEVLINK_ATTR_HEALTH_REPORTER_ERR_COUNT: u16 = 117;
const DEVLINK_ATTR_HEALTH_REPORTER_RECOVER_COUNT: u16 = 118;
const DEVLINK_ATTR_HEALTH_REPORTER_AUTO_RECOVER: u16 = 121;

/// Most reporters that are taken from one answer: an adapter has some ten, and each of its ports two.
const MAX_REPORTERS: usize = 1 << 14;
/// Names longer than that are none: the longest in Linux 6.12 has 16 bytes.
const LONGEST_NAME: usize = 64;

/// A reporter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reporter {
    /// The bus of its adapter, as `pci`.
    pub bus: String,
    /// Its adapter on that bus, as `0000:01:00.0`.
    pub device: String,
    /// The port of that adapter that it is of; `None`: it is of the whole.
    pub port: Option<u32>,
    /// Its name, which its driver has chosen, as `fw_fatal`. Printable ASCII without blanks, as the other texts here.
    pub name: String,
    /// Whether it has an error from which its driver has not recovered: `DEVLINK_HEALTH_REPORTER_STATE_ERROR`.
    pub is_in_error: bool,
    /// Errors since its driver has the adapter.
    pub errors: u64,
    /// How often it has recovered from one.
    pub recoveries: u64,
    /// Whether the driver recovers by itself. `None`: it can't recover from such errors at all.
    pub auto_recover: Option<bool>,
}

/// A connection to devlink, of the network namespace that it was opened in. Adapters are in the first one, unless somebody moves them.
///
/// The kernel answers in the call that asks, and waits for drivers that are recovering or changing their number of VFs: whoever
/// needs a bound asks on a thread of its own.
#[derive(Debug)]
pub struct Devlink {
    family: Family,
}

impl Devlink {
    /// In the network namespace of this thread; `None`: this kernel has no devlink.
    ///
    /// # Errors
    /// When no descriptor is left, or the kernel's answer makes no sense.
    pub fn open() -> io::Result<Option<Self>> {
        Ok(Family::open(NAME, GROUP)?.map(|family| Self { family }))
    }

    /// All reporters of all adapters, in the kernel's order. Those that the kernel describes in a way that is not known are left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reporters(&self) -> io::Result<Vec<Reporter>> {
        let id = self.family.described.id;
        let message = generic(id, NLM_F_REQUEST | NLM_F_DUMP, DEVLINK_CMD_HEALTH_REPORTER_GET);
        let mut reporters = Vec::new();
        self.family.socket.dump(message, id, |body| {
            if reporters.len() < MAX_REPORTERS {
                reporters.extend(Reporter::parse(body));
            }
        })?;
        Ok(reporters)
    }

    /// Has the driver recover from the error of a reporter, and waits for that. One that is healthy is left alone.
    ///
    /// # Errors
    /// The kernel's, which are the driver's. It needs `CAP_NET_ADMIN`.
    pub fn recover(&self, reporter: &Reporter) -> io::Result<()> {
        self.family.socket.tell(recovering(self.family.described.id, reporter))
    }

    /// A socket on which devlink tells its news, each a reason to look if [`is_of_health`] says so. Nothing is waited for on it. `None`
    /// where the group has a number that can't be had without privilege over sockets (the 33rd group of all families, and on).
    ///
    /// # Errors
    /// The kernel's.
    pub fn news(&self) -> io::Result<Option<OwnedFd>> {
        let bit = self.family.described.group.and_then(|group| 1_u32.checked_shl(group.checked_sub(1)?));
        let Some(groups) = bit else { return Ok(None) };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::GENERIC))?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Some(socket))
    }
}

/// Whether a message of [`Devlink::news`] tells of an error of a reporter, or that one has recovered.
#[must_use]
pub fn is_of_health(message: &[u8]) -> bool {
    let command = message_body(message).ok().and_then(|(_, body)| body.first().copied());
    command == Some(DEVLINK_CMD_HEALTH_REPORTER_RECOVER)
}

fn recovering(family: u16, reporter: &Reporter) -> Vec<u8> {
    let mut message = generic(family, NLM_F_REQUEST | NLM_F_ACK, DEVLINK_CMD_HEALTH_REPORTER_RECOVER);
    attribute(&mut message, DEVLINK_ATTR_BUS_NAME, &ended(reporter.bus.as_bytes()));
    attribute(&mut message, DEVLINK_ATTR_DEV_NAME, &ended(reporter.device.as_bytes()));
    if let Some(port) = reporter.port {
        attribute(&mut message, DEVLINK_ATTR_PORT_INDEX, &port.to_ne_bytes());
    }
    attribute(&mut message, DEVLINK_ATTR_HEALTH_REPORTER_NAME, &ended(reporter.name.as_bytes()));
    message
}

impl Reporter {
    /// From the body of a message about one.
    fn parse(body: &[u8]) -> Option<Self> {
        let about = body.get(GENLMSG..)?;
        let find =
            |among, wanted: u16| attributes(among).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let told = find(about, DEVLINK_ATTR_HEALTH_REPORTER)?;
        let count = |wanted| u64_at(find(told, wanted)?, 0);
        Some(Self {
            bus: word(find(about, DEVLINK_ATTR_BUS_NAME)?)?,
            device: word(find(about, DEVLINK_ATTR_DEV_NAME)?)?,
            port: match find(about, DEVLINK_ATTR_PORT_INDEX) {
                Some(port) => Some(u32_at(port, 0)?),
                None => None,
            },
            name: word(find(told, DEVLINK_ATTR_HEALTH_REPORTER_NAME)?)?,
            is_in_error: match find(told, DEVLINK_ATTR_HEALTH_REPORTER_STATE)? {
                [0] => false,
                [1] => true,
                _ => return None,
            },
            errors: count(DEVLINK_ATTR_HEALTH_REPORTER_ERR_COUNT)?,
            recoveries: count(DEVLINK_ATTR_HEALTH_REPORTER_RECOVER_COUNT)?,
            auto_recover: find(told, DEVLINK_ATTR_HEALTH_REPORTER_AUTO_RECOVER).map(|on| on != [0]),
        })
    }
}

/// A text that can go into a line for people.
fn word(value: &[u8]) -> Option<String> {
    let value = text(value);
    let is_word = (1..=LONGEST_NAME).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    String::from_utf8(value.to_vec()).ok().filter(|_| is_word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generic::Described,
        message::{messages, seal},
    };

    /// A message about a reporter: these attributes of the adapter, and these of its own.
    fn message(of_adapter: &[(u16, &[u8])], own: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = generic(20, 0, DEVLINK_CMD_HEALTH_REPORTER_GET);
        let mut nested = Vec::new();
        own.iter().for_each(|(kind, value)| attribute(&mut nested, *kind, value));
        of_adapter.iter().for_each(|(kind, value)| attribute(&mut message, *kind, value));
        attribute(&mut message, DEVLINK_ATTR_HEALTH_REPORTER | 0x8000, &nested);
        seal(&mut message, 1).unwrap();
        message
    }

    const ADAPTER: [(u16, &[u8]); 2] =
        [(DEVLINK_ATTR_BUS_NAME, b"pci\0"), (DEVLINK_ATTR_DEV_NAME, b"0000:01:00.0\0")];

    fn own<'a>(name: &'a [u8], state: &'a [u8], count: &'a [u8]) -> [(u16, &'a [u8]); 4] {
        [
            (DEVLINK_ATTR_HEALTH_REPORTER_NAME, name),
            (DEVLINK_ATTR_HEALTH_REPORTER_STATE, state),
            (DEVLINK_ATTR_HEALTH_REPORTER_ERR_COUNT, count),
            (DEVLINK_ATTR_HEALTH_REPORTER_RECOVER_COUNT, count),
        ]
    }

    fn parsed(bytes: &[u8]) -> Vec<Reporter> {
        messages(bytes).filter_map(|(_, _, body)| Reporter::parse(body)).collect()
    }

    #[test]
    fn a_reporter_of_a_port_is_read_and_one_without_a_way_to_recover_is_told_apart() {
        let count = 7_u64.to_ne_bytes();
        let of_port = [ADAPTER[0], ADAPTER[1], (DEVLINK_ATTR_PORT_INDEX, &3_u32.to_ne_bytes())];
        let mut can_recover = own(b"tx\0", &[1], &count).to_vec();
        can_recover.push((DEVLINK_ATTR_HEALTH_REPORTER_AUTO_RECOVER, &[0]));
        let dump = [message(&of_port, &can_recover), message(&ADAPTER, &own(b"fw\0", &[0], &count))].concat();
        let [tx, fw] = &parsed(&dump)[..] else { panic!("two were written") };
        assert_eq!((tx.bus.as_str(), tx.device.as_str(), tx.name.as_str()), ("pci", "0000:01:00.0", "tx"));
        assert_eq!((tx.port, tx.is_in_error, tx.errors, tx.recoveries), (Some(3), true, 7, 7));
        assert_eq!(tx.auto_recover, Some(false));
        assert_eq!((fw.port, fw.is_in_error, fw.auto_recover), (None, false, None));
        for length in 0..dump.len() {
            assert!(parsed(&dump[..length]).len() < 2);
        }
    }

    /// The answers of Linux 6.1 about devlink, and about netdevsim's reporters, one of which is in error with its recovery by itself turned off.
    #[test]
    fn what_the_kernel_answered_is_read_as_devlink_shows_it() {
        let family = include_bytes!("recorded/devlink-family.bin");
        let described = Described::parse(message_body(family).unwrap().1, GROUP).unwrap();
        let health = include_bytes!("recorded/devlink-health.bin");
        assert!(messages(health).all(|(_, kind, _)| kind == described.id));
        assert!(described.group.is_some_and(|group| (1..=32).contains(&group)), "{described:?}");
        let told = parsed(health);
        let told: Vec<_> = told
            .iter()
            .map(|one| {
                (one.device.as_str(), one.name.as_str(), one.is_in_error, one.errors, one.auto_recover)
            })
            .collect();
        let device = "netdevsim14";
        assert_eq!(told, [(device, "empty", false, 0, None), (device, "dummy", true, 1, Some(false))]);
        for length in 0..health.len() {
            assert!(parsed(&health[..length]).len() < 2);
        }
    }

    #[test]
    fn what_is_not_known_is_no_reporter() {
        let count = 7_u64.to_ne_bytes();
        let long = [b'x'; LONGEST_NAME + 1];
        for wrong in [
            own(b"\x1b[2J\0", &[0], &count),
            own(b"\0", &[0], &count),
            own(&long, &[0], &count),
            own(b"fw\0", &[2], &count),
            own(b"fw\0", &[], &count),
            own(b"fw\0", &[0], &count[..4]),
        ] {
            assert_eq!(parsed(&message(&ADAPTER, &wrong)), []);
        }
        assert_eq!(parsed(&message(&ADAPTER[..1], &own(b"fw\0", &[0], &count))), []);
    }

    #[test]
    fn a_reporter_is_recovered_by_the_names_that_it_was_told_by() {
        let reporter = Reporter {
            bus: "pci".to_owned(),
            device: "0000:01:00.0".to_owned(),
            port: Some(3),
            name: "tx".to_owned(),
            is_in_error: true,
            errors: 1,
            recoveries: 0,
            auto_recover: Some(false),
        };
        let mut message = recovering(20, &reporter);
        seal(&mut message, 1).unwrap();
        let (kind, body) = message_body(&message).unwrap();
        assert_eq!((kind, body[0]), (20, DEVLINK_CMD_HEALTH_REPORTER_RECOVER));
        let said: Vec<_> = attributes(&body[GENLMSG..]).collect();
        assert_eq!(
            said,
            [
                (DEVLINK_ATTR_BUS_NAME, &b"pci\0"[..]),
                (DEVLINK_ATTR_DEV_NAME, b"0000:01:00.0\0"),
                (DEVLINK_ATTR_PORT_INDEX, &3_u32.to_ne_bytes()),
                (DEVLINK_ATTR_HEALTH_REPORTER_NAME, b"tx\0"),
            ]
        );
        assert!(is_of_health(&message) && !is_of_health(&message[..16]) && !is_of_health(&[]));
    }

    /// Whether it has devlink or not: nothing is asked of it that only some kernels know.
    #[test]
    fn the_running_kernel_is_asked_without_an_error() {
        if let Some(devlink) = Devlink::open().unwrap() {
            devlink.reporters().unwrap();
            devlink.news().unwrap();
        }
    }
}
