//! What is known of a domain, and what of a change in that is news. Pure.

use ioward_model::{Accelerator, Name};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use super::process::Process;
use crate::{
    libvirt::{
        State,
        xml::{Channel, Facts},
    },
    text::printable,
};

/// More than the path of a socket may have (`sun_path`, unix(7)).
const MAX_SOCKET: usize = 200;

/// A domain, as it was at the last look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    /// Its name, which may change while it does not run.
    pub name: String,
    /// Whether libvirt has it.
    pub there: bool,
    /// The machine, while it runs.
    pub run: Option<Run>,
    /// Why it does not run, as far as libvirt says.
    pub why_off: Option<String>,
    /// What ioward gave to the machine that runs.
    pub live: Devices,
    /// What ioward gave to it for its next start.
    pub persistent: Devices,
}

/// One run of a domain's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    /// libvirt's number for it. Its daemon may begin anew with 1 after it was restarted.
    pub id: u32,
    /// Its QEMU, where that was found.
    pub process: Option<Process>,
    /// The engine that executes its instructions.
    pub accelerator: Option<Accelerator>,
}

/// ioward's devices in one definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Devices {
    /// The VFs.
    pub vfs: Vec<(Name, Bdf)>,
    /// The socket of the channel, when that is there.
    pub channel: Option<String>,
}

/// Something that befell a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Its machine has ended.
    Ended { why: String },
    /// A machine of it has started.
    Started,
    /// It has a VF no more.
    Detached { vf: Name, why: String },
    /// libvirt has it no more.
    Gone { why: String },
}

/// What is asked for of late, so that it is news to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    End,
    Start,
    Detach(Name),
}

impl News {
    pub(super) fn gone() -> Self {
        let why = "its domain was undefined; unless that is defined again at once, its VFs are given back";
        Self::Gone { why: why.to_owned() }
    }
}

impl Expected {
    fn is(&self, news: &News) -> bool {
        match (self, news) {
            (Self::End, News::Ended { .. }) | (Self::Start, News::Started) => true,
            (Self::Detach(name), News::Detached { vf, .. }) => name == vf,
            _ => false,
        }
    }
}

impl Run {
    /// Whether this is that same run. The process tells it surely, where it is known.
    fn is_same(&self, other: &Self) -> bool {
        let unknown = self.process.is_none() || other.process.is_none();
        self.id == other.id && (unknown || self.process == other.process)
    }
}

impl Devices {
    /// ioward's devices in a definition.
    pub(super) fn of(facts: Option<&Facts>) -> Self {
        let Some(facts) = facts else { return Self::default() };
        let vfs = facts.host_devices.iter().filter_map(|device| Some((device.vf.clone()?, device.function?)));
        let socket = |channel: &Channel| printable(channel.socket.as_deref().unwrap_or_default(), MAX_SOCKET);
        Self { vfs: vfs.collect(), channel: facts.channel.as_ref().map(socket) }
    }

    fn function(&self, vf: &Name) -> Option<Bdf> {
        self.vfs.iter().find(|(name, _)| name == vf).map(|(_, function)| *function)
    }
}

impl Known {
    /// One of which nothing was seen yet but its name.
    pub(super) fn new(name: String) -> Self {
        let (live, persistent) = (Devices::default(), Devices::default());
        Self { name, there: true, run: None, why_off: None, live, persistent }
    }

    /// One that libvirt has no more. What it had stays its partition's until that is taken from it: nobody has reset it.
    pub(super) fn gone(name: String, had: Devices) -> Self {
        let why_off = Some("libvirt has no such domain any more".to_owned());
        Self { name, there: false, run: None, why_off, live: Devices::default(), persistent: had }
    }

    /// ioward's devices in the definition that counts now.
    pub(super) fn devices(&self) -> &Devices {
        if self.run.is_some() { &self.live } else { &self.persistent }
    }

