//! The kernel's notifications: uevents of functions (netlink `KOBJECT_UEVENT`, lib/kobject_uevent.c) and changes of
//! links (rtnetlink `RTMGRP_LINK`), and what devlink tells of health reporters. Their content is not trusted: they are a reason to look.

use std::{io, os::fd::OwnedFd, thread};

use ioward_netlink::devlink::{self, Devlink};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, socket_with,
    },
};
use tokio::sync::mpsc;

/// The kernel's own uevents; udev forwards them as group 2.
const KERNEL: u32 = 1;
/// `RTMGRP_LINK` (include/uapi/linux/rtnetlink.h).
const LINKS: u32 = 1;
/// A uevent has at most 2 KiB (`UEVENT_BUFFER_SIZE`). The beginning of longer messages suffices.
const MESSAGE: usize = 4096;
/// How often to check, without notifications, whether the receiver still listens.
const LISTENS_EACH: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A socket to the kernel, and the test whether a message is a reason to look.
struct Source {
    socket: OwnedFd,
    is_news: fn(&[u8]) -> bool,
}

/// Notifications, until the receiver is dropped. Ends at once where the kernel sends none.
pub(super) fn changes() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    let followed = open().and_then(|sources| {
        thread::Builder::new().name("kernel-news".to_owned()).spawn(move || follow(&sources, &sender))
    });
    if let Err(error) = followed {
        tracing::warn!(
            "the kernel's news can't be followed ({error}); the host is looked at now and then all the same"
        );
    }
    receiver
}

fn open() -> io::Result<Vec<Source>> {
    let socket = |protocol: Option<Protocol>, groups| -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(socket)
    };
    let mut sources = vec![
        Source { socket: socket(Some(netlink::KOBJECT_UEVENT), KERNEL)?, is_news: is_about_functions },
        Source { socket: socket(None, LINKS)?, is_news: |_| true },
    ];
    // Without it, what a reporter has in error is found by the looks that are made anyway.
    match Devlink::open().and_then(|devlink| devlink.map_or(Ok(None), |devlink| devlink.news())) {
        Ok(news) => sources.extend(news.map(|socket| Source { socket, is_news: devlink::is_of_health })),
        Err(error) => tracing::warn!("devlink's news can't be followed: {error}"),
    }
    Ok(sources)
}

fn follow(sources: &[Source], sender: &mpsc::Sender<()>) {
    while !sender.is_closed() {
        let mut sockets: Vec<_> =
            sources.iter().map(|source| PollFd::new(&source.socket, PollFlags::IN)).collect();
        match poll(&mut sockets, Some(&LISTENS_EACH)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::warn!("the kernel's news can't be followed any more: {error}");
                return;
            }
        }
        if sources.iter().any(Source::has_news) {
            // A waiting one says the same.
            let _ = sender.try_send(());
        }
    }
}

impl Source {
    /// Receives everything available.
    fn has_news(&self) -> bool {
        let (mut message, mut is_news) = ([0; MESSAGE], false);
        loop {
            match recv(&self.socket, &mut message[..], RecvFlags::empty()) {
                Ok((_, length)) => is_news |= (self.is_news)(message.get(..length).unwrap_or(&message)),
                Err(rustix::io::Errno::AGAIN) => return is_news,
                // Some were lost (ENOBUFS), which is a reason to look.
                Err(_) => return true,
            }
        }
    }
}

/// Whether a uevent (`action@path`, then `KEY=VALUE`, each ended by a zero) concerns a PCI function or an NVMe
/// controller.
fn is_about_functions(message: &[u8]) -> bool {
    message
        .split(|byte| *byte == 0)
        .any(|line| matches!(line, b"SUBSYSTEM=pci" | b"SUBSYSTEM=nvme" | b"SUBSYSTEM=vfio"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uevents_of_functions_are_a_reason_to_look() {
        let of = |subsystem: &str| format!("bind@/devices/x\0ACTION=bind\0SUBSYSTEM={subsystem}\0SEQNUM=1\0");
        assert!(is_about_functions(of("pci").as_bytes()) && is_about_functions(of("nvme").as_bytes()));
        assert!(
            !is_about_functions(of("block").as_bytes())
                && !is_about_functions(b"")
                && !is_about_functions(&[0; 9])
        );
    }
}
