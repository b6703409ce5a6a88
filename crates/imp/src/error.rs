//! Why the management partition did not do what it was asked.

use std::{error::Error, io, time::Duration};

use ioward_fabric::FabricError;
use ioward_hypervisor::HypervisorError;
use ioward_model::{Name, Reason, Rule, SpecError, Way};
use ioward_store::StoreError;

use ioward_api::{ApiError, ErrorKind};

/// One variant for each kind of no.
#[derive(Debug, thiserror::Error)]
pub enum ImpError {
    /// The Spec can't be used.
    #[error("the Spec cannot be used")]
    Spec(#[from] SpecError),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Rules forbid it.
    #[error("refused")]
    Refused {
        /// Which.
        reasons: Vec<Reason>,
        /// Relaxations that would allow it.
        ways: Vec<Way>,
    },
    /// A plan that its own validator finds wrong is not given away.
    #[error(
        "the plan that was made breaks a rule, which is a defect of ioward: {0}; nothing has been changed"
    )]
    Unsound(String),
    /// One change at a time.
    #[error(
        "another change is being carried out; 'ioward events --follow' shows it; try again when it is done"
    )]
    Busy,
    /// A partition is on its way to another host, or from there.
    #[error("partition {partition} is being moved ({peer}); try again when that is done")]
    Moving {
        /// The partition.
        partition: Name,
        /// The other host.
        peer: String,
    },
    /// As many as may do this at once do it already.
    #[error("{0}")]
    TooMany(String),
    /// A partition's console can't be used.
    #[error("cannot use the console of {partition}")]
    Console {
        /// The partition.
        partition: Name,
        /// Why.
        source: io::Error,
    },
    /// Somebody has cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// The Spec has no such partition.
    #[error("{0}")]
    NoSuchPartition(String),
    /// There is no such change.
    #[error("{0}")]
    NoSuchChange(String),
    /// The PCI side said no.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// The hypervisor said no.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// A step did not end, whatever it waits for.
    #[error("'{step}' has not ended within {} s and was given up; it may still take effect", .after.as_secs())]
    TooLong {
        /// The step.
        step: String,
        /// The bound.
        after: Duration,
    },
    /// The state could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ImpError> for ApiError {
    fn from(error: ImpError) -> Self {
        let kind = match &error {
            ImpError::Spec(_) | ImpError::Invalid(_) => ErrorKind::Invalid,
            ImpError::Refused { reasons, .. } => kind_of(reasons),
            ImpError::Fabric(FabricError::Unsupported { .. } | FabricError::Frozen { .. }) => {
                ErrorKind::Refused
            }
            ImpError::Busy | ImpError::Moving { .. } | ImpError::TooMany(_) => ErrorKind::Busy,
            ImpError::Hypervisor(HypervisorError::NotMoved { .. } | HypervisorError::NotForKind { .. }) => {
                ErrorKind::Refused
            }
            ImpError::NoSuchPartition(_)
            | ImpError::NoSuchChange(_)
            | ImpError::Fabric(FabricError::NoSuchFunction { .. } | FabricError::NoSuchVf { .. })
            | ImpError::Hypervisor(
                HypervisorError::NoSuchPartition(_)
                | HypervisorError::NoConsole { .. }
                | HypervisorError::NotRunning(_),
            ) => ErrorKind::NotFound,
            ImpError::Cancelled
            | ImpError::Console { .. }
            | ImpError::Fabric(_)
            | ImpError::Hypervisor(_)
            | ImpError::TooLong { .. }
            | ImpError::Store(_)
            | ImpError::Unsound(_) => ErrorKind::Failed,
        };
        match error {
            ImpError::Spec(problems) => Self::new(kind, problems.to_string()),
            ImpError::Refused { reasons, ways } => match kind {
                ErrorKind::NotFound => Self { kind, message: NOT_FOUND.into(), reasons, ways },
                ErrorKind::Invalid => Self { kind, message: INVALID.into(), reasons, ways },
                _ => Self::refused(reasons, ways),
            },
            ImpError::Fabric(error) => {
                Self { reasons: lack(&error).into_iter().collect(), ..Self::new(kind, error_chain(&error)) }
            }
            other => Self::new(kind, error_chain(&other)),
        }
    }
}

/// What an adapter or its driver cannot do, or not now, as a reason; `None`: it failed otherwise.
pub(crate) fn lack(error: &FabricError) -> Option<Reason> {
    let (function, driver, what) = match error {
        FabricError::Unsupported { function, driver, what } => (function, driver, what),
        FabricError::Frozen { pf, service } => return service.in_the_way(*pf),
        _ => return None,
    };
    let found = format!("{driver} cannot {what}");
    let reason = Reason::new(Rule::SettingSupported, "an adapter and a driver that can do it", found);
    Some(reason.on(*function).remedy("leave it out, or use a VF of another adapter"))
}

const NOT_FOUND: &str = "not found: what is named is not there";
const INVALID: &str = "this makes no sense, whatever the host";

/// A request that makes no sense, or names something that is not there, is not called refused.
fn kind_of(reasons: &[Reason]) -> ErrorKind {
    let is_about = |rule| reasons.iter().any(|reason| reason.rule == rule);
    if is_about(Rule::SpecValid) {
        ErrorKind::Invalid
    } else if is_about(Rule::PartitionExists) || is_about(Rule::VfExists) {
        ErrorKind::NotFound
    } else {
        ErrorKind::Refused
    }
}

/// An error with all its causes, in one line.
pub(crate) fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
