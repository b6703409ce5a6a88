//! One admin command to an NVMe controller: `NVME_IOCTL_ADMIN_CMD` (include/uapi/linux/nvme_ioctl.h).
#![allow(unsafe_code)]

use std::{ffi::c_void, fs::File, io};

use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode, opcode};

/// `struct nvme_passthru_cmd`.
#[repr(C)]
#[derive(Default)]
struct PassthruCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    address: u64,
    metadata_length: u32,
    data_length: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(size_of::<PassthruCommand>() == 72, "the kernel's struct has 72 bytes");

/// How long the controller may take; the driver resets it after that.
const TIMEOUT_MS: u32 = 10_000;

// SAFETY: the opcode is the one whose argument is a `struct nvme_passthru_cmd`, to which `as_ptr` points; the kernel
// writes nothing but that struct and the buffer named in it.
unsafe impl Ioctl for &mut PassthruCommand {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<PassthruCommand>(b'N', 0x41)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut::<PassthruCommand>(self).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(out)
    }
}

/// An admin command that returns no data, or data to the host in whole pages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Command {
    pub(super) opcode: u8,
    pub(super) cdw10: u32,
    pub(super) cdw11: u32,
}

/// Sends a command whose data, if any, the controller writes to `data`. Returns the NVMe status field: 0 is success.
pub(super) fn send(controller: &File, command: Command, data: &mut [u8]) -> io::Result<u16> {
    let mut passthru = PassthruCommand {
        opcode: command.opcode,
        cdw10: command.cdw10,
        cdw11: command.cdw11,
        address: if data.is_empty() { 0 } else { data.as_mut_ptr() as u64 },
        data_length: u32::try_from(data.len()).map_err(io::Error::other)?,
        timeout_ms: TIMEOUT_MS,
        ..PassthruCommand::default()
    };
    // SAFETY: `passthru` names `data` with its length; both are borrowed for the whole call, after which the kernel
    // keeps no reference to them. Any bytes the controller writes there are valid.
    let status = unsafe { ioctl::ioctl(controller, &mut passthru) }?;
    // Status Code and Status Code Type; the bits above are More and Do Not Retry.
    Ok(u16::try_from(status & 0x7ff).unwrap_or(0x7ff))
}