    /// What is news in it to whoever knew `before`: first what has ended, then what has begun.
    pub(super) fn news_since(&self, before: &Self, expected: &[Expected]) -> Vec<News> {
        let mut news = Vec::new();
        let goes_on = match (&before.run, &self.run) {
            (Some(before), Some(now)) => before.is_same(now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if !goes_on && before.run.is_some() {
            let why = match (&self.run, &self.why_off) {
                (Some(_), _) => "it was turned off and started again while nobody here looked".to_owned(),
                (None, Some(why)) => why.clone(),
                (None, None) => "libvirt does not say why".to_owned(),
            };
            news.push(News::Ended { why });
        }
        if !goes_on && self.run.is_some() {
            news.push(News::Started);
        }
        if self.there {
            news.extend(before.devices().vfs.iter().filter_map(|(vf, function)| self.loss(vf, *function)));
        } else if before.there {
            news.push(News::gone());
        }
        news.retain(|news| !expected.iter().any(|expected| expected.is(news)));
        news
    }

    fn loss(&self, vf: &Name, function: Bdf) -> Option<News> {
        let what = match self.devices().function(vf) {
            Some(found) if found == function => return None,
            Some(other) => format!("has {other} in its place"),
            None => "has it no more".to_owned(),
        };
        let whose = if self.run.is_some() { "the machine" } else { "its definition" };
        let why = format!("{whose} {what}: another program took it out (virsh detach-device, virsh edit)");
        Some(News::Detached { vf: vf.clone(), why })
    }
}

/// Why a domain is off: `virDomainShutoffReason` (libvirt 11.3, `include/libvirt/libvirt-domain.h`).
pub(super) fn why_off(state: State, reason: i32) -> Option<String> {
    let why = match (state, reason) {
        (State::ShutOff, 1) => "the guest turned itself off",
        (State::ShutOff, 2) => "it was turned off (virsh destroy)",
        (State::ShutOff, 3) => "its machine crashed; /var/log/libvirt/qemu may say why",
        (State::ShutOff, 4) => "it was moved to another host",
        (State::ShutOff, 5) => "it was saved (virsh save, virsh managedsave)",
        (State::ShutOff, 6) => "its machine did not start",
        (State::ShutOff, 7) => "it was put back to a snapshot",
        (State::ShutOff, 8) => "libvirt ended it",
        _ => return None,
    };
    Some(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn run(id: u32, pid: u32) -> Option<Run> {
        Some(Run { id, process: Some(Process { pid, started: 7 }), accelerator: Some(Accelerator::Kvm) })
    }

    fn devices(vfs: &[(&str, &str)]) -> Devices {
        let vfs = vfs.iter().map(|(vf, function)| (name(vf), function.parse().unwrap()));
        Devices { vfs: vfs.collect(), channel: Some("/run/x".into()) }
    }

    fn off(vfs: &[(&str, &str)]) -> Known {
        let why_off = why_off(State::ShutOff, 2);
        let persistent = devices(vfs);
        Known { name: "web".into(), there: true, run: None, why_off, live: Devices::default(), persistent }
    }

    fn on(run: Option<Run>, vfs: &[(&str, &str)]) -> Known {
        Known { run, why_off: None, live: devices(vfs), ..off(vfs) }
    }

    const NET: &[(&str, &str)] = &[("net0", "0000:01:10.0")];

    #[test]
    fn a_start_and_an_end_are_told_with_libvirts_reason() {
        assert_eq!(on(run(1, 9), NET).news_since(&off(NET), &[]), [News::Started]);
        let ended = off(NET).news_since(&on(run(1, 9), NET), &[]);
        assert_eq!(ended, [News::Ended { why: "it was turned off (virsh destroy)".into() }]);
        assert_eq!(off(NET).news_since(&off(NET), &[]), []);
        assert_eq!(on(run(1, 9), NET).news_since(&on(run(1, 9), NET), &[]), []);
    }

    #[test]
    fn another_run_under_the_same_number_is_another_run() {
        for (before, now) in [(run(1, 9), run(2, 12)), (run(1, 9), run(1, 12))] {
            let news = on(now, NET).news_since(&on(before, NET), &[]);
            assert!(matches!(&news[..], [News::Ended { .. }, News::Started]), "{news:?}");
        }
        // One whose process could not be found is taken for the same.
        let unknown = Some(Run { id: 1, process: None, accelerator: None });
        assert_eq!(on(unknown.clone(), NET).news_since(&on(run(1, 9), NET), &[]), []);
        assert_eq!(on(run(1, 9), NET).news_since(&on(unknown, NET), &[]), []);
    }

    #[test]
    fn what_was_asked_for_is_no_news() {
        let (started, ended) = (on(run(1, 9), NET), off(NET));
        assert_eq!(started.news_since(&ended, &[Expected::Start]), []);
        assert_eq!(ended.news_since(&started, &[Expected::End]), []);
        assert_eq!(ended.news_since(&started, &[Expected::Start]).len(), 1);
        let without = on(run(1, 9), &[]);
        assert_eq!(without.news_since(&started, &[Expected::Detach(name("net0"))]), []);
        assert_eq!(without.news_since(&started, &[Expected::Detach(name("net1"))]).len(), 1);
    }

    #[test]
    fn a_vf_that_is_gone_or_is_another_one_is_told() {
        let both = &[("net0", "0000:01:10.0"), ("net1", "0000:01:10.2")];
        let before = on(run(1, 9), both);
        let news = on(run(1, 9), &[("net1", "0000:01:10.2")]).news_since(&before, &[]);
        assert!(matches!(&news[..], [News::Detached { vf, .. }] if vf.as_str() == "net0"), "{news:?}");
        let news =
            on(run(1, 9), &[("net0", "0000:01:10.4"), ("net1", "0000:01:10.2")]).news_since(&before, &[]);
        assert!(
            matches!(&news[..], [News::Detached { why, .. }] if why.contains("0000:01:10.4")),
            "{news:?}"
        );
        // Taken out of what it starts with next while it runs: that is no loss before it does.
        let edited = Known { persistent: devices(&[]), ..before.clone() };
        assert_eq!(edited.news_since(&before, &[]), []);
        let stopped = Known { run: None, live: Devices::default(), ..edited.clone() };
        let news = stopped.news_since(&edited, &[Expected::End]);
        assert_eq!(news.len(), 2, "{news:?}");
    }

    #[test]
    fn a_domain_that_is_undefined_is_told_once_and_its_vfs_are_not_told_singly() {
        let gone = Known::gone("web".into(), devices(NET));
        let news = gone.news_since(&off(NET), &[]);
        assert!(matches!(&news[..], [News::Gone { .. }]), "{news:?}");
        assert_eq!(gone.news_since(&gone, &[]), []);
        let news = gone.news_since(&on(run(1, 9), NET), &[]);
        assert!(matches!(&news[..], [News::Ended { .. }, News::Gone { .. }]), "{news:?}");
    }
}
