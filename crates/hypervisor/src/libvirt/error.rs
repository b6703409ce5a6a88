//! Why a call to libvirt failed.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use super::{
    wire,
    xdr::{MAX_STRING, XdrError},
};

/// One variant for each way in which a call can end badly.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LibvirtError {
    /// Nobody listens.
    #[error(
        "no libvirt daemon listens here ({}); install libvirt (Debian: libvirt-daemon-system), or start it: systemctl start \
         virtqemud.socket, or libvirtd.socket where there is no virtqemud",
        .0.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect::<Vec<_>>().join("; ")
    )]
    NoDaemon(Vec<(PathBuf, String)>),
    /// The socket is there and can't be used.
    #[error("cannot connect to libvirt at {}: {why}; root may, and whom libvirt's configuration lets", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The kernel's error.
        #[source]
        why: Arc<io::Error>,
    },
    /// The daemon wants to know who this is.
    #[error(
        "libvirt wants to be shown by {method} who calls, which is not supported; run this as root, whom libvirt's own \
         configuration asks for nothing, or set auth_unix_rw = \"none\" and a group of its own for the socket in \
         /etc/libvirt/virtqemud.conf (or libvirtd.conf)"
    )]
    Authentication {
        /// "polkit", "SASL".
        method: String,
    },
    /// The connection is over.
    #[error("the connection to libvirt ended: {0}; what was asked for may have been done")]
    Lost(Arc<str>),
    /// The daemon did not answer. The call may still be carried out.
    #[error(
        "libvirt did not answer {call} within {} s; what was asked for may still be done; see its log: journalctl -u virtqemud -u \
         libvirtd", .after.as_secs()
    )]
    NoAnswer {
        /// The call.
        call: &'static str,
        /// The bound.
        after: Duration,
    },
    /// The answer is not what the protocol says it is.
    #[error("libvirt's answer to {call} makes no sense: {why}")]
    Nonsense {
        /// The call.
        call: &'static str,
        /// How it differs.
        why: XdrError,
    },
    /// A text that libvirt does not take.
    #[error(
        "cannot ask libvirt for {call}: the text for it has {length} bytes, and {MAX_STRING} is the most it takes"
    )]
    TooLong {
        /// The call.
        call: &'static str,
        /// The length of the text.
        length: usize,
    },
    /// libvirt said no.
    #[error("libvirt refused {call}: {message} (error {code} of its part {part}){}", .kind.remedy())]
    Refused {
        /// The call.
        call: &'static str,
        /// The meaning of it.
        kind: Refusal,
        /// `virErrorNumber`.
        code: i32,
        /// `virErrorDomain`.
        part: i32,
        /// For a person, in the language of the daemon.
        message: String,
    },
}

/// The refusals that have to be told apart.
///
/// By libvirt's numbers where they do, which is most of them. It has one number (1, an internal error) for a domain without a free slot or
/// a controller for channels, and one (8) for an argument of any kind: those are told apart by their text, which is English only when the
/// daemon's locale is, and are [`Refusal::Other`] otherwise. So nothing may hang on telling these apart but the words for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such domain.
    NoDomain,
    /// Not in the state that it is in.
    OperationInvalid,
    /// The domain has no such device.
    DeviceMissing,
    /// Some domain has that device.
    InUse,
    /// The domain has no free slot.
    NoFreeSlot,
    /// The domain has no controller for channels.
    NoSerialController,
    /// libvirt's access control forbids it.
    NotAllowed,
    /// Any other.
    Other,
}

/// `VIR_FROM_NONE`. What keeps the host's devices names no part (`src/hypervisor/virhostdev.c`), and what keeps the state of domains does.
const OF_NO_PART: i32 = 0;

impl Refusal {
    /// Numbers: `include/libvirt/virterror.h`. Texts: `src/conf/domain_addr.c`, `src/qemu/qemu_driver.c`; libvirt 11.3.0.
    fn of(code: i32, part: i32, message: &str) -> Self {
        match code {
            42 => Self::NoDomain,
            99 => Self::DeviceMissing,
            29 | 45 | 79 | 88 | 94 => Self::NotAllowed,
            8 if message.contains("device not present in domain configuration") => Self::DeviceMissing,
            87 => Self::InUse,
            55 if part == OF_NO_PART => Self::InUse,
            55 => Self::OperationInvalid,
            1 if message.contains("No more available PCI slots") => Self::NoFreeSlot,
            1 if message.contains("no virtio-serial controllers are available") => Self::NoSerialController,
            _ => Self::Other,
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::NoDomain => "; 'virsh list --all' lists the domains",
            Self::OperationInvalid => "; 'virsh domstate DOMAIN' tells its state",
            Self::DeviceMissing => "; 'virsh dumpxml DOMAIN' lists its devices",
            Self::InUse => "; detach the device there first, or take another one",
            Self::NoFreeSlot => {
                "; add a <controller type='pci' model='pcie-root-port'/> to its definition (virsh edit DOMAIN), then stop and start it"
            }
            Self::NoSerialController => "; add a <controller type='virtio-serial'/> to it first",
            Self::NotAllowed => "; run this as root, or allow it in libvirt's access control",
            Self::Other => "",
        }
    }
}

impl LibvirtError {
    pub(super) fn refused(call: &'static str, refusal: wire::Refusal) -> Self {
        let wire::Refusal { code, domain, message } = refusal;
        Self::Refused { call, kind: Refusal::of(code, domain, &message), code, part: domain, message }
    }

    /// The same refusal by a domain whose definition shows that it has no free slot, whatever the language that libvirt says so in.
    pub(super) fn of_a_full_domain(mut self) -> Self {
        if let Self::Refused { kind: kind @ Refusal::Other, code: 1, .. } = &mut self {
            *kind = Refusal::NoFreeSlot;
        }
        self
    }

    /// Whether libvirt was asked, and has not answered.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::NoAnswer { .. })
    }

    /// The meaning of a refusal; `None` for any other error.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}

/// Names a method of authentication: `remote_auth_type`.
pub(super) struct AuthType(pub u32);

impl fmt::Display for AuthType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("SASL"),
            2 => f.write_str("polkit"),
            other => write!(f, "method {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_matter_are_told_apart() {
        for (code, domain, message, kind) in [
            (42, 10, "Domain not found: no domain with matching name 'x'", Refusal::NoDomain),
            (55, 10, "Requested operation is not valid: domain is not running", Refusal::OperationInvalid),
            (55, 20, "Requested operation is not valid: domain is already in use", Refusal::OperationInvalid),
            // By their numbers, in whatever language.
            (55, 0, "PCI-Gerät 0000:01:10.0 wird von Treiber QEMU, Domain web verwendet", Refusal::InUse),
            (87, 10, "Ressource belegt", Refusal::InUse),
            (99, 10, "device not found: host pci device 0000:01:10.0 not found", Refusal::DeviceMissing),
            (88, 10, "access denied", Refusal::NotAllowed),
            // By their text.
            (1, 20, "internal error: No more available PCI slots", Refusal::NoFreeSlot),
            (
                1,
                20,
                "internal error: no virtio-serial controllers are available",
                Refusal::NoSerialController,
            ),
            (1, 20, "internal error: Kein freier Platz", Refusal::Other),
        ] {
            let refusal = wire::Refusal { code, domain, message: message.to_owned() };
            let error = LibvirtError::refused("attach device", refusal);
            assert_eq!(error.refusal(), Some(kind), "{message}");
            assert!(
                error.to_string().contains(message) && error.to_string().contains("attach device"),
                "{error}"
            );
        }
    }
}
