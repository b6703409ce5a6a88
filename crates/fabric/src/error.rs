//! Why an operation on the PCI side of the host failed.

use std::{borrow::Cow, io, path::PathBuf, time::Duration};

use ioward_model::{Service, VfId};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

/// One variant for each way in which an operation on the PCI side can end badly. It may have happened in another process.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FabricError {
    /// There is no such function, or it is no PF.
    #[error("{address} {what}; 'ioward host' lists the physical functions there are")]
    NoSuchFunction {
        /// The function.
        address: Bdf,
        /// How it is missing: "is not there", "has no SR-IOV capability".
        what: Cow<'static, str>,
    },
    /// There is no such VF.
    #[error("{vf} does not exist; {pf} has {num_vfs} VFs now", pf = .vf.pf)]
    NoSuchVf {
        /// The VF.
        vf: VfId,
        /// How many there are.
        num_vfs: u16,
    },
    /// An attribute could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The attribute.
        path: PathBuf,
        /// Why.
        #[serde(with = "ioward_model::io_error")]
        source: io::Error,
    },
    /// The kernel refused a change.
    #[error("the kernel refused to {what}: {why}")]
    Refused {
        /// The operation, as a verb: "set 8 VFs on 0000:01:00.0".
        what: String,
        /// The meaning of that errno here and the remedy.
        why: String,
        /// The errno.
        #[serde(with = "ioward_model::io_error")]
        source: io::Error,
    },
    /// The adapter has no such setting.
    #[error("{function}: {driver} cannot {what}")]
    Unsupported {
        /// The function.
        function: Bdf,
        /// Its driver.
        driver: String,
        /// The operation it lacks: "set min_tx_rate of a VF".
        what: String,
    },
    /// The adapter had a fault, and is touched by nobody but who recovers it.
    #[error("{pf} is {service}; {}", .service.remedy())]
    Frozen {
        /// The PF.
        pf: Bdf,
        /// Its state, with the fault.
        service: Service,
    },
    /// The kernel did not answer within the bound. The operation may still take effect.
    #[error("{what} has not returned for {} s; it is stuck in the kernel (see dmesg) and may still take effect", .after.as_secs())]
    Stuck {
        /// The operation under way.
        what: String,
        /// For how long.
        after: Duration,
    },
}
