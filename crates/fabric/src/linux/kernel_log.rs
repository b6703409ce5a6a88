//! The kernel's log entries about a refusal: often the only explanation.
//!
//! Best effort: without permission to read /dev/kmsg (Documentation/ABI/testing/dev-kmsg) there is nothing.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

/// The kernel's longest record (CONSOLE_EXT_LOG_MAX).
const RECORD: usize = 8192;
/// Number of records examined, and of the latest ones reported.
const LOOKED_AT: usize = 1000;
const TOLD: usize = 3;

/// The kernel's log from a certain moment on.
pub(super) struct KernelLog(Option<File>);

impl KernelLog {
    /// Starts now.
    pub(super) fn from_now(root: &Path) -> Self {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let open = || {
            let mut log = OpenOptions::new().read(true).custom_flags(flags).open(root.join("dev/kmsg"))?;
            log.seek(SeekFrom::End(0))?;
            std::io::Result::Ok(log)
        };
        Self(open().ok())
    }

    /// The entries since then about any of these functions, by their addresses.
    pub(super) fn about(self, addresses: &[String]) -> Vec<String> {
        let Some(mut log) = self.0 else { return Vec::new() };
        let mut lines = Vec::new();
        let mut record = vec![0; RECORD];
        // Every read is one record; the end is EAGAIN.
        for _ in 0..LOOKED_AT {
            let Ok(length @ 1..) = log.read(&mut record) else { break };
            lines.extend(text_about(&record[..length], addresses));
        }
        lines.split_off(lines.len().saturating_sub(TOLD))
    }
}

/// The text of a record `priority,sequence,time,flags;text` with lines of ` KEY=value` after it.
fn text_about(record: &[u8], addresses: &[String]) -> Option<String> {
    let record = String::from_utf8_lossy(record);
    let text = record.split_once(';')?.1.lines().next()?;
    let is_about = addresses.iter().any(|address| text.contains(address.as_str()));
    is_about.then(|| text.chars().filter(|c| !c.is_control()).take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_of_records_about_the_function_is_reported() {
        let address = ["0000:01:00.0".to_owned()];
        let record = b"4,1068,29665048,-;igb 0000:01:00.0: IOV\x1b[31m Disabled\n SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.0\n";
        assert_eq!(text_about(record, &address).unwrap(), "igb 0000:01:00.0: IOV[31m Disabled");
        assert_eq!(
            text_about(b"4,1,2,-;igb 0000:02:00.0: other\n DEVICE=+pci:0000:01:00.0\n", &address),
            None
        );
        assert_eq!(text_about(b"\xff\xfe", &address), None);
    }
}
