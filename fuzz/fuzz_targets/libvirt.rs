//! libvirt: a stream of its messages, in pieces and whole, each read as everything that a call can return, and the definition of a domain, read and
//! edited. What is added to a definition is taken out without a trace.
#![no_main]

use ioward_hypervisor::libvirt::{read_stream, xml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The first byte says where the stream is cut.
    if let Some((&cut, stream)) = bytes.split_first() {
        let (first, second) = stream.split_at(stream.len().min(cut.into()));
        assert_eq!(read_stream(&[first, second]), read_stream(&[stream]));
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    let read = xml::read(text);
    let Ok(channel) = xml::channel("/run/ioward/web") else { return };
    if let Ok(with) = xml::insert(text, &channel) {
        assert_eq!(xml::remove(&with, xml::CHANNEL_ALIAS), Ok(Some(text.to_owned())));
        if let Ok(before) = read
            && let Ok(after) = xml::read(&with)
        {
            assert_eq!(
                (before.name, before.host_devices, before.root_ports),
                (after.name, after.host_devices, after.root_ports)
            );
            assert!(before.channel.is_none() && after.channel.is_some());
        }
    }
});
